//! Mirrors, authorization, header edits, redirects, rewrites (H-9 to H-19).

use http::StatusCode;

use super::*;
use crate::model::{PathModifier, Scheme};

fn filter(written: Value) -> Parsed<ParsedFilter> {
    parsed(json!([{"filters": [written]}])).remove(0).map(|rule| rule.filters[0].clone())
}

fn fault_of(written: Value) -> String {
    let text = filter(written).expect_err("a fault").to_string();
    text.strip_prefix("spec.rules[0].filters[0].").map(str::to_owned).unwrap_or(text)
}

fn mirror(share: &Value) -> Value {
    let mut mirror = json!({"backendRef": {"name": "m", "port": 80}});
    for (field, value) in share.as_object().into_iter().flatten() {
        mirror[field] = value.clone();
    }
    json!({"type": "RequestMirror", "requestMirror": mirror})
}

#[test]
fn a_mirror_takes_a_share_of_requests() {
    for (share, numerator, denominator) in [
        (json!({}), 1, 1),
        (json!({"percent": 0}), 0, 100),
        (json!({"percent": 42}), 42, 100),
        (json!({"percent": 100}), 100, 100),
        (json!({"fraction": {"numerator": 3}}), 3, 100),
        (json!({"fraction": {"numerator": 1, "denominator": 1000}}), 1, 1000),
        (json!({"fraction": {"numerator": 7, "denominator": 7}}), 7, 7),
    ] {
        let ParsedFilter::Mirror { reference, fraction } = filter(mirror(&share)).expect("valid") else { panic!("a mirror") };
        assert_eq!(fraction, Fraction { numerator, denominator }, "{share}");
        assert_eq!((reference.kind.as_str(), reference.name.as_str(), reference.port), ("Service", "m", NonZeroU16::new(80)));
        let taken = (0..u64::from(denominator)).filter(|random| fraction.takes(*random)).count();
        assert_eq!(taken, usize::try_from(numerator).expect("small"), "{share}");
    }
}

#[test]
fn a_mirror_of_no_share_drops_its_rule() {
    for (share, expected) in [
        (json!({"percent": 101}), "requestMirror.percent: 101 is not between 0 and 100"),
        (json!({"percent": -1}), "requestMirror.percent: -1 is not between 0 and 4294967295"),
        (json!({"percent": 1, "fraction": {"numerator": 1}}), "requestMirror: has both percent and fraction"),
        (json!({"fraction": {"numerator": 2, "denominator": 1}}), "requestMirror.fraction: 2 of 1 is no share"),
        (json!({"fraction": {"numerator": 0, "denominator": 0}}), "requestMirror.fraction: 0 of 0 is no share"),
        (json!({"fraction": {"numerator": -1}}), "requestMirror.fraction.numerator: -1 is not between 0 and 4294967295"),
        (json!({"backendRef": {"name": "m", "port": 0}}), "requestMirror.backendRef.port: 0 is no port number"),
    ] {
        assert_eq!(fault_of(mirror(&share)), expected);
    }
}

fn auth(more: &Value) -> Value {
    let mut auth = json!({"backendRef": {"name": "a", "port": 80}});
    for (field, value) in more.as_object().into_iter().flatten() {
        auth[field] = value.clone();
    }
    json!({"type": "ExternalAuth", "externalAuth": auth})
}

#[test]
fn authorization_is_asked_for_by_http_or_grpc() {
    let http = json!({"path": "/check/", "allowedHeaders": ["X-One"], "allowedResponseHeaders": ["x-two", "x-three"]});
    let written = json!({"protocol": "HTTP", "http": http, "forwardBody": {"maxSize": 1024}});
    let ParsedFilter::Auth { reference, protocol, body_bytes_max } = filter(auth(&written)).expect("valid") else {
        panic!("authorization")
    };
    assert_eq!((reference.name.as_str(), body_bytes_max), ("a", 1024));
    let AuthProtocol::Http { path, allowed_headers, allowed_response_headers } = protocol else { panic!("HTTP") };
    assert_eq!((path.as_str(), allowed_headers.len(), allowed_response_headers.len()), ("/check", 1, 2));
    assert_eq!(allowed_headers[0], "x-one");
    let written = json!({"protocol": "GRPC", "grpc": {"allowedHeaders": ["x-one"]}});
    let ParsedFilter::Auth { protocol: AuthProtocol::Grpc { allowed_headers }, body_bytes_max: 0, .. } =
        filter(auth(&written)).expect("valid")
    else {
        panic!("gRPC without a body")
    };
    assert_eq!(allowed_headers.len(), 1);
    assert!(filter(auth(&json!({"protocol": "HTTP", "http": {}, "forwardBody": {"maxSize": 1_048_576}}))).is_ok());
}

#[test]
fn authorization_that_cannot_be_asked_for_drops_its_rule() {
    for (written, expected) in [
        (json!({"protocol": "SMTP"}), "externalAuth.protocol: \"SMTP\" is neither HTTP nor GRPC"),
        (json!({"protocol": "HTTP"}), "externalAuth.protocol: HTTP goes with http"),
        (json!({"protocol": "HTTP", "http": {}, "grpc": {}}), "externalAuth.protocol: HTTP goes with http"),
        (json!({"protocol": "GRPC", "http": {}}), "externalAuth.protocol: GRPC goes with grpc"),
        (
            json!({"protocol": "HTTP", "http": {"allowedHeaders": ["a b"]}}),
            "externalAuth.http.allowedHeaders[0].name: \"a b\" is no header name",
        ),
        (
            json!({"protocol": "GRPC", "grpc": {"allowedHeaders": vec!["a"; 65]}}),
            "externalAuth.grpc.allowedHeaders: has 65 entries, at most 64 are allowed",
        ),
        (
            json!({"protocol": "HTTP", "http": {}, "forwardBody": {"maxSize": 1_048_577}}),
            "externalAuth.forwardBody.maxSize: 1048577 is not between 0 and 1048576",
        ),
        (
            json!({"protocol": "HTTP", "http": {}, "forwardBody": {"maxSize": -1}}),
            "externalAuth.forwardBody.maxSize: -1 is not between 0 and 1048576",
        ),
        (
            json!({"protocol": "GRPC", "grpc": {}, "backendRef": {"name": "a", "port": -1}}),
            "externalAuth.backendRef.port: -1 is no port number",
        ),
    ] {
        assert_eq!(fault_of(auth(&written)), expected);
    }
    for path in ["check", "/a/../b", "/a//b", "/a?b", "/a#b", "/a b", "/é", &format!("/{}", "a".repeat(1024))] {
        let written = json!({"protocol": "HTTP", "http": {"path": path}});
        assert_eq!(fault_of(auth(&written)), format!("externalAuth.http.path: {path:?} is no prefix of a path"));
    }
    for (path, kept) in [("", ""), ("/", ""), ("/a", "/a"), ("/a/b/", "/a/b"), ("/-._~!$&'()*+,;=:@%41", "/-._~!$&'()*+,;=:@%41")] {
        let written = json!({"protocol": "HTTP", "http": {"path": path}});
        let Ok(ParsedFilter::Auth { protocol: AuthProtocol::Http { path: found, .. }, .. }) = filter(auth(&written)) else {
            panic!("{path}")
        };
        assert_eq!(found, kept);
    }
}

/// H-10: mirrors and extensions may be repeated, the others may not.
#[test]
fn only_mirrors_and_extensions_stand_more_than_once() {
    let header = json!({"set": [{"name": "a", "value": "1"}]});
    let extension = json!({"type": "ExtensionRef", "extensionRef": {"name": "x"}});
    for (filter, is_repeatable) in [
        (mirror(&json!({})), true),
        (extension, true),
        (json!({"type": "RequestHeaderModifier", "requestHeaderModifier": header}), false),
        (json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": header}), false),
        (json!({"type": "RequestRedirect", "requestRedirect": {}}), false),
        (json!({"type": "URLRewrite", "urlRewrite": {}}), false),
        (json!({"type": "CORS", "cors": {}}), false),
        (auth(&json!({"protocol": "GRPC", "grpc": {}})), false),
    ] {
        let rule = parsed(json!([{"filters": [filter, filter]}])).remove(0);
        assert_eq!(rule.is_ok(), is_repeatable, "{filter}");
        assert!(rule.is_ok() || rule.is_err_and(|fault| fault.reason == FaultReason::IncompatibleFilters), "{filter}");
    }
    let many = |count: usize| parsed(json!([{"filters": vec![mirror(&json!({})); count]}])).remove(0).is_ok();
    assert!(many(16) && !many(17));
}

#[test]
fn a_redirect_is_read_whole_or_not_at_all() {
    let redirect = |more: Value| filter(json!({"type": "RequestRedirect", "requestRedirect": more}));
    let full = json!({"scheme": "https", "hostname": "other.example", "port": 8443, "statusCode": 308, "path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}});
    let Ok(ParsedFilter::Ready(Filter::Redirect(found))) = redirect(full) else { panic!("a redirect") };
    assert_eq!((found.scheme, found.port, found.status), (Some(Scheme::Https), NonZeroU16::new(8443), StatusCode::PERMANENT_REDIRECT));
    assert_eq!((found.hostname.as_deref(), found.path), (Some("other.example"), Some(PathModifier::Full("/x".to_owned()))));
    for status in [301, 302, 303, 307, 308] {
        let Ok(ParsedFilter::Ready(Filter::Redirect(found))) = redirect(json!({"statusCode": status, "scheme": "http"})) else {
            panic!("{status}")
        };
        assert_eq!((found.status.as_u16(), found.scheme), (status, Some(Scheme::Http)));
    }
    let Ok(ParsedFilter::Ready(Filter::Redirect(found))) = redirect(json!({})) else { panic!("a redirect") };
    assert_eq!(found.status, StatusCode::FOUND, "H-13");
    for (more, expected) in [
        (json!({"scheme": "ftp"}), "scheme: \"ftp\" is neither http nor https"),
        (json!({"statusCode": 300}), "statusCode: 300 is not one of 301, 302, 303, 307, 308"),
        (json!({"hostname": "*.example"}), "hostname: \"*.example\" is no host name"),
        (json!({"port": 0}), "port: 0 is no port number"),
        (json!({"path": {"type": "Strip"}}), "path.type: \"Strip\" is no type of path modifier"),
        (json!({"path": {"type": "ReplaceFullPath", "replacePrefixMatch": "/x"}}), "path.replaceFullPath: is missing"),
        (json!({"path": {"type": "ReplacePrefixMatch"}}), "path.replacePrefixMatch: is missing"),
    ] {
        assert_eq!(redirect(more).expect_err("a fault").to_string(), format!("spec.rules[0].filters[0].requestRedirect.{expected}"));
    }
}

#[test]
fn a_filter_without_its_value_drops_its_rule() {
    for (kind, field) in [
        ("RequestHeaderModifier", "requestHeaderModifier"),
        ("ResponseHeaderModifier", "responseHeaderModifier"),
        ("RequestRedirect", "requestRedirect"),
        ("URLRewrite", "urlRewrite"),
        ("RequestMirror", "requestMirror"),
        ("CORS", "cors"),
        ("ExternalAuth", "externalAuth"),
    ] {
        assert_eq!(fault_of(json!({"type": kind})), format!("{field}: is missing"));
    }
}

/// H-12: what is the connection's cannot be edited; Host can be set on a request.
#[test]
fn header_edits_of_either_side_leave_the_connection_alone() {
    let edit = |kind: &str, field: &str, edit: Value| filter(json!({"type": kind, (field): edit})).is_ok();
    let sides = [("RequestHeaderModifier", "requestHeaderModifier"), ("ResponseHeaderModifier", "responseHeaderModifier")];
    for (kind, field) in sides {
        for name in ["Connection", "content-length", "TE", "Trailer", "Transfer-Encoding", "Upgrade"] {
            assert!(!edit(kind, field, json!({"set": [{"name": name, "value": "x"}]})), "{kind} {name}");
            assert!(!edit(kind, field, json!({"add": [{"name": name, "value": "x"}]})), "{kind} {name}");
            assert!(!edit(kind, field, json!({"remove": [name]})), "{kind} {name}");
        }
        assert!(!edit(kind, field, json!({"add": [{"name": "host", "value": "x"}]})), "{kind}");
        assert!(!edit(kind, field, json!({"set": [{"name": "a", "value": "line\nbreak"}]})), "{kind}");
        assert!(!edit(kind, field, json!({"set": [{"name": "a", "value": "1"}], "add": [{"name": "A", "value": "1"}]})), "{kind}");
        assert!(edit(kind, field, json!({"set": [{"name": "a", "value": "1"}, {"name": "A", "value": "2"}]})), "{kind}: the first counts");
        assert!(edit(kind, field, json!({})), "{kind}");
        assert_eq!(edit(kind, field, json!({"set": [{"name": "host", "value": "x"}]})), kind == "RequestHeaderModifier");
    }
    let many =
        |count: usize| edit(sides[0].0, sides[0].1, json!({"remove": (0..count).map(|index| format!("x-{index}")).collect::<Vec<_>>()}));
    assert!(many(16) && !many(17));
}
