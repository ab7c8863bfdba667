use serde_json::Value;

use super::*;
use crate::api::Object;
use crate::world::Settings;

fn object(text: &str) -> Object {
    let value: Value = serde_saphyr::from_str(text).expect("YAML");
    Object::decode(&value).expect("decodes").expect("a kind that is read")
}

fn import(name: &str) -> Object {
    object(&format!(
        "{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {{name: {name}, namespace: shop}}, spec: {{type: \
         ClusterSetIP, ips: [10.0.0.1], ports: [{{port: 80}}]}}}}"
    ))
}

fn slice(name: &str, cluster: &str, addresses: &str) -> Object {
    object(&format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {{name: {name}-{cluster}, namespace: shop, labels: \
         {{multicluster.kubernetes.io/service-name: {name}, multicluster.kubernetes.io/source-cluster: {cluster}}}}}, ports: [{{port: 8080}}], \
         endpoints: [{{addresses: [{addresses}]}}]}}"
    ))
}

fn route(namespace: &str, backends: &[(&str, u32)]) -> Object {
    let reference = |(name, weight): &(&str, u32)| {
        format!("{{group: multicluster.x-k8s.io, kind: ServiceImport, namespace: shop, name: {name}, weight: {weight}}}")
    };
    let backends = backends.iter().map(reference).collect::<Vec<_>>().join(", ");
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: split, namespace: {namespace}}}, spec: {{parentRefs: \
         [{{group: multicluster.x-k8s.io, kind: ServiceImport, namespace: shop, name: store}}], rules: [{{backendRefs: [{backends}]}}]}}}}"
    ))
}

fn graph(objects: Vec<Object>) -> Graph {
    let mut world = World::new(Settings::default());
    for object in objects {
        world.apply(object);
    }
    Graph::of(&world, None)
}

fn edges(graph: &Graph) -> Vec<String> {
    graph.edges.iter().map(|edge| format!("{} -> {} [{}] {:?} {}", edge.from, edge.to, edge.label, edge.health, edge.reason)).collect()
}

#[test]
fn requests_go_from_frontends_by_weight_to_clusters() {
    let slices = [slice("store", "east", "10.1.0.1"), slice("store", "west", "10.2.0.1"), slice("canary", "west", "10.2.0.2")];
    let objects = [import("store"), import("canary"), route("shop", &[("store", 3), ("canary", 1)])];
    let graph = graph(objects.into_iter().chain(slices).collect());
    assert_eq!(
        edges(&graph),
        [
            "Backend ServiceImport/shop/canary/80 -> Cluster west [1 endpoint] Well ",
            "Backend ServiceImport/shop/store/80 -> Cluster east [1 endpoint] Well ",
            "Backend ServiceImport/shop/store/80 -> Cluster west [1 endpoint] Well ",
            "Frontend ServiceImport/shop/store/80 -> Route HTTPRoute shop/split [] Well ",
            "Route HTTPRoute shop/split -> Backend ServiceImport/shop/canary/80 [rule 0: 25 %] Well ",
            "Route HTTPRoute shop/split -> Backend ServiceImport/shop/store/80 [rule 0: 75 %] Well ",
        ]
    );
    assert_eq!(NODES.map(|kind| graph.count(kind)), [(1, 0), (1, 0), (2, 0), (2, 0)]);
    let picture = svg(&graph);
    assert!(picture.contains("rule 0: 25 %") && picture.contains("2 clusters"), "{picture}");
    assert!(dot(&graph).contains("\"Route HTTPRoute shop/split\" -> \"Backend ServiceImport/shop/store/80\""));
}

const NODES: [NodeKind; 4] = [NodeKind::Frontend, NodeKind::Route, NodeKind::Backend, NodeKind::Cluster];

#[test]
fn what_is_broken_says_why_and_impairs_what_leads_there() {
    let unready = object(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {name: e, namespace: shop, labels: \
         {multicluster.kubernetes.io/service-name: empty}}, ports: [{port: 80}], endpoints: [{addresses: [10.3.0.1], conditions: {ready: false}}]}",
    );
    let objects = vec![
        import("store"),
        import("empty"),
        unready,
        slice("store", "east", "10.1.0.1"),
        route("shop", &[("store", 1), ("empty", 1), ("none", 1)]),
    ];
    let graph = graph(objects);
    let broken: Vec<(&str, &str)> =
        graph.edges.iter().filter(|edge| !edge.reason.is_empty()).map(|edge| (edge.to.as_str(), edge.reason)).collect();
    assert_eq!(
        broken,
        [
            ("Backend BackendNotFound: ServiceImport/shop/none does not exist", "invalid_backend"),
            ("Backend ServiceImport/shop/empty/80", "no_endpoint")
        ]
    );
    assert_eq!(NODES.map(|kind| graph.count(kind)), [(1, 1), (1, 1), (3, 2), (1, 0)]);
    assert_eq!(graph.nodes[0].health, Health::Impaired, "some requests arrive");
    assert!(svg(&graph).contains("no ready endpoint"));
}

#[test]
fn a_consumer_sees_its_own_routes() {
    let graph = graph(vec![import("store"), slice("store", "east", "10.1.0.1"), route("buyers", &[("store", 1)])]);
    let details: Vec<&str> = graph.nodes.iter().filter(|node| node.kind == NodeKind::Route).map(|node| node.detail.as_str()).collect();
    assert_eq!(details, ["for clients in buyers"], "{:?}", graph.nodes);
}

#[test]
fn nothing_is_a_picture_too() {
    assert!(svg(&Graph::default()).contains("No route is attached to anything"));
}

#[test]
fn a_rule_that_can_choose_nothing_is_broken() {
    let graph = graph(vec![import("store"), slice("store", "east", "10.1.0.1"), route("shop", &[("store", 0)])]);
    let reasons: Vec<&str> = graph.edges.iter().map(|edge| edge.reason).filter(|reason| !reason.is_empty()).collect();
    assert_eq!(reasons, ["no_backend"], "{graph:?}");
    assert_eq!(graph.nodes[0].health, Health::Broken);
}
