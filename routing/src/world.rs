//! Every object that is known, and what follows from all of them: VIPs, frontends, backends, statuses.
//!
//! Invariant: answers depend on the present objects alone, never on the order in which they came.

mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;

use crate::api::{EndpointSlice, HttpRoute, Object, ObjectKey, ObjectKind, ParentRef, ReferenceGrant};
use crate::model::{
    Backend, BackendFault, BackendId, BackendTarget, Frontend, FrontendId, Route, RouteKind, Rule, ServiceKind, ServicePort, ServiceRef,
    Vip, WeightedBackend,
};
use crate::parse::{self, Fault, ParsedBackend, ParsedRule};
use crate::resolve::{self, Place};
use crate::service::{PortProtocol, ServiceObject};
use crate::status::{Findings, ParentStatus, conditions};
use crate::{attach, endpoints};

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

/// What the one who runs the mesh decides.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Name of this cluster: source of the endpoints of its Services.
    pub cluster: String,
    /// See [`CrossNamespaceBackends`].
    pub cross_namespace_backends: CrossNamespaceBackends,
    /// See [`Parents`].
    pub parents: Parents,
}

type Name = (String, String);

/// Every object that is known.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    routes: BTreeMap<Name, ParsedRoute>,
    services: BTreeMap<ServiceRef, ServiceObject>,
    slices: BTreeMap<Name, EndpointSlice>,
    grants: BTreeMap<Name, ReferenceGrant>,
}

#[derive(Debug)]
struct ParsedRoute {
    object: HttpRoute,
    rules: Vec<Result<ParsedRule, Fault>>,
}

impl ParsedRoute {
    fn valid_rules(&self) -> impl Iterator<Item = &ParsedRule> {
        self.rules.iter().filter_map(|rule| rule.as_ref().ok())
    }

    fn namespace(&self) -> &str {
        &self.object.metadata.namespace
    }
}

impl World {
    /// A world without objects.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, routes: BTreeMap::new(), services: BTreeMap::new(), slices: BTreeMap::new(), grants: BTreeMap::new() }
    }

    /// Adds an object or replaces its former state; says what may be different now.
    pub fn apply(&mut self, object: Object) -> Touched {
        let mut touched = self.delete(&object.key());
        let key = object.key();
        let name = (key.namespace.clone(), key.name.clone());
        match object {
            Object::HttpRoute(object) => {
                let rules = parse::rules(&object);
                self.routes.insert(name, ParsedRoute { object, rules });
            }
            Object::ServiceImport(import) => self.insert_service(ServiceObject::of_import(&import)),
            Object::Service(service) => self.insert_service(ServiceObject::of_service(&service)),
            Object::EndpointSlice(slice) => drop(self.slices.insert(name, slice)),
            Object::ReferenceGrant(grant) => drop(self.grants.insert(name, grant)),
            Object::Namespace(_) => {}
        }
        touched.merge(self.touched_by(&key));
        touched
    }

    fn insert_service(&mut self, service: ServiceObject) {
        self.services.insert(service.id.clone(), service);
    }

    /// Removes an object; says what may be different now.
    pub fn delete(&mut self, key: &ObjectKey) -> Touched {
        let touched = self.touched_by(key);
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            ObjectKind::HttpRoute => drop(self.routes.remove(&name)),
            ObjectKind::ServiceImport | ObjectKind::Service => {
                if let Some(id) = touched::service_ref(key) {
                    self.services.remove(&id);
                }
            }
            ObjectKind::EndpointSlice => drop(self.slices.remove(&name)),
            ObjectKind::ReferenceGrant => drop(self.grants.remove(&name)),
            ObjectKind::Namespace => {}
        }
        touched
    }

    /// The VIP index for clients of a namespace: addresses of frontends that have an active route, sorted. An address that two objects
    /// claim belongs to the ServiceImport, then to the older, then to the first by name (digest D-8).
    #[must_use]
    pub fn vips(&self, client_namespace: &str) -> Vec<Vip> {
        let mut owners: BTreeMap<SocketAddr, &ServiceObject> = BTreeMap::new();
        for service in self.services.values() {
            for (ip, port) in service.ips.iter().flat_map(|ip| service.ports.iter().map(move |port| (*ip, port.number))) {
                let owner = owners.entry(SocketAddr::new(ip, port.get())).or_insert(service);
                if claim(service) < claim(owner) {
                    *owner = service;
                }
            }
        }
        let mut vips: Vec<Vip> = Vec::new();
        for (address, service) in owners {
            let Some(port) = NonZeroU16::new(address.port()) else { continue };
            if !self.active(&service.id, port, client_namespace).is_empty() {
                vips.push(Vip { ip: address.ip(), frontend: FrontendId(ServicePort { service: service.id.clone(), port }) });
            }
        }
        vips.sort();
        vips
    }

    /// The routes in force on a frontend for clients of a namespace; none: no active route.
    #[must_use]
    pub fn frontend(&self, id: &FrontendId, client_namespace: &str) -> Option<Frontend> {
        let parent = &id.0.service;
        let active = self.active(parent, id.0.port, client_namespace);
        let mut routes: Vec<Route> = active.into_iter().map(|route| self.resolved(route, parent, id.0.port)).collect();
        routes.sort_by_cached_key(|route| (route.created_s, format!("{}/{}", route.namespace, route.name)));
        (!routes.is_empty()).then(|| Frontend { id: id.clone(), kind: RouteKind::Http, routes })
    }

    /// The endpoints of a backend; none: no such object or port.
    #[must_use]
    pub fn backend(&self, id: &BackendId) -> Option<Backend> {
        let service = self.services.get(&id.0.service)?;
        let port = service.port(id.0.port)?;
        let PortProtocol::Spoken(protocol) = port.protocol else { return None };
        let slices: Vec<&EndpointSlice> = self.slices.values().filter(|slice| endpoints::owners(slice).contains(&service.id)).collect();
        let addresses = endpoints::addresses(service, port, &slices, &self.settings.cluster);
        Some(Backend { id: id.clone(), protocol, affinity: service.affinity, addresses })
    }

    /// The backends of every TCP port of a Service or ServiceImport that can be spoken to; empty: no such object.
    #[must_use]
    pub fn backends(&self, service: &ServiceRef) -> Vec<Backend> {
        let ports = self.services.get(service).map(|object| object.ports.as_slice()).unwrap_or_default();
        ports.iter().filter_map(|port| self.backend(&BackendId(ServicePort { service: service.clone(), port: port.number }))).collect()
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = ObjectKey> {
        self.routes.keys().map(|(namespace, name)| ObjectKey {
            kind: ObjectKind::HttpRoute,
            namespace: namespace.clone(),
            name: name.clone(),
        })
    }

    /// What is to be written to a route's status, one entry a parentRef that is ours; none: no such route.
    #[must_use]
    pub fn route_status(&self, key: &ObjectKey) -> Option<Vec<ParentStatus>> {
        let route = self.routes.get(&(key.namespace.clone(), key.name.clone()))?;
        let ours = self.own_parents(route).map(|(parent, id)| ParentStatus {
            parent_ref: parent.written.clone(),
            conditions: conditions(&self.findings(route, parent, &id)),
        });
        Some(ours.collect())
    }

    /// Parents of the kinds that are ours.
    fn own_parents<'r>(&self, route: &'r ParsedRoute) -> impl Iterator<Item = (&'r ParentRef, ServiceRef)> {
        let parents = self.settings.parents;
        route.object.parents.iter().filter_map(move |parent| {
            let id = attach::parent(&parent.reference, route.namespace())?;
            let ours = match (parents, id.kind) {
                (Parents::All, _) | (Parents::ServiceImport, ServiceKind::ServiceImport) => true,
                (Parents::ServiceImport, ServiceKind::Service) => false,
            };
            ours.then_some((parent, id))
        })
    }

    /// The consumer routes of the namespace if there are any on this port, else the producer routes (GEP-1294; digest M-15 to M-20, D-5).
    fn active(&self, parent: &ServiceRef, port: NonZeroU16, client_namespace: &str) -> Vec<&ParsedRoute> {
        let attached = |route: &&ParsedRoute| {
            route.valid_rules().next().is_some()
                && self.own_parents(route).any(|(written, id)| {
                    let means = || attach::ports(&written.reference, &id, self.services.get(&id));
                    (id == *parent || self.stands_for(&id, parent)) && means().is_ok_and(|ports| ports.contains(&port))
                })
        };
        let of = |namespace: &str| self.routes.values().filter(|route| route.namespace() == namespace).filter(attached).collect::<Vec<_>>();
        let consumer = if client_namespace == parent.namespace { Vec::new() } else { of(client_namespace) };
        if consumer.is_empty() { of(&parent.namespace) } else { consumer }
    }

    fn resolved(&self, route: &ParsedRoute, parent: &ServiceRef, port: NonZeroU16) -> Route {
        let metadata = &route.object.metadata;
        let place = Place { route_namespace: &metadata.namespace, parent_namespace: &parent.namespace, dialled: Some(port) };
        let rules = route.valid_rules().map(|rule| Rule {
            index: rule.index,
            name: rule.name.clone(),
            matches: rule.matches.clone(),
            filters: rule.filters.clone(),
            backends: rule
                .backends
                .iter()
                .map(|backend| WeightedBackend {
                    weight: backend.weight,
                    target: self.target(backend, &place),
                    filters: backend.filters.clone(),
                })
                .collect(),
        });
        Route {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            created_s: metadata.created_s(),
            generation: metadata.generation(),
            rules: rules.collect(),
        }
    }

    fn target(&self, backend: &ParsedBackend, place: &Place<'_>) -> BackendTarget {
        let permitted = |id: &ServiceRef| match self.settings.cross_namespace_backends {
            CrossNamespaceBackends::Any => true,
            CrossNamespaceBackends::Granted => self.grants.values().any(|grant| resolve::grants(grant, place.route_namespace, id)),
        };
        resolve::target(backend, place, permitted, |id| self.services.get(id))
    }

    fn findings<'r>(&self, route: &'r ParsedRoute, parent: &ParentRef, id: &ServiceRef) -> Findings<'r> {
        let ports = attach::ports(&parent.reference, id, self.services.get(id));
        let dialled: Vec<Option<NonZeroU16>> =
            ports.as_ref().map_or_else(|_| vec![None], |ports| ports.iter().copied().map(Some).collect());
        let mut faults: Vec<BackendFault> = Vec::new();
        for backend in route.valid_rules().flat_map(|rule| &rule.backends) {
            for dialled in &dialled {
                let place = Place { route_namespace: route.namespace(), parent_namespace: &id.namespace, dialled: *dialled };
                match self.target(backend, &place) {
                    BackendTarget::Invalid(fault) if !faults.contains(&fault) => faults.push(fault),
                    BackendTarget::Invalid(_) | BackendTarget::Backend(_) => {}
                }
            }
        }
        Findings {
            generation: route.object.metadata.generation(),
            no_parent: ports.err(),
            rules: route.rules.len(),
            dropped: route.rules.iter().filter_map(|rule| rule.as_ref().err()).collect(),
            backends: faults,
        }
    }

    /// Parents of a route, of whatever reach.
    /// Whether a Service was derived from a ServiceImport and shares an address with it: then routes on either are one group (digest D-8).
    fn stands_for(&self, service: &ServiceRef, import: &ServiceRef) -> bool {
        let (Some(service), Some(import)) = (self.services.get(service), self.services.get(import)) else { return false };
        service.derived_from.as_ref() == Some(&import.id) && service.ips.iter().any(|ip| import.ips.contains(ip))
    }

    /// The parents of a route, and the ServiceImports that they were derived from.
    fn parents_of(&self, route: &ParsedRoute) -> BTreeSet<ServiceRef> {
        let origin = |id: &ServiceRef| self.services.get(id).and_then(|service| service.derived_from.clone());
        self.own_parents(route).flat_map(|(_, id)| [origin(&id), Some(id)]).flatten().collect()
    }
}

/// Who owns an address that several objects claim; the smaller wins.
fn claim(service: &ServiceObject) -> (bool, i64, &ServiceRef) {
    (service.id.kind == ServiceKind::Service, service.created_s, &service.id)
}

#[cfg(test)]
mod tests;
