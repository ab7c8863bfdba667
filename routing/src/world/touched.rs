//! What a change of one object may change elsewhere: never too little; a little too much costs only a comparison.

use std::collections::BTreeSet;

use super::{ParsedRoute, World};
use crate::api::{ObjectKey, ObjectKind};
use crate::model::{ServiceKind, ServiceRef};
use crate::parse::ParsedRule;
use crate::{endpoints, resolve};

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
            ObjectKind::ReferenceGrant => self.touched_routes(|backend| backend.namespace == key.namespace),
            ObjectKind::BackendTlsPolicy => {
                self.touched_by_policy(key, self.tls_policies.get(&name).map(|policy| policy.targets().collect()).unwrap_or_default())
            }
            ObjectKind::BackendTrafficPolicy => {
                self.touched_by_policy(key, self.traffic_policies.get(&name).map(|policy| policy.targets().collect()).unwrap_or_default())
            }
            ObjectKind::ConfigMap => {
                let policies = self.tls_policies.values().filter(|policy| policy.object.metadata.namespace == key.namespace);
                self.touched_targets(policies.flat_map(|policy| policy.targets()).collect())
            }
            ObjectKind::Namespace => Touched::default(),
        }
    }

    /// Routes with one of these parents.
    fn statuses_on(&self, parents: &BTreeSet<ServiceRef>) -> BTreeSet<ObjectKey> {
        let concerned = self.routes.values().filter(|route| !self.parents_of(route).is_disjoint(parents));
        concerned.map(ParsedRoute::key).collect()
    }

    fn touched_by_service(&self, id: &ServiceRef) -> Touched {
        let mut touched = self.touched_targets(BTreeSet::from([id.clone()]));
        touched.frontends.insert(id.clone());
        for route in self.routes.values().filter(|route| self.parents_of(route).contains(id)) {
            touched.statuses.extend(self.statuses_on(&self.parents_of(route)));
        }
        // Session affinity makes a rule invalid, and then another kind of route may be in force.
        touched.statuses.extend(self.statuses_on(&touched.frontends));
        // An address that this object gives up or takes may belong to another frontend now.
        let ips = self.services.get(id).map(|service| service.ips.as_slice()).unwrap_or_default();
        touched
            .frontends
            .extend(self.services.values().filter(|other| other.ips.iter().any(|ip| ips.contains(ip))).map(|other| other.id.clone()));
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
        let mut touched = self.touched_routes(|backend| targets.contains(backend));
        let concerned = |mut ids: Box<dyn Iterator<Item = ServiceRef> + '_>| ids.any(|id| targets.contains(&id));
        let tls = self.tls_policies.iter().filter(|(_, policy)| concerned(Box::new(policy.targets())));
        let traffic = self.traffic_policies.iter().filter(|(_, policy)| concerned(Box::new(policy.targets())));
        let key = |kind, (namespace, name): &super::Name| ObjectKey { kind, namespace: namespace.clone(), name: name.clone() };
        touched.statuses.extend(tls.map(|(name, _)| key(ObjectKind::BackendTlsPolicy, name)));
        touched.statuses.extend(traffic.map(|(name, _)| key(ObjectKind::BackendTrafficPolicy, name)));
        touched.backends.extend(targets);
        touched
    }

    /// The routes that refer to a backend that is concerned, and their frontends.
    fn touched_routes(&self, concerned: impl Fn(&ServiceRef) -> bool) -> Touched {
        let mut touched = Touched::default();
        for route in self.routes.values() {
            let references = route.readable_rules().flat_map(ParsedRule::references);
            let mut backends = references.filter_map(|reference| resolve::service(reference, route.namespace()));
            if backends.any(|backend| concerned(&backend)) {
                touched.statuses.insert(route.key());
                touched.frontends.extend(self.parents_of(route));
            }
        }
        touched
    }
}
