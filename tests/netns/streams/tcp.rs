//! TCPRoute (L-2, L-3; GEP-2644): a backend for each connection, by weight; every byte as it was sent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};

use lab::lab::Options;
use tests::{Bed, yaml};

use super::{RESET, accepted, condition, created, greeted, inside, route, said, taker, taker_of};
use crate::bytes::{PATIENCE, dial};

const FRONT: &str = "front.default.svc.clusterset.local:42";
/// Connections that shares are counted over: six points are then more than four standard deviations of a share of 70 %.
const CONNECTIONS: usize = 1000;
const TOLERANCE: usize = CONNECTIONS * 6 / 100;

/// Pods that speak first on 4242, and their Service on port 42 for TCP and for UDP.
fn raw(name: &str, replicas: usize) -> String {
    let ports = "[{name: tcp-raw, containerPort: 4242}, {name: udp-raw, containerPort: 4242, protocol: UDP}]";
    let service = "[{name: tcp-raw, port: 42, targetPort: 4242}, {name: udp-raw, port: 42, targetPort: 4242, protocol: UDP}]";
    let all =
        [yaml::deployment(name, "default", replicas, ports), yaml::service(name, "default", service, ""), yaml::export(name, "default")];
    yaml::all(&all)
}

/// `front`, `blue` and `green` in both clusters; blue and green have other pods in each.
fn bed(more: Vec<(&str, String)>) -> Bed {
    let mut files = vec![
        ("west/client.yaml", yaml::client("default")),
        ("west/raw.yaml", yaml::all(&[raw("front", 1), raw("blue", 1), raw("green", 1), raw("empty", 0)])),
        ("east/raw.yaml", yaml::all(&[raw("blue", 1), raw("green", 1)])),
    ];
    files.extend(more);
    Bed::start(&files, Options::default()).expect("a lab")
}

fn to(name: &str, weight: u32) -> String {
    yaml::import(name, &format!("port: 42, weight: {weight}"))
}

fn front_route(backends: &[String]) -> String {
    route("TCPRoute", "front", "", &yaml::import("front", ""), backends)
}

/// How many of so many new connections each Deployment takes.
fn takers(bed: &Bed, to: &str, times: usize) -> BTreeMap<String, usize> {
    let address = bed.address(&bed.client().expect("a client"), to).expect("an address");
    inside(bed, move || {
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            *counts.entry(taker(address)?).or_default() += 1;
        }
        Ok(counts)
    })
}

/// Connections that Deployments of a name took, wherever.
fn of(counts: &BTreeMap<String, usize>, name: &str) -> usize {
    counts.iter().filter(|(who, _)| who.rsplit('/').next() == Some(name)).map(|(_, count)| count).sum()
}

#[test]
fn weights_are_kept_per_connection_whatever_kind_the_parent_is() {
    let service = |name: &str, weight: u32| format!("{{name: {name}, port: 42, weight: {weight}}}");
    let parent = "{group: \"\", kind: Service, name: front, sectionName: tcp-raw}";
    let local = route("TCPRoute", "local", "", parent, &[service("blue", 70), service("green", 30)]);
    let bed = bed(vec![("west/route.yaml", yaml::all(&[front_route(&[to("blue", 70), to("green", 30)]), local]))]);
    for name in ["front", "local"] {
        assert_eq!(accepted(&bed, "TCPRoute", name), said("True", "Accepted"));
        let (status, reason, _) = condition(&bed, ("TCPRoute", name), "ResolvedRefs");
        assert_eq!((status.as_str(), reason.as_str()), ("True", "ResolvedRefs"));
    }
    for (front, clusters) in [(FRONT, &["east", "west"][..]), ("front.default.svc.cluster.local:42", &["west"])] {
        let counts = takers(&bed, front, CONNECTIONS);
        for (name, per_cent) in [("blue", 70), ("green", 30)] {
            assert!(of(&counts, name).abs_diff(CONNECTIONS * per_cent / 100) <= TOLERANCE, "{front}: {counts:?}");
        }
        let expected: Vec<String> = clusters.iter().flat_map(|cluster| ["blue", "green"].map(|name| format!("{cluster}/{name}"))).collect();
        assert_eq!(counts.keys().cloned().collect::<Vec<_>>(), expected, "and nobody else, nowhere else");
    }
}

#[test]
fn the_share_of_a_backend_that_cannot_be_had_is_reset() {
    let parts = [to("blue", 1), to("missing", 1), to("empty", 1), to("missing", 0)];
    let mut bed = bed(vec![("west/route.yaml", front_route(&parts))]);
    let counts = takers(&bed, FRONT, 300);
    assert!(of(&counts, RESET).abs_diff(200) <= 50, "two of three (L-3): {counts:?}");
    assert_eq!(of(&counts, RESET) + of(&counts, "blue"), 300, "{counts:?}");
    let (status, reason, message) = condition(&bed, ("TCPRoute", "front"), "ResolvedRefs");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "BackendNotFound"), "{message}");
    for backends in [vec![to("missing", 1)], vec![to("empty", 1)], vec![to("blue", 0)]] {
        bed.apply("west/route.yaml", &front_route(&backends)).expect("in force");
        assert_eq!(takers(&bed, FRONT, 5), BTreeMap::from([(RESET.to_owned(), 5)]), "{backends:?}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_connected_to_is_passed_over() {
    let mut bed = bed(vec![("west/route.yaml", front_route(&[to("blue", 1)]))]);
    let [west, east] = ["west", "east"].map(|cluster| bed.pod(&format!("{cluster}/default/blue-0")).expect("a pod"));
    bed.stop_server(&west).expect("stopped");
    assert_eq!(takers(&bed, FRONT, 20), BTreeMap::from([("east/blue".to_owned(), 20)]));
    bed.stop_server(&east).expect("stopped");
    assert_eq!(taker_of(&bed, FRONT), RESET);
}

#[test]
fn the_server_may_speak_first_and_either_side_may_end_first() {
    let bed = bed(vec![("west/route.yaml", front_route(&[to("blue", 1)]))]);
    let client = bed.client().expect("a client");
    for vip in bed.resolve(&client, FRONT.trim_end_matches(":42")).expect("VIPs") {
        let payload: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let sent = payload.clone();
        let received = inside(&bed, move || {
            let (mut stream, _) = greeted(SocketAddr::new(vip, 42))?;
            let mut writer = stream.get_ref().try_clone()?;
            let sender = std::thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.shutdown(Shutdown::Write)));
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            sender.join().expect("the sender")?;
            Ok(received)
        });
        assert_eq!(&received[..payload.len()], &payload[..], "byte-exact, {vip}");
        assert_eq!(&received[payload.len()..], b"bye 1000000\n", "answered after the client's end, {vip}");
    }
}

#[test]
fn of_two_routes_the_oldest_is_obeyed_and_both_are_accepted() {
    let named = |name: &str, day: u32, backend: &str| route("TCPRoute", name, &created(day), &yaml::import("front", ""), &[to(backend, 1)]);
    let mut bed = bed(vec![("west/a.yaml", named("a", 2, "green")), ("west/b.yaml", named("b", 1, "blue"))]);
    assert_eq!(of(&takers(&bed, FRONT, 20), "blue"), 20, "the older one (GEP-2644)");
    for name in ["a", "b"] {
        assert_eq!(accepted(&bed, "TCPRoute", name), said("True", "Accepted"));
    }
    bed.apply("west/b.yaml", &named("b", 2, "blue")).expect("in force");
    assert_eq!(of(&takers(&bed, FRONT, 20), "green"), 20, "the same second: by name");
    bed.delete("west/a.yaml").expect("in force");
    assert_eq!(of(&takers(&bed, FRONT, 20), "blue"), 20, "the winner is gone");
}

#[test]
fn udp_on_the_same_port_is_untouched() {
    let bed = bed(vec![("west/route.yaml", front_route(&[to("blue", 1)]))]);
    assert!(taker_of(&bed, FRONT).ends_with("/blue"));
    let address = bed.address(&bed.client().expect("a client"), FRONT).expect("a VIP");
    let answer = inside(&bed, move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"ping", address)?;
        let mut buffer = [0; 100];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    assert_eq!(answer, "west/default/front-0 ping");
}

#[test]
fn an_open_connection_outlives_every_change_of_its_route() {
    let mut bed = bed(vec![("west/route.yaml", front_route(&[to("blue", 1)]))]);
    let address = bed.address(&bed.client().expect("a client"), FRONT).expect("a VIP");
    let (mut old, first) = inside(&bed, move || greeted(address));
    assert!(first.ends_with("/blue"), "{first}");
    let mut echoes = |when: &str| {
        old.get_mut().write_all(b"ping").expect(when);
        let mut echoed = [0; 4];
        old.read_exact(&mut echoed).expect(when);
        assert_eq!(&echoed, b"ping", "{when}");
    };
    echoes("at first");
    bed.apply("west/route.yaml", &front_route(&[to("green", 1)])).expect("in force");
    echoes("the route leads elsewhere");
    assert!(taker_of(&bed, FRONT).ends_with("/green"), "a new one obeys");
    bed.apply("west/route.yaml", &front_route(&[to("missing", 1)])).expect("in force");
    echoes("the route leads nowhere");
    assert_eq!(taker_of(&bed, FRONT), RESET);
    bed.delete("west/route.yaml").expect("in force");
    echoes("the route is gone");
    assert_eq!(taker_of(&bed, FRONT), "west/front", "as without a mesh");
}

#[test]
fn a_backend_in_a_foreign_namespace_needs_a_grant_for_this_kind_of_route() {
    let foreign = front_route(&[yaml::import("blue", "port: 42, namespace: bar")]);
    let grant = |kind: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {{name: bar, namespace: bar}}, spec: {{from: \
             [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: default}}], to: [{{group: multicluster.x-k8s.io, kind: \
             ServiceImport}}]}}}}"
        )
    };
    let in_bar = raw("blue", 1).replace("namespace: default", "namespace: bar");
    let mut bed = bed(vec![("west/route.yaml", foreign), ("east/bar.yaml", in_bar), ("west/grant.yaml", grant("HTTPRoute"))]);
    assert_eq!(taker_of(&bed, FRONT), RESET);
    assert_eq!(condition(&bed, ("TCPRoute", "front"), "ResolvedRefs").1, "RefNotPermitted");
    bed.apply("west/grant.yaml", &grant("TCPRoute")).expect("in force");
    assert_eq!(taker_of(&bed, FRONT), "east/blue", "granted (D-4)");
    assert_eq!(condition(&bed, ("TCPRoute", "front"), "ResolvedRefs").1, "ResolvedRefs");
    bed.delete("west/grant.yaml").expect("in force");
    assert_eq!(taker_of(&bed, FRONT), RESET, "revoked at once");
}

#[test]
fn an_open_connection_is_waited_for_when_the_sidecar_is_told_to_end() {
    let bed = bed(vec![("west/route.yaml", front_route(&[to("blue", 1)]))]);
    let client = bed.client().expect("a client");
    let address = bed.address(&client, FRONT).expect("a VIP");
    let (mut open, _) = inside(&bed, move || greeted(address));
    bed.signal_sidecar(&client, nix::sys::signal::Signal::SIGTERM).expect("told");
    let end = std::time::Instant::now() + PATIENCE;
    while !bed.logs(&client).expect("logs").contains("drains") {
        assert!(std::time::Instant::now() < end, "it was told to end");
    }
    // Longer than it looks for connections, shorter than its grace period of a second.
    for _ in 0..20 {
        open.get_mut().write_all(b"ping").expect("still there");
        open.read_exact(&mut [0; 4]).expect("still there");
        assert!(bed.sidecar_admin(&client, "/livez").is_ok());
    }
}

#[test]
fn a_reset_of_either_side_reaches_the_other() {
    let bed = bed(vec![("west/route.yaml", front_route(&[yaml::import("own", "port: 42")])), ("east/own.yaml", own())]);
    let pod = bed.pod("east/default/own-0").expect("a pod");
    let listener = bed.namespace(&pod).expect("its namespace").run(|| Ok(std::net::TcpListener::bind("[::]:4242")?)).expect("a listener");
    let address = bed.address(&bed.client().expect("a client"), FRONT).expect("a VIP");
    for is_client_first in [true, false] {
        let mut client = inside(&bed, move || dial(address));
        let (mut server, _) = listener.accept().expect("a connection");
        server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // A reset before a byte has passed could be taken for a failed attempt to connect, and another endpoint would be tried.
        client.write_all(b"x").expect("sent");
        server.read_exact(&mut [0]).expect("it has passed");
        let (ended, mut other) = if is_client_first { (client, server) } else { (server, client) };
        socket2::SockRef::from(&ended).set_linger(Some(std::time::Duration::ZERO)).expect("set");
        drop(ended);
        let error = other.read(&mut [0]).expect_err("no clean end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "client first: {is_client_first}");
    }
}

/// A pod in which a test's own server listens on 4242.
fn own() -> String {
    let service = yaml::service("own", "default", "[{port: 42, targetPort: 4242}]", "");
    yaml::all(&[yaml::deployment("own", "default", 1, "[]"), service, yaml::export("own", "default")])
}
