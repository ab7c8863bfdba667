//! Backends: endpoints in every cluster that has some, and how they are spoken to.

use std::net::SocketAddr;
use std::time::Duration;

use super::{BackendId, Persistence};

/// What HTTP version a backend port speaks (GEP-1911 appProtocol).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AppProtocol {
    /// Unset or unknown: HTTP/1.1, and HTTP/2 for gRPC.
    #[default]
    Infer,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A backend with its endpoints in every cluster that has some.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// Which port of which Service or ServiceImport.
    pub id: BackendId,
    /// From the port's appProtocol.
    pub protocol: AppProtocol,
    /// Session affinity ClientIP, if on: how long a client keeps its endpoint (digest D-16).
    pub affinity: Option<Duration>,
    /// Which endpoints are for whom.
    pub policy: TrafficPolicy,
    /// How its endpoints are spoken to in TLS, if they are (BackendTLSPolicy).
    pub tls: Option<BackendTls>,
    /// How much of what is sent may be sent again, if that is bounded (XBackendTrafficPolicy).
    pub retry_budget: Option<RetryBudget>,
    /// Session persistence of rules that say none themselves (XBackendTrafficPolicy).
    pub persistence: Option<Persistence>,
    /// Where its requests go.
    pub addresses: Addresses,
}

/// Where the requests of a backend go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Addresses {
    /// Usable endpoints, sorted by cluster, then address, without repeats; may be empty (503).
    Endpoints(Vec<Endpoint>),
    /// The implementation publishes no EndpointSlices: the platform's own VIPs are dialled (digest D-3).
    Vips(Vec<SocketAddr>),
}

/// An address that serves a backend.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// Source cluster; the local cluster's name for a Service.
    pub cluster: String,
    /// Pod address and port.
    pub address: SocketAddr,
    /// Zone in the source cluster, if known.
    pub zone: Option<String>,
    /// Node in the source cluster, if known.
    pub node: Option<String>,
    /// Zones that it is meant for (`hints.forZones`), sorted; empty: no hint.
    pub for_zones: Vec<String>,
}

/// Which endpoints of a backend are for whom (digest D-17).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TrafficPolicy {
    /// `internalTrafficPolicy: Local`: those of the client's own node, or none.
    pub is_local: bool,
    /// `trafficDistribution`: a preference.
    pub distribution: Option<Distribution>,
}

/// `trafficDistribution`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Distribution {
    /// `PreferSameZone`, formerly `PreferClose`.
    SameZone,
    /// `PreferSameNode`, then the zone.
    SameNode,
}

/// BackendTLSPolicy (GEP-1897).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BackendTls {
    /// As it says.
    Verified {
        /// Server name; also what the certificate must be for, unless `alt_names` says otherwise.
        hostname: String,
        /// The certificate must be for one of these.
        alt_names: Vec<AltName>,
        /// Who may have signed it.
        roots: Roots,
    },
    /// It cannot be met: nothing is sent, neither in TLS nor in plain text. The text says why.
    Broken(String),
}

/// SubjectAltName.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AltName {
    /// A DNS name, perhaps with a leading `*.`.
    Hostname(String),
    /// A URI, SPIFFE for example.
    Uri(String),
}

/// Certificate authorities.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Roots {
    /// Those of the system that the sidecar runs on (`wellKnownCACertificates: System`).
    System,
    /// These, in PEM.
    Pem(String),
}

/// RetryConstraint of an XBackendTrafficPolicy (GEP-3388).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryBudget {
    /// Retries may be so much of what was sent within the interval, 0 to 100.
    pub percent: u32,
    /// The time that is looked back upon.
    pub interval: Duration,
    /// Retries that are allowed anyway.
    pub min: MinRetryRate,
}

/// A rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MinRetryRate {
    /// So many.
    pub count: u32,
    /// Within this time.
    pub interval: Duration,
}
