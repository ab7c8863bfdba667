//! Large bodies: they pass as they are, whichever way they take through the sidecar, and break off where they break off.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

use tests::{Bed, yaml};

use super::bytes::{PATIENCE, dial, inside};
use super::store::{STORE, accept, bed, head, listen, log, own, with};

/// Bytes in which none that is lost, doubled or moved goes unnoticed.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 7 + index / 251) % 256).expect("a byte")).collect()
}

/// What a head says of its body's length.
fn length(head: &str) -> usize {
    let line = head.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("content-length")));
    line.expect("a length").1.parse().expect("a number")
}

/// A head, and the body behind it.
fn read(stream: &mut BufReader<TcpStream>) -> (String, Vec<u8>) {
    let head = head(stream);
    let mut body = vec![0; length(&head)];
    stream.read_exact(&mut body).expect("the whole body");
    (head, body)
}

/// Sends a body on a connection while its answer is read: neither waits for the other.
fn exchange(stream: &mut BufReader<TcpStream>, sent: &[u8]) -> (String, Vec<u8>) {
    let mut writing = stream.get_ref().try_clone().expect("the same connection");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            write!(writing, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len()).expect("sent");
            writing.write_all(sent).expect("sent");
        });
        read(stream)
    })
}

/// Answers each body with itself, on one connection until that ends.
fn echo(bed: &Bed, connections: usize) -> JoinHandle<()> {
    let listener = listen(bed, "east/default/own-0");
    std::thread::spawn(move || {
        let serve = |mut stream: BufReader<TcpStream>| {
            while stream.get_ref().peek(&mut [0]).is_ok_and(|length| length > 0) {
                let (_, body) = read(&mut stream);
                write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).expect("sent");
                stream.get_mut().write_all(&body).expect("sent");
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..connections {
                let stream = accept(&listener);
                scope.spawn(move || serve(stream));
            }
        });
    })
}

fn own_bed() -> Bed {
    bed_with(yaml::to_import("/", "own"))
}

fn bed_with(rule: String) -> Bed {
    bed(&[rule], vec![("east/own.yaml", own("own", "http"))])
}

#[test]
fn large_bodies_arrive_as_they_were_sent_one_after_the_other() {
    const LENGTHS: [usize; 6] = [3_000_000, 10, 200_000, 65_536, 0, 1_048_576];
    let bed = own_bed();
    let endpoint = echo(&bed, 1);
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = BufReader::new(inside(&bed, move || dial(address)));
    for length in LENGTHS {
        let sent = body(length);
        let (head, got) = exchange(&mut stream, &sent);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(got == sent, "{length} bytes come back as they went");
    }
    drop(stream);
    let sent: Vec<Option<u64>> = log(&bed, LENGTHS.len()).iter().map(|line| line["bytes_sent"].as_u64()).collect();
    assert_eq!(sent, LENGTHS.map(|length| u64::try_from(length).ok()), "all of it is counted");
    drop(bed);
    endpoint.join().expect("the endpoint got what it should");
}

#[test]
fn a_large_answer_that_breaks_off_is_no_whole_one() {
    let bed = own_bed();
    let listener = listen(&bed, "east/default/own-0");
    let endpoint = std::thread::spawn(move || {
        let mut stream = accept(&listener);
        head(&mut stream);
        write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n").expect("sent");
        stream.get_mut().write_all(&body(1_000_000)).expect("sent");
        drop(stream);
        let mut stream = accept(&listener);
        head(&mut stream);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole").expect("sent");
    });
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = BufReader::new(inside(&bed, move || dial(address)));
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    assert_eq!(length(&head(&mut stream)), 2_000_000);
    let mut got = Vec::new();
    // It may end with a reset: what has come before it counts.
    let _ = stream.read_to_end(&mut got);
    assert!(got.len() < 2_000_000 && body(1_000_000).starts_with(&got), "{} bytes of half an answer", got.len());
    let line = log(&bed, 1).remove(0);
    assert_eq!(line["reason"], "endpoint_reset", "{line}");
    assert_eq!(bed.get(STORE, "/").expect("an answer").body, "whole");
    endpoint.join().expect("the endpoint got what it should");
}

#[test]
fn a_large_upload_that_breaks_off_is_not_sent_as_if_it_were_whole() {
    let bed = own_bed();
    let listener = listen(&bed, "east/default/own-0");
    let endpoint = std::thread::spawn(move || {
        let mut stream = accept(&listener);
        let length = length(&head(&mut stream));
        let mut got = Vec::new();
        // It may end with a reset.
        let _ = stream.read_to_end(&mut got);
        (length, got)
    });
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = inside(&bed, move || dial(address));
    stream.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n").expect("sent");
    stream.write_all(&body(1_000_000)).expect("sent");
    stream.shutdown(Shutdown::Both).expect("gone");
    let (length, got) = endpoint.join().expect("the endpoint saw its end");
    assert_eq!(length, 2_000_000);
    assert!(got.len() <= 1_000_000 && body(1_000_000).starts_with(&got), "{} bytes of half a body", got.len());
    let line = log(&bed, 1).remove(0);
    assert_eq!(line["reason"], "request_aborted", "{line}");
}

#[test]
fn what_came_first_of_a_large_body_is_sent_again() {
    let bed = bed_with(with(&yaml::to_import("/", "own"), "retry: {codes: [503], attempts: 1, backoff: 1ms}"));
    let listener = listen(&bed, "east/default/own-0");
    let (begun, is_begun) = mpsc::channel();
    let endpoint = std::thread::spawn(move || {
        let mut first = accept(&listener);
        head(&mut first);
        first.read_exact(&mut [0; 1000]).expect("the first part");
        first.get_mut().write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("sent");
        let mut second = accept(&listener);
        let mut body = vec![0; length(&head(&mut second))];
        begun.send(()).expect("awaited");
        second.read_exact(&mut body).expect("the whole body");
        second.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("an answer");
        body
    });
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = BufReader::new(inside(&bed, move || dial(address)));
    let sent = body(500_000);
    stream.get_mut().write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").expect("sent");
    stream.get_mut().write_all(&sent[..1000]).expect("sent");
    is_begun.recv_timeout(PATIENCE).expect("sent again");
    stream.get_mut().write_all(&sent[1000..]).expect("sent");
    assert!(head(&mut stream).starts_with("HTTP/1.1 200"));
    assert!(endpoint.join().expect("the endpoint") == sent, "whole, from its beginning");
}

#[test]
fn a_large_answer_that_nobody_reads_is_given_up_after_the_idle_limit() {
    let options = lab::lab::Options { sidecar_arguments: vec!["--stream-idle-s=1".to_owned()], ..lab::lab::Options::default() };
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/route.yaml", super::store::route(&[yaml::to_import("/", "own")])),
        ("east/own.yaml", own("own", "http")),
    ];
    let bed = Bed::start(&files, options).expect("a lab");
    let listener = listen(&bed, "east/default/own-0");
    let endpoint = std::thread::spawn(move || {
        let mut stream = accept(&listener);
        stream.get_ref().set_write_timeout(Some(PATIENCE)).expect("a timeout");
        head(&mut stream);
        write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").expect("sent");
        // Ends when the sidecar does not want more.
        let part = body(1_000_000);
        (0..1000).map(|_| stream.get_mut().write_all(&part)).find_map(Result::err)
    });
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = BufReader::new(inside(&bed, move || dial(address)));
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    assert_eq!(length(&head(&mut stream)), 1_000_000_000);
    let error = endpoint.join().expect("ended").expect("it could not send all of it");
    assert!(matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{error}");
    drop(stream);
}
