//! Time limits of a rule: for a request as a whole, and for one attempt (HTTPRouteTimeoutRequest, HTTPRouteTimeoutBackendRequest; H-25, H-32).

use std::io::{BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{SinkExt, StreamExt};
use http::{Request, Version};
use lab::client::{Answer, Ask, Connection};
use tests::{Bed, yaml};
use tokio_tungstenite::tungstenite::Message;

use super::bytes::{PATIENCE, dial, inside};
use super::replay::{prefix, rule};
use super::store::{STORE, accept, bed, head, listen, log, own, own_answer, with};

fn limited(path: &str, backend: &str, timeouts: &str, more: &str) -> String {
    let rule = rule(&[&prefix(path, "")], &[], &[yaml::import(backend, "")]);
    with(&rule, &format!("timeouts: {{{timeouts}}}{more}"))
}

fn cart_bed(rules: &[String]) -> Bed {
    bed(rules, vec![("east/cart.yaml", yaml::exported("cart", "default", 1))])
}

/// Status and reason.
fn ended(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status.as_u16(), answer.reason())
}

/// What a stream of HTTP/2 has room for unless somebody says otherwise (RFC 9113 section 6.9.2).
const WINDOW_BYTES: usize = 65_535;

const OK: (u16, Option<&str>) = (200, None);
const REQUEST: (u16, Option<&str>) = (504, Some("request_timeout"));
const BACKEND: (u16, Option<&str>) = (504, Some("backend_timeout"));

#[test]
fn a_limit_ends_what_takes_longer_and_zero_is_none() {
    let rules = [
        limited("/request", "cart", "request: 500ms", ""),
        limited("/backend", "cart", "backendRequest: 500ms", ""),
        limited("/both", "cart", "request: 10s, backendRequest: 500ms", ""),
        limited("/no-request", "cart", "request: 0s", ""),
        limited("/no-backend", "cart", "backendRequest: 0s", ""),
        limited("/attempt-alone", "cart", "request: 0s, backendRequest: 500ms", ""),
        rule(&[&prefix("/none", "")], &[], &[yaml::import("cart", "")]),
    ];
    let bed = cart_bed(&rules);
    let client = bed.client().expect("a client");
    for (path, expected) in [
        ("/request", REQUEST),
        ("/backend", BACKEND),
        ("/both", BACKEND),
        ("/no-request", OK),
        ("/no-backend", OK),
        ("/attempt-alone", BACKEND),
        ("/none", OK),
    ] {
        // What is ended is not waited for.
        let (least, delay) = if expected == OK { (1000, 1000) } else { (500, 5000) };
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let ask = Ask::get(STORE, &format!("{path}?delay_ms={delay}"));
            let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
            assert_eq!(ended(&answer), expected, "{path} {version:?}");
            assert!(answer.took >= Duration::from_millis(least), "{path}: {answer:?}");
            assert!(expected == OK || answer.took < Duration::from_millis(delay), "{path}: {answer:?}");
        }
        let answer = bed.get(STORE, path).expect("an answer");
        assert_eq!(
            (ended(&answer), answer.seen()["target"].as_str()),
            (OK, Some(path)),
            "in time, and no late answer to another: {answer:?}"
        );
    }
}

#[test]
fn a_body_that_does_not_end_in_time_is_broken_off() {
    let rules = [limited("/request", "own", "request: 500ms", ""), limited("/backend", "own", "backendRequest: 500ms", "")];
    let bed = bed(&rules, vec![("east/own.yaml", own("own", "http"))]);
    let listener = listen(&bed, "east/default/own-0");
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    for (index, (path, reason)) in [("/request", "request_timeout"), ("/backend", "backend_timeout")].into_iter().enumerate() {
        let mut stream = BufReader::new(inside(&bed, move || dial(address)));
        let began = Instant::now();
        stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: {STORE}\r\n\r\n").as_bytes()).expect("sent");
        let mut endpoint = accept(&listener);
        head(&mut endpoint);
        endpoint.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nthe beginning").expect("sent");
        let head = head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200"), "the head came in time: {head}");
        let mut body = Vec::new();
        // A reset is an end as good as a clean one: a hundred bytes were announced.
        let _ = stream.read_to_end(&mut body);
        assert_eq!(String::from_utf8_lossy(&body), "the beginning", "{path}");
        assert!(began.elapsed() >= Duration::from_millis(500), "{path}: {:?}", began.elapsed());
        assert_eq!(endpoint.read(&mut [0]).unwrap_or(0), 0, "the endpoint need not go on either: {path}");
        assert_eq!(log(&bed, index + 1)[index]["reason"], reason, "{path}");
    }
}

#[test]
fn in_http_2_the_stream_alone_is_broken_off() {
    let rules = [limited("/own", "own", "request: 500ms", ""), limited("/cart", "cart", "request: 10s", "")];
    let more = vec![("east/apps.yaml", yaml::all(&[own("own", "http"), yaml::exported("cart", "default", 1)]))];
    let bed = bed(&rules, more);
    let listener = listen(&bed, "east/default/own-0");
    let server = std::thread::spawn(move || {
        let mut endpoint = accept(&listener);
        head(&mut endpoint);
        endpoint.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nthe beginning").expect("sent");
        endpoint.read(&mut [0]).unwrap_or(0)
    });
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let (broken, next) = bed
        .namespace(&client)
        .expect("its namespace")
        .block_on(|| async move {
            let mut connection = Connection::open(address, Version::HTTP_2).await?;
            let broken = connection.ask(&Ask::get(STORE, "/own")).await;
            Ok((broken, connection.ask(&Ask::get(STORE, "/cart")).await?))
        })
        .expect("an answer on the same connection");
    assert!(broken.is_err(), "its body did not end: {broken:?}");
    assert_eq!((ended(&next), server.join().expect("the server")), (OK, 0));
    assert_eq!(log(&bed, 2)[0]["reason"], "request_timeout");
}

/// An endpoint whose answer is larger than all buffers on its way; why it did not send all of it.
fn answers_without_end(listener: TcpListener) -> JoinHandle<Option<std::io::Error>> {
    std::thread::spawn(move || {
        let mut endpoint = accept(&listener);
        endpoint.get_ref().set_write_timeout(Some(PATIENCE)).expect("a timeout");
        head(&mut endpoint);
        write!(endpoint.get_mut(), "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").expect("sent");
        let part = vec![b'x'; 1_000_000];
        (0..1000).map(|_| endpoint.get_mut().write_all(&part)).find_map(Result::err)
    })
}

/// The sidecar did not want all of it.
fn is_given_up(endpoint: JoinHandle<Option<std::io::Error>>) {
    let error = endpoint.join().expect("ended").expect("it could not send all of it");
    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the sidecar gave up before this test did: {error}");
}

#[test]
fn a_client_that_does_not_take_the_answer_in_is_held_to_the_limit_too() {
    for (limit, reason) in [("request: 500ms", "request_timeout"), ("backendRequest: 500ms", "backend_timeout")] {
        let bed = bed(&[limited("/", "own", limit, "")], vec![("east/own.yaml", own("own", "http"))]);
        let listener = listen(&bed, "east/default/own-0");
        let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
        let endpoint = answers_without_end(listener.try_clone().expect("a listener"));
        let mut stream = BufReader::new(inside(&bed, move || dial(address)));
        write!(stream.get_mut(), "GET / HTTP/1.1\r\nHost: {STORE}\r\n\r\n").expect("sent");
        assert!(head(&mut stream).starts_with("HTTP/1.1 200"), "the head came in time");
        is_given_up(endpoint);
        assert_eq!(log(&bed, 1)[0]["reason"], reason);

        let endpoint = answers_without_end(listener);
        assert!(unread(&bed, || ()).is_reset());
        is_given_up(endpoint);
        assert_eq!(log(&bed, 2)[1]["reason"], reason);
    }
}

#[test]
fn what_an_endpoint_sent_in_time_is_held_to_the_limit_of_the_request() {
    let bed = bed(&[limited("/", "own", "request: 5s, backendRequest: 4s", "")], vec![("east/own.yaml", own("own", "http"))]);
    let listener = listen(&bed, "east/default/own-0");
    let (full, is_full) = mpsc::channel();
    let endpoint = std::thread::spawn(move || {
        let mut endpoint = accept(&listener);
        head(&mut endpoint);
        // More than the client has room for, and when it has none left the end, for which the sidecar has to wait.
        write!(endpoint.get_mut(), "HTTP/1.1 200 OK\r\ncontent-length: 100003\r\n\r\n{}", "x".repeat(100_000)).expect("sent");
        is_full.recv_timeout(PATIENCE).expect("the client's room is full");
        endpoint.get_mut().write_all(b"end").expect("sent");
        endpoint
    });
    assert!(unread(&bed, || full.send(()).expect("told")).is_reset());
    assert_eq!(log(&bed, 1)[0]["reason"], "request_timeout");
    drop(endpoint.join().expect("the endpoint"));
}

/// What becomes of an answer in HTTP/2 whose client has room for as much as is usual, and makes no more; who is told when there is none left.
fn unread(bed: &Bed, full: impl FnOnce() + Send) -> h2::Error {
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let broken = bed.namespace(&client).expect("its namespace").block_on(|| async move {
        let (mut sender, connection) = h2::client::handshake(tokio::net::TcpStream::connect(address).await?).await?;
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::get(format!("http://{STORE}/")).body(())?;
        let mut body = sender.send_request(request, true)?.0.await?.into_body();
        let received = async {
            let mut left = WINDOW_BYTES;
            while left > 0 {
                left -= body.data().await.context("it has no end")??.len();
            }
            full();
            body.data().await.context("it has no end")?.err().context("there was no room for more")
        };
        tokio::time::timeout(PATIENCE, received).await?
    });
    broken.expect("a stream")
}

#[test]
fn a_connection_goes_on_after_a_request_that_took_too_long() {
    let bed = cart_bed(&[limited("/", "cart", "request: 300ms", "")]);
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answers = bed.namespace(&client).expect("its namespace").block_on(|| async move {
            let mut connection = Connection::open(address, version).await?;
            let mut answers = Vec::new();
            for target in ["/late?delay_ms=5000", "/next", "/late?delay_ms=5000", "/last"] {
                answers.push(connection.ask(&Ask::get(STORE, target)).await?);
            }
            Ok(answers)
        });
        let answers = answers.expect("answers on one connection");
        assert_eq!(answers.iter().map(ended).collect::<Vec<_>>(), [REQUEST, OK, REQUEST, OK], "{version:?}");
        assert_eq!(answers[3].seen()["target"], "/last", "{version:?}");
    }
}

#[test]
fn a_request_whose_body_does_not_end_in_time_is_answered() {
    let bed = cart_bed(&[limited("/", "cart", "request: 500ms", "")]);
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = BufReader::new(inside(&bed, move || dial(address)));
    let request = format!("POST / HTTP/1.1\r\nHost: {STORE}\r\nContent-Length: 100\r\n\r\nthe beginning");
    stream.get_mut().write_all(request.as_bytes()).expect("sent");
    let head = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 504") && head.contains("x-isthmus-reason: request_timeout"), "{head}");
}

#[test]
fn an_upgraded_connection_outlives_the_limits() {
    let bed = cart_bed(&[limited("/", "cart", "request: 300ms, backendRequest: 300ms", "")]);
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let echoed = bed.namespace(&client).expect("its namespace").block_on(|| async move {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{STORE}/"), stream).await?;
        let end = Instant::now() + Duration::from_secs(1);
        let mut last = Message::text("");
        while Instant::now() < end {
            last = Message::text(format!("{:?}", end - Instant::now()));
            socket.send(last.clone()).await?;
            anyhow::ensure!(socket.next().await.context("an end")?? == last);
        }
        Ok(last)
    });
    echoed.expect("frames for longer than the limits");
}

#[test]
fn the_limit_of_a_request_covers_its_retries() {
    let retry = ", retry: {attempts: 50, codes: [500], backoff: 100ms}";
    let rules =
        [limited("/request", "cart", "request: 600ms", retry), limited("/slow", "cart", "request: 900ms, backendRequest: 200ms", retry)];
    let bed = cart_bed(&rules);
    for target in ["/request?fail=1000&id=fast", "/slow?delay_ms=5000&id=slow"] {
        let answer = bed.get(STORE, target).expect("an answer");
        assert_eq!(own_answer(&answer), REQUEST, "{target}");
        assert!(answer.took >= Duration::from_millis(600) && answer.took < Duration::from_secs(3), "{target}: {answer:?}");
        let id = target.split("id=").nth(1).expect("an id");
        let count = bed.seen("east/default/cart-0", id, 0).expect("a count")["count"].as_u64().expect("a number");
        assert!((2..=9).contains(&count), "some attempts fit in: {count} of {target}");
        assert_eq!(bed.get(STORE, "/request").expect("an answer").status, 200);
    }
}
