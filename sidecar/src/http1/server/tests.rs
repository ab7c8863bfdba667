//! What a client gets for what it sends, and when the connection goes on.

use std::io::ErrorKind;

use ::http::HeaderValue;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;

type Answer = Response<BoxBody<Bytes, Error>>;

const PIPE_BYTES: usize = 256 * 1024;

fn full(text: String) -> BoxBody<Bytes, Error> {
    Full::from(text).map_err(|never| match never {}).boxed()
}

/// `/echo` says what it read, `/ignore` reads nothing, `/stream` answers in chunks with a trailer, `/empty` with a status that has no body;
/// `/broken` breaks off in its body, `/unending` goes on for ever; `/never` does not answer.
async fn answer<S: Socket + AsyncRead + AsyncWrite>(request: Result<Received<S>, Reason>) -> Answer {
    let (head, body, _) = match request {
        Ok(request) => request,
        Err(reason) => return Response::builder().status(reason.status()).body(full(reason.label().to_owned())).expect("a response"),
    };
    match head.uri.path() {
        "/echo" => {
            let method = head.method;
            let read = body.collect().await.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
            Response::new(full(format!("{method} {read:?}")))
        }
        "/stream" => {
            let trailers = [("x-end", "yes")].map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
            let frames = [
                Frame::data(Bytes::from_static(b"ab")),
                Frame::data(Bytes::from_static(b"c")),
                Frame::trailers(trailers.into_iter().collect()),
            ];
            Response::new(StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Error>))).boxed())
        }
        "/broken" => {
            let parts = [Ok(Frame::data(Bytes::from_static(b"ab"))), Err(Error::Incomplete)];
            Response::new(StreamBody::new(tokio_stream::iter(parts)).boxed())
        }
        "/unending" => {
            let begun = tokio_stream::iter([Ok(Frame::data(Bytes::from_static(b"ab")))]);
            Response::new(StreamBody::new(tokio_stream::StreamExt::chain(begun, tokio_stream::pending())).boxed())
        }
        "/empty" => Response::builder().status(204).header("content-length", "9").body(full(String::new())).expect("a response"),
        "/never" => std::future::pending().await,
        _ => Response::new(full("ignored".to_owned())),
    }
}

/// All that is answered to these bytes, sent at once and then no more, and whether the server was content.
async fn said(sent: &str) -> (String, bool) {
    let (mut client, server) = duplex(PIPE_BYTES);
    client.write_all(sent.as_bytes()).await.expect("the pipe is large enough");
    let ending = Cell::new(false);
    let mut served = std::pin::pin!(serve(server, Bytes::new(), &ending, answer));
    // Everything is there: what is not done now waits for what never comes.
    let first = poll_fn(|context| Poll::Ready(served.as_mut().poll(context))).await;
    let ended = match first {
        Poll::Ready(ended) => ended,
        Poll::Pending => {
            client.shutdown().await.expect("shut down");
            served.await
        }
    };
    let mut text = String::new();
    client.read_to_string(&mut text).await.expect("text");
    (text, ended.is_ok())
}

const HOST: &str = "HTTP/1.1\r\nhost: a\r\n";

#[tokio::test]
async fn requests_are_answered_in_turn_also_when_they_come_at_once() {
    let sent = format!(
        "POST /echo {HOST}content-length: 3\r\n\r\nabcGET /echo {HOST}\r\nPOST /echo {HOST}transfer-encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
    );
    let (text, is_content) = said(&sent).await;
    let one = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    assert_eq!(text, [one("POST Ok(\"abc\")"), one("GET Ok(\"\")"), one("POST Ok(\"de\")")].concat());
    assert!(is_content, "the client ended between requests");
}

#[test]
fn a_target_without_a_path_is_the_roots() {
    for (target, path) in [("http://store?x=1", "/?x=1"), ("http://store", "/"), ("http://store/?", "/?"), ("*", "*"), ("/a?b?c", "/a?b?c")]
    {
        let head = parse(&Bytes::from(format!("OPTIONS {target} {HOST}\r\n")), FIELDS_MAX).expect("a head");
        assert_eq!(head.uri.path_and_query().map(PathAndQuery::as_str), Some(path), "{target}");
    }
}

#[tokio::test]
async fn the_end_of_an_answer_is_told_as_the_client_understands_it() {
    for (head, expected) in [
        (
            format!("GET /stream {HOST}te: trailers\r\n\r\n"),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx-end: yes\r\n\r\n",
        ),
        (format!("GET /stream {HOST}\r\n"), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
        ("GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned(), "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc"),
        (
            "GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_owned(),
            "HTTP/1.0 200 OK\r\ncontent-length: 7\r\nconnection: keep-alive\r\n\r\nignored",
        ),
        (
            "GET /x HTTP/1.0\r\nconnection: keep-alive, close\r\n\r\n".to_owned(),
            "HTTP/1.0 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nignored",
        ),
        ("GET /x HTTP/1.0\r\n\r\n".to_owned(), "HTTP/1.0 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nignored"),
        (format!("GET /x {HOST}connection: close\r\n\r\n"), "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nignored"),
        (format!("HEAD /x {HOST}\r\n"), "HTTP/1.1 200 OK\r\n\r\n"),
        (format!("GET /empty {HOST}\r\n"), "HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        assert_eq!(said(&head).await.0, expected, "{head:?}");
    }
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
    (client, listener.accept().await.expect("accepted").0)
}

#[tokio::test]
async fn an_answer_that_broke_off_looks_like_no_whole_one() {
    for (version, ends) in [("HTTP/1.0", Err(ErrorKind::ConnectionReset)), ("HTTP/1.1", Ok(()))] {
        let (mut client, server) = connected().await;
        client.write_all(format!("GET /broken {version}\r\nhost: a\r\n\r\n").as_bytes()).await.expect("sent");
        assert!(matches!(serve(server, Bytes::new(), &Cell::new(false), answer).await, Err(Error::Body(_))));
        let mut text = Vec::new();
        let ended = client.read_to_end(&mut text).await;
        assert_eq!(ended.map(drop).map_err(|error| error.kind()), ends, "{version}");
        let text = String::from_utf8_lossy(&text);
        // Chunks say their end, and this has none.
        assert!(text.ends_with(if ends.is_ok() { "2\r\nab\r\n" } else { "\r\n\r\nab" }), "{version}: {text}");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_sends_any_more_looks_like_no_whole_one() {
    let (mut client, server) = connected().await;
    client.write_all(b"GET /unending HTTP/1.0\r\n\r\n").await.expect("sent");
    let mut served = Box::pin(async move { serve(server, Bytes::new(), &Cell::new(false), answer).await });
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nab") {
        tokio::select! {
            ended = &mut served => panic!("{ended:?}"),
            read = client.read_buf(&mut text) => assert!(read.expect("a part") > 0),
        }
    }
    // As at the end of a drain.
    drop(served);
    assert_eq!(client.read_to_end(&mut text).await.expect_err("reset").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_never_taken_for_a_request() {
    let answered = |text: &str| text.matches("HTTP/1.1 200").count();
    let small = format!("POST /x {HOST}content-length: 20\r\n\r\nGET /x HTTP/1.1\r\n\r\n.GET /x {HOST}\r\n");
    assert_eq!(answered(&said(&small).await.0), 2, "what is there is read away");
    let unfinished = format!("POST /x {HOST}content-length: 21\r\n\r\nGET /x HTTP/1.1\r\n\r\n.");
    let (text, _) = said(&unfinished).await;
    assert!(answered(&text) == 1 && text.contains("connection: close"), "{text}");
    let broken = format!("POST /x {HOST}transfer-encoding: chunked\r\n\r\nxx\r\nGET /x {HOST}\r\n");
    let (text, _) = said(&broken).await;
    assert!(answered(&text) == 1 && text.contains("connection: close"), "{text}");
    let large = format!("POST /x {HOST}content-length: 1000000\r\n\r\n");
    let (mut client, server) = duplex(8 * PIPE_BYTES);
    client.write_all(format!("{large}{}GET /x {HOST}\r\n", "x".repeat(1_000_000)).as_bytes()).await.expect("written");
    client.shutdown().await.expect("shut down");
    serve(server, Bytes::new(), &Cell::new(false), answer).await.expect("ends");
    let mut text = String::new();
    client.read_to_string(&mut text).await.expect("text");
    assert_eq!(answered(&text), 1, "more than is worth reading: {text}");
}

#[tokio::test]
async fn of_two_framings_the_transfer_encoding_counts_and_the_request_is_the_last() {
    let body = "4\r\nabcd\r\n0\r\n\r\n";
    let (text, _) = said(&format!("POST /echo {HOST}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{body}GET /x {HOST}\r\n")).await;
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 15\r\nconnection: close\r\n\r\nPOST Ok(\"abcd\")");
}

#[tokio::test]
async fn what_follows_a_connect_is_no_request() {
    let (text, _) = said(&format!("CONNECT a:1 {HOST}content-length: 5\r\n\r\nhelloGET /x {HOST}\r\n")).await;
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nignored");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_is_the_last() {
    let many = format!("GET / {HOST}{}\r\n", "a: b\r\n".repeat(FIELDS_MAX));
    let large = format!("GET / {HOST}x: {}\r\n\r\n", "y".repeat(HEAD_BYTES_MAX));
    for (sent, status, label) in [
        ("GET\r\n\r\n".to_owned(), "400 Bad Request", "invalid_request"),
        ("GET / HTTP/3.0\r\n\r\n".to_owned(), "400 Bad Request", "invalid_request"),
        (format!("GET / {HOST}a : b\r\n\r\n"), "400 Bad Request", "invalid_request"),
        (format!("GET / {HOST}a: b\r\n c\r\n\r\n"), "400 Bad Request", "invalid_request"),
        (format!("GET / {HOST}transfer-encoding: gzip, chunked\r\n\r\n"), "400 Bad Request", "invalid_framing"),
        (format!("GET / {HOST}transfer-encoding: gzip\r\n\r\n"), "400 Bad Request", "invalid_framing"),
        ("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), "400 Bad Request", "invalid_framing"),
        (format!("GET / {HOST}content-length: -1\r\n\r\n"), "400 Bad Request", "invalid_framing"),
        (many, "431 Request Header Fields Too Large", "head_too_large"),
        (large, "431 Request Header Fields Too Large", "head_too_large"),
    ] {
        let (text, _) = said(&format!("{sent}GET /x {HOST}\r\n")).await;
        let expected = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{label}", label.len());
        assert_eq!(text, expected, "{}", &sent[..sent.len().min(80)]);
    }
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on_when_its_body_is_wanted() {
    let head = |path: &str| format!("POST {path} {HOST}expect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    let (mut client, server) = duplex(PIPE_BYTES);
    let ending = Cell::new(false);
    let talk = async {
        client.write_all(head("/echo").as_bytes()).await.expect("written");
        let mut told = vec![0; CONTINUE.len()];
        client.read_exact(&mut told).await.expect("told");
        assert_eq!(told, CONTINUE);
        client.write_all(b"ab").await.expect("written");
        client.write_all(head("/x").as_bytes()).await.expect("written");
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("text");
        text
    };
    let (served, text) = tokio::join!(serve(server, Bytes::new(), &ending, answer), talk);
    served.expect("ends");
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nPOST Ok(\"ab\")";
    assert!(text.starts_with(&expected.replace("14", "13")), "{text}");
    assert!(text.ends_with("connection: close\r\n\r\nignored"), "it may send its body now or not: {text}");
    assert!(said(&format!("{}ab", head("/echo"))).await.0.starts_with("HTTP/1.1 200"), "it did not wait");
}

#[tokio::test]
async fn a_client_that_is_gone_waits_for_nothing() {
    let (text, is_content) = said(&format!("GET /never {HOST}\r\n")).await;
    assert_eq!((text.as_str(), is_content), ("", false));
    let (text, is_content) = said(&format!("POST /echo {HOST}content-length: 5\r\n\r\nab")).await;
    assert!(text.contains("Err(Incomplete)") && text.contains("connection: close"), "{text}");
    assert!(is_content);
    assert_eq!(said("GET /x HT").await, (String::new(), false));
}

#[tokio::test]
async fn what_ends_takes_no_more_requests() {
    let (mut client, server) = duplex(PIPE_BYTES);
    let ending = Cell::new(false);
    let mut served = std::pin::pin!(serve(server, Bytes::new(), &ending, answer));
    client.write_all(format!("GET /x {HOST}\r\n").as_bytes()).await.expect("written");
    assert!(poll_fn(|context| Poll::Ready(served.as_mut().poll(context).is_pending())).await, "the connection is kept");
    ending.set(true);
    served.await.expect("ends");
    let mut text = String::new();
    client.read_to_string(&mut text).await.expect("text");
    assert!(text.ends_with("ignored"), "{text}");
}
