//! What is in force: VIPs, compiled routes and endpoints, swapped as a whole.
//!
//! Built by `control` beside the data path; read by workers, which never wait for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use routing::model::{Addresses, AppProtocol, Backend, BackendId, BackendTarget, FrontendId};
use routing::table::RouteTable;

/// The live snapshot, shared by control and workers.
pub(crate) type Live = Arc<ArcSwap<Snapshot>>;

/// Everything that is in force at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Which frontend is dialled at an address.
    pub(crate) vips: HashMap<SocketAddr, FrontendId>,
    /// The frontends whose routes are here.
    pub(crate) frontends: HashMap<FrontendId, Arc<LiveFrontend>>,
}

/// A frontend whose routes and backends are all here.
#[derive(Debug)]
pub(crate) struct LiveFrontend {
    /// `KIND/NAMESPACE/NAME/PORT`.
    pub(crate) name: Arc<str>,
    /// Version of the routes on the wire.
    pub(crate) version: String,
    /// The routes.
    pub(crate) table: Arc<RouteTable>,
    /// By route and rule, as in the table.
    pub(crate) rules: Vec<Vec<LiveRule>>,
    /// Seconds since the process began at which a connection or request last used it.
    used_s: AtomicU64,
}

/// What a rule needs besides its model.
#[derive(Debug)]
pub(crate) struct LiveRule {
    /// `NAMESPACE/NAME` of the route.
    pub(crate) route: Arc<str>,
    /// Name of the rule, else its position in the object.
    pub(crate) rule: Arc<str>,
    /// By position in the rule's list of backends; none for an invalid one.
    pub(crate) backends: Vec<Option<Arc<LiveBackend>>>,
}

/// Where a backend's requests go.
#[derive(Debug)]
pub(crate) struct LiveBackend {
    /// What was received.
    pub(crate) model: Backend,
    /// `KIND/NAMESPACE/NAME/PORT`.
    pub(crate) name: Arc<str>,
    /// IPv4 endpoints.
    pub(crate) v4: Vec<LiveEndpoint>,
    /// IPv6 endpoints.
    pub(crate) v6: Vec<LiveEndpoint>,
    /// Which endpoint each family's client keeps, if affinity is on; survives changes of the endpoints.
    pub(crate) affinity: Arc<Mutex<[Option<Affine>; 2]>>,
}

/// A kept choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine {
    /// The endpoint.
    pub(crate) address: SocketAddr,
    /// When it was used last.
    pub(crate) used: Instant,
}

/// An address with what has been learnt about it.
#[derive(Clone, Debug)]
pub(crate) struct LiveEndpoint {
    /// Pod address, or VIP in VIP mode.
    pub(crate) address: SocketAddr,
    /// Source cluster.
    pub(crate) cluster: Arc<str>,
    /// Shared by all workers and by later forms of the backend.
    pub(crate) state: Arc<EndpointState>,
}

/// What has been learnt about an endpoint.
#[derive(Debug, Default)]
pub(crate) struct EndpointState {
    in_flight: AtomicU32,
    latency_us: AtomicU64,
    failed_ms: AtomicU64,
}

/// An endpoint that could not be connected to is passed over for this time while others are there: longer than an attempt takes, so that
/// requests do not queue up for one that does not answer.
const FAILED_PAUSE_MS: u64 = 10_000;

impl EndpointState {
    /// What a further request would cost here: expected latency times those that wait. An unknown latency counts as next to nothing, so that a
    /// new endpoint is tried, and those that wait there count all the same.
    pub(crate) fn cost(&self) -> u64 {
        let waiting = u64::from(self.in_flight.load(Ordering::Relaxed)) + 1;
        self.latency_us.load(Ordering::Relaxed).max(1).saturating_mul(waiting)
    }

    /// Counts a request that began.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that ended.
    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Learns the time to a response's head: a peak counts at once, and is forgotten by an eighth with each better one.
    pub(crate) fn observe(&self, latency: Duration) {
        let sample = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        let old = self.latency_us.load(Ordering::Relaxed);
        let new = if sample >= old { sample } else { old - (old - sample).div_ceil(8) };
        self.latency_us.store(new, Ordering::Relaxed);
    }

    /// Notes that it could not be connected to at `now_ms`.
    pub(crate) fn fail(&self, now_ms: u64) {
        self.failed_ms.store(now_ms.max(1), Ordering::Relaxed);
    }

    /// Whether it failed a moment before `now_ms`.
    pub(crate) fn is_failing(&self, now_ms: u64) -> bool {
        let failed = self.failed_ms.load(Ordering::Relaxed);
        failed != 0 && now_ms.saturating_sub(failed) < FAILED_PAUSE_MS
    }
}

/// What endpoints have learnt, for as long as some snapshot holds them.
#[derive(Debug, Default)]
pub(crate) struct EndpointTable {
    states: HashMap<(BackendId, SocketAddr), Weak<EndpointState>>,
}

impl EndpointTable {
    fn state(&mut self, backend: &BackendId, address: SocketAddr) -> Arc<EndpointState> {
        let entry = self.states.entry((backend.clone(), address)).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let state = Arc::new(EndpointState::default());
            *entry = Arc::downgrade(&state);
            state
        })
    }

    /// Prepares a backend, keeping what `former` and the table know.
    pub(crate) fn compile(&mut self, model: Backend, former: Option<&LiveBackend>) -> LiveBackend {
        self.states.retain(|_, state| state.strong_count() > 0);
        let mut clusters: HashMap<&str, Arc<str>> = HashMap::new();
        let mut endpoints = Vec::new();
        match &model.addresses {
            Addresses::Endpoints(list) => {
                for endpoint in list {
                    let cluster = Arc::clone(clusters.entry(&endpoint.cluster).or_insert_with(|| endpoint.cluster.as_str().into()));
                    endpoints.push(LiveEndpoint { address: endpoint.address, cluster, state: self.state(&model.id, endpoint.address) });
                }
            }
            Addresses::Vips(list) => {
                let cluster: Arc<str> = "".into();
                for vip in list {
                    endpoints.push(LiveEndpoint { address: *vip, cluster: Arc::clone(&cluster), state: self.state(&model.id, *vip) });
                }
            }
        }
        let (v4, v6) = endpoints.into_iter().partition(|endpoint| endpoint.address.is_ipv4());
        let affinity = former.map_or_else(Arc::default, |former| Arc::clone(&former.affinity));
        LiveBackend { name: model.id.to_string().into(), model, v4, v6, affinity }
    }
}

impl LiveBackend {
    /// Whether its endpoints may be spoken to in HTTP/2: as its appProtocol says, and gRPC needs it anyway (GEP-1911).
    pub(crate) fn speaks_http2(&self, is_grpc: bool) -> bool {
        match self.model.protocol {
            AppProtocol::Http1 => false,
            AppProtocol::Http2 => true,
            AppProtocol::Infer => is_grpc,
        }
    }
}

impl LiveFrontend {
    /// Puts routes and backends together. `backends` gives what a name means; a backend that does not exist has no endpoints.
    pub(crate) fn new(version: String, table: Arc<RouteTable>, backends: impl Fn(&BackendId) -> Option<Arc<LiveBackend>>) -> Self {
        let rules = table.frontend().routes.iter().map(|route| {
            let name: Arc<str> = format!("{}/{}", route.namespace, route.name).into();
            let rules = route.rules.iter().map(|rule| LiveRule {
                route: Arc::clone(&name),
                rule: rule.name.clone().unwrap_or_else(|| rule.index.to_string()).into(),
                backends: rule.backends.iter().map(|backend| target(&backend.target).and_then(&backends)).collect(),
            });
            rules.collect()
        });
        let rules = rules.collect();
        Self { name: table.frontend().id.to_string().into(), version, rules, table, used_s: AtomicU64::new(0) }
    }

    /// Notes that it is in use at `now_s`.
    pub(crate) fn touch(&self, now_s: u64) {
        if self.used_s.load(Ordering::Relaxed) != now_s {
            self.used_s.store(now_s, Ordering::Relaxed);
        }
    }

    /// When it was used last.
    pub(crate) fn used_s(&self) -> u64 {
        self.used_s.load(Ordering::Relaxed)
    }

    /// Every backend it names.
    pub(crate) fn backend_ids(table: &RouteTable) -> impl Iterator<Item = &BackendId> {
        let rules = table.frontend().routes.iter().flat_map(|route| &route.rules);
        rules.flat_map(|rule| &rule.backends).filter_map(|backend| target(&backend.target))
    }
}

fn target(target: &BackendTarget) -> Option<&BackendId> {
    match target {
        BackendTarget::Backend(id) => Some(id),
        BackendTarget::Invalid(_) => None,
    }
}
