//! Bodies that break off, in either direction, and connections that are asked for too much: nothing is ever made whole that was not, and nobody
//! waits for somebody else's stream.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Method, Version};
use lab::client::Ask;
use tests::{Bed, yaml};

use super::bytes::{PATIENCE, dial, inside};
use super::store::{STORE, accept, bed, head, listen, log, metric, own, own_answer, with};

/// What an HTTP/2 server of a test's own got of a request's body: its bytes, or none if it broke off.
type Got = Option<usize>;

/// Serves HTTP/2 on a runtime of its own; each stream is handled by `serve`.
fn serve_http2<F>(
    listener: TcpListener,
    builder: h2::server::Builder,
    serve: impl Fn(http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    listener.set_nonblocking(true).expect("non-blocking");
    // Ends with the test's process; what it does wrong shows at the client.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let (builder, serve) = (builder.clone(), serve.clone());
                tokio::task::spawn_local(async move {
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::task::spawn_local(serve(request, respond));
                    }
                });
            }
        });
    });
}

/// Takes in bodies and says what it got of each.
fn take_in(listener: TcpListener) -> Receiver<Got> {
    let (told, got) = channel();
    serve_http2(listener, h2::server::Builder::new(), move |request, respond| take_in_one(request, respond, told.clone()));
    got
}

async fn take_in_one(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>, told: Sender<Got>) {
    let mut body = request.into_body();
    let mut bytes = Some(0);
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                let _ = body.flow_control().release_capacity(data.len());
                bytes = bytes.map(|bytes| bytes + data.len());
            }
            Err(_) => {
                bytes = None;
                break;
            }
        }
    }
    let _ = respond.send_response(http::Response::new(()), true);
    // The test may have ended.
    let _ = told.send(bytes);
}

#[test]
fn an_upload_that_breaks_off_is_never_sent_as_if_it_were_whole() {
    let rule = with(&yaml::to_import("/", "own"), "retry: {attempts: 3}");
    let bed = bed(&[rule], vec![("east/own.yaml", own("own", "kubernetes.io/h2c"))]);
    let got = take_in(listen(&bed, "east/default/own-0"));
    assert_eq!(bed.get(STORE, "/").expect("an answer").status, 200, "a kept connection");
    assert_eq!(got.recv_timeout(PATIENCE), Ok(Some(0)));
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    for (index, broken) in ["4\r\nbody\r\n", "4\r\nbody\r\nno length\r\n"].into_iter().enumerate() {
        let mut stream = inside(&bed, move || dial(address));
        let request = format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{broken}");
        stream.write_all(request.as_bytes()).expect("sent");
        drop(stream);
        assert_eq!(got.recv_timeout(PATIENCE), Ok(None), "the endpoint sees that it is not whole: {broken:?}");
        let line = log(&bed, index + 2).remove(index + 1);
        assert_eq!(line["retries"], 0, "and it is not sent again: {line}");
    }
    assert!(got.try_recv().is_err(), "nor was it");
}

#[test]
fn an_answer_that_ends_with_a_reset_is_not_whole_whatever_the_reset_is_called() {
    let bed = bed(&[yaml::to_import("/", "own")], vec![("east/own.yaml", own("own", "kubernetes.io/h2c"))]);
    serve_http2(listen(&bed, "east/default/own-0"), h2::server::Builder::new(), |_request, mut respond| async move {
        let mut body = respond.send_response(http::Response::new(()), false).expect("a head");
        body.send_data(Bytes::from_static(b"half"), false).expect("bytes");
        // Only once the first half is on its way.
        tokio::task::yield_now().await;
        body.send_reset(h2::Reason::NO_ERROR);
    });
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let error = format!("{:#}", bed.ask_in(&client, STORE, version, &Ask::get(STORE, "/")).expect_err("not whole"));
        assert!(!error.contains("no answer"), "it does not hang: {version:?}: {error}");
    }
}

#[test]
fn a_copy_of_known_length_is_whole_however_late_its_mirror_is() {
    let mirror = format!("{{type: RequestMirror, requestMirror: {{backendRef: {}}}}}", yaml::import("late", ""));
    let rule = with(&yaml::to_import("/", "store"), &format!("filters: [{mirror}]"));
    for app_protocol in ["http", "kubernetes.io/h2c"] {
        let bed = bed(std::slice::from_ref(&rule), vec![("east/late.yaml", own("late", app_protocol))]);
        let client = bed.client().expect("a client");
        let ask = Ask { method: Method::POST, body: Bytes::from_static(b"some body"), ..Ask::get(STORE, "/") };
        // Nobody listens yet: the kernel keeps the connection, and the original is answered meanwhile.
        let listener = listen(&bed, "east/default/late-0");
        assert_eq!(bed.ask(&client, STORE, &ask).expect("an answer").status, 200);
        if app_protocol == "http" {
            let mut stream = accept(&listener);
            assert!(head(&mut stream).starts_with("POST / "));
            let mut body = [0; 9];
            std::io::Read::read_exact(&mut stream, &mut body).expect("the body, whole");
            assert_eq!(&body, b"some body");
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("an answer");
        } else {
            assert_eq!(take_in(listener).recv_timeout(PATIENCE), Ok(Some(9)), "the body, whole");
        }
        metric(&bed, "isthmus_sidecar_mirrors_total{result=\"answered\"} 1");
    }
}

#[test]
fn an_endpoint_s_own_limit_of_streams_is_kept() {
    let bed = bed(&[yaml::to_import("/", "own")], vec![("east/own.yaml", own("own", "kubernetes.io/h2c"))]);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    serve_http2(listen(&bed, "east/default/own-0"), builder, |request, mut respond| async move {
        // The calls that say so last until the end of the test.
        if request.uri().path() == "/long" {
            let _body = respond.send_response(http::Response::new(()), false);
            std::future::pending::<()>().await;
        }
        let _ = respond.send_response(http::Response::new(()), true);
    });
    assert_eq!(bed.get(STORE, "/").expect("an answer").status, 200, "its SETTINGS are known");
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut long = Vec::new();
    for _ in 0..6 {
        let mut stream = accept_head(&bed, address, "/long");
        assert!(head(&mut stream).starts_with("HTTP/1.1 200"), "a further connection, not a queue");
        long.push(stream);
    }
    assert_eq!(bed.get(STORE, "/").expect("an answer").status, 200);
}

fn accept_head(bed: &Bed, address: std::net::SocketAddr, target: &'static str) -> std::io::BufReader<std::net::TcpStream> {
    let mut stream = std::io::BufReader::new(inside(bed, move || dial(address)));
    stream.get_mut().write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("sent");
    stream
}

#[test]
fn answers_that_nobody_reads_hold_up_no_other() {
    let bed = bed(&[yaml::to_import("/", "own")], vec![("east/own.yaml", own("own", "kubernetes.io/h2c"))]);
    serve_http2(listen(&bed, "east/default/own-0"), h2::server::Builder::new(), |request, mut respond| async move {
        let is_large = request.uri().path() == "/large";
        let Ok(mut body) = respond.send_response(http::Response::new(()), !is_large) else { return };
        // As much as it may, and more than a client that reads nothing has room for.
        while is_large && body.send_data(Bytes::from_static(&[0; 16 * 1024]), false).is_ok() {
            body.reserve_capacity(16 * 1024);
            if std::future::poll_fn(|context| body.poll_capacity(context)).await.is_none() {
                return;
            }
        }
    });
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut unread = Vec::new();
    for _ in 0..12 {
        let mut stream = accept_head(&bed, address, "/large");
        assert!(head(&mut stream).starts_with("HTTP/1.1 200"));
        unread.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(bed.get(STORE, "/small").expect("an answer").status, 200);
    }
}

#[test]
fn an_endpoint_whose_answers_break_off_is_passed_over() {
    let many = own("many", "http").replace("replicas: 1", "replicas: 2");
    let bed = bed(&[yaml::to_import("/", "many")], vec![("east/many.yaml", many)]);
    let servers: Vec<JoinHandle<()>> =
        ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"]
            .into_iter()
            .enumerate()
            .map(|(index, answer)| {
                let listener = listen(&bed, &format!("east/default/many-{index}"));
                // Ends with the test's process.
                std::thread::spawn(move || {
                    while let Ok((stream, _)) = listener.accept() {
                        let mut stream = std::io::BufReader::new(stream);
                        head(&mut stream);
                        let _ = stream.get_mut().write_all(answer.as_bytes());
                    }
                })
            })
            .collect();
    let failed = |times: usize| (0..times).filter(|_| bed.get(STORE, "/").is_err()).count();
    let first = failed(60);
    assert!(first >= 5, "its fifth failure in a row ejects it: {first}");
    assert_eq!(failed(40), 0);
    assert!(servers.iter().all(|server| !server.is_finished()), "both are still there");
}

#[test]
fn an_upgrade_to_http2_is_no_way_past_the_routes() {
    let bed = bed(&[yaml::to_import("/", "store")], Vec::new());
    let client = bed.client().expect("a client");
    let headers = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")];
    let ask = Ask { headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(), ..Ask::get(STORE, "/") };
    let answer = bed.ask(&client, STORE, &ask).expect("an answer");
    assert_eq!(answer.status, 200, "an ordinary request");
    let seen = answer.seen()["headers"].to_string();
    assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
    let connect = Ask { method: Method::CONNECT, ..Ask::get(STORE, "a:80") };
    assert_eq!(own_answer(&bed.ask(&client, STORE, &connect).expect("an answer")), (501, Some("unsupported_connect")));
}
