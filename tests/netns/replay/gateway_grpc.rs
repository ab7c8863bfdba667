//! GRPCRoute with a ServiceImport in the Gateway's place.

use http::Version;
use lab::client::{Answer, Ask};
use tests::yaml;

use super::Expected::From;
use super::gateway::{Gateway, INFRA, backend, parent};
use super::{rule, seen_header, weights};

const SERVICE: &str = "gateway_api_conformance.echo_basic.grpcecho.GrpcEcho";
/// Where nothing matches (G-3), and where a backend cannot be had (G-4).
const UNIMPLEMENTED: u16 = 12;
const UNAVAILABLE: u16 = 14;

fn start(name: &str, rules: &[String]) -> Gateway {
    let route = yaml::route(name, &format!("namespace: {INFRA}"), &[parent("")], rules);
    Gateway::start(route.replace("kind: HTTPRoute", "kind: GRPCRoute"))
}

fn call(method: &str) -> Ask {
    Ask::grpc("", &format!("/{SERVICE}/{method}"))
}

fn to(matches: &[&str], version: &str) -> String {
    rule(matches, &[], &[backend(&format!("infra-backend-{version}"), "")])
}

/// Served by this backend, with status 0.
fn is_served(gateway: &Gateway, ask: Ask, version: &str) -> Answer {
    let answer = gateway.check(ask, &From(&format!("infra-backend-{version}")));
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
    answer
}

/// Answered by the sidecar with this status.
fn is_refused(gateway: &Gateway, ask: Ask, status: u16) {
    let host = format!("same-namespace.{INFRA}.svc.clusterset.local");
    let ask = Ask { host: host.clone(), ..ask };
    let answer = gateway.bed.ask_in(&gateway.client, &host, Version::HTTP_2, &ask).expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.served_by(), answer.grpc_status()), (200, None, Some(status)), "{ask:?}: {answer:?}");
}

#[test]
fn grpc_exact_method_matching() {
    let method = |method: &str| format!("{{method: {{service: {SERVICE}, method: {method}}}}}");
    let gateway = start("exact-matching", &[to(&[&method("Echo")], "v1"), to(&[&method("EchoTwo")], "v2")]);
    is_served(&gateway, call("Echo"), "v1");
    is_served(&gateway, call("EchoTwo"), "v2");
    is_refused(&gateway, call("EchoThree"), UNIMPLEMENTED);
    is_refused(&gateway, call("echo"), UNIMPLEMENTED);
    is_refused(&gateway, Ask::grpc("", "/other.Service/Echo"), UNIMPLEMENTED);
}

#[test]
fn grpc_route_header_matching() {
    let of = |headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| format!("{{name: {name}, value: {value}}}"));
        format!("{{headers: [{}]}}", headers.collect::<Vec<_>>().join(", "))
    };
    let rules = [
        to(&[&of(&[("version", "one")])], "v1"),
        to(&[&of(&[("version", "two")])], "v2"),
        to(&[&of(&[("version", "two"), ("color", "orange")])], "v1"),
        to(&[&of(&[("color", "blue")]), &of(&[("color", "green")])], "v1"),
        to(&[&of(&[("color", "red")]), &of(&[("color", "yellow")])], "v2"),
    ];
    let gateway = start("header-matching", &rules);
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[("version", "one")], "v1"),
        (&[("version", "two")], "v2"),
        (&[("version", "two"), ("color", "orange")], "v1"),
        (&[("color", "blue")], "v1"),
        (&[("color", "green")], "v1"),
        (&[("color", "red")], "v2"),
        (&[("color", "yellow")], "v2"),
    ];
    let with = |headers: &[(&str, &str)]| headers.iter().fold(call("Echo"), |ask, (name, value)| ask.with(name, value));
    for (headers, version) in cases {
        is_served(&gateway, with(headers), version);
    }
    for headers in [&[][..], &[("color", "purple")], &[("color", "orange")], &[("some-other-header", "one")]] {
        is_refused(&gateway, with(headers), UNIMPLEMENTED);
    }
}

#[test]
fn grpc_route_weight() {
    let weighted = |version: &str, weight: u32| backend(&format!("infra-backend-{version}"), &format!("weight: {weight}"));
    let gateway = start("weighted-backends", &[rule(&[], &[], &[weighted("v1", 70), weighted("v2", 30), weighted("v3", 0)])]);
    let host = format!("same-namespace.{INFRA}.svc.clusterset.local");
    let ask = Ask { host: host.clone(), ..call("Echo") };
    let shares = gateway.bed.shares_of(&gateway.client, weights::REQUESTS, &host, Version::HTTP_2, &ask).expect("answers");
    weights::are(&shares, &[("infra-backend-v1", 70), ("infra-backend-v2", 30)]);
}

#[test]
fn grpc_route_request_header_modifier() {
    let filter = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-header-set, value: set-overwrites-values}], add: \
                  [{name: x-header-add, value: add-appends-values}], remove: [x-header-remove]}}";
    let gateway = start("request-header-modifier", &[rule(&[], &[filter], &[backend("infra-backend-v1", "")])]);
    let sent = ["x-header-set", "x-header-add", "x-header-remove"].iter().fold(call("Echo"), |ask, name| ask.with(name, "val"));
    let answer = is_served(&gateway, sent, "v1");
    for (name, value) in
        [("x-header-set", Some("set-overwrites-values")), ("x-header-add", Some("val,add-appends-values")), ("x-header-remove", None)]
    {
        assert_eq!(seen_header(&answer, name).as_deref(), value, "{name}");
    }
}

#[test]
fn grpc_route_named_rule() {
    let named = to(&[&format!("{{method: {{service: {SERVICE}, method: Echo}}}}")], "v1").replacen('{', "{name: named-rule, ", 1);
    let gateway = start("named-rules", &[named, to(&[&format!("{{method: {{service: {SERVICE}, method: EchoTwo}}}}")], "v2")]);
    is_served(&gateway, call("Echo"), "v1");
    is_served(&gateway, call("EchoTwo"), "v2");
    let metrics = gateway.bed.sidecar_admin(&gateway.client, "/metrics").expect("metrics");
    assert!(metrics.contains(&format!("route=\"{INFRA}/named-rules\",rule=\"named-rule\"")), "the name is told: {metrics}");
}

#[test]
fn a_grpc_backend_that_cannot_be_had_is_unavailable() {
    let gateway = start("invalid-backend", &[rule(&[], &[], &[backend("nonexistent", "")])]);
    is_refused(&gateway, call("Echo"), UNAVAILABLE);
}
