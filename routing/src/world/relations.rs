//! Which objects have to do with which, kept beside the objects, so that a change costs what it touches and not what there is.
//!
//! Invariant: an entry follows from one present object alone, and is there exactly as long as that object.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Name, ParsedRoute, RouteName, World, touched};
use crate::api::{ObjectKey, ObjectKind};
use crate::model::{ServiceKind, ServiceRef};
use crate::parse::ParsedRule;
use crate::{endpoints, resolve};

/// Several values a key.
#[derive(Debug)]
pub(super) struct Multimap<K, V>(BTreeMap<K, BTreeSet<V>>);

impl<K, V> Default for Multimap<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V: Ord> Multimap<K, V> {
    pub(super) fn of<'m>(&'m self, key: &K) -> impl Iterator<Item = &'m V> + use<'m, K, V> {
        self.0.get(key).into_iter().flatten()
    }

    fn change(&mut self, change: Change, key: K, value: V) {
        match change {
            Change::Comes => drop(self.0.entry(key).or_default().insert(value)),
            Change::Goes => {
                if let Some(values) = self.0.get_mut(&key) {
                    values.remove(&value);
                    if values.is_empty() {
                        self.0.remove(&key);
                    }
                }
            }
        }
    }
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Comes,
    Goes,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Relations {
    /// Parent to routes that name it.
    attached: Multimap<ServiceRef, RouteName>,
    /// Backend to routes that refer to it.
    referring: Multimap<ServiceRef, RouteName>,
    /// Service or import to its slices.
    slices: Multimap<ServiceRef, Name>,
    /// Import to the Services that were derived from it.
    derived: Multimap<ServiceRef, ServiceRef>,
    /// Address to those that claim it.
    claims: Multimap<IpAddr, ServiceRef>,
    /// Target to policies.
    pub(super) tls: Multimap<ServiceRef, Name>,
    pub(super) traffic: Multimap<ServiceRef, Name>,
}

impl Relations {
    /// Routes that name a parent, or a Service that was derived from it.
    pub(super) fn attached<'r>(&'r self, parent: &ServiceRef) -> BTreeSet<&'r RouteName> {
        let derived = self.derived.of(parent).flat_map(|service| self.attached.of(service));
        self.attached.of(parent).chain(derived).collect()
    }

    /// Routes that refer to a backend.
    pub(super) fn referring<'r>(&'r self, backend: &ServiceRef) -> impl Iterator<Item = &'r RouteName> + use<'r> {
        self.referring.of(backend)
    }

    /// Routes that refer to a backend in a namespace.
    pub(super) fn referring_into(&self, namespace: &str) -> impl Iterator<Item = &RouteName> {
        [ServiceKind::Service, ServiceKind::ServiceImport].into_iter().flat_map(move |kind| {
            let first = ServiceRef { kind, namespace: namespace.to_owned(), name: String::new() };
            let backends = self.referring.0.range(first..);
            backends.take_while(move |(backend, _)| backend.kind == kind && backend.namespace == namespace).flat_map(|(_, routes)| routes)
        })
    }

    pub(super) fn slices<'r>(&'r self, service: &ServiceRef) -> impl Iterator<Item = &'r Name> + use<'r> {
        self.slices.of(service)
    }

    pub(super) fn claims(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceRef> + use<'_> {
        self.claims.of(&ip)
    }
}

/// Of a map by namespace and name: what is in one namespace.
pub(super) fn in_namespace<'m, T>(map: &'m BTreeMap<Name, T>, namespace: &'m str) -> impl Iterator<Item = (&'m Name, &'m T)> {
    map.range((namespace.to_owned(), String::new())..).take_while(move |((there, _), _)| there == namespace)
}

impl World {
    /// Keeps the relations of the present form of an object, or lets them go.
    pub(super) fn relate(&mut self, key: &ObjectKey, change: Change) {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            ObjectKind::Route(kind) => {
                let name = (kind, name.0, name.1);
                let Some(route) = self.routes.get(&name) else { return };
                let (parents, backends) = (self.named_parents(route), references(route));
                for parent in parents {
                    self.relations.attached.change(change, parent, name.clone());
                }
                for backend in backends {
                    self.relations.referring.change(change, backend, name.clone());
                }
            }
            ObjectKind::Service | ObjectKind::ServiceImport => {
                let Some(service) = touched::service_ref(key).and_then(|id| self.services.get(&id)) else { return };
                for ip in &service.ips {
                    self.relations.claims.change(change, *ip, service.id.clone());
                }
                if let Some(import) = &service.derived_from {
                    self.relations.derived.change(change, import.clone(), service.id.clone());
                }
            }
            ObjectKind::EndpointSlice => {
                for owner in self.slices.get(&name).map(endpoints::owners).unwrap_or_default() {
                    self.relations.slices.change(change, owner, name.clone());
                }
            }
            ObjectKind::BackendTlsPolicy => {
                for target in self.tls_policies.get(&name).into_iter().flat_map(super::ParsedPolicy::targets) {
                    self.relations.tls.change(change, target, name.clone());
                }
            }
            ObjectKind::BackendTrafficPolicy => {
                for target in self.traffic_policies.get(&name).into_iter().flat_map(super::ParsedPolicy::targets) {
                    self.relations.traffic.change(change, target, name.clone());
                }
            }
            ObjectKind::ReferenceGrant | ObjectKind::ConfigMap | ObjectKind::Namespace => {}
        }
    }

    fn named_parents(&self, route: &ParsedRoute) -> BTreeSet<ServiceRef> {
        self.own_parents(route).map(|(_, id)| id).collect()
    }
}

/// Backends that a route refers to.
fn references(route: &ParsedRoute) -> BTreeSet<ServiceRef> {
    let references = route.readable_rules().flat_map(ParsedRule::references);
    references.filter_map(|reference| resolve::service(reference, route.namespace())).collect()
}
