//! Sidecars as the controller sees them: a delta-xDS stream each, with everything acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use prost::Message as _;
use proto::type_url;
use proto::xds::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::xds::{DeltaDiscoveryRequest, Node};
use routing::model::{BackendTarget, Frontend};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::objects::Mesh;

/// Type and name of a resource.
type Name = (&'static str, String);

/// What was changed when, and how long it took to arrive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<Mutex<Times>>, Arc<Notify>);

#[derive(Debug, Default)]
struct Times {
    changed: BTreeMap<Name, Instant>,
    /// Names, by sidecars that follow them.
    followers: BTreeMap<Name, usize>,
    /// How often a change has still to arrive.
    missing: BTreeMap<Name, usize>,
    arrivals_ms: Vec<f64>,
    bytes: u64,
    /// Responses, whatever was in them.
    responses: u64,
}

/// Of a time of changes.
#[derive(Debug)]
pub(crate) struct Said {
    arrivals_ms: Vec<f64>,
    bytes: u64,
    responses: u64,
}

impl Said {
    pub(crate) fn text(&self) -> String {
        let mut sorted = self.arrivals_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted.get(sorted.len() * part / 100).or(sorted.last()).copied().unwrap_or_default();
        let (arrivals, bytes, responses) = (sorted.len(), self.bytes, self.responses);
        let each = bytes / responses.max(1);
        format!("{arrivals} arrivals in {responses} responses of {each} bytes, p50 {:.1} ms p99 {:.1} ms", at(50), at(99))
    }
}

impl Clock {
    pub(crate) fn begin(&self) {
        let times = &mut *self.0.lock();
        times.changed.clear();
        times.missing.clear();
        times.arrivals_ms.clear();
        (times.bytes, times.responses) = (0, 0);
    }

    pub(crate) fn end(&self) -> Said {
        let times = &mut *self.0.lock();
        Said { arrivals_ms: std::mem::take(&mut times.arrivals_ms), bytes: times.bytes, responses: times.responses }
    }

    /// A name is about to change.
    pub(crate) fn changes(&self, name: Name) {
        let times = &mut *self.0.lock();
        let followers = times.followers.get(&name).copied().unwrap_or_default();
        times.missing.insert(name.clone(), followers);
        times.changed.insert(name, Instant::now());
    }

    fn arrived(&self, name: &Name) {
        let times = &mut *self.0.lock();
        let Some(changed) = times.changed.get(name) else { return };
        times.arrivals_ms.push(changed.elapsed().as_secs_f64() * 1e3);
        if let Some(missing) = times.missing.get_mut(name) {
            *missing = missing.saturating_sub(1);
        }
        self.1.notify_one();
    }

    /// Until everything has arrived.
    pub(crate) async fn quiet(&self, within: Duration) -> anyhow::Result<()> {
        let is_missing = || self.0.lock().missing.values().any(|missing| *missing > 0);
        let arrived = async {
            while is_missing() {
                self.1.notified().await
            }
        };
        tokio::time::timeout(within, arrived).await.context("some changes have not arrived")
    }
}

/// See the module.
pub(crate) struct Sidecars {
    controller: SocketAddr,
    clock: Clock,
    count: usize,
    dialled: usize,
    used: usize,
    running: JoinSet<anyhow::Result<()>>,
}

impl Sidecars {
    /// Each dials so many of the first `used` frontends.
    pub(crate) fn new(controller: SocketAddr, clock: Clock, count: usize, dialled: usize, used: usize) -> Self {
        Self { controller, clock, count, dialled: dialled.min(used), used, running: JoinSet::new() }
    }

    /// Connects all at once; returns when each has what it dials.
    pub(crate) async fn connect(&mut self) -> anyhow::Result<()> {
        let (current, mut all_current) = watch::channel(0_usize);
        let current = Arc::new(current);
        for number in 0..self.count {
            let spread = (self.used / self.dialled).max(1);
            let names: BTreeSet<String> = (0..self.dialled).map(|index| Mesh::frontend((number + index * spread) % self.used)).collect();
            let one = Sidecar { controller: self.controller, number, names, clock: self.clock.clone(), current: Arc::clone(&current) };
            self.running.spawn(one.run());
        }
        let arrived = all_current.wait_for(|count| *count == self.count);
        tokio::select! {
            arrived = tokio::time::timeout(super::SOON, arrived) => drop(arrived.context("not all sidecars are current in time")??),
            Some(ended) = self.running.join_next() => ended?.context("a sidecar ended")?,
        }
        Ok(())
    }

    /// All connections end at once.
    pub(crate) async fn disconnect(&mut self) {
        self.running.shutdown().await;
        self.clock.0.lock().followers.clear();
    }
}

struct Sidecar {
    controller: SocketAddr,
    number: usize,
    names: BTreeSet<String>,
    clock: Clock,
    current: Arc<watch::Sender<usize>>,
}

fn ask(kind: &str, names: impl IntoIterator<Item = String>) -> DeltaDiscoveryRequest {
    let names = names.into_iter().collect();
    DeltaDiscoveryRequest { type_url: kind.to_owned(), resource_names_subscribe: names, ..Default::default() }
}

impl Sidecar {
    async fn run(self) -> anyhow::Result<()> {
        let mut client =
            AggregatedDiscoveryServiceClient::connect(format!("http://{}", self.controller)).await?.max_decoding_message_size(usize::MAX);
        let (requests, receiver) = mpsc::channel(64);
        let node =
            Node { id: format!("{}/pod-{}", Mesh::namespace(self.number), self.number), cluster: "east".to_owned(), ..Default::default() };
        requests.send(DeltaDiscoveryRequest { node: Some(node), ..ask(type_url::VIP, []) }).await?;
        requests.send(ask(type_url::FRONTEND, self.names.iter().cloned())).await?;
        let mut responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
        let (mut frontends, mut wanted, mut backends) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut has_vips, mut is_current) = (false, false);
        while let Some(response) = responses.message().await? {
            {
                let times = &mut *self.clock.0.lock();
                times.bytes += response.encoded_len() as u64;
                times.responses += 1;
            }
            has_vips |= response.type_url == type_url::VIP;
            for resource in &response.resources {
                match response.type_url.as_str() {
                    type_url::FRONTEND => {
                        let more: BTreeSet<String> = backends_of(resource)?.difference(&wanted).cloned().collect();
                        frontends.insert(resource.name.clone());
                        if !more.is_empty() {
                            wanted.extend(more.iter().cloned());
                            requests.send(ask(type_url::BACKEND, more)).await?;
                        }
                    }
                    type_url::BACKEND => drop(backends.insert(resource.name.clone())),
                    _ => {}
                }
            }
            let acknowledgement = DeltaDiscoveryRequest { response_nonce: response.nonce, ..ask(&response.type_url, []) };
            requests.send(acknowledgement).await?;
            for resource in &response.resources {
                let kind = if response.type_url == type_url::BACKEND { type_url::BACKEND } else { type_url::FRONTEND };
                self.clock.arrived(&(kind, resource.name.clone()));
            }
            if !is_current && has_vips && frontends.len() == self.names.len() && backends == wanted {
                is_current = true;
                let times = &mut *self.clock.0.lock();
                let followed =
                    frontends.iter().map(|name| (type_url::FRONTEND, name)).chain(backends.iter().map(|name| (type_url::BACKEND, name)));
                for (kind, name) in followed {
                    *times.followers.entry((kind, name.clone())).or_default() += 1;
                }
                self.current.send_modify(|count| *count += 1);
            }
        }
        anyhow::bail!("the stream ended")
    }
}

fn backends_of(resource: &proto::xds::Resource) -> anyhow::Result<BTreeSet<String>> {
    let any = resource.resource.as_ref().context("content")?;
    let wire = proto::resources::Frontend::decode(any.value.as_slice())?;
    let frontend: Frontend = wire.try_into().map_err(|error| anyhow::anyhow!("{error}"))?;
    let rules = frontend.routes.iter().flat_map(|route| &route.rules);
    let targets = rules.flat_map(|rule| &rule.backends).filter_map(|backend| match &backend.target {
        BackendTarget::Backend(id) => Some(id.to_string()),
        BackendTarget::Invalid(_) => None,
    });
    Ok(targets.collect())
}
