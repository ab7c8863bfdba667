//! Backends that are there, that are not, and that are of an unusual kind.

use tests::yaml;
use tokio_tungstenite::tungstenite::Message;

use super::Expected::{From, Own};
use super::gateway::{Gateway, INFRA, backend, route};
use super::{get, prefix, rule, weights};
use crate::echo::frames;

const INVALID: super::Expected<'_> = Own(500, "invalid_backend");

#[test]
fn http_route_no_backend_refs() {
    let gateway = Gateway::with("no-backend-refs", &[rule(&[&prefix("/", "")], &[], &[])]);
    gateway.check(get("/"), &Own(500, "no_backend"));
}

#[test]
fn http_route_invalid_backend_refs() {
    // InvalidNonExistentBackendRef and InvalidBackendRefUnknownKind.
    let unknown = "{group: unknownkind.example.com, kind: NonExistent, name: nonexistent, port: 8080}".to_owned();
    for (name, invalid, reason) in [
        ("invalid-nonexistent-backend-ref", backend("nonexistent", ""), "BackendNotFound"),
        ("invalid-backend-ref-unknown-kind", unknown, "InvalidKind"),
    ] {
        let valid = rule(&[&prefix("/valid", "")], &[], &[backend("infra-backend-v1", "")]);
        let gateway = Gateway::start(route(name, &[rule(&[], &[], &[invalid]), valid]));
        assert_eq!(gateway.status(name, "Accepted"), ("True".to_owned(), "Accepted".to_owned()), "{name}");
        assert_eq!(gateway.status(name, "ResolvedRefs"), ("False".to_owned(), reason.to_owned()), "{name}");
        gateway.check(get("/"), &INVALID);
        gateway.check(get("/valid"), &From("infra-backend-v1"));
    }
}

#[test]
fn http_route_weight() {
    let weighted = |version: &str, weight: u32| backend(&format!("infra-backend-{version}"), &format!("weight: {weight}"));
    let gateway = Gateway::with("weighted-backends", &[rule(&[], &[], &[weighted("v1", 70), weighted("v2", 30), weighted("v3", 0)])]);
    weights::are(&gateway.shares(weights::REQUESTS, "/"), &[("infra-backend-v1", 70), ("infra-backend-v2", 30)]);
}

/// Slices of a Service or an import that nobody but the test writes.
fn slice(name: &str, labels: &str, address: &std::net::IpAddr) -> String {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {name}-{}, namespace: {INFRA}, labels: {{{labels}}}}}, \
         addressType: {family}, ports: [{{name: first-port, protocol: TCP, port: 3000}}], endpoints: [{{addresses: [\"{address}\"], \
         conditions: {{ready: true}}}}]}}",
        family.to_lowercase()
    )
}

#[test]
fn http_route_service_types() {
    let ports = "[{name: first-port, port: 8080, targetPort: 3000}]";
    let chosen = |name: &str, more: &str| {
        yaml::service(name, INFRA, ports, more).replace(&format!("selector: {{app: {name}}}"), "selector: {app: infra-backend-v1}")
    };
    let manual = |name: &str, more: &str| chosen(name, more).replace("selector: {app: infra-backend-v1}, ", "");
    let import = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {{name: {name}, namespace: {INFRA}}}, spec: \
             {{{spec}, ports: [{{name: first-port, port: 8080}}]}}}}"
        )
    };
    let service = |name: &str| format!("{{name: {name}, port: 8080}}");
    let backends = [
        ("/manual-endpointslices", service("manual")),
        ("/headless", service("headless")),
        ("/headless-manual-endpointslices", service("headless-manual")),
        ("/import-manual-endpointslices", backend("import-manual", "")),
        ("/import-headless", backend("headless", "")),
        ("/import-headless-manual-endpointslices", backend("import-headless-manual", "")),
    ];
    let rules = backends.map(|(path, backend)| rule(&[&prefix(path, "")], &[], &[backend]));
    let objects = [
        manual("manual", ""),
        chosen("headless", "clusterIP: None"),
        yaml::export("headless", INFRA),
        manual("headless-manual", "clusterIP: None"),
        import("import-manual", "type: ClusterSetIP, ips: [10.201.200.1]"),
        import("import-headless-manual", "type: Headless"),
        route("service-types", &rules),
    ];
    let mut gateway = Gateway::start(yaml::all(&objects));
    gateway.check(get("/manual-endpointslices"), &Own(503, "no_endpoint"));
    let pod = gateway.bed.pod(&format!("west/{INFRA}/infra-backend-v1-0")).expect("a pod");
    let mut slices = Vec::new();
    for address in &gateway.bed.addresses(&pod).expect("addresses") {
        for name in ["manual", "headless-manual"] {
            slices.push(slice(name, &format!("kubernetes.io/service-name: {name}"), address));
        }
        for name in ["import-manual", "import-headless-manual"] {
            let labels = format!("multicluster.kubernetes.io/service-name: {name}, multicluster.kubernetes.io/source-cluster: west");
            slices.push(slice(name, &labels, address));
        }
    }
    gateway.bed.apply("west/slices.yaml", &yaml::all(&slices)).expect("in force");
    assert_eq!(gateway.status("service-types", "ResolvedRefs"), ("True".to_owned(), "ResolvedRefs".to_owned()));
    for path in ["/manual-endpointslices", "/headless", "/headless-manual-endpointslices"] {
        gateway.check(get(path), &From("infra-backend-v1"));
        gateway.check(get(&path.replacen('/', "/import-", 1)), &From("infra-backend-v1"));
    }
}

/// A route to one backend whose port speaks this.
fn speaking(name: &str, app_protocol: &str) -> Gateway {
    let ports = format!("[{{port: 8080, targetPort: 3000, appProtocol: {app_protocol}}}]");
    let speaking = yaml::all(&[
        yaml::deployment(name, INFRA, 1, "[{containerPort: 3000}]"),
        yaml::service(name, INFRA, &ports, ""),
        yaml::export(name, INFRA),
    ]);
    let rules = [rule(&[&prefix("/", "")], &[], &[backend(name, "")])];
    Gateway::start(yaml::all(&[speaking, route("backend-protocol", &rules)]))
}

#[test]
fn http_route_backend_protocol_h2c() {
    let gateway = speaking("h2c", "kubernetes.io/h2c");
    let answer = gateway.check(get("/backend?x=1"), &From("h2c"));
    assert_eq!(answer.seen()["protocol"], "HTTP/2.0");
}

#[test]
fn http_route_backend_protocol_web_socket() {
    let gateway = speaking("ws", "kubernetes.io/ws");
    let sent = [Message::text("some text"), Message::binary(vec![1; 100_000])];
    assert_eq!(frames(&gateway.bed, &format!("same-namespace.{INFRA}.svc.clusterset.local"), &sent), sent);
}
