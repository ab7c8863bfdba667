//! Routes of several kinds on one port (M-21, D-26): one kind has it, the others are told so, and take over when it goes.

use http::Version;
use lab::client::Ask;
use lab::lab::Options;
use tests::{Bed, who, yaml};

use super::{accepted, condition, created, route, said};

const FRONT: &str = "front.default.svc.clusterset.local";

/// `front` with two ports, and a backend for each kind of route.
fn bed(more: Vec<(&str, String)>) -> Bed {
    let ports = "[{name: http, port: 80, targetPort: 8080}, {name: alt, port: 8081, targetPort: 8080}]";
    let front = yaml::all(&[
        yaml::deployment("front", "default", 1, "[{containerPort: 8080}]"),
        yaml::service("front", "default", ports, ""),
        yaml::export("front", "default"),
    ]);
    let mut files = vec![
        ("west/client.yaml", yaml::client("default")),
        ("west/front.yaml", front),
        ("west/backends.yaml", yaml::all(&["http", "grpc", "tcp", "tls"].map(|name| yaml::exported(name, "default", 1)))),
    ];
    files.extend(more);
    Bed::start(&files, Options::default()).expect("a lab")
}

/// A route of a kind to the backend of that kind.
fn of_kind(kind: &str, parent: &str, metadata: &str) -> String {
    let name = kind.strip_suffix("Route").unwrap_or(kind).to_lowercase();
    let route = route(kind, &name, metadata, &yaml::import("front", parent), &[yaml::import(&name, "port: 80")]);
    if kind == "TLSRoute" { route.replace("spec:\n", "spec:\n  hostnames: [a.example.com]\n") } else { route }
}

fn answered(bed: &Bed, port: u16) -> String {
    who(&bed.get(&format!("{FRONT}:{port}"), "/").expect("an answer"))
}

#[test]
fn a_tcp_route_waits_for_the_http_route_on_its_port_to_go() {
    // The loser is older and first by name; neither counts between kinds.
    let mut bed = bed(vec![("west/a.yaml", of_kind("TCPRoute", "", &created(1))), ("west/b.yaml", of_kind("HTTPRoute", "", &created(2)))]);
    assert_eq!(accepted(&bed, "TCPRoute", "tcp"), said("False", "Conflicted"));
    assert_eq!(accepted(&bed, "HTTPRoute", "http"), said("True", "Accepted"));
    assert_eq!((answered(&bed, 80), answered(&bed, 8081)), ("west/http".to_owned(), "west/http".to_owned()));

    bed.delete("west/b.yaml").expect("in force");
    assert_eq!(accepted(&bed, "TCPRoute", "tcp"), said("True", "Accepted"), "the loser becomes active (D-26)");
    assert_eq!(answered(&bed, 80), "west/tcp");

    bed.apply("west/b.yaml", &of_kind("HTTPRoute", "", "")).expect("in force");
    assert_eq!((accepted(&bed, "TCPRoute", "tcp"), answered(&bed, 80)), (said("False", "Conflicted"), "west/http".to_owned()), "and back");

    let invalid = of_kind("HTTPRoute", "", "").replace("- {", "- {matches: [{path: {type: Unknown, value: /}}], ");
    bed.apply("west/b.yaml", &invalid).expect("in force");
    assert_eq!(accepted(&bed, "HTTPRoute", "http"), said("False", "UnsupportedValue"));
    assert_eq!(
        (accepted(&bed, "TCPRoute", "tcp"), answered(&bed, 80)),
        (said("True", "Accepted"), "west/tcp".to_owned()),
        "rejected (D-26)"
    );
}

#[test]
fn a_conflict_on_one_of_two_ports_leaves_the_other() {
    let bed = bed(vec![("west/a.yaml", of_kind("TCPRoute", "", "")), ("west/b.yaml", of_kind("HTTPRoute", "port: 80", ""))]);
    let (status, reason, message) = condition(&bed, ("TCPRoute", "tcp"), "Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Accepted"), "{message}");
    assert!(message.contains("80") && message.contains("8081"), "which port is lost and which is held: {message}");
    assert_eq!((answered(&bed, 80), answered(&bed, 8081)), ("west/http".to_owned(), "west/tcp".to_owned()));
}

#[test]
fn a_grpc_route_has_the_port_before_an_older_http_route() {
    let mut bed =
        bed(vec![("west/a.yaml", of_kind("HTTPRoute", "", &created(1))), ("west/b.yaml", of_kind("GRPCRoute", "port: 80", &created(2)))]);
    let call = |bed: &Bed| {
        let client = bed.client().expect("a client");
        who(&bed.ask_in(&client, FRONT, Version::HTTP_2, &Ask::grpc(FRONT, "/echo.Echo/Say")).expect("an answer"))
    };
    assert_eq!(call(&bed), "west/grpc");
    assert_eq!(answered(&bed, 80), "404", "no gRPC, and the HTTPRoute is ignored here (G-6)");
    assert_eq!(answered(&bed, 8081), "west/http", "but not there");
    assert_eq!(accepted(&bed, "GRPCRoute", "grpc"), said("True", "Accepted"));
    let (status, _, message) = condition(&bed, ("HTTPRoute", "http"), "Accepted");
    assert_eq!(status, "True", "{message}");
    bed.apply("west/b.yaml", &of_kind("GRPCRoute", "", &created(2))).expect("in force");
    assert_eq!(accepted(&bed, "HTTPRoute", "http"), said("False", "Conflicted"));
    bed.delete("west/b.yaml").expect("in force");
    assert_eq!((call(&bed), answered(&bed, 80)), ("west/http".to_owned(), "west/http".to_owned()));
}

#[test]
fn a_tls_route_stands_between_http_and_tcp() {
    let mut bed = bed(vec![
        ("west/tcp.yaml", of_kind("TCPRoute", "", &created(1))),
        ("west/tls.yaml", of_kind("TLSRoute", "", &created(2))),
        ("west/http.yaml", of_kind("HTTPRoute", "", &created(3))),
    ]);
    let all = |bed: &Bed| [("HTTPRoute", "http"), ("TLSRoute", "tls"), ("TCPRoute", "tcp")].map(|(kind, name)| accepted(bed, kind, name));
    let (won, lost) = (said("True", "Accepted"), said("False", "Conflicted"));
    assert_eq!(all(&bed), [won.clone(), lost.clone(), lost.clone()]);
    assert_eq!(answered(&bed, 80), "west/http");
    bed.delete("west/http.yaml").expect("in force");
    assert_eq!([accepted(&bed, "TLSRoute", "tls"), accepted(&bed, "TCPRoute", "tcp")], [won.clone(), lost]);
    bed.get(FRONT, "/").expect_err("plain HTTP is not for a TLSRoute");
    bed.delete("west/tls.yaml").expect("in force");
    assert_eq!((accepted(&bed, "TCPRoute", "tcp"), answered(&bed, 80)), (won, "west/tcp".to_owned()));
}

#[test]
fn a_consumer_route_of_another_kind_hides_producer_routes_without_a_conflict() {
    let parent = "namespace: default";
    let consumer = of_kind("TCPRoute", parent, "namespace: other").replace("port: 80", "port: 80, namespace: default");
    let bed =
        bed(vec![("west/producer.yaml", of_kind("HTTPRoute", "", "")), ("west/other.yaml", yaml::all(&[yaml::client("other"), consumer]))]);
    let other = bed.pod("west/other/client").expect("a pod");
    assert_eq!(who(&bed.get_from(&other, FRONT, "/").expect("an answer")), "west/tcp", "its own (M-19)");
    let home = bed.pod("west/default/client").expect("a pod");
    assert_eq!(who(&bed.get_from(&home, FRONT, "/").expect("an answer")), "west/http");
    assert_eq!(accepted(&bed, "HTTPRoute", "http"), said("True", "Accepted"), "conflicts are judged inside a group only (D-5)");
}
