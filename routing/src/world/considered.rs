//! Routes on a frontend as one client sees them: which are in force, and why the others are not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Serialize;

use super::{ParsedRoute, World};
use crate::attach;
use crate::model::{FrontendId, ServicePort, ServiceRef};

/// A route that names a frontend.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Considered {
    /// Its kind.
    pub kind: &'static str,
    /// Its name, `NAMESPACE/NAME`.
    pub route: String,
    /// Whose it is, seen from the frontend.
    pub role: Role,
    /// Whether this client's requests obey it.
    pub in_force: bool,
    /// Why, or why not.
    pub why: String,
    /// Rules that are left out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

/// Whose a route is, seen from the frontend (GEP-1294).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Of the frontend's own namespace.
    Producer,
    /// Of another namespace, whose clients alone it is for.
    Consumer,
}

impl World {
    /// What is dialled at an address; none: nothing that is known.
    #[must_use]
    pub fn dialled(&self, ip: IpAddr, port: NonZeroU16) -> Option<FrontendId> {
        let owner = self.owner(ip, port)?;
        Some(FrontendId(ServicePort { service: owner.id.clone(), port }))
    }

    /// Every Service and ServiceImport.
    pub fn services(&self) -> impl Iterator<Item = &ServiceRef> {
        self.services.keys()
    }

    /// Whether there are EndpointSlices at all.
    #[must_use]
    pub fn has_slices(&self) -> bool {
        !self.slices.is_empty()
    }

    /// The TCP ports of a Service or ServiceImport; none: there is no such object.
    #[must_use]
    pub fn ports(&self, service: &ServiceRef) -> Option<Vec<NonZeroU16>> {
        Some(self.services.get(service)?.ports.iter().map(|port| port.number).collect())
    }

    /// The virtual IPs of a Service or ServiceImport; empty if it has none.
    #[must_use]
    pub fn vips_of(&self, service: &ServiceRef) -> Vec<IpAddr> {
        self.services.get(service).map(|service| service.ips.clone()).unwrap_or_default()
    }

    /// Every route that names a frontend, as clients of a namespace see it, those in force first.
    #[must_use]
    pub fn considered(&self, frontend: &FrontendId, client_namespace: &str) -> Vec<Considered> {
        let (parent, port) = (&frontend.0.service, frontend.0.port);
        let active = self.active(parent, port, client_namespace);
        let in_force: BTreeSet<_> = active.iter().flat_map(|(_, routes)| routes).map(|route| route.key()).collect();
        let (active_kind, active_namespace) =
            (active.as_ref().map(|(kind, _)| *kind), active.iter().flat_map(|(_, routes)| routes).next().map(|route| route.namespace()));
        let named = self.relations.attached(parent).into_iter().filter_map(|name| self.routes.get(name));
        let mut considered: Vec<Considered> = named
            .map(|route| {
                let is_producer = route.namespace() == parent.namespace;
                let in_force = in_force.contains(&route.key());
                let why = if in_force {
                    if is_producer { "it is of the namespace of what is dialled" } else { "it is of the client's namespace" }.to_owned()
                } else {
                    let why = self.not_attached(route, parent, port);
                    why.unwrap_or_else(|| match active_kind.filter(|_| active_namespace == Some(route.namespace())) {
                        Some(kind) => format!("{}s on this port exclude it", kind.as_str()),
                        None if is_producer => format!("routes of namespace {client_namespace}, the client's own, replace it"),
                        None => format!("it is for clients of namespace {} alone", route.namespace()),
                    })
                };
                Considered {
                    kind: route.object.kind.as_str(),
                    route: format!("{}/{}", route.namespace(), route.object.metadata.name),
                    role: if is_producer { Role::Producer } else { Role::Consumer },
                    in_force,
                    why,
                    dropped: self.rules(route).filter_map(Result::err).map(|fault| fault.to_string()).collect(),
                }
            })
            .collect();
        considered.sort_by_key(|considered| !considered.in_force);
        considered
    }

    /// Why a route that names a parent is not attached to a port of it; none: it is.
    fn not_attached(&self, route: &ParsedRoute, parent: &ServiceRef, port: NonZeroU16) -> Option<String> {
        if self.is_attached(route, parent, port) {
            return None;
        }
        if self.valid_rules(route).next().is_none() {
            return Some("none of its rules can be obeyed".to_owned());
        }
        let meant = self.own_parents(route).filter(|(_, id)| id == parent || self.stands_for(id, parent));
        let mut said = Vec::new();
        for (written, id) in meant {
            match attach::ports(&written.reference, &id, self.services.get(&id)) {
                Ok(ports) => {
                    said.push(format!("it means other ports: {}", ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
                }
                Err(why) => said.push(why),
            }
        }
        Some(if said.is_empty() { "no parentRef of it that is obeyed here names it".to_owned() } else { said.join("; ") })
    }
}
