//! What is in force: VIPs, compiled routes and endpoints, swapped as a whole.
//!
//! Built by `control` beside the data path; read by workers, which never wait for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use routing::locality::{self, Location};
use routing::model::{Addresses, AppProtocol, Backend, BackendId, BackendTarget, FrontendId};
use routing::session::Scope;
use routing::table::RouteTable;
use tracing::{debug, warn};

use crate::FastMap;
use crate::endpoint::{EndpointState, EndpointTable, Outcome};
use crate::retry_budget::Budget;
use crate::tls::ClientTls;

/// The live snapshot, shared by control and workers.
pub(crate) type Live = Arc<ArcSwap<Snapshot>>;

/// Everything that is in force at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Which frontend is dialled at an address. Snapshots share it, as it changes less often.
    pub(crate) vips: Arc<HashMap<SocketAddr, FrontendId>>,
    /// The frontends whose routes are here.
    pub(crate) frontends: FastMap<FrontendId, Arc<LiveFrontend>>,
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
    /// What its filters refer to: mirrors, authorization services.
    pub(crate) others: Vec<Arc<LiveBackend>>,
    /// Whose sessions these are.
    pub(crate) scope: Scope,
    sessions: OnceLock<HashMap<String, (usize, SocketAddr)>>,
}

impl LiveRule {
    /// A backend that a filter refers to.
    pub(crate) fn other(&self, target: &BackendTarget) -> Option<Arc<LiveBackend>> {
        let id = target.backend()?;
        self.others.iter().find(|backend| backend.model.id == *id).map(Arc::clone)
    }

    /// Position of the backend, and address of the endpoint, that a session of this rule names; none: it is gone.
    pub(crate) fn session(&self, token: &str) -> Option<(usize, SocketAddr)> {
        let sessions = self.sessions.get_or_init(|| {
            let backends = self.backends.iter().enumerate().filter_map(|(index, backend)| Some((index, backend.as_ref()?)));
            let endpoints = backends.flat_map(|(index, backend)| {
                backend
                    .v4
                    .iter()
                    .chain(&backend.v6)
                    .map(move |endpoint| (self.scope.endpoint(&backend.model.id, endpoint.address), (index, endpoint.address)))
            });
            endpoints.collect()
        });
        sessions.get(token).copied()
    }
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
    /// How much may be sent again, if that is bounded.
    pub(crate) budget: Option<Arc<Budget>>,
    /// How its endpoints are spoken to in TLS, or why they cannot be.
    pub(crate) tls: Tls,
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

/// A backend whose policy cannot be met is asked nothing.
pub(crate) type Tls = Option<Result<Arc<ClientTls>, Arc<str>>>;

impl LiveBackend {
    /// Prepares a backend for a client at a place, keeping what `former` and the table know.
    pub(crate) fn compile(model: Backend, former: Option<&Self>, table: &mut EndpointTable, client: &Location) -> Self {
        if model.policy.is_local && !client.is_known() {
            warn!(backend = %model.id, "internalTrafficPolicy Local is ignored: the sidecar was not told its node and cluster");
        }
        let mut clusters: HashMap<String, Arc<str>> = HashMap::new();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        match &model.addresses {
            Addresses::Endpoints(list) => {
                for family in [Family::V4, Family::V6] {
                    let of_family = list.iter().filter(|endpoint| Family::of(endpoint.address) == family).cloned().collect();
                    let live = if family == Family::V4 { &mut v4 } else { &mut v6 };
                    for endpoint in locality::usable(&model, of_family, client) {
                        let cluster = clusters.entry(endpoint.cluster.clone()).or_insert_with(|| endpoint.cluster.as_str().into());
                        let cluster = Arc::clone(cluster);
                        live.push(LiveEndpoint { address: endpoint.address, cluster, state: table.state(&model.id, endpoint.address) });
                    }
                }
            }
            Addresses::Vips(list) => {
                let cluster: Arc<str> = "".into();
                for vip in list {
                    let endpoint = LiveEndpoint { address: *vip, cluster: Arc::clone(&cluster), state: table.state(&model.id, *vip) };
                    if vip.is_ipv4() { v4.push(endpoint) } else { v6.push(endpoint) }
                }
            }
        }
        let affinity = former.map_or_else(Arc::default, |former| Arc::clone(&former.affinity));
        let budget = model.retry_budget.map(|budget| {
            let kept = former.and_then(|former| former.budget.as_ref()).filter(|kept| kept.is(budget));
            kept.map_or_else(|| Arc::new(Budget::new(budget)), Arc::clone)
        });
        let tls = model.tls.as_ref().map(|policy| {
            match former.filter(|former| former.model.tls == model.tls).and_then(|former| former.tls.clone()) {
                Some(kept) => kept,
                None => ClientTls::new(policy).map(Arc::new).map_err(|why| {
                    warn!(backend = %model.id, why, "its TLS policy cannot be met: its requests are answered with an error");
                    why.into()
                }),
            }
        });
        Self { name: model.id.to_string().into(), model, v4, v6, affinity, budget, tls }
    }

    /// Notes what became of a request to one of its endpoints, and ejects that if it should be and half of its family is left. Whether it has.
    pub(crate) fn note(&self, endpoint: &LiveEndpoint, outcome: Outcome, now_ms: u64, random: impl FnOnce() -> u64) -> bool {
        if endpoint.state.is_ejected(now_ms) || !endpoint.state.note(outcome, now_ms) {
            return false;
        }
        let family = if endpoint.address.is_ipv4() { &self.v4 } else { &self.v6 };
        let ejected = family.iter().filter(|other| other.state.is_ejected(now_ms)).count();
        let may = (ejected + 1) * 2 <= family.len();
        if may {
            debug!(backend = &*self.name, endpoint = %endpoint.address, ?outcome, "ejected");
            endpoint.state.eject(now_ms, random());
        }
        may
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
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
                backends: rule.backends.iter().map(|backend| backend.target.backend().and_then(&backends)).collect(),
                others: rule.filter_backends().filter_map(&backends).collect(),
                scope: Scope::of(table.frontend().kind, route, rule),
                sessions: OnceLock::new(),
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

    /// Whether it has the very same backends in the very same places.
    pub(crate) fn has_same_backends(&self, other: &Self) -> bool {
        let all = |frontend: &Self| -> Vec<Option<*const LiveBackend>> {
            let rules = frontend.rules.iter().flatten();
            let backends = rules.flat_map(|rule| rule.backends.iter().map(Option::as_ref).chain(rule.others.iter().map(Some)));
            backends.map(|backend| backend.map(Arc::as_ptr)).collect()
        };
        all(self) == all(other)
    }
}
