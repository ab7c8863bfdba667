//! What messages carry besides head and body: expectations, trailers, nothing at all, and CONNECT, which is no message (RFC 9110).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use lab::client::Ask;
use tests::{Bed, yaml};

use super::bytes::{dial, inside};
use super::store::{STORE, accept, bed, head, listen, own, own_answer};

fn dialled(bed: &Bed) -> BufReader<TcpStream> {
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    BufReader::new(inside(bed, move || dial(address)))
}

fn send(stream: &mut BufReader<TcpStream>, text: &str) {
    stream.get_mut().write_all(text.as_bytes()).expect("sent");
}

#[test]
fn who_expects_100_continue_gets_it_before_the_body() {
    let bed = bed(&[yaml::to_import("/", "cart")], vec![("east/cart.yaml", yaml::exported("cart", "default", 1))]);
    for framing in ["Content-Length: 9", "Transfer-Encoding: chunked"] {
        let mut stream = dialled(&bed);
        send(&mut stream, &format!("POST / HTTP/1.1\r\nHost: {STORE}\r\nExpect: 100-continue\r\n{framing}\r\nConnection: close\r\n\r\n"));
        let interim = head(&mut stream);
        assert!(interim.starts_with("HTTP/1.1 100"), "{framing}: {interim}");
        send(&mut stream, if framing.starts_with("Content") { "some body" } else { "9\r\nsome body\r\n0\r\n\r\n" });
        let last = head(&mut stream);
        assert!(last.starts_with("HTTP/1.1 200"), "{framing}: {last}");
        let mut body = String::new();
        stream.read_to_string(&mut body).expect("an answer");
        assert!(body.contains("\"body\":\"some body\""), "{framing}: {body}");
    }
    let mut stream = dialled(&bed);
    let request = format!("CONNECT {STORE}:80 HTTP/1.1\r\nHost: {STORE}:80\r\n\r\n");
    send(&mut stream, &request);
    let refused = head(&mut stream);
    assert!(refused.starts_with("HTTP/1.1 501") && refused.contains("x-isthmus-reason: unsupported_connect"), "{refused}");
}

#[test]
fn who_expects_100_continue_and_is_refused_need_not_send_the_body() {
    let bed = bed(&[yaml::to_import("/cart", "store")], Vec::new());
    let mut stream = dialled(&bed);
    send(&mut stream, &format!("POST /nowhere HTTP/1.1\r\nHost: {STORE}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"));
    let answer = head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[test]
fn an_endpoint_that_switches_protocols_unasked_is_refused() {
    let bed = bed(&[yaml::to_import("/", "own")], vec![("east/own.yaml", own("own", "http"))]);
    let listener = listen(&bed, "east/default/own-0");
    let mut stream = dialled(&bed);
    send(&mut stream, &format!("GET / HTTP/1.1\r\nHost: {STORE}\r\nUpgrade: websocket\r\n\r\n"));
    let mut endpoint = accept(&listener);
    let received = head(&mut endpoint).to_lowercase();
    assert!(!received.contains("upgrade"), "Connection does not name it: {received}");
    send(&mut endpoint, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let answer = head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("x-isthmus-reason: endpoint_protocol"), "{answer}");
}

#[test]
fn connect_is_refused_in_http_2_too() {
    let bed = bed(&[yaml::to_import("/", "store")], Vec::new());
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let (status, reason) = bed
        .namespace(&client)
        .expect("its namespace")
        .block_on(|| async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let (mut sender, connection) = h2::client::handshake(stream).await?;
            tokio::spawn(async move { drop(connection.await) });
            let request = Request::builder().method(Method::CONNECT).uri(format!("{STORE}:80")).body(())?;
            let (response, _stream) = sender.send_request(request, false)?;
            let response = response.await?;
            Ok((response.status().as_u16(), response.headers().get("x-isthmus-reason").cloned()))
        })
        .expect("an answer");
    assert_eq!((status, reason.as_ref().and_then(|reason| reason.to_str().ok())), (501, Some("unsupported_connect")));
}

/// Reads a chunked body and what follows it, to the empty line.
fn chunked(stream: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    while !text.contains("0\r\n") || !text.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut text).expect("a line") > 0, "ended: {text}");
    }
    text
}

#[test]
fn trailers_pass_both_ways_in_http_1() {
    let bed = bed(&[yaml::to_import("/", "own")], vec![("east/own.yaml", own("own", "http"))]);
    let listener = listen(&bed, "east/default/own-0");
    let mut stream = dialled(&bed);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {STORE}\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n"
    );
    send(&mut stream, &request);
    let mut endpoint = accept(&listener);
    let received = head(&mut endpoint).to_lowercase();
    assert!(received.contains("trailer: x-sum") && received.contains("te: trailers"), "{received}");
    assert_eq!(chunked(&mut endpoint), "4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n");
    let answer = "HTTP/1.1 200 OK\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\nx-end: 2\r\n\r\n";
    send(&mut endpoint, answer);
    let received = head(&mut stream);
    assert!(received.starts_with("HTTP/1.1 200") && received.contains("trailer: x-end"), "{received}");
    assert_eq!(chunked(&mut stream), "6\r\nanswer\r\n0\r\nx-end: 2\r\n\r\n");
}

#[test]
fn trailers_pass_both_ways_in_http_2() {
    let bed = bed(&[yaml::to_import("/", "own")], vec![("east/own.yaml", own("own", "kubernetes.io/h2c"))]);
    let listener = listen(&bed, "east/default/own-0");
    listener.set_nonblocking(true).expect("non-blocking");
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(stream).await.expect("a handshake");
            let (request, mut respond) = connection.accept().await.expect("a request").expect("a request");
            let answered = tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(data) = body.data().await {
                    body.flow_control().release_capacity(data.expect("data").len()).expect("room");
                }
                let trailers = body.trailers().await.expect("trailers");
                let mut sender = respond.send_response(http::Response::new(()), false).expect("a head");
                sender.send_data(Bytes::from_static(b"answer"), false).expect("a body");
                sender.send_trailers(fields("x-end", "2")).expect("trailers");
                trailers
            });
            while connection.accept().await.is_some() {}
            answered.await.expect("the request's trailers")
        })
    });
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let received = bed.namespace(&client).expect("its namespace").block_on(|| async move {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (mut sender, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::builder().method(Method::POST).uri(format!("http://{STORE}/")).body(())?;
        let (response, mut stream) = sender.send_request(request, false)?;
        stream.send_data(Bytes::from_static(b"body"), false)?;
        stream.send_trailers(fields("x-sum", "1"))?;
        let mut body = response.await?.into_body();
        let data = body.data().await.context("a body")??;
        anyhow::ensure!(data == "answer", "{data:?}");
        Ok(body.trailers().await?)
    });
    assert_eq!(received.expect("an answer"), Some(fields("x-end", "2")));
    // The sidecar keeps its connection until it ends itself.
    drop(bed);
    assert_eq!(server.join().expect("the server"), Some(fields("x-sum", "1")));
}

fn fields(name: &'static str, value: &'static str) -> HeaderMap {
    [(name.parse().expect("a name"), value.parse().expect("a value"))].into_iter().collect()
}

#[test]
fn the_answer_to_head_has_the_fields_and_no_body() {
    let more = vec![("east/apps.yaml", yaml::all(&[yaml::exported("cart", "default", 1), own("own", "http")]))];
    let bed = bed(&[yaml::to_import("/cart", "cart"), yaml::to_import("/own", "own")], more);
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let ask = Ask { method: Method::HEAD, ..Ask::get(STORE, "/cart") };
        let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{answer:?}");
        assert_eq!((answer.served_by(), answer.header("content-type")), (Some("east/default/cart-0"), Some("application/json")));
        let answer = bed.ask_in(&client, STORE, version, &Ask { method: Method::HEAD, ..Ask::get(STORE, "/x") }).expect("an answer");
        assert_eq!((own_answer(&answer), answer.body.len()), ((404, Some("no_route")), 0));
    }
    let listener = listen(&bed, "east/default/own-0");
    let mut stream = dialled(&bed);
    let request = |method: &str| format!("{method} /own HTTP/1.1\r\nHost: {STORE}\r\n\r\n");
    send(&mut stream, &request("HEAD"));
    let mut endpoint = accept(&listener);
    assert!(head(&mut endpoint).starts_with("HEAD /own"));
    send(&mut endpoint, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
    let answer = head(&mut stream);
    assert!(answer.contains("content-length: 1000"), "what a GET would have got: {answer}");
    // The next message follows at once, on both connections.
    send(&mut stream, &request("GET"));
    assert!(head(&mut endpoint).starts_with("GET /own"));
    send(&mut endpoint, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    assert!(head(&mut stream).starts_with("HTTP/1.1 200"));
    let mut body = [0; 2];
    stream.read_exact(&mut body).expect("a body");
    assert_eq!(&body, b"ok");
}
