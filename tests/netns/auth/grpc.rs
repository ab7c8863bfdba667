//! Over gRPC: Envoy's protocol, with its headers both ways.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use ::http::{HeaderMap, Response};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::ext_authz::attribute_context::HttpRequest;
use proto::ext_authz::check_response::HttpResponse;
use proto::ext_authz::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus, OkHttpResponse, Status,
};

use super::*;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Answers every call as the path in it says; gives what it was asked, and the path of the call itself.
fn serve(listener: TcpListener) -> Receiver<(String, HttpRequest)> {
    let (asked, seen) = channel();
    listener.set_nonblocking(true).expect("non-blocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, asked.clone()));
            }
        });
    });
    seen
}

async fn converse(stream: tokio::net::TcpStream, asked: Sender<(String, HttpRequest)>) {
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let asked = asked.clone();
        tokio::spawn(async move {
            let path = request.uri().path().to_owned();
            let mut body = request.into_body();
            let mut bytes = BytesMut::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                bytes.extend_from_slice(&data);
            }
            assert_eq!(bytes.len() - 5, usize::try_from(u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]])).expect("a length"));
            let check = CheckRequest::decode(&bytes[5..]).expect("a CheckRequest");
            let http = check.attributes.and_then(|attributes| attributes.request).and_then(|request| request.http).expect("HTTP");
            let (answer, status) = answer(&http.path);
            asked.send((path, http)).expect("someone waits");
            let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
            let mut stream = respond.send_response(head, false).expect("a head");
            if let Some(answer) = answer {
                stream.send_data(framed(&answer), false).expect("a message");
            }
            let trailers = HeaderMap::from_iter([(::http::HeaderName::from_static("grpc-status"), ::http::HeaderValue::from(status))]);
            stream.send_trailers(trailers).expect("trailers");
        });
    }
}

fn framed(answer: &CheckResponse) -> Bytes {
    let message = answer.encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("short"));
    framed.put_slice(&message);
    framed.freeze()
}

fn option(key: &str, value: &str, append: Option<bool>) -> HeaderValueOption {
    let header = HeaderValue { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), append }
}

/// A message, if there is one, and the status of the call.
fn answer(path: &str) -> (Option<CheckResponse>, u16) {
    let status = |code| Some(Status { code, message: String::new() });
    match path.split('?').next().unwrap_or_default() {
        "/no" => {
            let no = DeniedHttpResponse {
                status: Some(HttpStatus { code: 401 }),
                headers: vec![option("www-authenticate", "Basic realm=\"shop\"", None), option("content-length", "99", None)],
                body: "go away".to_owned(),
            };
            (Some(CheckResponse { status: status(16), http_response: Some(HttpResponse::DeniedResponse(no)) }), 0)
        }
        "/plain-no" => (Some(CheckResponse { status: status(7), http_response: None }), 0),
        "/forbidden" => {
            let no = DeniedHttpResponse { status: None, headers: Vec::new(), body: String::new() };
            (Some(CheckResponse { status: status(7), http_response: Some(HttpResponse::DeniedResponse(no)) }), 0)
        }
        "/contradiction" => {
            (Some(CheckResponse { status: status(7), http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())) }), 0)
        }
        "/unavailable" => (None, 14),
        "/failed-after-yes" => (Some(CheckResponse { status: status(0), http_response: None }), 13),
        "/empty" => (None, 0),
        "/plain-yes" => (Some(CheckResponse { status: status(0), http_response: None }), 0),
        _ => {
            let yes = OkHttpResponse {
                headers: vec![
                    option("x-user", "alice", None),
                    option("x-role", "cook", Some(true)),
                    option("host", "evil", None),
                    option("transfer-encoding", "chunked", None),
                ],
                headers_to_remove: vec!["x-secret".to_owned(), "host".to_owned()],
                response_headers_to_add: vec![option("x-seen-by", "auth", None)],
            };
            (Some(CheckResponse { status: status(0), http_response: Some(HttpResponse::OkResponse(yes)) }), 0)
        }
    }
}

/// A rule that asks `auth`, with these fields under `grpc` and beside it.
fn asking(prefix: &str, grpc: &str, more: &str) -> String {
    rule(prefix, &filter("GRPC", "auth", &format!("grpc: {{{grpc}}}{more}")))
}

#[test]
fn a_yes_edits_headers_both_ways() {
    let (bed, listener) = bed(&[asking("/only", "allowedHeaders: [x-mine, x-secret]", ""), asking("/", "", "")]);
    let asked = serve(listener);
    let request = |target: &str| {
        let headers = [("x-mine", "one"), ("x-secret", "two"), ("x-user", "mallory"), ("x-role", "admin"), ("x-mine", "more")];
        headers.iter().fold(post(target, "body"), |ask, (name, value)| ask.with(name, value))
    };
    let answer = ask(&bed, &request("/all?x=1"));
    let seen = seen_headers(&answer);
    assert_eq!((seen["x-user"].as_str(), seen["x-role"].as_str()), ("alice", "admin,cook"), "replaced, appended: {seen:?}");
    assert_eq!((seen["host"].as_str(), seen.get("x-secret")), (STORE, None), "removed, but never Host: {seen:?}");
    assert_eq!((seen["content-length"].as_str(), seen.get("transfer-encoding")), ("4", None), "nor framing: {seen:?}");
    assert_eq!((answer.header("x-seen-by"), answer.seen()["body"].as_str()), (Some("auth"), Some("body")));
    let (path, http) = asked.recv().expect("asked");
    assert_eq!((path.as_str(), http.method.as_str(), http.path.as_str(), http.host.as_str()), (CHECK, "POST", "/all?x=1", STORE));
    let headers: HashMap<&str, &str> = http.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!((headers["x-mine"], headers["x-secret"], headers["x-user"]), ("one,more", "two", "mallory"), "{headers:?}");
    assert!(http.raw_body.is_empty(), "no body was asked for");

    assert_eq!(ask(&bed, &request("/only/plain-yes")).status, 200);
    let (_, http) = asked.recv().expect("asked");
    let mut names: Vec<&str> = http.headers.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["x-mine", "x-secret"], "the allowed ones only");
    let seen = seen_headers(&ask(&bed, &request("/plain-yes")));
    assert_eq!(seen["x-user"], "mallory", "a yes may say nothing else");
}

#[test]
fn a_no_is_the_service_s_own_answer() {
    let (bed, listener) = bed(&[asking("/", "", "")]);
    let _asked = serve(listener);
    let no = ask(&bed, &Ask::get(STORE, "/no"));
    is_own(&no, 401, "auth_denied");
    assert_eq!((no.header("www-authenticate"), no.header("content-length")), (Some("Basic realm=\"shop\""), Some("7")), "{no:?}");
    assert_eq!(&no.body[..], b"go away");
    for target in ["/plain-no", "/forbidden", "/contradiction"] {
        is_own(&ask(&bed, &Ask::get(STORE, target)), 403, "auth_denied");
    }
}

#[test]
fn without_an_answer_nothing_passes() {
    let other = |prefix: &str, service: &str| rule(prefix, &filter("GRPC", service, "grpc: {}"));
    let (bed, listener) = bed(&[other("/nobody", "nobody"), other("/gone", "gone"), other("/missing", "missing"), asking("/", "", "")]);
    let _asked = serve(listener);
    for target in ["/unavailable", "/failed-after-yes", "/empty", "/nobody", "/gone"] {
        is_own(&ask(&bed, &Ask::get(STORE, target)), 503, "auth_unavailable");
    }
    is_own(&ask(&bed, &Ask::get(STORE, "/missing")), 500, "invalid_backend");
    assert_eq!(ask(&bed, &Ask::get(STORE, "/yes")).status, 200);
}

#[test]
fn a_body_is_shown_up_to_its_limit_and_reaches_the_backend_whole() {
    let (bed, listener) = bed(&[asking("/", "", ", forwardBody: {maxSize: 8}")]);
    let asked = serve(listener);
    let answer = ask(&bed, &post("/yes", "12345678"));
    assert_eq!((answer.status.as_u16(), answer.seen()["body"].as_str()), (200, Some("12345678")));
    let (_, http) = asked.recv().expect("asked");
    assert_eq!((&http.raw_body[..], http.size), (&b"12345678"[..], 8));
    is_own(&ask(&bed, &post("/yes", "123456789")), 413, "auth_body_too_large");
    assert!(asked.try_recv().is_err(), "nobody was asked about that");
}
