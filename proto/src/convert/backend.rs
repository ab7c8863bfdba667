//! Backends with their endpoints, grouped by source cluster on the wire.

use std::time::Duration;

use routing::model::{
    Addresses, AltName, AppProtocol, Backend, BackendTls, Distribution, Endpoint, MinRetryRate, RetryBudget, Roots, TrafficPolicy,
};
use wire::alt_name::Kind as AltKind;
use wire::backend_tls::Kind as TlsKind;

use super::rule::{persistence, persistence_to_wire};
use super::{
    ConvertError, Converted, backend_id, duration_ms, list, millis, required, service_port_to_wire, socket_address, socket_address_to_wire,
};
use crate::resources as wire;

impl TryFrom<wire::Backend> for Backend {
    type Error = ConvertError;

    fn try_from(backend: wire::Backend) -> Converted<Self> {
        let protocol = match wire::AppProtocol::try_from(backend.protocol) {
            Ok(wire::AppProtocol::Infer) => AppProtocol::Infer,
            Ok(wire::AppProtocol::Http1) => AppProtocol::Http1,
            Ok(wire::AppProtocol::Http2) => AppProtocol::Http2,
            Err(_) => return Err(ConvertError::new("protocol", format!("{} is no known protocol", backend.protocol))),
        };
        let distribution = match wire::Distribution::try_from(backend.distribution) {
            Ok(wire::Distribution::None) => None,
            Ok(wire::Distribution::SameZone) => Some(Distribution::SameZone),
            Ok(wire::Distribution::SameNode) => Some(Distribution::SameNode),
            Err(_) => return Err(ConvertError::new("distribution", format!("{} is no known distribution", backend.distribution))),
        };
        Ok(Self {
            id: backend_id(backend.id, "id")?,
            protocol,
            policy: TrafficPolicy { is_local: backend.is_local, distribution },
            tls: backend.tls.map(tls).transpose().map_err(|error| error.within("tls"))?,
            retry_budget: backend.retry_budget.map(retry_budget),
            persistence: backend.persistence.map(persistence).transpose().map_err(|error| error.within("persistence"))?,
            affinity: backend.affinity_s.map(|seconds| Duration::from_secs(seconds.into())),
            addresses: addresses(backend.clusters, backend.vips)?,
        })
    }
}

fn addresses(clusters: Vec<wire::ClusterEndpoints>, vips: Vec<wire::SocketAddress>) -> Converted<Addresses> {
    match (clusters.is_empty(), vips.is_empty()) {
        (_, true) => {
            let mut endpoints: Vec<Endpoint> = list(clusters, "clusters", cluster_endpoints)?.into_iter().flatten().collect();
            endpoints.sort();
            endpoints.dedup();
            Ok(Addresses::Endpoints(endpoints))
        }
        (true, false) => list(vips, "vips", socket_address).map(Addresses::Vips),
        (false, false) => Err(ConvertError::new("vips", "are given together with clusters; a backend has one or the other")),
    }
}

fn cluster_endpoints(group: wire::ClusterEndpoints) -> Converted<Vec<Endpoint>> {
    let cluster = group.cluster;
    list(group.endpoints, "endpoints", |endpoint| {
        let address = required(endpoint.address, "address")?;
        let address = socket_address(address).map_err(|error| error.within("address"))?;
        let wire::Endpoint { zone, node, for_zones, .. } = endpoint;
        Ok(Endpoint { cluster: cluster.clone(), address, zone, node, for_zones })
    })
}

impl From<&Backend> for wire::Backend {
    fn from(backend: &Backend) -> Self {
        let protocol = match backend.protocol {
            AppProtocol::Infer => wire::AppProtocol::Infer,
            AppProtocol::Http1 => wire::AppProtocol::Http1,
            AppProtocol::Http2 => wire::AppProtocol::Http2,
        };
        let distribution = match backend.policy.distribution {
            None => wire::Distribution::None,
            Some(Distribution::SameZone) => wire::Distribution::SameZone,
            Some(Distribution::SameNode) => wire::Distribution::SameNode,
        };
        let (clusters, vips) = match &backend.addresses {
            Addresses::Endpoints(endpoints) => (endpoints_to_wire(endpoints), Vec::new()),
            Addresses::Vips(vips) => (Vec::new(), vips.iter().copied().map(socket_address_to_wire).collect()),
        };
        Self {
            id: Some(service_port_to_wire(&backend.id.0)),
            protocol: protocol.into(),
            // Kubernetes allows at most a day, so nothing is ever cut off here.
            affinity_s: backend.affinity.map(|window| u32::try_from(window.as_secs()).unwrap_or(u32::MAX)),
            clusters,
            vips,
            is_local: backend.policy.is_local,
            distribution: distribution.into(),
            tls: backend.tls.as_ref().map(tls_to_wire),
            retry_budget: backend.retry_budget.map(retry_budget_to_wire),
            persistence: backend.persistence.as_ref().map(persistence_to_wire),
        }
    }
}

fn tls(tls: wire::BackendTls) -> Converted<BackendTls> {
    let verified = match required(tls.kind, "kind")? {
        TlsKind::Verified(verified) => verified,
        TlsKind::Broken(why) => return Ok(BackendTls::Broken(why)),
    };
    let alt_names = list(verified.alt_names, "alt_names", |name| {
        Ok(match required(name.kind, "kind")? {
            AltKind::Hostname(name) => AltName::Hostname(name),
            AltKind::Uri(uri) => AltName::Uri(uri),
        })
    })?;
    Ok(BackendTls::Verified { hostname: verified.hostname, alt_names, roots: verified.roots_pem.map_or(Roots::System, Roots::Pem) })
}

fn tls_to_wire(tls: &BackendTls) -> wire::BackendTls {
    let kind = match tls {
        BackendTls::Broken(why) => TlsKind::Broken(why.clone()),
        BackendTls::Verified { hostname, alt_names, roots } => TlsKind::Verified(wire::VerifiedTls {
            hostname: hostname.clone(),
            alt_names: alt_names
                .iter()
                .map(|name| match name {
                    AltName::Hostname(name) => AltKind::Hostname(name.clone()),
                    AltName::Uri(uri) => AltKind::Uri(uri.clone()),
                })
                .map(|kind| wire::AltName { kind: Some(kind) })
                .collect(),
            roots_pem: match roots {
                Roots::System => None,
                Roots::Pem(bundle) => Some(bundle.clone()),
            },
        }),
    };
    wire::BackendTls { kind: Some(kind) }
}

fn retry_budget(budget: wire::RetryBudget) -> RetryBudget {
    RetryBudget {
        percent: budget.percent,
        interval: duration_ms(budget.interval_ms),
        min: MinRetryRate { count: budget.min_count, interval: duration_ms(budget.min_interval_ms) },
    }
}

fn retry_budget_to_wire(budget: RetryBudget) -> wire::RetryBudget {
    wire::RetryBudget {
        percent: budget.percent,
        interval_ms: millis(budget.interval),
        min_count: budget.min.count,
        min_interval_ms: millis(budget.min.interval),
    }
}

/// One group a cluster; the model keeps endpoints sorted by cluster, so neighbours belong together.
fn endpoints_to_wire(endpoints: &[Endpoint]) -> Vec<wire::ClusterEndpoints> {
    endpoints
        .chunk_by(|a, b| a.cluster == b.cluster)
        .map(|group| wire::ClusterEndpoints {
            cluster: group.first().map(|endpoint| endpoint.cluster.clone()).unwrap_or_default(),
            endpoints: group
                .iter()
                .map(|endpoint| wire::Endpoint {
                    address: Some(socket_address_to_wire(endpoint.address)),
                    zone: endpoint.zone.clone(),
                    node: endpoint.node.clone(),
                    for_zones: endpoint.for_zones.clone(),
                })
                .collect(),
        })
        .collect()
}
