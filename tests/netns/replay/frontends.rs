//! What was dialled: the frontend and not Host, one port or all of them, for whom.

use lab::client::Ask;
use tests::yaml;

use super::Expected::From;
use super::{CONSUMER, MESH, Parent, Replay, get, rule};

const SET: &str = "X-Header-Set";

fn setting(value: &str) -> String {
    format!("{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: {SET}, value: {value}}}]}}}}")
}

/// A route that marks what comes from one of the two.
fn marking(parent: Parent, route: &str, echo: &str, more: &str, value: &str) -> String {
    let rules = [rule(&[], &[&setting(value)], &[parent.backend(echo, "port: 80")])];
    parent.route(route, &parent.reference(echo, more), &rules)
}

#[test]
fn mesh_frontend() {
    let replay = Replay::start(|parent| marking(parent, "mesh-split-v1", "echo-v2", "", "set"));
    let pod = replay.bed.pod(&format!("west/{MESH}/echo-v2-0")).expect("a pod");
    for parent in Parent::BOTH {
        let answer = replay.check(parent, "echo-v2", get("/"), &From("echo-v2"));
        assert_eq!(answer.header(SET), Some("set"), "{parent:?}");
    }
    for address in replay.bed.addresses(&pod).expect("addresses") {
        let to = std::net::SocketAddr::new(address, 8080).to_string();
        let answer = replay.bed.get_from(&replay.client, &to, "/").expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.header(SET)), (200, None), "a pod's own address: {to}");
    }
}

#[test]
fn mesh_frontend_hostname() {
    let replay = Replay::start(|parent| marking(parent, "mesh-split-v1", "echo-v2", "", "set"));
    for parent in Parent::BOTH {
        for (dialled, said, header) in [("echo-v2", "echo-v1", Some("set")), ("echo-v1", "echo-v2", None)] {
            let ask = Ask { host: parent.host(said), ..get("/") };
            let answer = replay.check(parent, dialled, ask, &From(dialled));
            assert_eq!(answer.header(SET), header, "{parent:?} {dialled} as {said}");
        }
    }
}

#[test]
fn mesh_ports() {
    let replay = Replay::start(|parent| {
        let one = marking(parent, "mesh-split-v1", "echo-v1", "port: 80", "v1");
        yaml::all(&[one, marking(parent, "mesh-split-v2", "echo-v2", "", "v2")])
    });
    for parent in Parent::BOTH {
        for (to, header) in [("echo-v1", Some("v1")), ("echo-v1:8080", None), ("echo-v2", Some("v2")), ("echo-v2:8080", Some("v2"))] {
            let deployment = to.split(':').next().unwrap_or_default();
            let answer = replay.check(parent, to, get("/"), &From(deployment));
            assert_eq!(answer.header(SET), header, "{parent:?} {to}");
        }
    }
}

#[test]
fn mesh_consumer_route() {
    let replay = Replay::start(|parent| {
        let home = format!("namespace: {MESH}");
        let rules = [rule(&[], &[&setting("set")], &[parent.backend("echo-v1", &format!("{home}, port: 80"))])];
        let parents = [parent.reference("echo-v1", &home)];
        yaml::route(&parent.name("mesh-echo-add-header"), &format!("namespace: {CONSUMER}"), &parents, &rules)
    });
    let consumer = replay.bed.pod(&format!("west/{CONSUMER}/client")).expect("a pod");
    for parent in Parent::BOTH {
        let host = match parent {
            Parent::Service => format!("echo-v1.{MESH}"),
            Parent::ServiceImport => parent.host("echo-v1"),
        };
        for (client, header) in [(&consumer, Some("set")), (&replay.client, None)] {
            let answer = replay.bed.get_from(client, &host, "/").expect("an answer");
            let name = format!("west/{MESH}/echo-v1-0");
            assert_eq!((answer.served_by(), answer.header(SET)), (Some(name.as_str()), header), "{parent:?} from {client}");
        }
    }
}
