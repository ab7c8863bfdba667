//! Where the requests of a backend go: usable endpoints from EndpointSlices, or the platform's VIPs (digest C-10, C-11, D-3, D-15, D-18).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::api::{self, EndpointSlice, SlicePort};
use crate::model::{Addresses, Endpoint, ServiceKind, ServiceRef};
use crate::service::{Form, ServiceObject, ServicePortObject, SlicePolicy, is_tcp};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const IMPORT_LABEL: &str = "multicluster.kubernetes.io/service-name";
const CLUSTER_LABEL: &str = "multicluster.kubernetes.io/source-cluster";

/// The Services and ServiceImports whose endpoints a slice holds.
pub(crate) fn owners(slice: &EndpointSlice) -> Vec<ServiceRef> {
    [(ServiceKind::Service, SERVICE_LABEL), (ServiceKind::ServiceImport, IMPORT_LABEL)]
        .into_iter()
        .filter_map(|(kind, label)| {
            let name = slice.metadata.labels.get(label)?.clone();
            Some(ServiceRef { kind, namespace: slice.metadata.namespace.clone(), name })
        })
        .collect()
}

/// The addresses of one port, from the slices that the service owns.
pub(crate) fn addresses(service: &ServiceObject, port: &ServicePortObject, slices: &[&EndpointSlice], local_cluster: &str) -> Addresses {
    let by_vip = match service.slices {
        SlicePolicy::Published => false,
        SlicePolicy::Unpublished => true,
        SlicePolicy::IfAny => slices.is_empty(),
    };
    if by_vip && service.form == Form::VirtualIp && !service.ips.is_empty() {
        return Addresses::Vips(service.ips.iter().map(|ip| SocketAddr::new(*ip, port.number.get())).collect());
    }
    let all: Vec<(State, Endpoint)> = slices.iter().flat_map(|slice| candidates(service, port, slice, local_cluster)).collect();
    let wanted = if all.iter().any(|(state, _)| *state == State::Ready) { State::Ready } else { State::Draining };
    let usable: BTreeSet<Endpoint> = all.into_iter().filter(|(state, _)| *state == wanted).map(|(_, endpoint)| endpoint).collect();
    let mut seen = BTreeSet::new();
    Addresses::Endpoints(usable.into_iter().filter(|endpoint| seen.insert(endpoint.address)).collect())
}

/// Ready, or the last resort of D-18: still serving while it terminates.
#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    Ready,
    Draining,
}

fn candidates(service: &ServiceObject, port: &ServicePortObject, slice: &EndpointSlice, local_cluster: &str) -> Vec<(State, Endpoint)> {
    let cluster = match service.id.kind {
        ServiceKind::Service => local_cluster,
        ServiceKind::ServiceImport => slice.metadata.labels.get(CLUSTER_LABEL).map_or("unknown", String::as_str),
    };
    let Some(number) = slice_port(service, port, slice) else { return Vec::new() };
    let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
        let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        // What is said to be a name is none, whatever it looks like (D-18).
        let is_of_family = match slice.address_type.as_str() {
            "IPv4" => ip.is_ipv4(),
            "IPv6" => ip.is_ipv6(),
            _ => false,
        };
        if !is_of_family {
            return None;
        }
        let address = SocketAddr::new(ip, number);
        let mut for_zones: Vec<String> = endpoint.hints.for_zones.iter().map(|zone| zone.name.clone()).collect();
        for_zones.sort();
        let (zone, node) = (endpoint.zone.clone(), endpoint.node_name.clone());
        let found = Endpoint { cluster: cluster.to_owned(), address, zone, node, for_zones };
        Some((state(&endpoint.conditions)?, found))
    });
    endpoints.collect()
}

fn state(conditions: &api::EndpointConditions) -> Option<State> {
    let ready = conditions.ready.unwrap_or(true);
    let draining = conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false);
    if ready { Some(State::Ready) } else { draining.then_some(State::Draining) }
}

/// The pods' port: the TCP port of the same name; a single port on both sides belongs together whatever its name (D-15).
fn slice_port(service: &ServiceObject, port: &ServicePortObject, slice: &EndpointSlice) -> Option<u16> {
    let tcp: Vec<&SlicePort> = slice.ports.iter().filter(|candidate| is_tcp(candidate.protocol.as_deref())).collect();
    let name = |candidate: &SlicePort| candidate.name.clone().unwrap_or_default();
    let named = tcp.iter().find(|candidate| name(candidate) == port.name);
    let single = || match (service.ports.as_slice(), tcp.as_slice()) {
        ([_], [only]) if port.name.is_empty() != name(only).is_empty() => Some(only),
        _ => None,
    };
    let number = named.or_else(single)?.port?;
    u16::try_from(number).ok().filter(|number| *number != 0)
}
