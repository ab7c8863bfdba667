//! What a change of one object may change elsewhere: never too little; a little too much costs only a comparison.

use std::collections::BTreeSet;

use super::{Name, ParsedRoute, RouteName, World, in_namespace};
use crate::api::{ObjectKey, ObjectKind};
use crate::endpoints;
use crate::model::{ServiceKind, ServiceRef};

/// What must be computed anew.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Touched {
    /// Frontends, with their VIPs.
    pub frontends: BTreeSet<ServiceRef>,
    /// Backends.
    pub backends: BTreeSet<ServiceRef>,
    /// Statuses of routes and policies.
    pub statuses: BTreeSet<ObjectKey>,
}

impl Touched {
    /// Adds what another change touches.
    pub fn merge(&mut self, other: Self) {
        self.frontends.extend(other.frontends);
        self.backends.extend(other.backends);
        self.statuses.extend(other.statuses);
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.backends.is_empty() && self.statuses.is_empty()
    }
}

/// The Service or ServiceImport of a key.
pub(super) fn service_ref(key: &ObjectKey) -> Option<ServiceRef> {
    let kind = match key.kind {
        ObjectKind::Service => ServiceKind::Service,
        ObjectKind::ServiceImport => ServiceKind::ServiceImport,
        ObjectKind::Route(_)
        | ObjectKind::EndpointSlice
        | ObjectKind::ReferenceGrant
        | ObjectKind::BackendTlsPolicy
        | ObjectKind::BackendTrafficPolicy
        | ObjectKind::ConfigMap
        | ObjectKind::Namespace => return None,
    };
    Some(ServiceRef { kind, namespace: key.namespace.clone(), name: key.name.clone() })
}

impl World {
    /// What the present form of an object bears on.
    pub(super) fn touched_by(&self, key: &ObjectKey) -> Touched {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            ObjectKind::Route(kind) => {
                let route = self.routes.get(&(kind, name.0, name.1));
                let frontends = route.map(|route| self.parents_of(route)).unwrap_or_default();
                // Kinds exclude each other: others on the same parents may have lost or won.
                let mut statuses = self.statuses_on(&frontends);
                statuses.insert(key.clone());
                Touched { frontends, backends: BTreeSet::new(), statuses }
            }
            ObjectKind::Service | ObjectKind::ServiceImport => service_ref(key).map(|id| self.touched_by_service(&id)).unwrap_or_default(),
            ObjectKind::EndpointSlice => {
                let backends = self.slices.get(&name).map(endpoints::owners).unwrap_or_default().into_iter().collect();
                Touched { backends, ..Touched::default() }
            }
            ObjectKind::ReferenceGrant => self.touched_routes(self.relations.referring_into(&key.namespace)),
            ObjectKind::BackendTlsPolicy => {
                self.touched_by_policy(key, self.tls_policies.get(&name).map(|policy| policy.targets().collect()).unwrap_or_default())
            }
            ObjectKind::BackendTrafficPolicy => {
                self.touched_by_policy(key, self.traffic_policies.get(&name).map(|policy| policy.targets().collect()).unwrap_or_default())
            }
            ObjectKind::ConfigMap => {
                let policies = in_namespace(&self.tls_policies, &key.namespace);
                self.touched_targets(policies.flat_map(|(_, policy)| policy.targets()).collect())
            }
            ObjectKind::Namespace => Touched::default(),
        }
    }

    /// Routes with one of these parents.
    fn statuses_on(&self, parents: &BTreeSet<ServiceRef>) -> BTreeSet<ObjectKey> {
        parents.iter().flat_map(|parent| self.routes_on(parent)).map(ParsedRoute::key).collect()
    }

    fn routes_on<'w>(&'w self, parent: &'w ServiceRef) -> impl Iterator<Item = &'w ParsedRoute> {
        self.relations.attached(parent).into_iter().filter_map(|name| self.routes.get(name))
    }

    fn touched_by_service(&self, id: &ServiceRef) -> Touched {
        let mut touched = self.touched_targets(BTreeSet::from([id.clone()]));
        touched.frontends.insert(id.clone());
        for route in self.routes_on(id) {
            touched.statuses.extend(self.statuses_on(&self.parents_of(route)));
        }
        // Session affinity makes a rule invalid, and then another kind of route may be in force.
        touched.statuses.extend(self.statuses_on(&touched.frontends));
        // An address that this object gives up or takes may belong to another frontend now.
        let ips = self.services.get(id).map(|service| service.ips.as_slice()).unwrap_or_default();
        touched.frontends.extend(ips.iter().flat_map(|ip| self.relations.claims(*ip)).cloned());
        touched
    }

    fn touched_by_policy(&self, key: &ObjectKey, targets: BTreeSet<ServiceRef>) -> Touched {
        let mut touched = self.touched_targets(targets);
        // Also without a target that is ours: what was said of an earlier one has to go.
        touched.statuses.insert(key.clone());
        touched
    }

    /// Backends whose policies, or what these rest on, changed; and all that names them.
    fn touched_targets(&self, targets: BTreeSet<ServiceRef>) -> Touched {
        let mut touched = self.touched_routes(targets.iter().flat_map(|target| self.relations.referring(target)));
        let key = |kind, (namespace, name): &Name| ObjectKey { kind, namespace: namespace.clone(), name: name.clone() };
        for target in &targets {
            touched.statuses.extend(self.relations.tls.of(target).map(|name| key(ObjectKind::BackendTlsPolicy, name)));
            touched.statuses.extend(self.relations.traffic.of(target).map(|name| key(ObjectKind::BackendTrafficPolicy, name)));
        }
        touched.backends.extend(targets);
        touched
    }

    /// These routes and their frontends.
    fn touched_routes<'w>(&'w self, names: impl Iterator<Item = &'w RouteName>) -> Touched {
        let mut touched = Touched::default();
        for route in names.filter_map(|name| self.routes.get(name)) {
            touched.statuses.insert(route.key());
            touched.frontends.extend(self.parents_of(route));
        }
        touched
    }
}
