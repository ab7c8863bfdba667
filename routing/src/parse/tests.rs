//! Rules H-1, H-4 to H-14 and S-6: what is taken, what is dropped, and how it is said.

mod filters;
mod kinds;
mod policies;
mod rest;

use serde_json::{Value, json};

use super::*;
use crate::api::Object;
use crate::model::PathMatch;

fn decoded_route(kind: &str, spec: &Value) -> Route {
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": "r"}, "spec": spec});
    let Ok(Some(Object::Route(route))) = Object::decode(&route) else { panic!("a route") };
    route
}

fn parsed(rules: Value) -> Vec<Parsed<ParsedRule>> {
    super::rules(&decoded_route("HTTPRoute", &json!({"rules": rules})))
}

/// The fault of a route with this one rule.
fn fault(rule: Value) -> String {
    let first = parsed(json!([rule])).remove(0);
    first.expect_err("a fault").to_string()
}

#[test]
fn a_rule_without_anything_matches_everything() {
    for rules in [json!(null), json!([]), json!([{}]), json!([{"matches": [{}]}])] {
        let rule = parsed(rules).remove(0).expect("valid");
        assert_eq!(rule.matches, [matches::everything()]);
    }
}

#[test]
fn one_bad_rule_leaves_the_others() {
    let rules = parsed(
        json!([{"name": "good"}, {"matches": [{"path": {"type": "Glob", "value": "/x"}}]}, {"backendRefs": [{"name": "b", "weight": "x"}]}]),
    );
    assert!(rules[0].is_ok());
    assert_eq!(rules[1].clone().expect_err("bad").to_string(), "spec.rules[1].matches[0].path.type: \"Glob\" is no type of path match");
    assert_eq!(rules[2].clone().expect_err("bad").field, "spec.rules[2].backendRefs[0].weight");
}

#[test]
fn bad_values_are_named() {
    let path = |value: &str| json!({"matches": [{"path": {"value": value}}]});
    for (rule, expected) in [
        (path("x"), "spec.rules[0].matches[0].path.value: \"x\" does not start with /"),
        (path("/a//b"), "spec.rules[0].matches[0].path.value: \"/a//b\" contains //"),
        (path("/a/.."), "spec.rules[0].matches[0].path.value: \"/a/..\" ends in a dot segment"),
        (json!({"matches": [{"method": "get"}]}), "spec.rules[0].matches[0].method: \"get\" is no method of the API"),
        (
            json!({"matches": [{"headers": [{"name": "a b", "value": "x"}]}]}),
            "spec.rules[0].matches[0].headers[0].name: \"a b\" is no header name",
        ),
        (json!({"backendRefs": [{"name": "b", "port": 65536}]}), "spec.rules[0].backendRefs[0].port: 65536 is no port number"),
        (
            json!({"backendRefs": [{"name": "b", "weight": 1_000_001}]}),
            "spec.rules[0].backendRefs[0].weight: 1000001 is not between 0 and 1000000",
        ),
        (json!({"filters": [{"type": "Teleport"}]}), "spec.rules[0].filters[0].type: \"Teleport\" is no type of filter of a HTTPRoute"),
        (json!({"filters": [{"type": "URLRewrite"}]}), "spec.rules[0].filters[0].urlRewrite: is missing"),
    ] {
        assert_eq!(fault(rule), expected);
    }
    assert!(fault(json!({"matches": [{"path": {"type": "RegularExpression", "value": "/("}}]})).contains("is no regular expression"));
}

#[test]
fn the_limits_of_the_api_hold() {
    let many = |count: usize, item: Value| Value::Array(vec![item; count]);
    assert!(fault(json!({"matches": many(65, json!({}))})).ends_with("matches: has 65 entries, at most 64 are allowed"));
    assert!(fault(json!({"backendRefs": many(17, json!({"name": "b"}))})).ends_with("backendRefs: has 17 entries, at most 16 are allowed"));
    let rules = parsed(many(17, json!({})));
    assert!(rules[15].is_ok() && rules[16].is_err());
}

#[test]
fn of_equivalent_names_the_first_counts() {
    let headers = json!([{"name": "Version", "value": "one"}, {"name": "version", "value": "two"}]);
    let rule = parsed(json!([{"matches": [{"headers": headers}]}])).remove(0).expect("valid");
    assert_eq!(rule.matches[0].headers.len(), 1);
}

#[test]
fn filters_that_exclude_each_other_are_incompatible() {
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "other.example"}});
    for rule in [
        json!({"filters": [redirect, rewrite]}),
        json!({"filters": [rewrite, rewrite]}),
        json!({"filters": [redirect], "backendRefs": [{"name": "b"}]}),
    ] {
        assert_eq!(parsed(json!([rule])).remove(0).expect_err("incompatible").reason, FaultReason::IncompatibleFilters);
    }
}

#[test]
fn replacing_a_prefix_needs_exactly_one_prefix() {
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}}});
    let rule = |matches: Value| parsed(json!([{"matches": matches, "filters": [rewrite]}])).remove(0);
    assert!(rule(json!([{"path": {"value": "/a"}}])).is_ok());
    assert!(rule(json!([])).is_ok(), "an absent list is one prefix /");
    assert!(rule(json!([{"path": {"type": "Exact", "value": "/a"}}])).is_err());
    assert!(rule(json!([{"path": {"value": "/a"}}, {"path": {"value": "/b"}}])).is_err());
}

#[test]
fn header_edits_leave_framing_and_host_alone() {
    let modifier = |edit: Value| parsed(json!([{"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": edit}]}])).remove(0);
    assert!(modifier(json!({"set": [{"name": "Host", "value": "other.example"}]})).is_ok());
    assert!(modifier(json!({"remove": ["Host"]})).is_err());
    assert!(modifier(json!({"set": [{"name": "Transfer-Encoding", "value": "chunked"}]})).is_err());
    assert!(modifier(json!({"set": [{"name": "A", "value": "1"}], "remove": ["a"]})).is_err());
}

#[test]
fn a_filter_that_is_known_but_not_obeyed_is_kept_to_answer_with_an_error() {
    let rule = parsed(json!([{"filters": [{"type": "ExtensionRef", "extensionRef": {"name": "x"}}]}])).remove(0).expect("valid");
    assert_eq!(rule.filters, [ParsedFilter::Ready(Filter::Unsupported("ExtensionRef".to_owned()))]);
}

#[test]
fn a_path_keeps_the_form_it_was_written_in() {
    let rule = parsed(json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/abc/"}}]}])).remove(0).expect("valid");
    assert_eq!(rule.matches[0].path, PathMatch::Prefix("/abc/".to_owned()));
}
