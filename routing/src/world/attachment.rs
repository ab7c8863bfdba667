//! Which routes are in force where: producer or consumer set, kinds that exclude each other, ports.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use super::{Parents, ParsedRoute, World};
use crate::api::ParentRef;
use crate::attach;
use crate::model::{RouteKind, ServiceKind, ServiceRef};
use crate::parse::{Fault, ParsedRule};

impl World {
    /// Parents of the kinds that are ours.
    pub(super) fn own_parents<'r>(&self, route: &'r ParsedRoute) -> impl Iterator<Item = (&'r ParentRef, ServiceRef)> {
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

    /// A route's rules in their order, each as it is obeyed or why it is not.
    pub(super) fn rules<'r>(&self, route: &'r ParsedRoute) -> impl Iterator<Item = Result<&'r ParsedRule, Fault>> {
        route.rules.iter().map(|rule| match rule {
            Ok(rule) => self.affinity_conflict(route, rule).map_or(Ok(rule), Err),
            Err(fault) => Err(fault.clone()),
        })
    }

    /// The rules that are obeyed.
    pub(super) fn valid_rules<'r>(&self, route: &'r ParsedRoute) -> impl Iterator<Item = &'r ParsedRule> {
        self.rules(route).filter_map(Result::ok)
    }

    /// Session persistence and session affinity exclude each other (GEP-1619; digest H-29, D-16).
    fn affinity_conflict(&self, route: &ParsedRoute, rule: &ParsedRule) -> Option<Fault> {
        rule.persistence.as_ref()?;
        let ids = rule.backends.iter().filter_map(|backend| crate::resolve::service(&backend.reference, route.namespace()));
        let affine = ids.into_iter().find(|id| self.services.get(id).is_some_and(|service| service.affinity.is_some()))?;
        let message = format!("cannot be had together with session affinity ClientIP of {affine}");
        Some(Fault::unsupported(&format!("spec.rules[{}].sessionPersistence", rule.index), message))
    }

    /// Whether a route with something to obey is attached to a port of a parent.
    pub(super) fn is_attached(&self, route: &ParsedRoute, parent: &ServiceRef, port: NonZeroU16) -> bool {
        let is_meant = || {
            self.own_parents(route).any(|(written, id)| {
                let means = || attach::ports(&written.reference, &id, self.services.get(&id));
                (id == *parent || self.stands_for(&id, parent)) && means().is_ok_and(|ports| ports.contains(&port))
            })
        };
        // A GRPCRoute needs no rules; one without any lets no call through (G-6, M-9).
        let says_nothing = route.object.kind == RouteKind::Grpc && route.object.rules.is_empty();
        is_meant() && (says_nothing || self.valid_rules(route).next().is_some())
    }

    /// The routes of one namespace that are attached, those of the highest kind alone (GEP-1294 "Route types"; digest M-21).
    fn group(&self, namespace: &str, parent: &ServiceRef, port: NonZeroU16) -> Option<(RouteKind, Vec<&ParsedRoute>)> {
        let named =
            self.relations.attached(parent).into_iter().filter(|(_, of, _)| of == namespace).filter_map(|name| self.routes.get(name));
        let mut attached: Vec<&ParsedRoute> = named.filter(|route| self.is_attached(route, parent, port)).collect();
        let kind = attached.iter().map(|route| route.object.kind).min()?;
        attached.retain(|route| route.object.kind == kind);
        Some((kind, attached))
    }

    /// The consumer routes of the namespace if there are any on this port, else the producer routes (GEP-1294; digest M-15 to M-20, D-5).
    pub(super) fn active(&self, parent: &ServiceRef, port: NonZeroU16, client_namespace: &str) -> Option<(RouteKind, Vec<&ParsedRoute>)> {
        let consumer = if client_namespace == parent.namespace { None } else { self.group(client_namespace, parent, port) };
        consumer.or_else(|| self.group(&parent.namespace, parent, port))
    }

    /// Ports of a parent on which routes of a higher kind keep this one from being in force, and those on which none does.
    pub(super) fn lost_and_held(
        &self,
        route: &ParsedRoute,
        parent: &ServiceRef,
        ports: &[NonZeroU16],
    ) -> (Vec<NonZeroU16>, Vec<NonZeroU16>) {
        // Routes on a derived Service are one group with those on its import (digest D-8).
        let import = self.services.get(parent).and_then(|service| service.derived_from.as_ref());
        let import = import.filter(|import| self.stands_for(parent, import));
        let is_lost = |port: &NonZeroU16| {
            let groups = [Some(parent), import].into_iter().flatten().filter_map(|id| self.group(route.namespace(), id, *port));
            groups.into_iter().any(|(kind, _)| kind < route.object.kind)
        };
        ports.iter().partition(|port| is_lost(port))
    }

    /// Whether a Service was derived from a ServiceImport and shares an address with it: then routes on either are one group (digest D-8).
    pub(super) fn stands_for(&self, service: &ServiceRef, import: &ServiceRef) -> bool {
        let (Some(service), Some(import)) = (self.services.get(service), self.services.get(import)) else { return false };
        service.derived_from.as_ref() == Some(&import.id) && service.ips.iter().any(|ip| import.ips.contains(ip))
    }

    /// The parents of a route, and the ServiceImports that they were derived from.
    pub(super) fn parents_of(&self, route: &ParsedRoute) -> BTreeSet<ServiceRef> {
        let origin = |id: &ServiceRef| self.services.get(id).and_then(|service| service.derived_from.clone());
        self.own_parents(route).flat_map(|(_, id)| [origin(&id), Some(id)]).flatten().collect()
    }
}
