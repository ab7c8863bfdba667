//! GRPCRoute in a mesh.

use http::Version;
use lab::client::Ask;
use tests::yaml;

use super::Expected::From;
use super::headers::Case;
use super::{MESH, Parent, Replay, rule, seen_header, weights};

/// The method that upstream's client calls.
const ECHO: &str = "/proto.EchoTestService/Echo";

fn call() -> Ask {
    Ask::grpc("", ECHO)
}

/// A route on port 7070 of `echo`.
fn route(parent: Parent, name: &str, rules: &[String]) -> String {
    let parents = [parent.reference("echo", "port: 7070")];
    yaml::route(&parent.name(name), &format!("namespace: {MESH}"), &parents, rules).replace("kind: HTTPRoute", "kind: GRPCRoute")
}

#[test]
fn mesh_grpc_route_weight() {
    let replay = Replay::start_unresolved(|parent| {
        let shares = [("echo-v1", 70), ("echo-v2", 30), ("echo-v3", 0)];
        let backends = shares.map(|(name, weight)| parent.backend(name, &format!("port: 7070, weight: {weight}")));
        route(parent, "mesh-grpc-weighted-backends", &[rule(&[], &[], &backends)])
    });
    for refs in replay.resolved_refs() {
        assert_eq!(
            refs,
            ("False".to_owned(), "BackendNotFound".to_owned()),
            "echo-v3 does not exist; without weight it does no harm (H-21)"
        );
    }
    for parent in Parent::BOTH {
        let to = format!("{}:7070", parent.host("echo"));
        let shares = replay.bed.shares_of(&replay.client, weights::REQUESTS, &to, Version::HTTP_2, &Ask::grpc(&to, ECHO)).expect("answers");
        weights::are(&shares, &[("echo-v1", 70), ("echo-v2", 30)]);
    }
}

#[test]
fn mesh_grpc_route_request_header_modifier() {
    let cases = [
        ("set", "set: [{name: x-header-set, value: set-overwrites-values}]", "echo-v1"),
        ("add", "add: [{name: x-header-add, value: add-appends-values}]", "echo-v1"),
        ("remove", "remove: [x-header-remove]", "echo-v1"),
        (
            "multi",
            "set: [{name: x-header-set-1, value: header-set-1}, {name: x-header-set-2, value: header-set-2}], add: [{name: x-header-add-1, \
             value: header-add-1}, {name: x-header-add-2, value: header-add-2}], remove: [x-header-remove-1, x-header-remove-2]",
            "echo-v2",
        ),
    ];
    let replay = Replay::start(|parent| {
        let rules = cases.map(|(case, changes, backend)| {
            let matched = format!("{{headers: [{{name: x-test-case, value: {case}}}]}}");
            let filter = format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{{changes}}}}}");
            rule(&[&matched], &[&filter], &[parent.backend(backend, "port: 7070")])
        });
        route(parent, "grpc-request-header-modifier", &rules)
    });
    let requests: [Case; 4] = [
        ("set", &[("x-header-set", "some-value")], &[("x-header-set", "set-overwrites-values")]),
        ("add", &[("x-header-add", "some-value")], &[("x-header-add", "some-value,add-appends-values")]),
        ("remove", &[("x-header-remove", "val")], &[("x-header-remove", "")]),
        (
            "multi",
            &[("x-header-set-2", "val"), ("x-header-add-2", "val"), ("x-header-remove-1", "val"), ("another-header", "val")],
            &[
                ("x-header-set-1", "header-set-1"),
                ("x-header-set-2", "header-set-2"),
                ("x-header-add-1", "header-add-1"),
                ("x-header-add-2", "val,header-add-2"),
                ("x-header-remove-1", ""),
                ("another-header", "val"),
            ],
        ),
    ];
    for parent in Parent::BOTH {
        for ((case, sent, expected), (_, _, backend)) in requests.into_iter().zip(cases) {
            let ask = sent.iter().fold(call().with("x-test-case", case), |ask, (name, value)| ask.with(name, value));
            let answer = replay.check(parent, "echo:7070", ask, &From(backend));
            assert_eq!((answer.grpc_status(), answer.seen()["protocol"].as_str()), (Some(0), Some("HTTP/2.0")), "{parent:?} {case}");
            for (name, value) in expected {
                assert_eq!(seen_header(&answer, name).unwrap_or_default(), *value, "{parent:?} {case} {name}");
            }
        }
        for ask in [call(), call().with("x-test-case", "other")] {
            let to = format!("{}:7070", parent.host("echo"));
            let ask = Ask { host: to.clone(), ..ask };
            let answer = replay.bed.ask_in(&replay.client, &to, Version::HTTP_2, &ask).expect("an answer");
            assert_eq!((answer.served_by(), answer.grpc_status()), (None, Some(12)), "UNIMPLEMENTED (G-3): {parent:?} {answer:?}");
        }
    }
}
