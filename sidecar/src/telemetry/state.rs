//! What is in force now, as gauges that are made when they are asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::snapshot::{LiveEndpoint, Snapshot};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EndpointLabels {
    backend: Arc<str>,
    cluster: Arc<str>,
    state: &'static str,
}

/// Gauges of a snapshot and of connections.
pub(crate) fn register(registry: &mut Registry, snapshot: &Snapshot, own_connections: usize, now_ms: u64) {
    register_endpoints(registry, count(snapshot, now_ms));
    let sizes = [
        ("frontends", "Frontends whose routes are held", snapshot.frontends.len()),
        ("vips", "Addresses that lead to frontends", snapshot.vips.len()),
        ("own_connections_open", "Connections to endpoints and original destinations that are open", own_connections),
    ];
    for (name, help, size) in sizes {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(size).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
}

/// One sample of what a snapshot may have none of.
pub(super) fn sample() -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix(super::PREFIX);
    register_endpoints(&mut registry, [(EndpointLabels { backend: "backend".into(), cluster: "cluster".into(), state: "available" }, 1)]);
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    Ok(text)
}

fn register_endpoints(registry: &mut Registry, counts: impl IntoIterator<Item = (EndpointLabels, i64)>) {
    let endpoints = Family::<EndpointLabels, Gauge>::default();
    for (labels, count) in counts {
        endpoints.get_or_create(&labels).set(count);
    }
    let help = "Endpoints of the backends that are in use, by the cluster that they are in and whether they are ejected";
    registry.register("endpoints", help, endpoints);
}

/// Endpoints of the backends that are in use, with the backend's name.
pub(super) fn endpoints(snapshot: &Snapshot) -> impl Iterator<Item = (&Arc<str>, &LiveEndpoint)> {
    let rules = snapshot.frontends.values().flat_map(|frontend| frontend.rules.iter().flatten());
    let backends: BTreeMap<&Arc<str>, _> =
        rules.flat_map(|rule| rule.backends.iter().flatten()).map(|backend| (&backend.name, backend)).collect();
    backends.into_iter().flat_map(|(name, backend)| backend.v4.iter().chain(&backend.v6).map(move |endpoint| (name, endpoint)))
}

fn count(snapshot: &Snapshot, now_ms: u64) -> Vec<(EndpointLabels, i64)> {
    let mut counts: BTreeMap<(&Arc<str>, &Arc<str>, &'static str), i64> = BTreeMap::new();
    for (name, endpoint) in endpoints(snapshot) {
        let state = if endpoint.state.is_ejected(now_ms) { "ejected" } else { "available" };
        *counts.entry((name, &endpoint.cluster, state)).or_default() += 1;
    }
    let labels = |(backend, cluster, state): (&Arc<str>, &Arc<str>, _)| EndpointLabels {
        backend: Arc::clone(backend),
        cluster: Arc::clone(cluster),
        state,
    };
    counts.into_iter().map(|(key, count)| (labels(key), count)).collect()
}
