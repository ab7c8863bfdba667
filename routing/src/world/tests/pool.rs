//! Objects of every kind in several forms, few names: whatever can bear on something else does so often.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::api::Object;
use crate::certificates;

/// An object's one form among several.
pub(super) fn object() -> impl Strategy<Value = Object> {
    let any = prop_oneof![
        4 => import(),
        3 => service(),
        2 => slice(),
        1 => grant(),
        8 => route(),
        2 => tls_policy(),
        2 => traffic_policy(),
        1 => config_map(),
    ];
    any.prop_map(|value| Object::decode(&value).expect("decodes").expect("a kind that is read"))
}

/// Of so many places each has something or nothing.
fn or_nothing(some: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    proptest::option::weighted(0.4, some).prop_map(|value| value.unwrap_or_default())
}

fn created() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![None, Some("2026-01-01T00:00:00Z"), Some("2026-01-02T00:00:00Z")])
}

fn ports() -> impl Strategy<Value = Value> {
    select(vec![
        json!([{"name": "a", "port": 80}, {"name": "b", "port": 8080}]),
        json!([{"name": "a", "port": 80}, {"name": "b", "port": 8080}]),
        json!([{"name": "a", "port": 80, "appProtocol": "kubernetes.io/wss"}, {"name": "b", "port": 8080}]),
        json!([{"port": 80}]),
        json!([{"port": 8080, "appProtocol": "kubernetes.io/ws"}]),
        json!([]),
    ])
}

fn affinity() -> impl Strategy<Value = Value> {
    or_nothing(Just(json!("ClientIP")))
}

fn import() -> impl Strategy<Value = Value> {
    let names = select(vec![("shop", "store"), ("shop", "cart"), ("bank", "pay")]);
    let ips =
        select(vec![json!(["10.201.0.1"]), json!(["10.201.0.1"]), json!(["10.201.0.1"]), json!(["10.201.0.2", "fd00::2"]), json!([])]);
    let kind = proptest::bool::weighted(0.9).prop_map(|has_ip| if has_ip { "ClusterSetIP" } else { "Headless" });
    let status = or_nothing(select(vec![json!("Present"), json!("Absent")]));
    (names, ips, kind, ports(), affinity(), created(), status).prop_map(
        |((namespace, name), ips, kind, ports, affinity, created, slices)| {
            json!({
                "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport",
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
                "spec": {"type": kind, "ips": ips, "ports": ports, "sessionAffinity": affinity}, "status": {"endpointSliceObjects": slices},
            })
        },
    )
}

fn service() -> impl Strategy<Value = Value> {
    let names = select(vec![("shop", "store"), ("shop", "cart"), ("shop", "derived"), ("shop", "derived"), ("bank", "pay")]);
    let owner = |name: &str| json!([{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport", "name": name}]);
    let owners = proptest::option::weighted(0.7, select(vec![owner("store"), owner("store"), owner("cart")]));
    let ip = select(vec!["10.201.0.1", "10.201.0.1", "10.201.0.1", "10.201.0.2", "10.101.0.1", "None"]);
    let kind = proptest::option::weighted(0.1, Just(json!("ExternalName")));
    (names, owners, ip, kind, ports(), affinity(), created()).prop_map(|((namespace, name), owners, ip, kind, ports, affinity, created)| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created, "ownerReferences": owners},
            "spec": {"type": kind, "clusterIP": ip, "ports": ports, "sessionAffinity": affinity},
        })
    })
}

fn slice() -> impl Strategy<Value = Value> {
    let label = |key: &'static str| (Just(key), or_nothing(select(vec![json!("store"), json!("cart")])));
    let labels = (label("kubernetes.io/service-name"), label("multicluster.kubernetes.io/service-name"));
    let address = select(vec!["10.2.0.1", "10.2.0.2"]);
    (select(vec!["one", "two"]), labels, address, select(vec![Value::Null, json!("a")])).prop_map(|(name, (local, multi), address, port)| {
        let labels: serde_json::Map<String, Value> =
            [local, multi].into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.to_owned(), value)).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "addressType": "IPv4", "ports": [{"name": port, "port": 3000}], "endpoints": [{"addresses": [address]}],
        })
    })
}

fn grant() -> impl Strategy<Value = Value> {
    let kind = select(vec!["HTTPRoute", "GRPCRoute", "TCPRoute"]);
    let to = select(vec![("multicluster.x-k8s.io", "ServiceImport"), ("", "Service")]);
    (select(vec!["one", "two"]), kind, select(vec!["shop", "buyers"]), to).prop_map(|(name, kind, from, (group, to))| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant", "metadata": {"name": name, "namespace": "bank"},
            "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": from}], "to": [{"group": group, "kind": to}]},
        })
    })
}

/// Something that a route, a policy or a filter can refer to.
fn reference() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart", "namespace": "shop"}),
        json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "store", "namespace": "shop", "port": 80}),
        json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "pay", "namespace": "bank"}),
        json!({"group": "", "kind": "Service", "name": "cart", "namespace": "shop", "port": 80}),
        json!({"group": "", "kind": "Service", "name": "pay", "namespace": "bank", "port": 8080}),
        json!({"group": "example.org", "kind": "Bucket", "name": "b"}),
    ])
}

fn parent() -> impl Strategy<Value = Value> {
    let object = select(vec![
        ("multicluster.x-k8s.io", "ServiceImport", "store"),
        ("multicluster.x-k8s.io", "ServiceImport", "store"),
        ("multicluster.x-k8s.io", "ServiceImport", "store"),
        ("multicluster.x-k8s.io", "ServiceImport", "cart"),
        ("", "Service", "store"),
        ("", "Service", "derived"),
        ("", "Service", "derived"),
    ]);
    (object, or_nothing(select(vec![json!(80), json!(8080)]))).prop_map(|((group, kind, name), port)| {
        let mut parent = json!({"group": group, "kind": kind, "name": name, "namespace": "shop"});
        if !port.is_null() {
            parent["port"] = port;
        }
        parent
    })
}

fn http_rule() -> impl Strategy<Value = Value> {
    let filter = or_nothing(reference().prop_flat_map(|reference| {
        let mirror = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": reference}}]);
        let auth = json!([{"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": reference, "http": {}}}]);
        select(vec![mirror, auth])
    }));
    let persistence = or_nothing(Just(json!({})));
    let matches = or_nothing(select(vec![json!([{"path": {"value": "/a"}}]), json!([{"path": {"type": "Glob"}}])]));
    (matches, filter, proptest::collection::vec(reference(), 0..3), persistence).prop_map(|(matches, filters, backends, persistence)| {
        json!({"matches": matches, "filters": filters, "backendRefs": backends, "sessionPersistence": persistence})
    })
}

fn route() -> impl Strategy<Value = Value> {
    let kind = select(vec!["HTTPRoute", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"]);
    let grpc_rule = (proptest::collection::vec(reference(), 0..3), or_nothing(Just(json!({}))))
        .prop_map(|(backends, persistence)| json!({"backendRefs": backends, "sessionPersistence": persistence}));
    let stream_rule = proptest::collection::vec(reference(), 0..3).prop_map(|backends| json!({"backendRefs": backends}));
    let rules = (proptest::collection::vec(http_rule(), 0..3), proptest::collection::vec(grpc_rule, 0..3), stream_rule);
    let parents = proptest::collection::vec(parent(), 1..3);
    let name = (select(vec!["shop", "shop", "buyers"]), select(vec!["one", "two"]));
    (kind, name, created(), parents, rules).prop_map(|(kind, (namespace, name), created, parents, (http, grpc, stream))| {
        let rules = match kind {
            "HTTPRoute" => json!(http),
            "GRPCRoute" => json!(grpc),
            _ => json!([stream]),
        };
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
            "spec": {"parentRefs": parents, "rules": rules, "hostnames": ["store.example"]},
        })
    })
}

fn targets() -> impl Strategy<Value = Vec<Value>> {
    let object = select(vec![
        ("multicluster.x-k8s.io", "ServiceImport", "cart"),
        ("multicluster.x-k8s.io", "ServiceImport", "store"),
        ("", "Service", "cart"),
        ("example.org", "Bucket", "b"),
    ]);
    let target = (object, or_nothing(select(vec![json!("a"), json!("b")]))).prop_map(|((group, kind, name), section)| {
        let mut target = json!({"group": group, "kind": kind, "name": name});
        if !section.is_null() {
            target["sectionName"] = section;
        }
        target
    });
    proptest::collection::vec(target, 0..3)
}

fn tls_policy() -> impl Strategy<Value = Value> {
    let authorities =
        |kind: &str, name: &str| json!({"hostname": "x.example", "caCertificateRefs": [{"group": "", "kind": kind, "name": name}]});
    let validation = select(vec![
        json!({"hostname": "x.example", "wellKnownCACertificates": "System"}),
        authorities("ConfigMap", "ca"),
        authorities("ConfigMap", "ca"),
        authorities("Secret", "ca"),
        json!({"hostname": "X"}),
    ]);
    (select(vec!["one", "two"]), created(), targets(), validation).prop_map(|(name, created, targets, validation)| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created}, "spec": {"targetRefs": targets, "validation": validation},
        })
    })
}

fn traffic_policy() -> impl Strategy<Value = Value> {
    let budget = or_nothing(select(vec![json!({"budget": {"percent": 50}}), json!({"budget": {"percent": 101}})]));
    let persistence = or_nothing(Just(json!({"sessionName": "s"})));
    (select(vec!["one", "two"]), created(), targets(), budget, persistence).prop_map(|(name, created, targets, budget, persistence)| {
        json!({
            "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackendTrafficPolicy",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
            "spec": {"targetRefs": targets, "retryConstraint": budget, "sessionPersistence": persistence},
        })
    })
}

fn config_map() -> impl Strategy<Value = Value> {
    let certificate = certificates::pem(certificates::ONE);
    let data = select(vec![json!({"ca.crt": certificate}), json!({"ca.crt": "no certificate"}), json!({"other": certificate})]);
    data.prop_map(|data| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "shop"}, "data": data}))
}
