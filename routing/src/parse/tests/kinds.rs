//! GRPCRoute, TLSRoute, TCPRoute (G-1, G-5, G-6, L-2, L-4).

use super::*;
use crate::model::{RpcMatch, ValueMatch};

fn rules_of(kind: &str, spec: &Value) -> Vec<Parsed<ParsedRule>> {
    rules(&decoded_route(kind, spec))
}

fn first_of(kind: &str, rule: &Value) -> Parsed<ParsedRule> {
    rules_of(kind, &json!({"rules": [rule]})).remove(0)
}

fn fault_of(kind: &str, rule: &Value) -> String {
    first_of(kind, rule).expect_err("a fault").to_string()
}

/// The match of a rule with this method match.
fn rpc(method: &Value) -> Parsed<PathMatch> {
    first_of("GRPCRoute", &json!({"matches": [{"method": method}]})).map(|rule| rule.matches[0].path.clone())
}

fn exact(text: &str) -> Option<ValueMatch> {
    Some(ValueMatch::Exact(text.to_owned()))
}

#[test]
fn a_method_match_names_a_service_or_a_method_or_both() {
    for (method, service, name) in [
        (json!({"service": "shop.Cart", "method": "Get"}), exact("shop.Cart"), exact("Get")),
        (json!({"type": "Exact", "service": "Cart"}), exact("Cart"), None),
        (json!({"method": "Get_1"}), None, exact("Get_1")),
        (json!({"service": ".shop.Cart"}), exact(".shop.Cart"), None),
        (json!({"service": "", "method": "Get"}), None, exact("Get")),
    ] {
        assert_eq!(rpc(&method).expect("valid"), PathMatch::Rpc(RpcMatch { service, method: name }), "{method}");
    }
    let PathMatch::Rpc(found) = rpc(&json!({"type": "RegularExpression", "service": "shop[.].+", "method": "Get|List"})).expect("valid")
    else {
        panic!("a method match")
    };
    assert!(matches!((found.service, found.method), (Some(ValueMatch::Regex(_)), Some(ValueMatch::Regex(_)))));
}

#[test]
fn without_matches_or_method_every_call_is_meant() {
    for rule in [json!({}), json!({"matches": []}), json!({"matches": [{}]})] {
        assert_eq!(first_of("GRPCRoute", &rule).expect("valid").matches, [matches::every_call()], "{rule}");
    }
    assert!(rules_of("GRPCRoute", &json!({})).is_empty(), "G-6: no rule is no rule, other than of an HTTPRoute");
}

#[test]
fn a_method_match_that_cannot_be_meant_drops_its_rule() {
    for (method, expected) in [
        (json!({}), "spec.rules[0].matches[0].method: names neither a service nor a method"),
        (json!({"service": "", "method": ""}), "spec.rules[0].matches[0].method: names neither a service nor a method"),
        (json!({"type": "Glob", "method": "x"}), "spec.rules[0].matches[0].method.type: \"Glob\" is no type of method match"),
        (json!({"service": "a/b"}), "spec.rules[0].matches[0].method.service: \"a/b\" is no name of a service"),
        (json!({"service": "a..b"}), "spec.rules[0].matches[0].method.service: \"a..b\" is no name of a service"),
        (json!({"service": "1a"}), "spec.rules[0].matches[0].method.service: \"1a\" is no name of a service"),
        (json!({"method": "a.b"}), "spec.rules[0].matches[0].method.method: \"a.b\" is no name of a method"),
        (json!({"method": ".b"}), "spec.rules[0].matches[0].method.method: \".b\" is no name of a method"),
    ] {
        assert_eq!(rpc(&method).expect_err("a fault").to_string(), expected);
    }
    let long = json!({"method": "x".repeat(1025)});
    assert!(rpc(&long).is_err());
    assert!(rpc(&json!({"method": "x".repeat(1024)})).is_ok());
    let broken = rpc(&json!({"type": "RegularExpression", "method": "("})).expect_err("a fault");
    assert!(broken.to_string().starts_with("spec.rules[0].matches[0].method.method."), "{broken}");
}

/// G-5: no redirect, rewrite or CORS.
#[test]
fn a_grpc_rule_has_the_filters_of_its_kind() {
    let edit = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "1"}]}});
    let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}}});
    let answer = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["a"]}});
    let rule =
        first_of("GRPCRoute", &json!({"filters": [edit, mirror, mirror, answer], "backendRefs": [{"name": "b", "filters": [edit]}]}));
    let rule = rule.expect("valid");
    assert_eq!((rule.filters.len(), rule.backends[0].filters.len()), (4, 1));
    for filter in [
        json!({"type": "RequestRedirect", "requestRedirect": {}}),
        json!({"type": "URLRewrite", "urlRewrite": {}}),
        json!({"type": "CORS", "cors": {}}),
        json!({"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "grpc": {}, "backendRef": {"name": "a"}}}),
    ] {
        let expected = format!("spec.rules[0].filters[0].type: {} is no type of filter of a GRPCRoute", filter["type"]);
        assert_eq!(fault_of("GRPCRoute", &json!({"filters": [filter]})), expected);
    }
    let twice = first_of("GRPCRoute", &json!({"filters": [edit, edit]})).expect_err("twice");
    assert_eq!(twice.reason, FaultReason::IncompatibleFilters);
}

#[test]
fn a_grpc_rule_can_keep_sessions_and_has_no_time_limits() {
    let rule = first_of("GRPCRoute", &json!({"sessionPersistence": {}, "timeouts": {"request": "nonsense"}, "retry": {"attempts": 0}}));
    let rule = rule.expect("fields of other kinds are left out");
    assert!(rule.persistence.is_some());
    assert_eq!((rule.timeouts, rule.retry), (Timeouts::default(), None));
}

#[test]
fn a_stream_route_has_one_rule_with_backends() {
    for kind in ["TLSRoute", "TCPRoute"] {
        let good = json!({"name": "r", "backendRefs": [{"name": "b", "port": 1, "weight": 3}]});
        let rule = first_of(kind, &good).expect("valid");
        assert_eq!((rule.name.as_deref(), rule.matches.len(), rule.backends[0].weight), (Some("r"), 1, 3));
        assert_eq!(fault_of(kind, &json!({})), "spec.rules[0].backendRefs: is empty");
        let both = rules_of(kind, &json!({"rules": [good, good]}));
        assert!(both[0].is_ok());
        assert_eq!(both[1].clone().expect_err("one too many").to_string(), format!("spec.rules[1]: a {kind} has at most 1 rules"));
        assert_eq!(rules_of(kind, &json!({})).remove(0).expect_err("none").to_string(), format!("spec.rules: a {kind} has one rule"));
        let filter = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {}});
        assert!(first_of(kind, &json!({"backendRefs": [{"name": "b", "filters": [filter]}]})).is_err(), "streams have no filters");
    }
}

#[test]
fn host_names_are_names_and_no_addresses() {
    let read = |names: Value| hostnames(&decoded_route("TLSRoute", &json!({"hostnames": names})));
    let good = read(json!(["a.example", "*.example", "1a-b.example"])).expect("valid");
    let under = HostPattern::Under("example".to_owned());
    assert_eq!(good, [HostPattern::Exact("a.example".to_owned()), under, HostPattern::Exact("1a-b.example".to_owned())]);
    let fault = |names: Value| read(names).expect_err("a fault").to_string();
    assert_eq!(fault(json!(["a.example", "10.0.0.1"])), "spec.hostnames[1]: \"10.0.0.1\" is an address and no host name");
    for name in [
        "A.example",
        "a..example",
        "-a.example",
        "a-.example",
        "*",
        "*.",
        "*a.example",
        "a.*.example",
        "",
        "::1",
        "a_b.example",
        "a.example.",
    ] {
        assert!(read(json!([name])).is_err(), "{name:?}");
    }
    assert!(read(json!([format!("{}.example", "a".repeat(246))])).is_err(), "254 characters");
    assert!(read(json!([format!("{}.example", "a".repeat(245))])).is_ok(), "253 characters");
    assert_eq!(hostnames(&decoded_route("HTTPRoute", &json!({"hostnames": ["NO NAME"]}))), Ok(Vec::new()), "M-22");
}

/// H-1: 128 matches in all rules of a route.
#[test]
fn the_matches_of_all_rules_are_bounded() {
    let rule = |matches: usize| json!({"matches": vec![json!({}); matches]});
    let valid = |rules: Value| rules_of("HTTPRoute", &json!({"rules": rules})).iter().map(Result::is_ok).collect::<Vec<_>>();
    assert_eq!(valid(json!([rule(64), rule(64)])), [true, true]);
    assert_eq!(valid(json!([rule(64), rule(63), rule(2), rule(1)])), [true, true, false, true]);
}
