//! What a change of one object may change elsewhere: never too little; a little too much costs only a comparison.

use std::collections::BTreeSet;

use super::{ParsedRoute, World};
use crate::api::{ObjectKey, ObjectKind};
use crate::model::{ServiceKind, ServiceRef};
use crate::{endpoints, resolve};

/// What must be computed anew.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Touched {
    /// Frontends, with their VIPs.
    pub frontends: BTreeSet<ServiceRef>,
    /// Backends.
    pub backends: BTreeSet<ServiceRef>,
    /// Statuses of routes.
    pub routes: BTreeSet<ObjectKey>,
}

impl Touched {
    /// Adds what another change touches.
    pub fn merge(&mut self, other: Self) {
        self.frontends.extend(other.frontends);
        self.backends.extend(other.backends);
        self.routes.extend(other.routes);
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.backends.is_empty() && self.routes.is_empty()
    }
}

/// The Service or ServiceImport of a key.
pub(super) fn service_ref(key: &ObjectKey) -> Option<ServiceRef> {
    let kind = match key.kind {
        ObjectKind::Service => ServiceKind::Service,
        ObjectKind::ServiceImport => ServiceKind::ServiceImport,
        ObjectKind::HttpRoute | ObjectKind::EndpointSlice | ObjectKind::ReferenceGrant | ObjectKind::Namespace => return None,
    };
    Some(ServiceRef { kind, namespace: key.namespace.clone(), name: key.name.clone() })
}

impl World {
    /// What the present form of an object bears on.
    pub(super) fn touched_by(&self, key: &ObjectKey) -> Touched {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            ObjectKind::HttpRoute => {
                let frontends = self.routes.get(&name).map(|route| self.parents_of(route)).unwrap_or_default();
                Touched { frontends, backends: BTreeSet::new(), routes: BTreeSet::from([key.clone()]) }
            }
            ObjectKind::Service | ObjectKind::ServiceImport => service_ref(key).map(|id| self.touched_by_service(&id)).unwrap_or_default(),
            ObjectKind::EndpointSlice => {
                let backends = self.slices.get(&name).map(endpoints::owners).unwrap_or_default().into_iter().collect();
                Touched { backends, ..Touched::default() }
            }
            ObjectKind::ReferenceGrant => self.touched_routes(|_, backend| backend.namespace == key.namespace),
            ObjectKind::Namespace => Touched::default(),
        }
    }

    fn touched_by_service(&self, id: &ServiceRef) -> Touched {
        let mut touched = self.touched_routes(|route, backend| backend == id || self.parents_of(route).contains(id));
        for (namespace, name) in self.routes.iter().filter(|(_, route)| self.parents_of(route).contains(id)).map(|(name, _)| name) {
            touched.routes.insert(ObjectKey { kind: ObjectKind::HttpRoute, namespace: namespace.clone(), name: name.clone() });
        }
        touched.frontends.insert(id.clone());
        touched.backends.insert(id.clone());
        // An address that this object gives up or takes may belong to another frontend now.
        let ips = self.services.get(id).map(|service| service.ips.as_slice()).unwrap_or_default();
        touched
            .frontends
            .extend(self.services.values().filter(|other| other.ips.iter().any(|ip| ips.contains(ip))).map(|other| other.id.clone()));
        touched
    }

    /// The routes with a backend that is concerned, and their frontends.
    fn touched_routes(&self, concerned: impl Fn(&ParsedRoute, &ServiceRef) -> bool) -> Touched {
        let mut touched = Touched::default();
        for ((namespace, name), route) in &self.routes {
            let mut backends =
                route.valid_rules().flat_map(|rule| &rule.backends).filter_map(|backend| resolve::service(backend, namespace));
            if backends.any(|backend| concerned(route, &backend)) {
                touched.routes.insert(ObjectKey { kind: ObjectKind::HttpRoute, namespace: namespace.clone(), name: name.clone() });
                touched.frontends.extend(self.parents_of(route));
            }
        }
        touched
    }
}
