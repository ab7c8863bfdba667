//! `isthmus proxies`: every sidecar, and whether it holds the newest state.

use std::collections::{BTreeMap, BTreeSet};
use std::process::exit;

use anyhow::ensure;
use controller::kubernetes::MANAGER;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::{Deserialize, Serialize};

use crate::config::{Output, Proxies};
use crate::kubernetes;
use crate::table::table;

/// Where a controller tells who is connected.
const ADMIN_PORT: u16 = 15011;

/// A sidecar as a controller sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Connected {
    namespace: String,
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
    match config.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&proxies)?),
        Output::Text => print!("{}", text(&proxies)),
    }
    if !unasked.is_empty() || proxies.iter().any(|proxy| proxy.state != CURRENT) {
        exit(1);
    }
    Ok(())
}

const CURRENT: &str = "current";

/// All of them, and which replicas of the controller could not be asked.
async fn look(config: &Proxies) -> anyhow::Result<(Vec<Proxy>, Vec<String>)> {
    let client = kubernetes::client(config.context.as_ref()).await?;
    let (mut connected, unasked) = connected(&client, &config.controller_namespace).await?;
    let pods: Api<Pod> = match &config.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let injected = pods.list(&ListParams::default()).await?.items.into_iter().filter(has_running_sidecar);
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
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let replicas = pods.list(&ListParams::default().labels(&format!("app.kubernetes.io/name={MANAGER}"))).await?.items;
    let mut all = ByPod::new();
    let (mut asked, mut unasked) = (0, Vec::new());
    for name in replicas.iter().filter(|pod| is_running(pod)).map(Pod::name_any) {
        asked += 1;
        let list = kubernetes::get_json(&pods, &name, ADMIN_PORT, "/sidecars").await.and_then(|list| Ok(serde_json::from_value(list)?));
        let list: Vec<Connected> = match list {
            Ok(list) => list,
            Err(error) => {
                unasked.push(format!("{error:#}"));
                continue;
            }
        };
        for sidecar in list {
            let key = (sidecar.namespace.clone(), sidecar.pod.clone());
            // A sidecar that has just changed replicas may still be at both: the younger stream is the one that counts.
            let is_older = |(_, present): &(String, Connected)| present.connected_s <= sidecar.connected_s;
            if !all.get(&key).is_some_and(is_older) {
                all.insert(key, (name.clone(), sidecar));
            }
        }
    }
    ensure!(asked > 0, "no controller runs in namespace {namespace}: --controller-namespace");
    Ok((all, unasked))
}

fn is_running(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn has_running_sidecar(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    is_running(pod) && containers.into_iter().any(|container| container.name == kubernetes::SIDECAR)
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
