//! `isthmus proxies`: every sidecar, and whether it holds the newest state.

use std::collections::{BTreeMap, BTreeSet};
use std::process::exit;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::{Deserialize, Serialize};

use crate::config::Proxies;
use crate::kubernetes;
use crate::table::table;

/// A sidecar as a controller sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Connected {
    // Said once, by who contains it.
    #[serde(skip_serializing)]
    namespace: String,
    #[serde(skip_serializing)]
    pod: String,
    cluster: String,
    node: String,
    /// Empty: of an older sidecar or controller.
    #[serde(default)]
    version: String,
    connected_s: u64,
    is_current: bool,
    progress: Progress,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Progress {
    resources: BTreeMap<String, usize>,
    rejected: BTreeMap<String, String>,
}

/// A sidecar.
#[derive(Debug, Serialize)]
struct Proxy {
    namespace: String,
    pod: String,
    /// The replica that serves it; none: nobody does.
    controller: Option<String>,
    #[serde(flatten)]
    connected: Option<Connected>,
    state: String,
}

/// Lists them, and ends the program with 1 if one of them does not hold the newest state.
pub(crate) fn run(config: &Proxies) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (proxies, unasked) = runtime.block_on(look(config))?;
    unasked.iter().for_each(|why| eprintln!("{why}; its sidecars may be missing here"));
    config.output.say(&proxies, || text(&proxies))?;
    if !unasked.is_empty() || proxies.iter().any(|proxy| proxy.state != CURRENT) {
        exit(1);
    }
    Ok(())
}

const CURRENT: &str = "current";

/// All of them, and which replicas of the controller could not be asked.
async fn look(config: &Proxies) -> anyhow::Result<(Vec<Proxy>, Vec<String>)> {
    let client = kubernetes::client(config.mesh.context.as_ref()).await?;
    let (mut connected, unasked) = connected(&client, &config.mesh.controller_namespace).await?;
    let pods: Api<Pod> = match &config.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let injected = pods.list(&ListParams::default()).await?.items.into_iter().filter(kubernetes::has_running_sidecar);
    let mut names: BTreeSet<(String, String)> = injected.map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any())).collect();
    // One whose pod is gone a moment later is still connected.
    let is_asked = |namespace: &str| config.namespace.as_ref().is_none_or(|asked| asked == namespace);
    names.extend(connected.keys().filter(|(namespace, _)| is_asked(namespace)).cloned());
    let one = |(namespace, pod): (String, String)| {
        let (controller, connected) = connected.remove(&(namespace.clone(), pod.clone())).unzip();
        let state = connected.as_ref().map_or_else(|| "not connected".to_owned(), state);
        Proxy { namespace, pod, controller, connected, state }
    };
    Ok((names.into_iter().map(one).collect(), unasked))
}

/// Replica and what it says, by namespace and pod.
type ByPod = BTreeMap<(String, String), (String, Connected)>;

/// By namespace and pod, what the replicas of the controller say.
async fn connected(client: &Client, namespace: &str) -> anyhow::Result<(ByPod, Vec<String>)> {
    let (answers, unasked) = kubernetes::ask_controllers::<Vec<Connected>>(client, namespace, "/sidecars").await?;
    let mut all = ByPod::new();
    for (name, list) in answers {
        for sidecar in list {
            let key = (sidecar.namespace.clone(), sidecar.pod.clone());
            // A sidecar that has just changed replicas may still be at both: the younger stream is the one that counts.
            let is_older = |(_, present): &(String, Connected)| present.connected_s <= sidecar.connected_s;
            if !all.get(&key).is_some_and(is_older) {
                all.insert(key, (name.clone(), sidecar));
            }
        }
    }
    Ok((all, unasked))
}

fn state(sidecar: &Connected) -> String {
    let rejected: Vec<String> = sidecar.progress.rejected.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
    match (rejected.is_empty(), sidecar.is_current) {
        (false, _) => format!("rejects {}", rejected.join("; ")),
        (true, true) => CURRENT.to_owned(),
        (true, false) => "behind".to_owned(),
    }
}

fn text(proxies: &[Proxy]) -> String {
    let row = |proxy: &Proxy| {
        let of = |field: fn(&Connected) -> String| proxy.connected.as_ref().map(field).unwrap_or_default();
        let count = |sidecar: &Connected, kind: &str| sidecar.progress.resources.get(kind).copied().unwrap_or_default();
        let holds =
            proxy.connected.as_ref().map(|sidecar| ["vip", "frontend", "backend"].map(|kind| count(sidecar, kind).to_string()).join("/"));
        vec![
            proxy.namespace.clone(),
            proxy.pod.clone(),
            of(|sidecar| sidecar.node.clone()),
            of(|sidecar| sidecar.version.clone()),
            of(|sidecar| format!("{} s", sidecar.connected_s)),
            holds.unwrap_or_default(),
            proxy.controller.clone().unwrap_or_default(),
            proxy.state.clone(),
        ]
    };
    let head = ["NAMESPACE", "POD", "NODE", "VERSION", "CONNECTED", "VIPS/FRONTENDS/BACKENDS", "CONTROLLER", "STATE"];
    table(&head, &proxies.iter().map(row).collect::<Vec<_>>())
}
