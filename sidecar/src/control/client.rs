//! The client's side of one delta-xDS stream and of those that follow it, without any I/O.
//!
//! Invariants: a frontend goes live only with every backend that it names, and keeps its old form until then, whatever the order in which
//! resources arrive; what does not convert is rejected alone, by name, and its last good form stays; what is acknowledged is in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use prost::Message;
use proto::resources as wire;
use proto::type_url;
use proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, Status};
use routing::locality::Location;
use routing::model::{Backend, BackendId, Frontend, FrontendId, Vip};
use routing::table::RouteTable;

use super::followed::{Followed, Follows};
use crate::FastMap;
use crate::endpoint::EndpointTable;
use crate::snapshot::{LiveBackend, LiveFrontend, Snapshot};

/// While the index has no more frontends than this all of them are subscribed to; above it only those that are dialled.
pub(crate) const FRONTENDS_EAGER_MAX: usize = 64;
/// `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;

/// What the client holds and waits for.
#[derive(Debug)]
pub(crate) struct Client {
    vips: Followed<Vip>,
    /// The frontends that VIPs lead to.
    reachable: BTreeSet<FrontendId>,
    /// Something was said of VIPs since `reachable` and the snapshot's VIPs were made.
    vips_changed: bool,
    frontends: Followed<Arc<RouteTable>>,
    backends: Followed<Arc<LiveBackend>>,
    endpoints: EndpointTable,
    /// Where this pod is.
    location: Location,
    live: BTreeMap<FrontendId, Arc<LiveFrontend>>,
    demanded: BTreeMap<FrontendId, u64>,
    snapshot: Arc<Snapshot>,
    asked: Intercept,
    intercepted: Option<u64>,
    is_whole: bool,
    is_lazy: bool,
    answered_once: bool,
}

impl Client {
    /// A client of a pod at a place.
    pub(crate) fn new(location: Location) -> Self {
        Self {
            location,
            vips: Followed::new(Follows::Everything),
            reachable: BTreeSet::new(),
            vips_changed: false,
            frontends: Followed::new(Follows::Names),
            backends: Followed::new(Follows::Names),
            endpoints: EndpointTable::default(),
            live: BTreeMap::new(),
            demanded: BTreeMap::new(),
            snapshot: Arc::default(),
            asked: Intercept::default(),
            intercepted: None,
            is_whole: false,
            is_lazy: false,
            answered_once: false,
        }
    }
}

/// What has to be done now.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// To publish first, if it is another one than before.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// To intercept next: all of it, nothing else. None before the first whole state is known, so that a restart never narrows what an
    /// earlier process had intercepted.
    pub(crate) intercept: Option<Intercept>,
    /// To send last.
    pub(crate) requests: Vec<DeltaDiscoveryRequest>,
    /// The first state is in force, interception included.
    pub(crate) is_ready: bool,
}

/// What is to be intercepted. The version tells a confirmation of this wish from a late one of an equal, earlier one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Intercept {
    /// Grows with every change.
    pub(crate) version: u64,
    /// All of it.
    pub(crate) vips: Arc<BTreeSet<SocketAddr>>,
}

impl Client {
    /// A new stream: says what is held, so that only differences travel. The caller adds the node to the first request.
    pub(crate) fn connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = vec![self.vips.reconnect(type_url::VIP)];
        for (type_url, request) in [
            (type_url::FRONTEND, self.frontends.reconnect(type_url::FRONTEND)),
            (type_url::BACKEND, self.backends.reconnect(type_url::BACKEND)),
        ] {
            debug_assert_eq!(type_url, request.type_url);
            // The first request of a type without names would ask for everything.
            if !request.resource_names_subscribe.is_empty() {
                requests.push(request);
            }
        }
        requests
    }

    /// The pod's zone, where nobody else has said it. It comes before everything that depends on it.
    pub(crate) fn is_in(&mut self, zone: String) {
        if self.location.zone.is_empty() {
            self.location.zone = zone;
        }
    }

    /// Takes in a response.
    pub(crate) fn response(&mut self, response: DeltaDiscoveryResponse) {
        let DeltaDiscoveryResponse { type_url, resources, removed_resources, nonce, .. } = response;
        match type_url.as_str() {
            type_url::VIP => {
                self.vips_changed = true;
                self.vips.take(resources, &removed_resources, nonce, |resource, _| {
                    let vip = Vip::try_from(decode::<wire::Vip>(resource, type_url::VIP)?).map_err(|error| error.to_string())?;
                    same_name(&resource.name, &vip.address().to_string())?;
                    Ok(vip)
                });
            }
            type_url::FRONTEND => {
                self.frontends.take(resources, &removed_resources, nonce, |resource, _| {
                    let frontend = decode::<wire::Frontend>(resource, type_url::FRONTEND)?;
                    let frontend = Frontend::try_from(frontend).map_err(|error| error.to_string())?;
                    same_name(&resource.name, &frontend.id.to_string())?;
                    Ok(Arc::new(RouteTable::compile(Arc::new(frontend))))
                });
            }
            type_url::BACKEND => {
                let (endpoints, location) = (&mut self.endpoints, &self.location);
                endpoints.sweep();
                self.backends.take(resources, &removed_resources, nonce, |resource, former| {
                    let backend = decode::<wire::Backend>(resource, type_url::BACKEND)?;
                    let backend = Backend::try_from(backend).map_err(|error| error.to_string())?;
                    same_name(&resource.name, &backend.id.to_string())?;
                    Ok(Arc::new(LiveBackend::compile(backend, former.map(AsRef::as_ref), endpoints, location)))
                });
            }
            // A controller sends only what was asked for; a type from the future is none of it.
            other => tracing::warn!(type_url = other, "unasked for"),
        }
    }

    /// Interception confirms that a wish is in place.
    pub(crate) fn intercepted(&mut self, version: u64) {
        self.intercepted = Some(version);
    }

    /// A connection needs a frontend's routes.
    pub(crate) fn demand(&mut self, frontend: FrontendId, now_s: u64) {
        self.demanded.insert(frontend, now_s);
    }

    /// Lets go of frontends that were demanded and not used since `since_s`.
    pub(crate) fn release(&mut self, since_s: u64) {
        let live = &self.live;
        self.demanded.retain(|id, asked_s| (*asked_s).max(live.get(id).map_or(0, |frontend| frontend.used_s())) >= since_s);
    }

    /// What follows from all that was taken in. With `confirms`, interception has to confirm before VIPs count as in force.
    pub(crate) fn step(&mut self, confirms: Confirms) -> Step {
        let wanted = self.wanted_frontends();
        let (subscribe_frontends, unsubscribe_frontends) = self.frontends.follow(wanted.iter().map(ToString::to_string).collect());
        self.go_live();
        let needed = self.needed_backends();
        let (subscribe_backends, unsubscribe_backends) = self.backends.follow(needed);
        let former = Arc::clone(&self.snapshot.vips);
        let snapshot = self.publish();
        if !Arc::ptr_eq(&former, &self.snapshot.vips) {
            let vips: BTreeSet<SocketAddr> = self.snapshot.vips.keys().copied().collect();
            if vips != *self.asked.vips {
                self.asked = Intercept { version: self.asked.version + 1, vips: Arc::new(vips) };
            }
        }
        let mut requests = vec![
            subscription(type_url::BACKEND, subscribe_backends, unsubscribe_backends),
            subscription(type_url::FRONTEND, subscribe_frontends, unsubscribe_frontends),
        ];
        requests.retain(|request| !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty());
        requests.extend(answers(&mut self.backends, type_url::BACKEND));
        if self.frontends_are_live() {
            requests.extend(answers(&mut self.frontends, type_url::FRONTEND));
        }
        let in_place = confirms == Confirms::Nobody || self.intercepted == Some(self.asked.version);
        let settled = self.frontends_are_live() && wanted.iter().all(|id| self.frontends.is_settled(&id.to_string()));
        self.is_whole |= settled && !self.vips.nonces.is_empty();
        if in_place && settled {
            let answers = answers(&mut self.vips, type_url::VIP);
            self.answered_once |= !answers.is_empty();
            requests.extend(answers);
        }
        Step { snapshot, intercept: self.is_whole.then(|| self.asked.clone()), requests, is_ready: self.answered_once }
    }

    fn wanted_frontends(&mut self) -> BTreeSet<FrontendId> {
        if self.vips_changed {
            self.reachable = self.vips.held.values().map(|held| held.value.frontend.clone()).collect();
        }
        let was_lazy = std::mem::replace(&mut self.is_lazy, self.reachable.len() > FRONTENDS_EAGER_MAX);
        if !self.is_lazy {
            return self.reachable.clone();
        }
        if !was_lazy {
            // Those that are here have not been asked for one by one; they stay as long as they are used.
            self.demanded.extend(self.live.iter().map(|(id, frontend)| (id.clone(), frontend.used_s())));
        }
        self.demanded.keys().filter(|id| self.reachable.contains(id)).cloned().collect()
    }

    fn needed_backends(&self) -> BTreeSet<String> {
        let held = self.frontends.held.values().map(|held| &held.value);
        let live = self.live.values().map(|frontend| &frontend.table);
        held.chain(live).flat_map(|table| table.frontend().backend_ids()).map(ToString::to_string).collect()
    }

    /// Swaps in each frontend whose backends are all here.
    fn go_live(&mut self) {
        let Self { frontends, backends, live, .. } = self;
        live.retain(|id, _| frontends.held.contains_key(&id.to_string()));
        for held in frontends.held.values() {
            let table = &held.value;
            let complete = table.frontend().backend_ids().all(|id| backends.is_settled(&id.to_string()));
            let id = &table.frontend().id;
            let find = |id: &BackendId| backends.held.get(&id.to_string()).map(|held| Arc::clone(&held.value));
            let present = live.get(id);
            // An incomplete new form waits; the old form still gets the endpoints of today.
            let (version, table) = match (complete, present) {
                (true, _) => (held.version.clone(), Arc::clone(table)),
                (false, Some(present)) => (present.version.clone(), Arc::clone(&present.table)),
                (false, None) => continue,
            };
            let form = LiveFrontend::new(version, table, find);
            if let Some(present) = present {
                if is_same(present, &form) {
                    continue;
                }
                form.touch(present.used_s());
            }
            live.insert(id.clone(), Arc::new(form));
        }
    }

    fn frontends_are_live(&self) -> bool {
        self.frontends.held.values().all(|held| {
            let live = self.live.get(&held.value.frontend().id);
            live.is_some_and(|live| Arc::ptr_eq(&live.table, &held.value))
        })
    }

    fn publish(&mut self) -> Option<Arc<Snapshot>> {
        let vips = self.vips_in_force();
        let frontends: FastMap<FrontendId, Arc<LiveFrontend>> =
            self.live.iter().map(|(id, frontend)| (id.clone(), Arc::clone(frontend))).collect();
        let same_frontends = frontends.len() == self.snapshot.frontends.len()
            && frontends.iter().all(|(id, frontend)| self.snapshot.frontends.get(id).is_some_and(|old| Arc::ptr_eq(old, frontend)));
        if same_frontends && Arc::ptr_eq(&vips, &self.snapshot.vips) {
            return None;
        }
        self.snapshot = Arc::new(Snapshot { vips, frontends });
        Some(Arc::clone(&self.snapshot))
    }

    /// Which frontend is dialled at an address: the very map of the snapshot, if it is the same. A change of routes or endpoints need not cost as
    /// much as there are VIPs in the mesh.
    fn vips_in_force(&mut self) -> Arc<HashMap<SocketAddr, FrontendId>> {
        // Where few frontends are followed a VIP waits for its routes; else it depends on nothing.
        if !std::mem::take(&mut self.vips_changed) && self.is_lazy {
            return Arc::clone(&self.snapshot.vips);
        }
        let is_in_force = |vip: &&Vip| {
            // A VIP that another frontend takes over stays: its new connections wait for the new routes.
            let is_taken_over = self.snapshot.vips.contains_key(&vip.address()) && self.frontends.may_be(&vip.frontend.to_string());
            self.is_lazy || is_taken_over || self.live.contains_key(&vip.frontend)
        };
        let in_force = self.vips.held.values().map(|held| &held.value).filter(is_in_force);
        let vips: HashMap<SocketAddr, FrontendId> = in_force.map(|vip| (vip.address(), vip.frontend.clone())).collect();
        if vips == *self.snapshot.vips { Arc::clone(&self.snapshot.vips) } else { Arc::new(vips) }
    }
}

/// Who confirms that VIPs are intercepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Confirms {
    /// `isthmus-init watch`.
    Watch,
    /// Interception is fixed.
    Nobody,
}

fn is_same(a: &LiveFrontend, b: &LiveFrontend) -> bool {
    a.version == b.version && Arc::ptr_eq(&a.table, &b.table) && a.has_same_backends(b)
}

fn decode<M: Message + Default>(resource: &Resource, type_url: &str) -> Result<M, String> {
    let any = resource.resource.as_ref().ok_or("it has no content")?;
    if any.type_url != type_url {
        return Err(format!("its type is {:?}", any.type_url));
    }
    M::decode(any.value.as_slice()).map_err(|error| error.to_string())
}

fn same_name(name: &str, content: &str) -> Result<(), String> {
    if name == content { Ok(()) } else { Err(format!("its content is named {content:?}")) }
}

fn subscription(type_url: &str, subscribe: Vec<String>, unsubscribe: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: subscribe,
        resource_names_unsubscribe: unsubscribe,
        ..Default::default()
    }
}

/// One answer for each response that has none; a rejection for as long as something is rejected.
fn answers<T>(followed: &mut Followed<T>, type_url: &str) -> Vec<DeltaDiscoveryRequest> {
    let error_detail = followed.complaint().map(|message| Status { code: INVALID_ARGUMENT, message });
    let nonces = std::mem::take(&mut followed.nonces).into_iter();
    let answer = |nonce| DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        response_nonce: nonce,
        error_detail: error_detail.clone(),
        ..Default::default()
    };
    nonces.map(answer).collect()
}

#[cfg(test)]
mod tests;
