//! Time limits, retries, sessions (H-25 to H-29), and the limits of matches.

use std::time::Duration;

use super::*;
use crate::model::Carrier;

fn rule(written: Value) -> Parsed<ParsedRule> {
    parsed(json!([written])).remove(0)
}

#[test]
fn zero_is_no_time_limit_and_an_attempt_fits_into_the_whole() {
    let limits = |request: Value, attempt: Value| {
        rule(json!({"timeouts": {"request": request, "backendRequest": attempt}}))
            .map(|rule| (rule.timeouts.request, rule.timeouts.backend_request))
    };
    let s = |seconds: u64| Some(Duration::from_secs(seconds));
    for (request, attempt, expected) in [
        (json!("10s"), json!("5s"), (s(10), s(5))),
        (json!("10s"), json!("10s"), (s(10), s(10))),
        (json!("0s"), json!("10s"), (None, s(10))),
        (json!("10s"), json!("0ms"), (s(10), None)),
        (json!("0h0m0s"), json!(null), (None, None)),
        (json!(null), json!("1m"), (None, s(60))),
    ] {
        assert_eq!(limits(request.clone(), attempt.clone()), Ok(expected), "{request} {attempt}");
    }
    assert_eq!(
        limits(json!("5s"), json!("5001ms")).expect_err("longer").to_string(),
        "spec.rules[0].timeouts.backendRequest: is longer than request"
    );
    let fault = limits(json!("1d"), json!(null)).expect_err("no duration").to_string();
    assert_eq!(fault, "spec.rules[0].timeouts.request: \"1d\" is no duration such as 1h30m or 500ms (GEP-2257)");
    assert_eq!(limits(json!(null), json!("-1s")).expect_err("no duration").field, "spec.rules[0].timeouts.backendRequest");
    assert_eq!(rule(json!({"timeouts": {}})).expect("valid").timeouts, Timeouts::default());
}

#[test]
fn a_retry_stanza_has_codes_attempts_and_a_backoff() {
    let retry = |written: Value| rule(json!({"retry": written})).map(|rule| rule.retry.expect("a stanza"));
    let full = retry(json!({"codes": [503, 500, 503], "attempts": 3, "backoff": "100ms"})).expect("valid");
    assert_eq!(full.codes.iter().map(|code| code.as_u16()).collect::<Vec<_>>(), [500, 503], "in order, without repeats");
    assert_eq!((full.attempts, full.backoff), (3, Some(Duration::from_millis(100))));
    let bare = retry(json!({})).expect("valid");
    assert_eq!((bare.codes.len(), bare.attempts, bare.backoff), (0, 1, None), "H-27");
    assert_eq!(retry(json!({"codes": [400, 599], "attempts": 100, "backoff": "0s"})).expect("valid").backoff, Some(Duration::ZERO));
    for (written, expected) in [
        (json!({"attempts": 0}), "attempts: 0 is not between 1 and 100"),
        (json!({"attempts": 101}), "attempts: 101 is not between 1 and 100"),
        (json!({"attempts": -1}), "attempts: -1 is not between 1 and 100"),
        (json!({"codes": [500, 399]}), "codes[1]: 399 is not between 400 and 599"),
        (json!({"codes": [600]}), "codes[0]: 600 is not between 400 and 599"),
        (json!({"codes": [66_036]}), "codes[0]: 66036 is not between 400 and 599"),
    ] {
        assert_eq!(retry(written).expect_err("a fault").to_string(), format!("spec.rules[0].retry.{expected}"));
    }
    assert_eq!(retry(json!({"backoff": "1"})).expect_err("a fault").field, "spec.rules[0].retry.backoff");
    assert_eq!(rule(json!({})).expect("valid").retry, None);
}

fn persistence(written: Value) -> Parsed<Persistence> {
    rule(json!({"sessionPersistence": written})).map(|rule| rule.persistence.expect("asked for"))
}

#[test]
fn a_session_is_carried_by_a_cookie_or_a_header() {
    for (written, name, carrier, timeout) in [
        (json!({}), None, Carrier::SessionCookie, None),
        (json!({"sessionName": ""}), None, Carrier::SessionCookie, None),
        (json!({"sessionName": "mine", "type": "Cookie", "cookieConfig": {}}), Some("mine"), Carrier::SessionCookie, None),
        (json!({"cookieConfig": {"lifetimeType": "Session"}, "absoluteTimeout": "1m"}), None, Carrier::SessionCookie, Some(60)),
        (json!({"cookieConfig": {"lifetimeType": "Permanent"}, "absoluteTimeout": "1h"}), None, Carrier::PermanentCookie, Some(3600)),
        (json!({"type": "Header", "sessionName": "X-Session"}), Some("X-Session"), Carrier::Header, None),
        (json!({"type": "Cookie", "sessionName": "Host"}), Some("Host"), Carrier::SessionCookie, None),
        (json!({"absoluteTimeout": "0s"}), None, Carrier::SessionCookie, None),
    ] {
        let found = persistence(written.clone()).expect("valid");
        assert_eq!((found.session_name.as_deref(), found.carrier), (name, carrier), "{written}");
        assert_eq!(found.absolute_timeout, timeout.map(Duration::from_secs), "{written}");
    }
}

#[test]
fn a_session_that_cannot_be_carried_drops_its_rule() {
    for (written, expected) in [
        (json!({"type": "Query"}), "type: \"Query\" is neither Cookie nor Header"),
        (json!({"cookieConfig": {"lifetimeType": "Eternal"}}), "cookieConfig.lifetimeType: \"Eternal\" is neither Session nor Permanent"),
        (json!({"cookieConfig": {"lifetimeType": "Permanent"}}), "absoluteTimeout: is missing; a Permanent cookie needs it"),
        (
            json!({"cookieConfig": {"lifetimeType": "Permanent"}, "absoluteTimeout": "0s"}),
            "absoluteTimeout: is missing; a Permanent cookie needs it",
        ),
        (json!({"type": "Header", "cookieConfig": {}}), "cookieConfig: can only be set with type Cookie"),
        (json!({"type": "Header", "sessionName": "Host"}), "sessionName: \"Host\" is no name of a cookie or header"),
        (json!({"type": "Header", "sessionName": "cookie"}), "sessionName: \"cookie\" is no name of a cookie or header"),
        (json!({"type": "Header", "sessionName": "Connection"}), "sessionName: \"Connection\" is no name of a cookie or header"),
        (json!({"sessionName": "a;b"}), "sessionName: \"a;b\" is no name of a cookie or header"),
    ] {
        assert_eq!(persistence(written).expect_err("a fault").to_string(), format!("spec.rules[0].sessionPersistence.{expected}"));
    }
    assert!(persistence(json!({"sessionName": "x".repeat(128)})).is_ok());
    assert!(persistence(json!({"sessionName": "x".repeat(129)})).is_err());
}

#[test]
fn matches_have_limits() {
    let matched = |written: Value| rule(json!({"matches": [written]})).is_ok();
    let many = |field: &str, count: usize| {
        let entries: Vec<Value> = (0..count).map(|index| json!({"name": format!("x-{index}"), "value": "1"})).collect();
        matched(json!({(field): entries}))
    };
    for field in ["headers", "queryParams"] {
        assert!(many(field, 16) && !many(field, 17), "{field}");
        assert!(!matched(json!({(field): [{"type": "Glob", "name": "a", "value": "b"}]})), "{field}");
        assert!(!matched(json!({(field): [{"name": "", "value": "b"}]})), "{field}");
    }
    for kind in ["Exact", "PathPrefix", "RegularExpression"] {
        let path = |length: usize| matched(json!({"path": {"type": kind, "value": format!("/{}", "a".repeat(length - 1))}}));
        assert!(path(1024) && !path(1025), "{kind}");
    }
    for value in ["/a/./b", "/a/../b", "/a%2fb", "/a%2Fb", "/a#b", "/a/."] {
        assert!(!matched(json!({"path": {"value": value}})), "{value}");
        assert!(matched(json!({"path": {"type": "RegularExpression", "value": value}})), "{value} as a pattern");
    }
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] {
        assert!(matched(json!({"method": method})), "{method}");
    }
    for method in ["get", "PROPFIND", ""] {
        assert!(!matched(json!({"method": method})), "{method}");
    }
    let weight = |weight: i64| rule(json!({"backendRefs": [{"name": "b", "weight": weight}]})).is_ok();
    assert!(weight(0) && weight(1_000_000) && !weight(1_000_001) && !weight(-1));
}
