//! Services and ServiceImports seen alike: addresses, ports, affinity, and whether a route can be attached.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use crate::api;
use crate::model::{AppProtocol, Distribution, ServiceKind, ServiceRef, TrafficPolicy};

/// Kubernetes' own default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_S_DEFAULT: u64 = 10_800;
/// The most that Kubernetes allows (ClientIPConfig).
const AFFINITY_S_MAX: u64 = 86_400;

/// A Service or ServiceImport.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceObject {
    pub(crate) id: ServiceRef,
    pub(crate) created_s: i64,
    pub(crate) form: Form,
    /// ClusterIPs or ClusterSetIPs; texts that are no addresses are left out (digest C-2).
    pub(crate) ips: Vec<IpAddr>,
    /// TCP ports alone: HTTP runs on nothing else.
    pub(crate) ports: Vec<ServicePortObject>,
    pub(crate) affinity: Option<Duration>,
    pub(crate) policy: TrafficPolicy,
    pub(crate) slices: SlicePolicy,
    /// Of a Service that an MCS implementation made for a ServiceImport: which one (digest C-17, D-8).
    pub(crate) derived_from: Option<ServiceRef>,
}

/// How clients reach it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// At its IPs.
    VirtualIp,
    /// At its endpoints.
    Headless,
    /// At another name.
    ExternalName,
}

/// Whether EndpointSlices say where requests go (digest D-3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SlicePolicy {
    /// Always.
    Published,
    /// Never: the platform's VIP is dialled.
    Unpublished,
    /// If there is one.
    IfAny,
}

/// A TCP port of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServicePortObject {
    /// Empty if unnamed.
    pub(crate) name: String,
    pub(crate) number: NonZeroU16,
    pub(crate) protocol: PortProtocol,
}

/// What is spoken on a port, as far as a route can speak it (GEP-1911).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum PortProtocol {
    Spoken(AppProtocol),
    /// WebSocket; the text is the appProtocol.
    WebSocket(String),
    /// WebSocket over TLS, which only a BackendTLSPolicy makes possible.
    Secure(String),
}

impl PortProtocol {
    /// The HTTP version.
    pub(crate) fn version(&self) -> AppProtocol {
        match self {
            Self::Spoken(version) => *version,
            Self::WebSocket(_) | Self::Secure(_) => AppProtocol::Http1,
        }
    }
}

fn derived_from(metadata: &api::Metadata) -> Option<ServiceRef> {
    let is_import = |owner: &&api::OwnerReference| {
        let group = owner.api_version.split('/').next();
        group == Some(api::MCS_GROUP) && owner.kind == ServiceKind::ServiceImport.as_str()
    };
    let owner = metadata.owner_references.iter().find(is_import)?;
    Some(ServiceRef { kind: ServiceKind::ServiceImport, namespace: metadata.namespace.clone(), name: owner.name.clone() })
}

impl ServiceObject {
    pub(crate) fn of_service(service: &api::Service) -> Self {
        let spec = &service.spec;
        let written: Vec<&String> =
            if spec.cluster_ips.is_empty() { spec.cluster_ip.iter().collect() } else { spec.cluster_ips.iter().collect() };
        let form = match spec.kind.as_deref() {
            Some("ExternalName") => Form::ExternalName,
            Some(_) | None if written.first().is_some_and(|ip| ip.as_str() == "None") => Form::Headless,
            Some(_) | None => Form::VirtualIp,
        };
        Self {
            id: reference(ServiceKind::Service, &service.metadata),
            created_s: service.metadata.created_s(),
            form,
            ips: addresses(written),
            ports: ports(&spec.ports),
            affinity: affinity(spec.session_affinity.as_deref(), spec.session_affinity_config.as_ref()),
            policy: policy(spec.internal_traffic_policy.as_deref(), spec.traffic_distribution.as_deref()),
            slices: SlicePolicy::Published,
            derived_from: derived_from(&service.metadata),
        }
    }

    pub(crate) fn of_import(import: &api::ServiceImport) -> Self {
        let spec = &import.spec;
        let form = if spec.kind.as_deref() == Some("Headless") { Form::Headless } else { Form::VirtualIp };
        let affinity = affinity(spec.session_affinity.as_deref(), spec.session_affinity_config.as_ref());
        Self {
            id: reference(ServiceKind::ServiceImport, &import.metadata),
            created_s: import.metadata.created_s(),
            form,
            ips: if form == Form::VirtualIp { addresses(&spec.ips) } else { Vec::new() },
            ports: ports(&spec.ports),
            affinity: affinity.filter(|_| form == Form::VirtualIp),
            policy: policy(spec.internal_traffic_policy.as_deref(), spec.traffic_distribution.as_deref()),
            slices: match import.status.endpoint_slice_objects.as_deref() {
                Some("Present") => SlicePolicy::Published,
                Some("Absent") => SlicePolicy::Unpublished,
                Some(_) | None => SlicePolicy::IfAny,
            },
            derived_from: None,
        }
    }

    /// The port of this number.
    pub(crate) fn port(&self, number: NonZeroU16) -> Option<&ServicePortObject> {
        self.ports.iter().find(|port| port.number == number)
    }
}

fn reference(kind: ServiceKind, metadata: &api::Metadata) -> ServiceRef {
    ServiceRef { kind, namespace: metadata.namespace.clone(), name: metadata.name.clone() }
}

fn addresses<'t>(texts: impl IntoIterator<Item = &'t String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// Absent and empty mean TCP: the ServiceImport CRD has no default (digest C-2).
pub(crate) fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}

fn ports(written: &[api::Port]) -> Vec<ServicePortObject> {
    let tcp = written.iter().filter(|port| is_tcp(port.protocol.as_deref()));
    tcp.filter_map(|port| {
        let number = u16::try_from(port.port).ok().and_then(NonZeroU16::new)?;
        Some(ServicePortObject { name: port.name.clone().unwrap_or_default(), number, protocol: protocol(port.app_protocol.as_deref()) })
    })
    .collect()
}

/// Digest H-30.
fn protocol(app_protocol: Option<&str>) -> PortProtocol {
    match app_protocol {
        Some("http" | "http1") => PortProtocol::Spoken(AppProtocol::Http1),
        Some(websocket @ "kubernetes.io/ws") => PortProtocol::WebSocket(websocket.to_owned()),
        Some("grpc" | "h2c" | "kubernetes.io/h2c") => PortProtocol::Spoken(AppProtocol::Http2),
        Some(secure @ "kubernetes.io/wss") => PortProtocol::Secure(secure.to_owned()),
        Some(_) | None => PortProtocol::Spoken(AppProtocol::Infer),
    }
}

fn affinity(kind: Option<&str>, config: Option<&api::SessionAffinityConfig>) -> Option<Duration> {
    let timeout_s = config.and_then(|config| config.client_ip.as_ref()).and_then(|client_ip| client_ip.timeout_seconds);
    (kind == Some("ClientIP")).then(|| Duration::from_secs(timeout_s.unwrap_or(AFFINITY_S_DEFAULT).min(AFFINITY_S_MAX)))
}

/// Unknown values are no policy (digest D-17).
fn policy(internal: Option<&str>, distribution: Option<&str>) -> TrafficPolicy {
    let distribution = match distribution {
        Some("PreferClose" | "PreferSameZone") => Some(Distribution::SameZone),
        Some("PreferSameNode") => Some(Distribution::SameNode),
        Some(_) | None => None,
    };
    TrafficPolicy { is_local: internal == Some("Local"), distribution }
}
