//! Filters: what the tests for meshes do not have.

use lab::client::Ask;

use super::Expected::{From, Redirect, Rewritten};
use super::gateway::{Gateway, INFRA, backend};
use super::{filtered, get, prefix, rule, seen_header};

const V1: &str = "infra-backend-v1";

/// Target, the field that the backend answers with, and fields of the answer; an empty value is an absent field.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

fn v1() -> [String; 1] {
    [backend(V1, "")]
}

fn rewrite(fields: &str) -> String {
    format!("{{type: URLRewrite, urlRewrite: {{{fields}}}}}")
}

fn redirect(fields: &str) -> String {
    format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}")
}

#[test]
fn http_route_response_header_modifier() {
    let filter = |changes: &str| format!("{{type: ResponseHeaderModifier, responseHeaderModifier: {{{changes}}}}}");
    let rules = [
        ("/set", "set: [{name: X-Header-Set, value: set-overwrites-values}]"),
        ("/add", "add: [{name: X-Header-Add, value: add-appends-values}]"),
        ("/remove", "remove: [X-Header-Remove]"),
        (
            "/multiple",
            "set: [{name: X-Header-Set-1, value: header-set-1}, {name: X-Header-Set-2, value: header-set-2}], add: [{name: X-Header-Add-1, \
             value: header-add-1}, {name: X-Header-Add-2, value: header-add-2}], remove: [X-Header-Remove-1, X-Header-Remove-2]",
        ),
        (
            "/case-insensitivity",
            "set: [{name: X-Header-Set, value: header-set}], add: [{name: X-Header-Add, value: header-add}], remove: [X-Header-Remove]",
        ),
    ];
    let mut rules = rules.map(|(path, changes)| filtered(path, &filter(changes), &v1())).to_vec();
    let on_request = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Header-Set, value: on-request}]}}";
    rules.push(rule(&[&prefix("/both", "")], &[on_request, &filter("set: [{name: X-Header-Set, value: on-response}]")], &v1()));
    let gateway = Gateway::with("response-header-modifier", &rules);
    let cases: [Case; 11] = [
        ("/set", "Some-Other-Header:val", &[("Some-Other-Header", "val"), ("X-Header-Set", "set-overwrites-values")]),
        ("/set", "X-Header-Set:some-other-value", &[("X-Header-Set", "set-overwrites-values")]),
        ("/add", "Some-Other-Header:val", &[("Some-Other-Header", "val"), ("X-Header-Add", "add-appends-values")]),
        ("/add", "X-Header-Add:some-other-value", &[("X-Header-Add", "some-other-value,add-appends-values")]),
        ("/remove", "X-Header-Remove:val", &[("X-Header-Remove", "")]),
        ("/multiple", "X-Header-Set-2:val", &[("X-Header-Set-1", "header-set-1"), ("X-Header-Set-2", "header-set-2")]),
        ("/multiple", "X-Header-Add-2:val", &[("X-Header-Add-1", "header-add-1"), ("X-Header-Add-2", "val,header-add-2")]),
        ("/multiple", "X-Header-Remove-2:val", &[("X-Header-Remove-1", ""), ("X-Header-Remove-2", "")]),
        ("/case-insensitivity", "x-header-add:val", &[("X-Header-Set", "header-set"), ("X-Header-Add", "val,header-add")]),
        ("/case-insensitivity", "x-header-remove:val", &[("X-Header-Remove", "")]),
        ("/both", "X-Header-Set:val", &[("X-Header-Set", "on-response")]),
    ];
    for (target, sent, expected) in cases {
        let answer = gateway.check(get(target).with("x-set-header", sent), &From(V1));
        for (name, value) in expected {
            let values: Vec<&str> = answer.headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).collect();
            assert_eq!(values.join(","), *value, "{target} {sent} {name}");
        }
        let on_request = (target == "/both").then(|| "on-request".to_owned());
        assert_eq!(seen_header(&answer, "X-Header-Set"), on_request, "the other direction: {target}");
    }
}

#[test]
fn http_route_request_header_modifier_backend_weights() {
    let marked = |version: &str, weight: u32| {
        let set =
            format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: Backend, value: infra-backend-{version}}}]}}}}");
        backend(&format!("infra-backend-{version}"), &format!("weight: {weight}, filters: [{set}]"))
    };
    let gateway = Gateway::with("request-header-modifier-backend-weights", &[rule(&[], &[], &[marked("v1", 100), marked("v2", 200)])]);
    let mut met = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let answer = gateway.bed.get(&format!("same-namespace.{INFRA}.svc.clusterset.local"), "/").expect("an answer");
        let marked = seen_header(&answer, "Backend").expect("a mark");
        assert!(answer.served_by().is_some_and(|pod| pod.contains(&format!("/{marked}-"))), "{answer:?}");
        met.insert(marked);
    }
    assert_eq!(met.len(), 2, "{met:?}");
}

#[test]
fn http_route_redirect_port_and_scheme() {
    let rules: Vec<String> = [
        ("/scheme-nil-and-port-nil", "hostname: example.org"),
        ("/scheme-nil-and-port-80", "hostname: example.org, port: 80"),
        ("/scheme-nil-and-port-8080", "hostname: example.org, port: 8080"),
        ("/scheme-https-and-port-nil", "hostname: example.org, scheme: https"),
        ("/scheme-https-and-port-443", "hostname: example.org, scheme: https, port: 443"),
        ("/scheme-https-and-port-8443", "hostname: example.org, scheme: https, port: 8443"),
        ("/scheme-http-and-port-nil", "hostname: example.org, scheme: http"),
        ("/scheme-http-and-port-8080", "hostname: example.org, scheme: http, port: 8080"),
    ]
    .map(|(path, fields)| filtered(path, &redirect(fields), &[]))
    .to_vec();
    let gateway = Gateway::with("redirect-port-and-scheme", &rules);
    // The same on every port but for the first: there it is the port that was dialled (D-14).
    for (port, by_port) in [(80, "http://example.org"), (8080, "http://example.org:8080"), (443, "http://example.org:443")] {
        for (path, origin) in [
            ("/scheme-nil-and-port-nil", by_port),
            ("/scheme-nil-and-port-80", "http://example.org"),
            ("/scheme-nil-and-port-8080", "http://example.org:8080"),
            ("/scheme-https-and-port-nil", "https://example.org"),
            ("/scheme-https-and-port-443", "https://example.org"),
            ("/scheme-https-and-port-8443", "https://example.org:8443"),
            ("/scheme-http-and-port-nil", "http://example.org"),
            ("/scheme-http-and-port-8080", "http://example.org:8080"),
        ] {
            gateway.check_at(port, get(path), &Redirect(302, &format!("{origin}{path}")));
        }
    }
}

#[test]
fn http_route_rewrite_host() {
    let headers = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Header-Set, value: set-overwrites-values}], add: \
                   [{name: X-Header-Add, value: header-val-1}], remove: [X-Header-Remove]}}";
    let rules = [
        filtered("/one", &rewrite("hostname: one.example.org"), &v1()),
        filtered("/two", &rewrite("hostname: example.org"), &[backend("infra-backend-v2", "")]),
        rule(&[&prefix("/rewrite-host-and-modify-headers", "")], &[&rewrite("hostname: test.example.org"), headers], &v1()),
    ];
    let gateway = Gateway::with("rewrite-host", &rules);
    let ask = |target| Ask::get("rewrite.example", target);
    gateway.check(ask("/one"), &Rewritten(V1, "one.example.org", "/one"));
    gateway.check(ask("/two?x=1"), &Rewritten("infra-backend-v2", "example.org", "/two?x=1"));
    let target = "/rewrite-host-and-modify-headers";
    let sent = ask(target).with("X-Header-Remove", "val").with("X-Header-Set", "val");
    let answer = gateway.check(sent, &Rewritten(V1, "test.example.org", target));
    for (name, value) in
        [("X-Header-Set", Some("set-overwrites-values")), ("X-Header-Add", Some("header-val-1")), ("X-Header-Remove", None)]
    {
        assert_eq!(seen_header(&answer, name).as_deref(), value, "{name}");
    }
}

#[test]
fn http_route_backend_url_rewrite() {
    let filtered = |path: &str, fields: &str| rule(&[&prefix(path, "")], &[], &[backend(V1, &format!("filters: [{}]", rewrite(fields)))]);
    let rules = [
        filtered("/prefix/one", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}"),
        filtered("/full", "path: {type: ReplaceFullPath, replaceFullPath: /one}"),
        filtered("/host", "hostname: one.example.org"),
        filtered("/all", "hostname: one.example.org, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}"),
    ];
    let gateway = Gateway::with("backend-url-rewrite", &rules);
    for (target, host, seen) in [
        ("/prefix/one/two", "", "/one/two"),
        ("/full/one/two?x=1", "", "/one?x=1"),
        ("/host/x", "one.example.org", "/host/x"),
        ("/all/x", "one.example.org", "/x"),
        ("/all", "one.example.org", "/"),
    ] {
        gateway.check(get(target), &Rewritten(V1, host, seen));
    }
}

#[test]
fn http_route_backend_request_redirect() {
    let redirected =
        |path: &str, fields: &str| rule(&[&prefix(path, "")], &[], &[backend(V1, &format!("filters: [{}]", redirect(fields)))]);
    let rules = [
        redirected("/host", "hostname: example.org"),
        redirected("/status", "hostname: example.org, statusCode: 301"),
        redirected("/path", "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replaced}"),
    ];
    let gateway = Gateway::with("backend-request-redirect", &rules);
    for (target, status, location) in [
        ("/host/x", 302, "http://example.org/host/x"),
        ("/status", 301, "http://example.org/status"),
        ("/path/x?y=1", 302, "http://HOST/replaced/x?y=1"),
    ] {
        gateway.check(get(target), &Redirect(status, location));
    }
}
