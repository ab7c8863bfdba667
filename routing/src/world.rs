//! Every object that is known, and what follows from all of them: VIPs, frontends, backends, statuses.
//!
//! Invariant: answers depend on the present objects alone, never on the order in which they came.

mod attachment;
pub(crate) mod considered;
mod policy;
mod relations;
mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::api::{self, ConfigMap, EndpointSlice, Object, ObjectKey, ObjectKind, ParentRef, ReferenceGrant};
use crate::model::{
    Backend, BackendFault, BackendId, BackendTarget, ExternalAuth, Filter, Frontend, FrontendId, HostPattern, Mirror, Route, RouteKind,
    Rule, ServiceKind, ServicePort, ServiceRef, Vip, WeightedBackend,
};
use crate::parse::{self, Fault, ParsedFilter, ParsedRule, Reference, TlsPolicy, TrafficPolicy};
use crate::resolve::{self, Place};
use crate::service::ServiceObject;
use crate::status::{EntryStatus, Findings, conditions};
use crate::{attach, endpoints};
use policy::ParsedPolicy;
use relations::{Change, Relations, in_namespace};

pub use touched::Touched;

/// Whether a backendRef into a foreign namespace needs a ReferenceGrant (digest D-4).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CrossNamespaceBackends {
    /// It does.
    #[default]
    Granted,
    /// GEP-1294's permissive reading.
    Any,
}

/// Which kinds of parent are ours; with `ServiceImport` another mesh can own Services.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Parents {
    /// ServiceImports and Services.
    #[default]
    All,
    /// ServiceImports alone.
    ServiceImport,
}

/// Whether session affinity ClientIP of a Service or ServiceImport is kept towards its endpoints (digest D-16).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SessionAffinity {
    /// It is: routes behave as the platform's own forwarding does.
    #[default]
    Honored,
    /// Each request is balanced on its own.
    Ignored,
}

/// What the one who runs the mesh decides.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Name of this cluster: source of the endpoints of its Services.
    pub cluster: String,
    /// See [`CrossNamespaceBackends`].
    pub cross_namespace_backends: CrossNamespaceBackends,
    /// See [`Parents`].
    pub parents: Parents,
    /// See [`SessionAffinity`].
    pub session_affinity: SessionAffinity,
}

type Name = (String, String);
/// Kind, namespace, name.
type RouteName = (RouteKind, String, String);

/// Every object that is known.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    routes: BTreeMap<RouteName, ParsedRoute>,
    services: BTreeMap<ServiceRef, ServiceObject>,
    slices: BTreeMap<Name, EndpointSlice>,
    grants: BTreeMap<Name, ReferenceGrant>,
    tls_policies: BTreeMap<Name, ParsedPolicy<TlsPolicy>>,
    traffic_policies: BTreeMap<Name, ParsedPolicy<TrafficPolicy>>,
    config_maps: BTreeMap<Name, ConfigMap>,
    relations: Relations,
    disputes: BTreeMap<IpAddr, BTreeSet<Dispute>>,
}

/// An address, who has it, and who claims it as well.
pub type Dispute = (SocketAddr, ServiceRef, ServiceRef);

#[derive(Debug)]
struct ParsedRoute {
    object: api::Route,
    rules: Vec<Result<ParsedRule, Fault>>,
    /// Of a TLSRoute.
    hostnames: Vec<HostPattern>,
}

impl ParsedRoute {
    fn parse(object: api::Route) -> Self {
        let rules = parse::rules(&object);
        match parse::hostnames(&object) {
            Ok(hostnames) => Self { object, rules, hostnames },
            Err(fault) => Self { rules: rules.into_iter().map(|_| Err(fault.clone())).collect(), object, hostnames: Vec::new() },
        }
    }

    /// What it says, and what cannot be read in it left out; what only the rest of the world makes invalid is still in it.
    fn readable_rules(&self) -> impl Iterator<Item = &ParsedRule> {
        self.rules.iter().filter_map(|rule| rule.as_ref().ok())
    }

    fn key(&self) -> ObjectKey {
        let metadata = &self.object.metadata;
        ObjectKey { kind: ObjectKind::Route(self.object.kind), namespace: metadata.namespace.clone(), name: metadata.name.clone() }
    }

    fn namespace(&self) -> &str {
        &self.object.metadata.namespace
    }
}

impl World {
    /// A world without objects.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            routes: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            grants: BTreeMap::new(),
            tls_policies: BTreeMap::new(),
            traffic_policies: BTreeMap::new(),
            config_maps: BTreeMap::new(),
            relations: Relations::default(),
            disputes: BTreeMap::new(),
        }
    }

    /// Adds an object or replaces its former state; says what may be different now.
    pub fn apply(&mut self, object: Object) -> Touched {
        let mut touched = self.delete(&object.key());
        let key = object.key();
        let mut claimed = Vec::new();
        let name = (key.namespace.clone(), key.name.clone());
        match object {
            Object::Route(object) => {
                self.routes.insert((object.kind, name.0, name.1), ParsedRoute::parse(object));
            }
            Object::BackendTlsPolicy(object) => {
                let parsed = parse::tls_policy(&object);
                self.tls_policies.insert(name, ParsedPolicy { object, parsed });
            }
            Object::BackendTrafficPolicy(object) => {
                let parsed = parse::traffic_policy(&object);
                self.traffic_policies.insert(name, ParsedPolicy { object, parsed });
            }
            Object::ConfigMap(map) => drop(self.config_maps.insert(name, map)),
            Object::ServiceImport(import) => claimed = self.insert_service(ServiceObject::of_import(&import)),
            Object::Service(service) => claimed = self.insert_service(ServiceObject::of_service(&service)),
            Object::EndpointSlice(slice) => drop(self.slices.insert(name, slice)),
            Object::ReferenceGrant(grant) => drop(self.grants.insert(name, grant)),
            Object::Namespace(_) => {}
        }
        self.relate(&key, Change::Comes);
        self.judge(&claimed);
        touched.merge(self.touched_by(&key));
        touched
    }

    fn insert_service(&mut self, mut service: ServiceObject) -> Vec<IpAddr> {
        if self.settings.session_affinity == SessionAffinity::Ignored {
            service.affinity = None;
        }
        let ips = service.ips.clone();
        self.services.insert(service.id.clone(), service);
        ips
    }

    /// Removes an object; says what may be different now.
    pub fn delete(&mut self, key: &ObjectKey) -> Touched {
        let touched = self.touched_by(key);
        self.relate(key, Change::Goes);
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            ObjectKind::Route(kind) => drop(self.routes.remove(&(kind, name.0, name.1))),
            ObjectKind::BackendTlsPolicy => drop(self.tls_policies.remove(&name)),
            ObjectKind::BackendTrafficPolicy => drop(self.traffic_policies.remove(&name)),
            ObjectKind::ConfigMap => drop(self.config_maps.remove(&name)),
            ObjectKind::ServiceImport | ObjectKind::Service => {
                if let Some(service) = touched::service_ref(key).and_then(|id| self.services.remove(&id)) {
                    self.judge(&service.ips);
                }
            }
            ObjectKind::EndpointSlice => drop(self.slices.remove(&name)),
            ObjectKind::ReferenceGrant => drop(self.grants.remove(&name)),
            ObjectKind::Namespace => {}
        }
        touched
    }

    /// The VIP index for clients of a namespace: addresses of frontends that have an active route, sorted. An address that two objects
    /// claim belongs to the one that is not derived from the other, else to the older, else to the ServiceImport (digest D-8).
    #[must_use]
    pub fn vips(&self, client_namespace: &str) -> Vec<Vip> {
        let all = self.services.keys().flat_map(|service| self.addresses(service));
        let mut vips: Vec<Vip> = all.filter(|vip| self.has_route(&vip.frontend, client_namespace)).collect();
        vips.sort();
        vips
    }

    /// The addresses at which a Service or ServiceImport is dialled: those that it claims and nobody has a better claim to.
    #[must_use]
    pub fn addresses(&self, service: &ServiceRef) -> Vec<Vip> {
        let Some(service) = self.services.get(service) else { return Vec::new() };
        let claimed = service.ips.iter().flat_map(|ip| service.ports.iter().map(move |port| (*ip, port.number)));
        let owned = claimed.filter(|(ip, port)| self.owner(*ip, *port).is_some_and(|owner| owner.id == service.id));
        let vips: BTreeSet<Vip> =
            owned.map(|(ip, port)| Vip { ip, frontend: FrontendId(ServicePort { service: service.id.clone(), port }) }).collect();
        vips.into_iter().collect()
    }

    /// The frontends of a Service or ServiceImport, one a TCP port.
    #[must_use]
    pub fn frontends(&self, service: &ServiceRef) -> BTreeSet<FrontendId> {
        let ports = self.services.get(service).map(|service| service.ports.as_slice()).unwrap_or_default();
        ports.iter().map(|port| FrontendId(ServicePort { service: service.clone(), port: port.number })).collect()
    }

    /// Whether a route is in force on a frontend for clients of a namespace.
    #[must_use]
    pub fn has_route(&self, frontend: &FrontendId, client_namespace: &str) -> bool {
        self.active(&frontend.0.service, frontend.0.port, client_namespace).is_some()
    }

    /// Namespaces whose clients may see other routes on a parent than everybody else: those that have routes on it.
    #[must_use]
    pub fn namespaces_with_routes_on<'w>(&'w self, parent: &ServiceRef) -> BTreeSet<&'w str> {
        self.relations.attached(parent).into_iter().map(|(_, namespace, _)| namespace.as_str()).collect()
    }

    /// Addresses that objects claim which have nothing to do with each other: the address, who has it, who does not (digest D-8).
    #[must_use]
    pub fn disputes(&self) -> BTreeSet<Dispute> {
        self.disputes.values().flatten().cloned().collect()
    }

    fn judge(&mut self, ips: &[IpAddr]) {
        for ip in ips {
            let disputes = self.disputes_at(*ip);
            match disputes.is_empty() {
                true => drop(self.disputes.remove(ip)),
                false => drop(self.disputes.insert(*ip, disputes)),
            }
        }
    }

    fn disputes_at(&self, ip: IpAddr) -> BTreeSet<Dispute> {
        let claims = self.relations.claims(ip).filter_map(|id| self.services.get(id));
        let claims = claims.flat_map(|service| service.ports.iter().map(move |port| (service, port.number)));
        let disputed = claims.filter_map(|(service, port)| {
            let owner = self.owner(ip, port)?;
            let is_other = owner.id != service.id && service.derived_from.as_ref() != Some(&owner.id);
            is_other.then(|| (SocketAddr::new(ip, port.get()), owner.id.clone(), service.id.clone()))
        });
        disputed.collect()
    }

    /// Who is dialled at an address.
    fn owner(&self, ip: IpAddr, port: NonZeroU16) -> Option<&ServiceObject> {
        let claims = self.relations.claims(ip).filter_map(|id| self.services.get(id));
        let with_port = claims.filter(|service| service.ports.iter().any(|claimed| claimed.number == port));
        with_port.min_by(|a, b| claim(a).cmp(&claim(b)))
    }

    /// The routes in force on a frontend for clients of a namespace; none: no active route.
    #[must_use]
    pub fn frontend(&self, id: &FrontendId, client_namespace: &str) -> Option<Frontend> {
        let parent = &id.0.service;
        let (kind, active) = self.active(parent, id.0.port, client_namespace)?;
        let mut routes: Vec<Route> = active.into_iter().map(|route| self.resolved(route, parent, id.0.port)).collect();
        routes.sort_by_cached_key(|route| (route.created_s, format!("{}/{}", route.namespace, route.name)));
        Some(Frontend { id: id.clone(), kind, routes })
    }

    /// The endpoints of a backend; none: no such object or port.
    #[must_use]
    pub fn backend(&self, id: &BackendId) -> Option<Backend> {
        let service = self.services.get(&id.0.service)?;
        let port = service.port(id.0.port)?;
        let slices: Vec<&EndpointSlice> = self.relations.slices(&service.id).filter_map(|name| self.slices.get(name)).collect();
        let addresses = endpoints::addresses(service, port, &slices, &self.settings.cluster);
        let traffic = self.traffic(service);
        Some(Backend {
            id: id.clone(),
            protocol: port.protocol.version(),
            affinity: service.affinity,
            policy: service.policy,
            tls: self.tls(service, port),
            retry_budget: traffic.retry_budget,
            persistence: traffic.persistence,
            addresses,
        })
    }

    /// The backends of every TCP port of a Service or ServiceImport that can be spoken to; empty: no such object.
    #[must_use]
    pub fn backends(&self, service: &ServiceRef) -> Vec<Backend> {
        let ports = self.services.get(service).map(|object| object.ports.as_slice()).unwrap_or_default();
        ports.iter().filter_map(|port| self.backend(&BackendId(ServicePort { service: service.clone(), port: port.number }))).collect()
    }

    /// Everything that has a status.
    pub fn with_status(&self) -> impl Iterator<Item = ObjectKey> {
        let of = |kind: ObjectKind| move |(namespace, name): &Name| ObjectKey { kind, namespace: namespace.clone(), name: name.clone() };
        let policies = self.tls_policies.keys().map(of(ObjectKind::BackendTlsPolicy));
        let policies = policies.chain(self.traffic_policies.keys().map(of(ObjectKind::BackendTrafficPolicy)));
        self.routes.values().map(ParsedRoute::key).chain(policies)
    }

    /// What is to be written to an object's status, one entry a parentRef or target that is ours; none: no such object.
    #[must_use]
    pub fn status(&self, key: &ObjectKey) -> Option<Vec<EntryStatus>> {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            ObjectKind::Route(kind) => {
                let route = self.routes.get(&(kind, name.0, name.1))?;
                let ours = self.own_parents(route).map(|(parent, id)| EntryStatus {
                    reference: parent.written.clone(),
                    conditions: conditions(&self.findings(route, parent, &id)),
                });
                Some(ours.collect())
            }
            ObjectKind::BackendTlsPolicy => self.tls_policy_status(&name),
            ObjectKind::BackendTrafficPolicy => self.traffic_policy_status(&name),
            ObjectKind::Service
            | ObjectKind::ServiceImport
            | ObjectKind::EndpointSlice
            | ObjectKind::ReferenceGrant
            | ObjectKind::ConfigMap
            | ObjectKind::Namespace => None,
        }
    }

    fn resolved(&self, route: &ParsedRoute, parent: &ServiceRef, port: NonZeroU16) -> Route {
        let metadata = &route.object.metadata;
        let place = Place {
            kind: route.object.kind,
            route_namespace: &metadata.namespace,
            parent_namespace: &parent.namespace,
            dialled: Some(port),
        };
        let filters = |filters: &[ParsedFilter]| filters.iter().map(|filter| self.filter(filter, &place)).collect();
        let rules = self.valid_rules(route).map(|rule| Rule {
            index: rule.index,
            name: rule.name.clone(),
            matches: rule.matches.clone(),
            filters: filters(&rule.filters),
            backends: rule
                .backends
                .iter()
                .map(|backend| WeightedBackend {
                    weight: backend.weight,
                    target: self.target(&backend.reference, &place),
                    filters: filters(&backend.filters),
                })
                .collect(),
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
            persistence: rule.persistence.clone(),
        });
        Route {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            created_s: metadata.created_s(),
            generation: metadata.generation(),
            hostnames: route.hostnames.clone(),
            rules: rules.collect(),
        }
    }

    fn filter(&self, filter: &ParsedFilter, place: &Place<'_>) -> Filter {
        match filter {
            ParsedFilter::Ready(filter) => filter.clone(),
            ParsedFilter::Mirror { reference, fraction } => {
                Filter::Mirror(Mirror { target: self.target(reference, place), fraction: *fraction })
            }
            ParsedFilter::Auth { reference, protocol, body_bytes_max } => Filter::ExternalAuth(ExternalAuth {
                target: self.target(reference, place),
                protocol: protocol.clone(),
                body_bytes_max: *body_bytes_max,
            }),
        }
    }

    fn target(&self, reference: &Reference, place: &Place<'_>) -> BackendTarget {
        let permitted = |id: &ServiceRef| match self.settings.cross_namespace_backends {
            CrossNamespaceBackends::Any => true,
            CrossNamespaceBackends::Granted => {
                in_namespace(&self.grants, &id.namespace).any(|(_, grant)| resolve::grants(grant, place, id))
            }
        };
        resolve::target(reference, place, permitted, |id| self.services.get(id), |service, port| self.has_tls(service, port))
    }

    fn findings(&self, route: &ParsedRoute, parent: &ParentRef, id: &ServiceRef) -> Findings {
        let ports = attach::ports(&parent.reference, id, self.services.get(id));
        let dialled: Vec<Option<NonZeroU16>> =
            ports.as_ref().map_or_else(|_| vec![None], |ports| ports.iter().copied().map(Some).collect());
        let mut faults: Vec<BackendFault> = Vec::new();
        for reference in self.valid_rules(route).flat_map(ParsedRule::references) {
            for dialled in &dialled {
                let place = Place {
                    kind: route.object.kind,
                    route_namespace: route.namespace(),
                    parent_namespace: &id.namespace,
                    dialled: *dialled,
                };
                match self.target(reference, &place) {
                    BackendTarget::Invalid(fault) if !faults.contains(&fault) => faults.push(fault),
                    BackendTarget::Invalid(_) | BackendTarget::Backend(_) => {}
                }
            }
        }
        let (lost, held) = self.lost_and_held(route, id, ports.as_deref().unwrap_or_default());
        Findings {
            generation: route.object.metadata.generation(),
            no_parent: ports.err(),
            rules: route.rules.len(),
            dropped: self.rules(route).filter_map(Result::err).collect(),
            lost,
            held,
            backends: faults,
        }
    }
}

/// Who owns an address that several objects claim; the smaller wins: never what was derived from another, then the older, then the import.
fn claim(service: &ServiceObject) -> (bool, i64, bool, &ServiceRef) {
    (service.derived_from.is_some(), service.created_s, service.id.kind == ServiceKind::Service, &service.id)
}

#[cfg(test)]
mod tests;
