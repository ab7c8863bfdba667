//! Copies of requests: what a mirror gets, how many of them, and that nobody waits for them (HTTPRouteRequestMirror,
//! HTTPRouteRequestMultipleMirrors, HTTPRouteRequestPercentageMirror; H-16).

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Version};
use lab::client::Ask;
use serde_json::Value;
use tests::{Bed, who, yaml};
use tokio_tungstenite::tungstenite::Message;

use super::bytes::{PATIENCE, dial, inside};
use super::echo::frames;
use super::replay::{filtered, prefix, rule};
use super::store::{STORE, accept, bed, condition, filtered_backend, head, listen, metric, own, route, with};

/// A filter of type RequestMirror; `more` is further fields.
fn mirror(name: &str, more: &str) -> String {
    format!("{{type: RequestMirror, requestMirror: {{backendRef: {}{more}}}}}", yaml::import(name, ""))
}

fn set(name: &str, value: &str) -> String {
    format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: {name}, value: {value}}}]}}}}")
}

fn cart() -> [String; 1] {
    [yaml::import("cart", "")]
}

fn header<'v>(seen: &'v Value, name: &str) -> Option<&'v str> {
    seen["headers"].as_array()?.iter().find(|pair| pair[0] == name)?[1].as_str()
}

/// How often these pods were asked for an id, all together, once that is as often as expected or more.
fn copies(bed: &Bed, pods: &[&str], id: &str, least: u64) -> u64 {
    let end = Instant::now() + PATIENCE;
    loop {
        let count = pods.iter().map(|pod| bed.seen(pod, id, 0).expect("a count")["count"].as_u64().expect("a number")).sum();
        if count >= least {
            return count;
        }
        assert!(Instant::now() < end, "{count} copies of {id}, not {least}");
    }
}

#[test]
fn a_copy_is_the_request_as_it_was_at_the_mirrors_filter() {
    let rewrite =
        "{type: URLRewrite, urlRewrite: {hostname: other.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}";
    let (set_before, set_after, to_mirror) = (set("x-before", "rule"), set("x-after", "backend"), mirror("mirror", ""));
    let rules = [
        rule(&[&prefix("/early", "")], &[&set_before, &to_mirror, rewrite], &[filtered_backend("cart", &[&set_after])]),
        rule(&[&prefix("/late", "")], &[rewrite, &to_mirror], &cart()),
        rule(&[&prefix("/backend", "")], &[], &[filtered_backend("cart", &[&set_after, &to_mirror])]),
    ];
    // The mirror has endpoints in the other cluster alone.
    let more = vec![("west/cart.yaml", yaml::exported("cart", "default", 1)), ("east/mirror.yaml", yaml::exported("mirror", "default", 1))];
    let bed = bed(&rules, more);
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (path, host, target, before, after, primary) in [
            ("/early", STORE, "/early/x", Some("rule"), None, ("other.example.com", "/new/x")),
            ("/late", "other.example.com", "/new/x", None, None, ("other.example.com", "/new/x")),
            ("/backend", STORE, "/backend/x", None, Some("backend"), (STORE, "/backend/x")),
        ] {
            let id = format!("{version:?}{path}").replace('/', "");
            let body = Bytes::from_static(b"some body");
            let ask = Ask { method: Method::PUT, body, ..Ask::get(STORE, &format!("{path}/x?id={id}")) }.with("x-mine", "1");
            let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
            assert_eq!(who(&answer), "west/cart", "the answer is not the mirror's: {id}");
            let seen = answer.seen();
            assert_eq!((seen["host"].as_str(), seen["path"].as_str()), (Some(primary.0), Some(primary.1)), "{id}: {seen}");

            let copy = bed.seen("east/default/mirror-0", &id, 1).expect("a copy");
            let last = &copy["last"];
            assert_eq!((last["host"].as_str(), last["path"].as_str()), (Some(host), Some(target)), "{id}: {copy}");
            assert_eq!((header(last, "x-before"), header(last, "x-after")), (before, after), "{id}: {copy}");
            assert_eq!((last["method"].as_str(), last["body"].as_str()), (Some("PUT"), Some("some body")), "{id}: {copy}");
            assert_eq!((header(last, "x-mine"), copy["count"].as_u64()), (Some("1"), Some(1)), "{id}: {copy}");
        }
    }
}

#[test]
fn each_of_several_mirrors_gets_one_copy() {
    let (one, two) = (mirror("one", ""), mirror("two", ""));
    let rules = [filtered("/twice", &one, &cart()), rule(&[], &[&one, &two], &cart())];
    let app = |name| yaml::exported(name, "default", 1);
    let more = vec![
        ("west/apps.yaml", yaml::all(&[app("cart"), app("one"), app("two")])),
        ("east/apps.yaml", yaml::all(&[app("cart"), app("two")])),
    ];
    let bed = bed(&rules, more);
    let shares = bed.shares(40, STORE, "/?id=a").expect("answers");
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["east/cart", "west/cart"], "{shares:?}");
    let mirrors = [&["west/default/one-0"][..], &["west/default/two-0", "east/default/two-0"]];
    for pods in mirrors {
        copies(&bed, pods, "a", 40);
    }
    metric(&bed, "isthmus_sidecar_mirrors_total{result=\"answered\"} 80");
    for pods in mirrors {
        assert_eq!(copies(&bed, pods, "a", 0), 40, "one endpoint of each mirror: {pods:?}");
    }
}

#[test]
fn a_share_of_requests_is_copied() {
    let rules = [
        filtered("/half", &mirror("mirror", ", percent: 50"), &cart()),
        filtered("/fifth", &mirror("mirror", ", fraction: {numerator: 1, denominator: 5}"), &cart()),
        filtered("/tenth", &mirror("mirror", ", fraction: {numerator: 10}"), &cart()),
        filtered("/none", &mirror("mirror", ", percent: 0"), &cart()),
        filtered("/all", &mirror("mirror", ", percent: 100"), &cart()),
    ];
    let app = |name| yaml::exported(name, "default", 1);
    let bed = bed(&rules, vec![("west/apps.yaml", yaml::all(&[app("cart"), app("mirror")]))]);
    // Five standard deviations of a binomial distribution over 500 requests.
    for (id, least, most) in [("half", 195, 305), ("fifth", 56, 144), ("tenth", 17, 83), ("none", 0, 0), ("all", 500, 500)] {
        let shares = bed.shares(500, STORE, &format!("/{id}?id={id}")).expect("answers");
        assert_eq!(shares.get("west/cart"), Some(&500), "{shares:?}");
        // What is sent after all others arrives when these have been sent.
        bed.get(STORE, &format!("/all?id=after-{id}")).expect("an answer");
        bed.seen("west/default/mirror-0", &format!("after-{id}"), 1).expect("a copy");
        let count = copies(&bed, &["west/default/mirror-0"], id, least);
        assert!(count <= most, "{id}: {count}");
    }
}

#[test]
fn a_mirror_that_is_not_there_changes_nothing() {
    let rules = [filtered("/missing", &mirror("missing", ", percent: 100"), &cart()), filtered("/empty", &mirror("empty", ""), &cart())];
    let app = |name, replicas| yaml::exported(name, "default", replicas);
    let mut bed = bed(&rules, vec![("east/apps.yaml", yaml::all(&[app("cart", 1), app("empty", 0)]))]);
    assert_eq!(condition(&bed, "Accepted")[..2], ["True", "Accepted"]);
    let [status, reason, message] = condition(&bed, "ResolvedRefs");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "BackendNotFound"), "{message}");
    for target in ["/missing", "/empty"] {
        let answer = bed.get(STORE, target).expect("an answer");
        assert_eq!((answer.status.as_u16(), who(&answer).as_str()), (200, "east/cart"), "{target}");
    }
    metric(&bed, "isthmus_sidecar_mirrors_total{result=\"failed\"} 1");
    bed.apply("east/late.yaml", &app("missing", 1)).expect("in force");
    assert_eq!(condition(&bed, "ResolvedRefs")[..2], ["True", "ResolvedRefs"], "now it is there");
    bed.get(STORE, "/missing?id=late").expect("an answer");
    bed.seen("east/default/missing-0", "late", 1).expect("a copy");
}

#[test]
fn a_foreign_mirror_needs_a_grant() {
    let grant = "{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {name: mirror, namespace: bar}, spec: {from: \
                 [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: [{group: multicluster.x-k8s.io, kind: \
                 ServiceImport}]}}";
    let foreign = mirror("mirror", "").replace("name: mirror", "name: mirror, namespace: bar");
    let local = "{type: RequestMirror, requestMirror: {backendRef: {kind: Service, name: local, port: 80}}}";
    let more = vec![
        ("west/apps.yaml", yaml::all(&[yaml::exported("cart", "default", 1), yaml::app("local", "default", 1)])),
        ("east/mirror.yaml", yaml::exported("mirror", "bar", 1)),
    ];
    let mut bed = bed(&[rule(&[], &[&foreign, local], &cart())], more);
    assert_eq!(condition(&bed, "ResolvedRefs")[..2], ["False", "RefNotPermitted"]);
    assert_eq!(who(&bed.get(STORE, "/?id=a").expect("an answer")), "west/cart");
    bed.seen("west/default/local-0", "a", 1).expect("a copy for the other mirror, a Service");
    metric(&bed, "isthmus_sidecar_mirrors_total{result=\"answered\"} 1");
    assert_eq!(copies(&bed, &["east/bar/mirror-0"], "a", 0), 0, "no grant, no copy");
    bed.apply("west/grant.yaml", grant).expect("in force");
    assert_eq!(condition(&bed, "ResolvedRefs")[..2], ["True", "ResolvedRefs"]);
    bed.get(STORE, "/?id=b").expect("an answer");
    bed.seen("east/bar/mirror-0", "b", 1).expect("a copy");
}

#[test]
fn a_request_that_is_sent_again_is_copied_once() {
    let retried = with(&filtered("/", &mirror("mirror", ""), &cart()), "retry: {codes: [500], attempts: 5, backoff: 1ms}");
    let app = |name| yaml::exported(name, "default", 1);
    let bed = bed(&[retried], vec![("west/apps.yaml", yaml::all(&[app("cart"), app("mirror")]))]);
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let id = format!("{version:?}").replace('/', "");
        let body: String = (0..4096).map(|number| format!("{number:08}")).collect();
        let ask = Ask { method: Method::POST, body: body.clone().into(), ..Ask::get(STORE, &format!("/?fail=3&id={id}")) };
        let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
        assert_eq!((answer.status.as_u16(), who(&answer).as_str()), (200, "west/cart"), "{id}");
        let copy = bed.seen("west/default/mirror-0", &id, 1).expect("a copy");
        assert!(copy["last"]["body"].as_str() == Some(&body), "whole, once: {id}");
    }
    metric(&bed, "isthmus_sidecar_mirrors_total{result=\"answered\"} 2");
    assert!(copies(&bed, &["west/default/cart-0"], "HTTP1.1", 0) >= 2, "it was sent again");
}

#[test]
fn a_mirror_that_hangs_or_breaks_off_is_not_waited_for() {
    let rules = [filtered("/hangs", &mirror("hangs", ""), &cart()), filtered("/ends", &mirror("ends", ""), &cart())];
    let more = vec![
        ("west/cart.yaml", yaml::exported("cart", "default", 1)),
        ("east/own.yaml", yaml::all(&[own("hangs", "http"), own("ends", "http")])),
    ];
    let bed = bed(&rules, more);
    // Its connections are established and nobody reads from them.
    let hangs = listen(&bed, "east/default/hangs-0");
    let ends = listen(&bed, "east/default/ends-0");
    let client = bed.client().expect("a client");
    for _ in 0..10 {
        let answer = bed.get(STORE, "/hangs").expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.took < Duration::from_secs(5)), (200, true), "{answer:?}");
    }
    // Eight times what waits for a mirror, and then what fits into the sockets.
    let body: String = (0..1_000_000).map(|number| format!("{number:08}")).collect();
    let ask = |target: &str| Ask { method: Method::POST, body: body.clone().into(), ..Ask::get(STORE, target) };
    let answer = bed.ask(&client, STORE, &ask("/hangs")).expect("an answer");
    assert!(answer.status == 200 && answer.took < Duration::from_secs(10), "{}, {:?}", answer.status, answer.took);
    assert_eq!(answer.seen()["body"].as_str(), Some(body.as_str()), "the original is whole");
    drop(hangs);
    metric(&bed, "isthmus_sidecar_mirrors_total{result=\"failed\"} 11");

    let breaking = std::thread::spawn(move || {
        // A copy that is lost before its head was sent leaves a connection without anything on it:
        // its first byte and its end are the same here.
        let _ = accept(&ends).read(&mut [0]);
    });
    let answer = bed.ask(&client, STORE, &ask("/ends")).expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.seen()["body"].as_str()), (200, Some(body.as_str())));
    breaking.join().expect("the mirror");
}

#[test]
fn a_large_body_of_unknown_length_reaches_mirror_and_backend_whole() {
    let more = vec![("west/cart.yaml", yaml::exported("cart", "default", 1)), ("east/own.yaml", own("own", "http"))];
    let bed = bed(&[filtered("/", &mirror("own", ""), &cart())], more);
    let listener = listen(&bed, "east/default/own-0");
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = std::io::BufReader::new(inside(&bed, move || dial(address)));
    let request = format!("POST /large HTTP/1.1\r\nHost: {STORE}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).expect("sent");
    // Three mebibytes, each part once the mirror has got the one before: more than waits for a mirror, and never too fast for it.
    let part: String = (0..32_768).map(|number| format!("{number:08}")).collect();
    let mut connection = None;
    let mut copied = String::new();
    for _ in 0..12 {
        stream.get_mut().write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).expect("sent");
        let connection = connection.get_or_insert_with(|| {
            let mut connection = accept(&listener);
            let head = head(&mut connection);
            assert!(head.starts_with("POST /large HTTP/1.1") && head.contains("transfer-encoding: chunked"), "{head}");
            connection
        });
        let goal = copied.len() + part.len();
        while copied.len() < goal {
            copied.push_str(&chunk(connection));
        }
    }
    stream.get_mut().write_all(b"0\r\n\r\n").expect("sent");
    let mut connection = connection.expect("a copy");
    assert_eq!(chunk(&mut connection), "", "its end");
    assert!(copied == part.repeat(12), "the copy is whole");
    // The mirror never answers.
    let head = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(&part.repeat(12)), "the original is whole");
}

/// One chunk of a chunked body.
fn chunk(stream: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a length");
    let length = usize::from_str_radix(line.trim_end(), 16).expect("a length");
    let mut data = vec![0; length + 2];
    stream.read_exact(&mut data).expect("a chunk");
    data.truncate(length);
    String::from_utf8(data).expect("text")
}

#[test]
fn a_grpc_call_is_copied_as_a_grpc_call() {
    let rules = [rule(&[], &[&mirror("mirror", "")], &cart())];
    let app = |name| yaml::exported(name, "default", 1);
    let more = vec![
        ("west/cart.yaml", app("cart")),
        ("east/mirror.yaml", app("mirror")),
        ("west/route.yaml", route(&rules).replace("HTTPRoute", "GRPCRoute")),
    ];
    let bed = bed(&[], more);
    let client = bed.client().expect("a client");
    let body = Bytes::from_static(b"\0\0\0\0\x05hello");
    let ask = Ask { body, ..Ask::grpc(STORE, "/echo.Echo/Say").with("x-id", "call") };
    let answer = bed.ask_in(&client, STORE, Version::HTTP_2, &ask).expect("an answer");
    assert_eq!((who(&answer).as_str(), answer.grpc_status()), ("west/cart", Some(0)));
    let copy = bed.seen("east/default/mirror-0", "call", 1).expect("a copy");
    let last = &copy["last"];
    assert_eq!((last["path"].as_str(), last["body"].as_str()), (Some("/echo.Echo/Say"), Some("hello")), "{copy}");
    assert_eq!((last["protocol"].as_str(), header(last, "content-type")), (Some("HTTP/2.0"), Some("application/grpc")), "{copy}");
}

#[test]
fn of_a_websocket_the_request_is_copied() {
    let more = vec![("west/cart.yaml", yaml::exported("cart", "default", 1)), ("east/mirror.yaml", yaml::exported("mirror", "default", 1))];
    let bed = bed(&[filtered("/", &mirror("mirror", ""), &cart())], more);
    let sent = [Message::text("some text"), Message::binary(vec![0, 255])];
    assert_eq!(frames(&bed, STORE, &sent), sent, "the frames go to the backend");
    metric(&bed, "isthmus_sidecar_mirrors_total{result=\"answered\"} 1");
}
