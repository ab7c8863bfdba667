//! The client's pod: where it is, and what its sidecar holds.

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Pod as KubernetesPod};
use kube::{Api, Client};
use proto::resources as wire;
use routing::explain::Explanation;
use routing::locality::Location;
use routing::world::World;
use serde::Serialize;
use serde_json::Value;

use crate::kubernetes;
use crate::paint::Tone;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A client's pod.
pub(super) struct Pod {
    pods: Api<KubernetesPod>,
    name: String,
    node: String,
    zone: String,
}

/// What a sidecar holds of what is dialled.
#[derive(Debug, Serialize)]
pub(super) struct Held {
    pod: String,
    /// The version of its routes; none: it holds none.
    held: Option<String>,
    /// The version that these objects make; none: no routes.
    wanted: Option<String>,
    /// Whether they are the same.
    pub(super) is_live: bool,
    /// Endpoints of its backends that are left out for a while, because they failed.
    ejected: Vec<String>,
}

impl Pod {
    /// Looks for a pod and for where it is.
    pub(super) async fn find(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Self> {
        let pods: Api<KubernetesPod> = Api::namespaced(client.clone(), namespace);
        let pod = pods.get(name).await.with_context(|| format!("--from {namespace}/{name}"))?;
        let spec = pod.spec.unwrap_or_default();
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        if !containers.into_iter().any(|container| container.name == kubernetes::SIDECAR) {
            bail!("--from {namespace}/{name}: the pod has no sidecar: no route is in force for it");
        }
        let node = spec.node_name.unwrap_or_default();
        let labels = Api::<Node>::all(client.clone()).get_opt(&node).await.ok().flatten().and_then(|node| node.metadata.labels);
        // Who may not read nodes gets an answer without zones.
        let zone = labels.and_then(|labels| labels.get(ZONE_LABEL).cloned()).unwrap_or_default();
        Ok(Self { pods, name: name.to_owned(), node, zone })
    }

    /// Tells where the client is, as far as the command line does not.
    pub(super) fn place(&self, location: &mut Location) {
        let known = [(&mut location.node, &self.node), (&mut location.zone, &self.zone)];
        for (place, known) in known.into_iter().filter(|(place, _)| place.is_empty()) {
            place.clone_from(known);
        }
    }

    /// Asks its sidecar, by a port forward.
    pub(super) async fn held(&self, world: &World, explanation: &Explanation, namespace: &str) -> anyhow::Result<Held> {
        let name = format!("{namespace}/{}", self.name);
        let config =
            kubernetes::get_json(&self.pods, &self.name, kubernetes::SIDECAR_ADMIN_PORT, "/config").await.context("its sidecar")?;
        let frontends = config["frontends"].as_array().map(Vec::as_slice).unwrap_or_default();
        let frontend = frontends.iter().find(|frontend| frontend["name"] == explanation.frontend.as_str());
        let held = frontend.and_then(|frontend| Some(frontend["version"].as_str()?.to_owned()));
        let ids = world.services().flat_map(|service| world.frontends(service));
        let id = ids.into_iter().find(|id| id.to_string() == explanation.frontend);
        let wanted = id.and_then(|id| world.frontend(&id, namespace)).map(|frontend| proto::version(&wire::Frontend::from(&frontend)));
        let mut ejected = Vec::new();
        collect_ejected(frontend.unwrap_or(&Value::Null), &mut ejected);
        ejected.sort();
        ejected.dedup();
        Ok(Held { pod: name, is_live: held == wanted, held, wanted, ejected })
    }
}

/// Addresses of endpoints that are ejected, wherever they stand.
fn collect_ejected(value: &Value, ejected: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if fields.get("ejected") == Some(&Value::Bool(true))
                && let Some(address) = fields.get("address").and_then(Value::as_str)
            {
                ejected.push(address.to_owned());
            }
            fields.values().for_each(|value| collect_ejected(value, ejected));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_ejected(value, ejected)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Held {
    /// For people.
    pub(super) fn text(&self) -> String {
        let pod = &self.pod;
        let state = match (&self.held, &self.wanted) {
            (Some(held), Some(_)) if self.is_live => format!("holds these routes (version {held})"),
            (None, None) => "holds no routes of it either".to_owned(),
            (None, Some(wanted)) => format!("does NOT hold these routes (version {wanted}): not yet, or nobody has dialled it from there"),
            (Some(held), None) => format!("still holds routes (version {held})"),
            (Some(held), Some(wanted)) => format!("holds OTHER routes: version {held}, these objects make {wanted}"),
        };
        let ejected = match self.ejected.is_empty() {
            true => String::new(),
            false => format!("          {}: {}\n", Tone::Doubtful.paint("ejected for now"), self.ejected.join(", ")),
        };
        let tone = if self.is_live { Tone::Good } else { Tone::Bad };
        format!("sidecar   {pod} {}\n{ejected}", tone.paint(&state))
    }
}
