//! What a cluster's own controllers do, as functions of the manifests: endpoints of the pods, what is imported, where VIPs lead, what names
//! mean.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use init::services::{Protocol, Service as Vip};
use serde_json::{Value, json};

use crate::manifests::{
    CLUSTERSET_IP_ANNOTATION, Cluster, ManifestFile, Manifests, Metadata, SLICES_ANNOTATION, Service, ServiceExport, ServicePort,
};
use crate::net::Addresses;
use crate::plan::{Place, PodPlan};

/// A pod by name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PodName {
    /// Its cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.namespace, self.name)
    }
}

/// What has been drawn: addresses of pods, of Services and of imports.
pub trait Allocation {
    /// A pod's addresses.
    fn pod(&self, pod: &PodName) -> Option<Addresses>;
    /// A Service's ClusterIPs.
    fn cluster_ips(&mut self, cluster: &str, namespace: &str, name: &str) -> Addresses;
    /// A ServiceImport's ClusterSetIPs in a cluster.
    fn cluster_set_ips(&mut self, cluster: &str, namespace: &str, name: &str) -> Addresses;
}

/// What follows from the manifests for one cluster.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// Files for the controller, by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Where VIPs lead.
    pub vips: Vec<Vip>,
    /// Name and address; a name without its namespace is added for pods of that namespace.
    pub names: Vec<(String, IpAddr)>,
}

/// Everything that follows, by cluster.
pub fn derive(manifests: &Manifests, pods: &BTreeMap<PodName, PodPlan>, allocation: &mut impl Allocation) -> BTreeMap<String, Derived> {
    let mut all: BTreeMap<String, Derived> = BTreeMap::new();
    let mut exported: BTreeMap<(String, String), Vec<Exported>> = BTreeMap::new();
    for (cluster, content) in manifests {
        let derived = all.entry(cluster.clone()).or_default();
        let mut local = Vec::new();
        let mut cluster_ips = BTreeMap::new();
        for service in content.objects::<Service>("Service") {
            let Metadata { name, namespace, .. } = &service.metadata;
            let ips = service_ips(&service, cluster, allocation);
            cluster_ips.insert((namespace.clone(), name.clone()), ips.clone());
            let endpoints = endpoints(&service, cluster, pods, &*allocation);
            let labels = json!({"kubernetes.io/service-name": name});
            // The slices of a Service without a selector are somebody else's.
            if !service.spec.selector.is_empty() {
                local.extend(slices(name, namespace, &labels, &service, &endpoints));
            }
            derived.vips.extend(vips(&ips, &service.spec.ports, &endpoints));
            for ip in &ips {
                derived.names.extend(["svc.cluster.local", "svc", ""].map(|suffix| (dotted(&[name, namespace, suffix]), *ip)));
            }
            let exports = content.objects::<ServiceExport>("ServiceExport");
            if let Some(export) =
                exports.into_iter().find(|export| (&export.metadata.name, &export.metadata.namespace) == (name, namespace))
            {
                let key = (namespace.clone(), name.clone());
                exported.entry(key).or_default().push(Exported { cluster: cluster.clone(), service, endpoints, export });
            }
        }
        derived.files = handed_on(content, &cluster_ips);
        derived.files.insert("lab-endpoints.yaml".to_owned(), documents(&local));
    }
    for cluster in manifests.keys() {
        let Some(derived) = all.get_mut(cluster) else { continue };
        let mut imported = Vec::new();
        for ((namespace, name), sources) in &exported {
            imported.extend(import(cluster, namespace, name, sources, derived, allocation));
        }
        derived.files.insert("lab-imports.yaml".to_owned(), documents(&imported));
    }
    all
}

/// A Service that a cluster exports.
struct Exported {
    cluster: String,
    service: Service,
    endpoints: Vec<Endpoint>,
    export: ServiceExport,
}

/// A pod behind a Service, with the pod's port of each Service port.
struct Endpoint {
    addresses: Addresses,
    pod: String,
    place: Place,
    ports: Vec<Option<u16>>,
}

fn service_ips(service: &Service, cluster: &str, allocation: &mut impl Allocation) -> Vec<IpAddr> {
    let spec = &service.spec;
    match spec.cluster_ip.as_deref() {
        Some("None") => Vec::new(),
        Some(fixed) if !fixed.is_empty() => fixed.parse().into_iter().collect(),
        _ => {
            let drawn = allocation.cluster_ips(cluster, &service.metadata.namespace, &service.metadata.name);
            of_families(drawn, &spec.ip_families)
        }
    }
}

fn of_families(addresses: Addresses, families: &[String]) -> Vec<IpAddr> {
    let is_wanted = |ip: &IpAddr| families.is_empty() || families.iter().any(|family| (family == "IPv4") == ip.is_ipv4());
    addresses.both().into_iter().filter(is_wanted).collect()
}

fn endpoints(service: &Service, cluster: &str, pods: &BTreeMap<PodName, PodPlan>, allocation: &impl Allocation) -> Vec<Endpoint> {
    let selector = &service.spec.selector;
    let is_chosen = |name: &PodName, plan: &PodPlan| {
        name.cluster == cluster
            && name.namespace == service.metadata.namespace
            && !selector.is_empty()
            && selector.iter().all(|(key, value)| plan.labels.get(key) == Some(value))
    };
    let chosen = pods.iter().filter(|(name, plan)| is_chosen(name, plan));
    let endpoints = chosen.filter_map(|(name, plan)| {
        let ports = service.spec.ports.iter().map(|port| target_port(port, plan)).collect();
        Some(Endpoint { addresses: allocation.pod(name)?, pod: name.name.clone(), place: plan.place.clone(), ports })
    });
    endpoints.collect()
}

fn target_port(port: &ServicePort, pod: &PodPlan) -> Option<u16> {
    match &port.target_port {
        None => Some(port.port),
        Some(Value::String(name)) => {
            let named = pod.servers.ports.iter().find(|candidate| candidate.name == *name && candidate.protocol == port.protocol);
            named.map(|named| named.container_port)
        }
        Some(number) => number.as_u64().and_then(|number| number.try_into().ok()),
    }
}

/// What the endpoint controller writes: a slice a family.
fn slices(name: &str, namespace: &str, labels: &Value, service: &Service, endpoints: &[Endpoint]) -> Vec<Value> {
    let first = endpoints.first();
    let numbers = service.spec.ports.iter().enumerate();
    let ports: Vec<Value> = numbers
        .filter_map(|(index, port)| {
            let number = first.map_or(Some(port.port), |endpoint| endpoint.ports.get(index).copied().flatten())?;
            Some(json!({"name": port.name, "protocol": port.protocol, "port": number, "appProtocol": port.app_protocol}))
        })
        .collect();
    let slice = |family: &str, pick: fn(Addresses) -> IpAddr| {
        let list = endpoints.iter().map(|endpoint| {
            json!({
                "addresses": [pick(endpoint.addresses)],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": endpoint.pod, "namespace": namespace},
                "nodeName": endpoint.place.node, "zone": endpoint.place.zone,
            })
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": format!("{name}-{}", family.to_lowercase()), "namespace": namespace, "labels": labels},
            "ports": ports, "endpoints": list.collect::<Vec<_>>(),
        })
    };
    vec![slice("IPv4", |addresses| addresses.v4.into()), slice("IPv6", |addresses| addresses.v6.into())]
}

/// What the MCS controller writes into one cluster: a ServiceImport, and slices labelled with their source cluster.
fn import(
    cluster: &str,
    namespace: &str,
    name: &str,
    sources: &[Exported],
    derived: &mut Derived,
    allocation: &mut impl Allocation,
) -> Vec<Value> {
    let Some(first) = sources.first() else { return Vec::new() };
    let spec = &first.service.spec;
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let fixed = first.export.metadata.annotations.get(CLUSTERSET_IP_ANNOTATION);
    let ips: Vec<IpAddr> = match fixed {
        _ if is_headless => Vec::new(),
        Some(fixed) => fixed.split(',').filter_map(|ip| ip.trim().parse().ok()).collect(),
        None => of_families(allocation.cluster_set_ips(cluster, namespace, name), &spec.ip_families),
    };
    let ports = spec.ports.iter();
    let ports =
        ports.map(|port| json!({"name": port.name, "protocol": port.protocol, "port": port.port, "appProtocol": port.app_protocol}));
    let is_absent = |source: &Exported| source.export.metadata.annotations.get(SLICES_ANNOTATION).is_some_and(|value| value == "absent");
    let has_slices = !sources.iter().any(is_absent);
    let mut documents = vec![json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "type": if is_headless { "Headless" } else { "ClusterSetIP" },
            "ips": ips, "ports": ports.collect::<Vec<_>>(), "sessionAffinity": spec.session_affinity,
            "sessionAffinityConfig": spec.session_affinity_config, "internalTrafficPolicy": spec.internal_traffic_policy,
            "trafficDistribution": spec.traffic_distribution,
        },
        "status": {
            "clusters": sources.iter().map(|source| json!({"cluster": source.cluster})).collect::<Vec<_>>(),
            "endpointSliceObjects": if has_slices { Value::Null } else { json!("Absent") },
        },
    })];
    let mut everywhere = Vec::new();
    for source in sources {
        let labels = json!({
            "multicluster.kubernetes.io/service-name": name, "multicluster.kubernetes.io/source-cluster": source.cluster,
        });
        let slice_name = format!("import-{name}-{}", source.cluster);
        if has_slices {
            documents.extend(slices(&slice_name, namespace, &labels, &source.service, &source.endpoints));
        }
        everywhere.extend(&source.endpoints);
    }
    derived.vips.extend(vips(&ips, &spec.ports, everywhere));
    derived.names.extend(ips.iter().map(|ip| (dotted(&[name, namespace, "svc.clusterset.local"]), *ip)));
    documents
}

/// What kube-proxy and an MCS implementation do for VIPs.
fn vips<'e>(ips: &[IpAddr], ports: &[ServicePort], endpoints: impl IntoIterator<Item = &'e Endpoint>) -> Vec<Vip> {
    let endpoints: Vec<&Endpoint> = endpoints.into_iter().collect();
    let mut vips = Vec::new();
    for ip in ips {
        for (index, port) in ports.iter().enumerate() {
            let reached = endpoints.iter().filter_map(|endpoint| {
                let address: IpAddr = if ip.is_ipv4() { endpoint.addresses.v4.into() } else { endpoint.addresses.v6.into() };
                Some(SocketAddr::new(address, endpoint.ports.get(index).copied().flatten()?))
            });
            let protocol = if port.protocol == "UDP" { Protocol::Udp } else { Protocol::Tcp };
            vips.push(Vip { address: SocketAddr::new(*ip, port.port), protocol, endpoints: reached.collect() });
        }
    }
    vips
}

/// The user's files, with the ClusterIPs that the API server would have filled in.
fn handed_on(content: &Cluster, ips: &BTreeMap<(String, String), Vec<IpAddr>>) -> BTreeMap<String, Vec<u8>> {
    let files = content.files.iter().map(|(name, file)| {
        let bytes = match file {
            ManifestFile::Unreadable(bytes) => bytes.clone(),
            ManifestFile::Documents(list) => {
                let filled: Vec<Value> = list.iter().map(|document| filled_in(document, ips)).collect();
                documents(&filled)
            }
        };
        (name.clone(), bytes)
    });
    files.collect()
}

fn filled_in(document: &Value, ips: &BTreeMap<(String, String), Vec<IpAddr>>) -> Value {
    let mut document = document.clone();
    if document.get("kind").and_then(Value::as_str) != Some("Service") {
        return document;
    }
    let text = |field: &str| document.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
    let key = (text("namespace").unwrap_or("default").to_owned(), text("name").unwrap_or_default().to_owned());
    if let (Some(ips), Some(spec)) = (ips.get(&key), document.get_mut("spec").and_then(Value::as_object_mut))
        && let Some(first) = ips.first()
    {
        spec.insert("clusterIP".to_owned(), json!(first));
        spec.insert("clusterIPs".to_owned(), json!(ips));
    }
    document
}

/// JSON is YAML.
fn documents(list: &[Value]) -> Vec<u8> {
    let mut text = String::new();
    for document in list {
        // Writing into a String cannot fail.
        let _ = write!(text, "---\n{document:#}\n");
    }
    text.into_bytes()
}

fn dotted(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(".")
}

/// `/etc/hosts` of the pods of one namespace.
#[must_use]
pub fn hosts(derived: &Derived, namespace: &str) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (name, ip) in &derived.names {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{ip} {name}");
        if let Some((short, rest)) = name.split_once('.')
            && rest == namespace
        {
            let _ = writeln!(text, "{ip} {short}");
        }
    }
    text
}
