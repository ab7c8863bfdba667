//! Over HTTP: 200 is a yes, and nothing else is.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// What the service was asked: the first line, the headers, the body.
#[derive(Debug)]
struct Asked {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Answers every request as its path says; gives what it was asked.
fn serve(listener: TcpListener) -> Receiver<Asked> {
    let (asked, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), asked) = (stream, asked.clone()) else { return };
            std::thread::spawn(move || converse(BufReader::new(stream), &asked));
        }
    });
    seen
}

fn converse(mut stream: BufReader<TcpStream>, asked: &Sender<Asked>) -> Option<()> {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = std::io::BufRead::read_line(&mut stream, &mut head).ok()?;
            (read > 0).then_some(())?;
        }
        let mut lines = head.lines();
        let line = lines.next()?.to_owned();
        let pairs = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        let headers = joined(pairs.collect());
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let answer = answer(&line);
        asked.send(Asked { line, headers, body: String::from_utf8_lossy(&body).into_owned() }).ok()?;
        stream.get_mut().write_all(answer?.as_bytes()).ok()?;
    }
}

/// None: it says nothing, and the connection ends once the other side has had enough.
fn answer(line: &str) -> Option<String> {
    let of =
        |status: &str, headers: &str, body: &str| format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
    let path = line.split(' ').nth(1)?;
    let has = |part: &str| path.contains(part);
    Some(match () {
        () if has("/no") => {
            of("401 Unauthorized", "WWW-Authenticate: Basic realm=\"shop\"\r\ncontent-type: text/x-no\r\nx-why: no\r\n", "go away")
        }
        () if has("/login") => of("302 Found", "Location: https://login.example.com/?back\r\n", ""),
        () if has("/error") => of("500 Internal Server Error", "x-why: error\r\n", "broken"),
        () if has("/created") => of("201 Created", "", ""),
        () if has("/garbage") => "no HTTP at all\r\n\r\n".to_owned(),
        () if has("/close") => return None,
        // The connection stays until the other side gives up.
        () if has("/hang") => String::new(),
        () => {
            of("200 OK", "x-user: alice\r\nx-role: admin\r\nx-role: cook\r\nhost: evil\r\ncontent-type: text/x-yes\r\n", "not for anybody")
        }
    })
}

/// A rule that asks `auth`, with these fields under `http` and beside it.
fn asking(prefix: &str, http: &str, more: &str) -> String {
    rule(prefix, &filter("HTTP", "auth", &format!("http: {{{http}}}{more}")))
}

#[test]
fn a_yes_lets_the_request_pass_with_the_headers_of_the_answer() {
    let rules = [asking("/only", "path: /check/, allowedHeaders: [x-mine], allowedResponseHeaders: [X-User]", ""), asking("/", "", "")];
    let (bed, listener) = bed(&rules);
    let asked = serve(listener);
    let request = |target: &str| {
        let headers = [("authorization", "Bearer 1"), ("x-mine", "one"), ("x-other", "two"), ("x-user", "mallory"), ("x-role", "none")];
        headers
            .iter()
            .fold(Ask { body: "body".into(), method: Method::PUT, ..Ask::get(STORE, target) }, |ask, (name, value)| ask.with(name, value))
    };
    let seen = seen_headers(&ask(&bed, &request("/all?x=1")));
    assert_eq!(
        (seen["x-user"].as_str(), seen["x-role"].as_str()),
        ("alice", "admin,cook"),
        "all of them, instead of the client's: {seen:?}"
    );
    assert_eq!(
        (seen["host"].as_str(), seen.get("content-type"), seen["content-length"].as_str()),
        (STORE, None, "4"),
        "but none of framing: {seen:?}"
    );
    let first = asked.recv().expect("asked");
    assert_eq!(first.line, "PUT /all?x=1 HTTP/1.1", "method, path and query are the client's");
    assert_eq!((first.headers["host"].as_str(), first.headers["authorization"].as_str()), (STORE, "Bearer 1"));
    assert_eq!((first.headers["content-length"].as_str(), first.body.as_str()), ("0", ""), "no body was asked for");
    assert!(!first.headers.contains_key("x-mine") && !first.headers.contains_key("transfer-encoding"), "{first:?}");

    let answer = ask(&bed, &request("/only/x"));
    let seen = seen_headers(&answer);
    assert_eq!((seen["x-user"].as_str(), seen["x-role"].as_str()), ("alice", "none"), "the allowed ones only: {seen:?}");
    assert_eq!(answer.seen()["body"], "body", "the backend gets the body all the same");
    let second = asked.recv().expect("asked");
    assert_eq!(second.line, "PUT /check/only/x HTTP/1.1");
    assert_eq!((second.headers["x-mine"].as_str(), second.headers.get("x-other")), ("one", None), "{second:?}");
}

#[test]
fn a_no_is_the_service_s_own_answer() {
    let (bed, listener) = bed(&[asking("/", "", "")]);
    let _asked = serve(listener);
    let no = ask(&bed, &Ask::get(STORE, "/no"));
    is_own(&no, 401, "auth_denied");
    assert_eq!(
        (no.header("www-authenticate"), no.header("x-why"), &no.body[..]),
        (Some("Basic realm=\"shop\""), Some("no"), &b"go away"[..])
    );
    assert_eq!((no.header("content-type"), no.header("content-length")), (Some("text/x-no"), Some("7")), "{no:?}");
    let head = ask(&bed, &Ask { method: Method::HEAD, ..Ask::get(STORE, "/no") });
    assert_eq!((head.status.as_u16(), head.body.len()), (401, 0));
    let login = ask(&bed, &Ask::get(STORE, "/login"));
    is_own(&login, 302, "auth_denied");
    assert_eq!(login.header("location"), Some("https://login.example.com/?back"));
    is_own(&ask(&bed, &Ask::get(STORE, "/created")), 403, "auth_denied");
    let client = bed.client().expect("a client");
    let over_h2 = bed.ask_in(&client, STORE, ::http::Version::HTTP_2, &Ask::get(STORE, "/no")).expect("an answer");
    is_own(&over_h2, 401, "auth_denied");
    assert_eq!(&over_h2.body[..], b"go away");
}

#[test]
fn without_an_answer_nothing_passes() {
    let other = |prefix: &str, service: &str| rule(prefix, &filter("HTTP", service, "http: {}"));
    let (mut bed, listener) = bed(&[other("/nobody", "nobody"), other("/gone", "gone"), other("/missing", "missing"), asking("/", "", "")]);
    let _asked = serve(listener);
    for target in ["/error", "/garbage", "/close", "/nobody", "/gone"] {
        is_own(&ask(&bed, &Ask::get(STORE, target)), 503, "auth_unavailable");
    }
    is_own(&ask(&bed, &Ask::get(STORE, "/missing")), 500, "invalid_backend");
    let status = bed.route_status("west", "default", "store").expect("a status");
    let conditions = status["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let resolved = conditions.iter().find(|condition| condition["type"] == "ResolvedRefs").expect("a condition");
    assert_eq!((resolved["status"].as_str(), resolved["reason"].as_str()), (Some("False"), Some("BackendNotFound")), "{status}");
    let answer = ask(&bed, &Ask::get(STORE, "/hang"));
    is_own(&answer, 503, "auth_unavailable");
    assert_eq!(bed.seen("west/default/store-0", "none", 0).expect("seen")["count"], 0);
    // A route's time limit includes the question.
    let limited = asking("/", "", "").replacen('{', "{timeouts: {request: 200ms}, ", 1);
    bed.apply("west/route.yaml", &yaml::route("store", "", &[yaml::import("store", "")], &[limited])).expect("in force");
    is_own(&ask(&bed, &Ask::get(STORE, "/hang")), 504, "request_timeout");
    assert_eq!(ask(&bed, &Ask::get(STORE, "/yes")).status, 200);
}

#[test]
fn a_body_is_shown_up_to_its_limit_and_reaches_the_backend_whole() {
    let (bed, listener) = bed(&[asking("/tiny", "", ", forwardBody: {maxSize: 8}"), asking("/", "", ", forwardBody: {maxSize: 65000}")]);
    let asked = serve(listener);
    let large = "0123456789".repeat(6000);
    for (target, body) in [("/tiny", ""), ("/tiny", "12345678"), ("/", "123456789"), ("/", &large)] {
        let answer = ask(&bed, &post(target, body));
        assert_eq!(answer.seen()["body"], body, "{target} {}", body.len());
        assert_eq!(seen_headers(&answer).get("content-length").map_or("0", String::as_str), body.len().to_string());
        let asked = asked.recv().expect("asked");
        assert_eq!((asked.body.as_str(), asked.headers["content-length"].as_str()), (body, body.len().to_string().as_str()), "{target}");
    }
    is_own(&ask(&bed, &post("/tiny", "123456789")), 413, "auth_body_too_large");
    is_own(&ask(&bed, &post("/", &large.repeat(2))), 413, "auth_body_too_large");
    assert!(asked.try_recv().is_err(), "nobody was asked about these");
    // A body of unknown length is shown as well, and one that its client sends only when it is asked for it.
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    for (fields, sent) in [("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n"), ("Content-Length: 4\r\nExpect: 100-continue", "body")]
    {
        let text = crate::bytes::inside(&bed, move || {
            let mut stream = BufReader::new(crate::bytes::dial(address)?);
            stream.get_mut().write_all(format!("POST /tiny HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n\r\n").as_bytes())?;
            if fields.contains("Expect") {
                assert!(crate::store::head(&mut stream).starts_with("HTTP/1.1 100"));
            }
            stream.get_mut().write_all(sent.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"body\":\"body\""), "{fields}: {text}");
        assert_eq!(asked.recv().expect("asked").body, "body", "{fields}");
    }
}
