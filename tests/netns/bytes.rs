//! Bytes: pass-through is as if there were no mesh (T-4); HTTP is refused or forwarded with exactly one framing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use lab::lab::{Intercept, Options};
use tests::{Bed, yaml};

pub(crate) const RAW: &str = "raw.default.svc.clusterset.local";
const STORE: &str = "store.default.svc.clusterset.local";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn raw_bed(intercept: Intercept) -> Bed {
    let ports = "[{name: tcp-raw, containerPort: 4242}, {name: udp-raw, containerPort: 4242, protocol: UDP}]";
    let service = "[{name: tcp-raw, port: 42}, {name: udp-raw, port: 42, protocol: UDP}]".replace("port: 42", "port: 42, targetPort: 4242");
    let raw = yaml::all(&[
        yaml::deployment("raw", "default", 1, ports),
        yaml::service("raw", "default", &service, ""),
        yaml::export("raw", "default"),
    ]);
    let files = [("west/client.yaml", yaml::client("default")), ("east/raw.yaml", raw)];
    Bed::start(&files, Options { intercept, ..Options::default() }).expect("a lab")
}

/// Runs blocking code inside the client's namespaces.
pub(crate) fn inside<T: Send>(bed: &Bed, work: impl FnOnce() -> anyhow::Result<T> + Send) -> T {
    let client = bed.client().expect("a client");
    bed.namespace(&client).expect("its namespace").run(work).expect("inside")
}

pub(crate) fn dial(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[test]
fn without_a_route_bytes_pass_as_if_there_were_no_mesh() {
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let bed = raw_bed(intercept);
        let client = bed.client().expect("a client");
        for vip in bed.resolve(&client, RAW).expect("VIPs") {
            let address = SocketAddr::new(vip, 42);
            // The server speaks first, gets a megabyte, and answers after the client's end.
            let payload: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
            let sent = payload.clone();
            let received = inside(&bed, move || {
                let mut stream = dial(address)?;
                let mut hello = [0; 11];
                stream.read_exact(&mut hello)?;
                assert_eq!(&hello, b"hello from ", "server-first");
                let mut writer = stream.try_clone()?;
                let sender = std::thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.shutdown(Shutdown::Write)));
                let mut received = Vec::new();
                stream.read_to_end(&mut received)?;
                sender.join().expect("the sender")?;
                Ok(received)
            });
            let (head, rest) = received.split_at(received.iter().position(|byte| *byte == b'\n').expect("a line") + 1);
            assert_eq!(head, b"east/default/raw-0\n");
            assert_eq!(&rest[..payload.len()], &payload[..], "byte-exact, {intercept:?}, {address}");
            assert_eq!(&rest[payload.len()..], b"bye 1000000\n", "half-close, {intercept:?}, {address}");
        }
        let vip = bed.resolve(&client, RAW).expect("VIPs")[0];
        let answer = inside(&bed, move || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(b"ping", (vip, 42))?;
            let mut buffer = [0; 100];
            let (length, from) = socket.recv_from(&mut buffer)?;
            assert_eq!(from, SocketAddr::new(vip, 42), "the answer comes from the VIP");
            Ok(buffer[..length].to_vec())
        });
        assert_eq!(answer, b"east/default/raw-0 ping", "UDP on the same VIP and port is untouched");
    }
}

#[test]
fn a_route_on_the_port_leaves_udp_alone_and_closes_what_is_no_http() {
    let mut bed = raw_bed(Intercept::Exact);
    let route = yaml::route("raw", "", &[yaml::import("raw", "")], &[yaml::to_import("/", "raw")]);
    bed.apply("west/route.yaml", &route).expect("in force");
    let vip = bed.resolve(&bed.client().expect("a client"), RAW).expect("VIPs")[0];
    let (udp, tls) = inside(&bed, move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"ping", (vip, 42))?;
        let mut buffer = [0; 100];
        let (length, _) = socket.recv_from(&mut buffer)?;
        let mut stream = dial(SocketAddr::new(vip, 42))?;
        stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")?;
        let mut rest = Vec::new();
        // A reset is an end as good as a clean one.
        let _ = stream.read_to_end(&mut rest);
        Ok((buffer[..length].to_vec(), rest))
    });
    assert_eq!(udp, b"east/default/raw-0 ping");
    assert_eq!(tls, b"", "closed without a word (D-23)");
}

/// A lab whose `store` leads to a pod in which a test's own listener takes bytes.
fn byte_bed() -> (Bed, TcpListener) {
    let silent = yaml::all(&[
        yaml::deployment("silent", "default", 1, "[]"),
        yaml::service("silent", "default", "[{port: 80, targetPort: 9000}]", ""),
        yaml::export("silent", "default"),
    ]);
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("east/silent.yaml", silent),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], &[yaml::to_import("/", "silent")])),
    ];
    let options = Options { sidecar_arguments: vec!["--head-timeout-s=1".to_owned()], ..Options::default() };
    let bed = Bed::start(&files, options).expect("a lab");
    let pod = bed.pod("east/default/silent-0").expect("a pod");
    let listener = bed.namespace(&pod).expect("its namespace").run(|| Ok(TcpListener::bind("[::]:9000")?)).expect("a listener");
    (bed, listener)
}

/// Sends bytes to `store`; gives what the client got back.
fn send(bed: &Bed, bytes: &[u8]) -> String {
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let bytes = bytes.to_vec();
    inside(bed, move || {
        let mut stream = dial(address)?;
        // A sidecar that refuses early may close before all is sent.
        let _ = stream.write_all(&bytes);
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    anyhow::bail!("no answer: {:?}", String::from_utf8_lossy(&received))
                }
                Err(error) => return Err(error.into()),
            }
            if is_whole(&received) {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&received).into_owned())
    })
}

fn is_whole(response: &[u8]) -> bool {
    let text = String::from_utf8_lossy(response);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| body.len() >= length)
}

/// Takes one request off the wire as raw bytes, answers it, and gives the bytes.
fn take_one(listener: &TcpListener) -> std::thread::JoinHandle<String> {
    let listener = listener.try_clone().expect("a listener");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        while !is_whole_request(&received) {
            match stream.read(&mut buffer).expect("bytes") {
                0 => break,
                length => received.extend_from_slice(&buffer[..length]),
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").expect("an answer");
        String::from_utf8_lossy(&received).into_owned()
    })
}

fn is_whole_request(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|length| length.parse().ok());
    body.len() >= length.unwrap_or(0)
}

#[test]
fn what_could_smuggle_a_request_is_refused() {
    let (bed, listener) = byte_bed();
    listener.set_nonblocking(true).expect("non-blocking");
    let big = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(500));
    for (name, reason, bytes) in [
        ("two lengths", "invalid_framing", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
        ("a list of lengths", "invalid_framing", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nabcde"),
        ("a signed length", "invalid_framing", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd"),
        ("a folded line", "invalid_request", "GET / HTTP/1.1\r\nHost: a\r\nX-Folded: a\r\n b\r\n\r\n"),
        ("a space before the colon", "invalid_request", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd"),
        ("two hosts", "invalid_host", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("no host", "invalid_host", "GET / HTTP/1.1\r\n\r\n"),
        ("an unknown transfer coding", "invalid_framing", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("chunked not last", "invalid_framing", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ("a null in a value", "invalid_request", "GET / HTTP/1.1\r\nHost: a\r\nX-Null: a\0b\r\n\r\n"),
        ("a head that is too large", "head_too_large", &big),
        ("too many fields", "head_too_large", &many),
    ] {
        let answer = send(&bed, bytes.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains(&format!("x-isthmus-reason: {reason}\r\n")), "{name}: {answer}");
        let arrived = listener.accept();
        assert!(arrived.is_err(), "{name}: something arrived at the backend");
    }
}

#[test]
fn what_is_forwarded_has_exactly_one_framing() {
    let (bed, listener) = byte_bed();
    for (name, bytes, body) in [
        ("a length", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd", "\r\n\r\nabcd"),
        (
            "chunks",
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2;x=y\r\ncd\r\n0\r\n\r\n",
            "cd\r\n0\r\n\r\n",
        ),
        ("bare line feeds", "POST /p HTTP/1.1\nHost: a\nContent-Length: 4\n\nabcd", "\r\n\r\nabcd"),
        (
            // RFC 9112 section 6.3: Transfer-Encoding overrides Content-Length, which is not forwarded.
            "Transfer-Encoding first",
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
            "abcd\r\n0\r\n\r\n",
        ),
        (
            "Content-Length first",
            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
            "abcd\r\n0\r\n\r\n",
        ),
        (
            "a length named by Connection",
            "POST /p HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 4\r\n\r\nabcd",
            "\r\n\r\nabcd",
        ),
    ] {
        let taken = take_one(&listener);
        let answer = send(&bed, bytes.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
        let seen = taken.join().expect("taken");
        let head = seen.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
        let framings = head.lines().filter(|line| line.starts_with("content-length:") || line.starts_with("transfer-encoding:")).count();
        assert_eq!(framings, 1, "{name}: {seen}");
        assert!(seen.ends_with(body), "{name}: {seen}");
        assert!(!head.contains("\nhost: a\nhost"), "{name}: {seen}");
        assert!(seen.replace("\r\n", "").find(['\r', '\n']).is_none(), "{name}: every line ends alike: {seen:?}");
    }
}

#[test]
fn broken_chunks_end_the_request_and_never_become_another_one() {
    let (bed, listener) = byte_bed();
    for (name, chunks) in [
        ("an overflowing size", "ffffffffffffffff1\r\nab\r\n0\r\n\r\n"),
        ("a negative size", "-1\r\nab\r\n0\r\n\r\n"),
        ("a size with 0x", "0x2\r\nab\r\n0\r\n\r\n"),
        ("data longer than its size", "2\r\nabc\r\n0\r\n\r\n"),
        ("a size without a number", ";x\r\nab\r\n0\r\n\r\n"),
    ] {
        let listener = listener.try_clone().expect("a listener");
        let taken = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut received = Vec::new();
            // The sidecar breaks the connection off, cleanly or not.
            let _ = stream.read_to_end(&mut received);
            String::from_utf8_lossy(&received).into_owned()
        });
        let request =
            format!("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = send(&bed, request.as_bytes());
        let seen = taken.join().expect("taken");
        assert!(!seen.contains("smuggled") && !seen.ends_with("0\r\n\r\n"), "{name}: {seen:?}");
        assert!(!answer.contains(" 200 "), "{name}: {answer}");
    }
}

#[test]
fn a_head_that_does_not_end_gets_no_more_time() {
    let (bed, _listener) = byte_bed();
    let answer = send(&bed, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow");
    assert!(!answer.contains(" 200 "), "closed: {answer}");
}
