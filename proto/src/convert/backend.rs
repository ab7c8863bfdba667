//! Backends with their endpoints, grouped by source cluster on the wire.

use std::time::Duration;

use routing::model::{Addresses, AppProtocol, Backend, Endpoint};

use super::{ConvertError, Converted, backend_id, list, required, service_port_to_wire, socket_address, socket_address_to_wire};
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
        Ok(Self {
            id: backend_id(backend.id, "id")?,
            protocol,
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
        Ok(Endpoint { cluster: cluster.clone(), address, zone: endpoint.zone, node: endpoint.node })
    })
}

impl From<&Backend> for wire::Backend {
    fn from(backend: &Backend) -> Self {
        let protocol = match backend.protocol {
            AppProtocol::Infer => wire::AppProtocol::Infer,
            AppProtocol::Http1 => wire::AppProtocol::Http1,
            AppProtocol::Http2 => wire::AppProtocol::Http2,
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
        }
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
                })
                .collect(),
        })
        .collect()
}
