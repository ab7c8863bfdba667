//! Which pods there are, and what each of them is like: what a kubelet and the controllers of Deployments make of the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::manifests::{
    ContainerPort, DELAY_ANNOTATION, Deployment, INJECT_LABEL, Manifests, Metadata, NODE_ANNOTATION, Pod, Served, TLS_NAMES_ANNOTATION,
    ZONE_ANNOTATION,
};
use crate::roles::PodName;

/// What a pod is like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodPlan {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What runs in it.
    pub servers: Servers,
    /// Where it is.
    pub place: Place,
    /// Whether it has a sidecar.
    pub is_injected: bool,
}

/// The servers of a pod.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Servers {
    /// What they listen on.
    pub ports: Vec<ContainerPort>,
    /// Each answer over HTTP comes so much later.
    pub delay: Duration,
    /// The names in the certificate.
    pub tls_names: Vec<String>,
}

impl Servers {
    /// The first port on which HTTP is served.
    #[must_use]
    pub fn http_port(&self) -> Option<u16> {
        self.ports.iter().find(|port| port.served() == Served::Http).map(|port| port.container_port)
    }
}

/// Where a pod is, as far as its manifest says so.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Place {
    /// Its node.
    pub node: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
}

/// Every pod that should be there. `restarts` counts how often a Deployment, `CLUSTER/NAMESPACE/NAME`, was restarted: its pods have new names
/// each time.
#[must_use]
pub fn pods(manifests: &Manifests, restarts: &BTreeMap<String, u32>) -> BTreeMap<PodName, PodPlan> {
    let mut pods = BTreeMap::new();
    for (cluster, content) in manifests {
        let mut add = |owner: &Metadata, name: String, pod: &Pod| {
            let name = PodName { cluster: cluster.clone(), namespace: owner.namespace.clone(), name };
            pods.insert(name, plan(owner, pod));
        };
        for pod in content.objects::<Pod>("Pod") {
            add(&pod.metadata, pod.metadata.name.clone(), &pod);
        }
        for deployment in content.objects::<Deployment>("Deployment") {
            let Metadata { name, namespace, .. } = &deployment.metadata;
            let generation = restarts.get(&format!("{cluster}/{namespace}/{name}")).map_or(String::new(), |count| format!("r{count}"));
            for index in 0..deployment.spec.replicas {
                add(&deployment.metadata, format!("{name}-{index}{generation}"), &deployment.spec.template);
            }
        }
    }
    pods
}

/// A certificate is for the Service and the import of the owner's name where the manifest does not say otherwise.
fn plan(owner: &Metadata, pod: &Pod) -> PodPlan {
    let ports: BTreeSet<ContainerPort> = pod.spec.containers.iter().flat_map(|container| container.ports.clone()).collect();
    let annotation = |name: &str| pod.metadata.annotations.get(name);
    let tls_names = match annotation(TLS_NAMES_ANNOTATION) {
        Some(names) => names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
        None => ["cluster", "clusterset"].map(|set| format!("{}.{}.svc.{set}.local", owner.name, owner.namespace)).to_vec(),
    };
    let delay_ms = annotation(DELAY_ANNOTATION).and_then(|value| value.parse().ok());
    PodPlan {
        labels: pod.metadata.labels.clone(),
        servers: Servers { ports: ports.into_iter().collect(), delay: delay_ms.map(Duration::from_millis).unwrap_or_default(), tls_names },
        place: Place { node: annotation(NODE_ANNOTATION).cloned(), zone: annotation(ZONE_ANNOTATION).cloned() },
        is_injected: pod.metadata.labels.get(INJECT_LABEL).is_some_and(|value| value == "enabled"),
    }
}
