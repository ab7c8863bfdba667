//! A ClusterSet of a size: every object by its number.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// Namespaces that all of it is in.
const NAMESPACES: usize = 100;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) imports: usize,
    pub(crate) endpoints: usize,
    pub(crate) routes: usize,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mesh {
    size: Size,
}

/// An object and the plural of its kind.
pub(crate) type Object = (&'static str, Value);

const MCS: &str = "multicluster.x-k8s.io";

impl Mesh {
    pub(crate) fn new(size: Size) -> Self {
        Self { size }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Object> {
        let mesh = *self;
        let imports = (0..mesh.size.imports).flat_map(move |number| [mesh.import(number), mesh.service(number), mesh.slice(number, 0)]);
        imports.chain((0..mesh.size.routes).map(move |number| mesh.route(number, 0)))
    }

    pub(crate) fn namespace(number: usize) -> String {
        format!("ns-{}", number % NAMESPACES)
    }

    /// What all VIPs are in.
    pub(crate) const VIPS: &str = "10.96.0.0/12";

    pub(crate) fn vip(number: usize) -> Ipv4Addr {
        let [_, high, middle, low] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        Ipv4Addr::new(10, 96 + high % 16, middle, low)
    }

    fn metadata(number: usize, more: &Value) -> Value {
        let mut metadata = json!({
            "name": format!("service-{number}"), "namespace": Self::namespace(number), "uid": format!("uid-{number}"), "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            metadata[field] = value.clone();
        }
        metadata
    }

    fn import(self, number: usize) -> Object {
        let import = json!({
            "apiVersion": format!("{MCS}/v1beta1"), "kind": "ServiceImport", "metadata": Self::metadata(number, &json!({})),
            "spec": {"type": "ClusterSetIP", "ips": [Self::vip(number)], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        });
        ("serviceimports", import)
    }

    /// What an MCS controller derives.
    fn service(self, number: usize) -> Object {
        let owner = json!({"ownerReferences": [
            {"apiVersion": format!("{MCS}/v1beta1"), "kind": "ServiceImport", "name": format!("service-{number}"), "uid": format!("uid-{number}")},
        ], "name": format!("derived-{number}")});
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": Self::metadata(number, &owner),
            "spec": {"clusterIP": Self::vip(number), "clusterIPs": [Self::vip(number)], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        });
        ("services", service)
    }

    /// One for each import; `change` makes one of its endpoints another.
    pub(crate) fn slice(&self, number: usize, change: u32) -> Object {
        let labels = json!({"labels": {
            "multicluster.kubernetes.io/service-name": format!("service-{number}"),
            "multicluster.kubernetes.io/source-cluster": if number.is_multiple_of(2) { "east" } else { "west" },
        }});
        let count = self.size.endpoints / self.size.imports.max(1);
        let address = |index: usize| {
            let all = number * count + index;
            format!("172.{}.{}.{}", 16 + all / 65_536, all / 256 % 256, all % 256)
        };
        let mut endpoints: Vec<Value> =
            (0..count).map(|index| json!({"addresses": [address(index)], "conditions": {"ready": true}})).collect();
        if let Some(first) = endpoints.first_mut().filter(|_| change > 0) {
            first["addresses"] = json!([Self::changed(change)]);
        }
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": Self::metadata(number, &labels),
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        });
        ("endpointslices", slice)
    }

    /// The endpoint that a change brings.
    pub(crate) fn changed(change: u32) -> Ipv4Addr {
        let [.., middle, low] = change.to_be_bytes();
        Ipv4Addr::new(192, 168, middle, low)
    }

    /// The route on an import leads to the next import of the same namespace.
    pub(crate) fn backend_of(&self, route: usize) -> usize {
        (route + NAMESPACES) % self.size.imports
    }

    /// One for each of the first imports; `change` makes one of its headers another.
    pub(crate) fn route(&self, number: usize, change: usize) -> Object {
        let import = |number: usize| json!({"group": MCS, "kind": "ServiceImport", "name": format!("service-{number}"), "namespace": Self::namespace(number), "port": 80});
        let backend = self.backend_of(number);
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": Self::metadata(number, &json!({"generation": change + 1})),
            "spec": {"parentRefs": [import(number)], "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/cart"}}],
                "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-change", "value": change.to_string()}]}}],
                "backendRefs": [import(backend)],
            }]},
        });
        ("httproutes", route)
    }

    pub(crate) fn frontend(number: usize) -> String {
        format!("ServiceImport/{}/service-{number}/80", Self::namespace(number))
    }
}
