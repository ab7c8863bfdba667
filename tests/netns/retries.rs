//! Retries: what is sent again, how often, when, to whom, and what is answered in the end (HTTPRouteRetry, HTTPRouteRetryWithTimeouts,
//! HTTPRouteRetryConnectionError; GEP-1731, H-27).

use std::io::{BufReader, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use lab::client::{Answer, Ask};
use tests::{Bed, who, yaml};

use super::bytes::{dial, inside};
use super::replay::{prefix, rule};
use super::store::{STORE, accept, bed, head, listen, own, own_answer, with};

const POD: &str = "east/default/cart-0";

fn retried(path: &str, retry: &str) -> String {
    with(&rule(&[&prefix(path, "")], &[], &[yaml::import("cart", "")]), &format!("retry: {{{retry}}}"))
}

fn cart_bed(rules: &[String]) -> Bed {
    bed(rules, vec![("east/cart.yaml", yaml::exported("cart", "default", 1))])
}

/// How often the one pod was asked for an id.
fn attempts(bed: &Bed, id: &str) -> u64 {
    bed.seen(POD, id, 0).expect("a count")["count"].as_u64().expect("a number")
}

/// A POST: none of them is sent twice but for a retry.
fn post(target: &str, body: Bytes) -> Ask {
    Ask { method: Method::POST, body, ..Ask::get(STORE, target) }
}

fn ask(bed: &Bed, ask: &Ask) -> Answer {
    bed.ask(&bed.client().expect("a client"), STORE, ask).expect("an answer")
}

#[test]
fn the_codes_that_are_listed_are_retried_as_often_as_said() {
    let bed = cart_bed(&[
        retried("/three", "codes: [500, 502, 503, 504], attempts: 3"),
        retried("/only-500", "codes: [500], attempts: 3"),
        retried("/once", "codes: [500, 429]"),
        rule(&[&prefix("/never", "")], &[], &[yaml::import("cart", "")]),
    ]);
    for (id, target, status, count) in [
        ("good", "/three?x", 200, 1),
        ("two", "/three?fail=2", 200, 3),
        ("three", "/three?fail=3", 200, 4),
        ("four", "/three?fail=4", 500, 4),
        ("many", "/three?fail=9&status=503", 503, 4),
        ("gateway", "/three?fail=1&status=502", 200, 2),
        ("timeout", "/three?fail=1&status=504", 200, 2),
        ("other", "/only-500?fail=1&status=503", 503, 1),
        ("listed", "/only-500?fail=1", 200, 2),
        ("client-error", "/only-500?fail=1&status=404", 404, 1),
        ("too-many-requests", "/once?fail=1&status=429", 200, 2),
        ("once", "/once?fail=2", 500, 2),
        ("never", "/never?fail=1", 500, 1),
    ] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let id = format!("{id}-{version:?}").replace('/', "");
            let client = bed.client().expect("a client");
            let answer = bed.ask_in(&client, STORE, version, &Ask::get(STORE, &format!("{target}&id={id}"))).expect("an answer");
            assert_eq!((who(&answer).as_str(), answer.status.as_u16()), ("east/cart", status), "{id}: the endpoint's own last answer");
            assert_eq!((attempts(&bed, &id), answer.seen()["attempt"].as_u64()), (count, Some(count)), "{id}");
        }
    }
}

#[test]
fn attempts_that_are_too_slow_are_retried_within_their_limit() {
    let timeouts = "timeouts: {backendRequest: 200ms}";
    let bed = cart_bed(&[
        with(&retried("/two", "attempts: 2, backoff: 10ms"), timeouts),
        with(&rule(&[&prefix("/none", "")], &[], &[yaml::import("cart", "")]), timeouts),
    ]);
    let answer = bed.get(STORE, "/two?delay_ms=3000&id=slow").expect("an answer");
    assert_eq!(own_answer(&answer), (504, Some("backend_timeout")));
    assert!(answer.took >= Duration::from_millis(620) && answer.took < Duration::from_millis(3000), "three attempts: {:?}", answer.took);
    assert_eq!(attempts(&bed, "slow"), 3);
    let answer = bed.get(STORE, "/none?delay_ms=3000&id=none").expect("an answer");
    assert_eq!((own_answer(&answer), attempts(&bed, "none")), ((504, Some("backend_timeout")), 1));
}

#[test]
fn connections_that_end_without_an_answer_are_retried() {
    let mut bed = cart_bed(&[
        retried("/three", "attempts: 3"),
        retried("/coded", "codes: [500], attempts: 1"),
        rule(&[&prefix("/never", "")], &[], &[yaml::import("cart", "")]),
    ]);
    for (id, target, expected, count) in [
        ("twice", "/three?drop=2", None, 3),
        ("always", "/three?drop=9", Some((503, Some("endpoint_reset"))), 4),
        ("coded", "/coded?drop=1", None, 2),
        ("never", "/never?drop=1", Some((503, Some("endpoint_reset"))), 1),
    ] {
        let answer = ask(&bed, &post(&format!("{target}&id={id}"), Bytes::from_static(b"some body")));
        match expected {
            Some(expected) => assert_eq!(own_answer(&answer), expected, "{id}"),
            None => assert_eq!((who(&answer).as_str(), answer.seen()["body"].as_str()), ("east/cart", Some("some body")), "{id}"),
        }
        assert_eq!(attempts(&bed, id), count, "{id}");
    }
    let pod = bed.pod(POD).expect("a pod");
    bed.stop_server(&pod).expect("stopped");
    let answer = ask(&bed, &post("/three", Bytes::new()));
    assert_eq!(own_answer(&answer), (503, Some("connect_failed")));
}

#[test]
fn a_backoff_is_the_least_wait() {
    let bed = cart_bed(&[retried("/", "codes: [500], attempts: 3, backoff: 150ms")]);
    for (fail, least) in [(0, 0), (1, 150), (3, 450)] {
        let answer = bed.get(STORE, &format!("/?fail={fail}&id=after-{fail}")).expect("an answer");
        assert_eq!(answer.status, 200, "{fail}");
        assert!(answer.took >= Duration::from_millis(least), "{fail}: {:?}", answer.took);
    }
}

#[test]
fn a_body_is_sent_again_whole_or_not_at_all() {
    let bed = cart_bed(&[retried("/", "codes: [503], attempts: 3, backoff: 1ms")]);
    let body = |bytes: usize| -> String { (0..bytes / 8).map(|number| format!("{number:08}")).collect() };
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (bytes, status, count) in [(32 * 1024, 200, 3), (256 * 1024, 503, 1)] {
            let id = format!("{bytes}-{version:?}").replace('/', "");
            let body = body(bytes);
            let ask = post(&format!("/?fail=2&status=503&id={id}"), body.clone().into());
            let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
            assert_eq!((answer.status.as_u16(), who(&answer).as_str()), (status, "east/cart"), "{id}");
            assert!(answer.seen()["body"].as_str() == Some(&body), "whole: {id}");
            assert_eq!(attempts(&bed, &id), count, "{id}");
        }
    }
}

#[test]
fn an_answer_that_comes_before_the_body_has_ended_is_retried_with_the_whole_body() {
    let to_own = with(&rule(&[], &[], &[yaml::import("own", "")]), "retry: {codes: [503], attempts: 1, backoff: 1ms}");
    let bed = bed(&[to_own], vec![("east/own.yaml", own("own", "http"))]);
    let listener = listen(&bed, "east/default/own-0");
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = BufReader::new(inside(&bed, move || dial(address)));
    stream.get_mut().write_all(format!("POST / HTTP/1.1\r\nHost: {STORE}\r\nContent-Length: 10\r\n\r\nfirst").as_bytes()).expect("sent");
    let mut early = accept(&listener);
    head(&mut early);
    let mut first = [0; 5];
    early.read_exact(&mut first).expect("what has been sent");
    early.get_mut().write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").expect("an answer");
    let mut again = accept(&listener);
    head(&mut again);
    again.read_exact(&mut first).expect("the same again");
    stream.get_mut().write_all(b" last").expect("sent");
    let mut last = [0; 5];
    again.read_exact(&mut last).expect("the rest");
    assert_eq!((&first, &last), (b"first", b" last"));
    again.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("an answer");
    let answer = head(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn another_endpoint_is_preferred() {
    let more = ["west/cart.yaml", "east/cart.yaml"].map(|file| (file, yaml::exported("cart", "default", 1))).to_vec();
    let bed = bed(&[retried("/", "codes: [500], attempts: 1, backoff: 1ms")], more);
    for number in 0..20 {
        let answer = bed.get(STORE, &format!("/?fail=1&id={number}")).expect("an answer");
        assert_eq!(answer.status, 200, "{number}");
        let counts = ["west/default/cart-0", POD].map(|pod| bed.seen(pod, &number.to_string(), 0).expect("a count")["count"].clone());
        assert_eq!(counts, [1, 1], "one attempt at each: {number}");
    }
}

#[test]
fn a_grpc_call_through_an_httproute_is_retried() {
    let bed = cart_bed(&[retried("/", "codes: [503], attempts: 2, backoff: 1ms")]);
    let client = bed.client().expect("a client");
    let body = Bytes::from_static(b"\0\0\0\0\x05hello");
    let call = |id: &str, fail: &str| {
        let ask = Ask { body: body.clone(), ..Ask::grpc(STORE, "/echo.Echo/Say") };
        let ask = ask.with("x-id", id).with("x-fail", fail).with("x-status", "503");
        bed.ask_in(&client, STORE, Version::HTTP_2, &ask).expect("an answer")
    };
    let answer = call("two", "2");
    assert_eq!((answer.status.as_u16(), answer.grpc_status(), answer.seen()["body"].as_str()), (200, Some(0), Some("hello")), "{answer:?}");
    assert_eq!(attempts(&bed, "two"), 3);
    assert_eq!((call("three", "3").status.as_u16(), attempts(&bed, "three")), (503, 3));
}
