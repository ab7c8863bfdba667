//! What of a set of objects does not do what its author means: refused, left out, never reached, leading nowhere, or leading in a circle.
//!
//! Like [`mod@crate::explain`] it decides nothing itself: statuses, tables and filters are those of the data path.

mod cover;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderValue, Method, Request};
use serde::Serialize;

use crate::api::{ObjectKey, ObjectKind};
use crate::filter::step::{Passing, Step};
use crate::model::{Addresses, BackendId, Frontend, FrontendId, PathMatch, Route, RouteKind, RouteMatch, Rule, ServiceKind, ServiceRef};
use crate::table::{RouteTable, Selection};
use crate::world::World;
use cover::covers;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something is not obeyed, or requests get errors.
    Error,
    /// Something is of no use, or leads nowhere by these objects.
    Warning,
}

/// Something that is not as its author means it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of finding it is: a condition's reason, or one of `Shadowed`, `NoEndpoint`, `RedirectLoop`, `DisputedAddress`.
    pub code: &'static str,
    /// Kind of the object.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where in it, for example `spec.rules[1]`; empty: the message says.
    pub field: String,
    /// One sentence that names the value.
    pub message: String,
}

impl Finding {
    fn of(severity: Severity, code: &'static str, key: &ObjectKey, field: impl Into<String>, message: String) -> Self {
        let ObjectKey { kind, namespace, name } = key;
        Self { severity, code, kind: kind.as_str(), namespace: namespace.clone(), name: name.clone(), field: field.into(), message }
    }

    /// Whether it speaks of an object.
    #[must_use]
    pub fn is_of(&self, key: &ObjectKey) -> bool {
        (self.kind, &self.namespace, &self.name) == (key.kind.as_str(), &key.namespace, &key.name)
    }
}

/// Looks at everything. Whether backends have endpoints is judged only if there are EndpointSlices at all: manifests of applications have none.
#[must_use]
pub fn lint(world: &World) -> BTreeSet<Finding> {
    let mut findings = statuses(world);
    for (address, owner, other) in world.disputes() {
        let message = format!("{address} is claimed by {owner} as well, which has it");
        findings.insert(Finding::of(Severity::Warning, "DisputedAddress", &key_of(&other), "", message));
    }
    for service in world.services() {
        let views: BTreeSet<&str> = world.namespaces_with_routes_on(service).into_iter().chain([service.namespace.as_str()]).collect();
        for id in world.frontends(service) {
            for frontend in views.iter().filter_map(|view| world.frontend(&id, view)) {
                of_frontend(world, &id, frontend, &mut findings);
            }
        }
    }
    findings
}

fn key_of(service: &ServiceRef) -> ObjectKey {
    let kind = match service.kind {
        ServiceKind::Service => ObjectKind::Service,
        ServiceKind::ServiceImport => ObjectKind::ServiceImport,
    };
    ObjectKey { kind, namespace: service.namespace.clone(), name: service.name.clone() }
}

fn statuses(world: &World) -> BTreeSet<Finding> {
    let mut findings = BTreeSet::new();
    for key in world.with_status() {
        for entry in world.status(&key).into_iter().flatten() {
            // Of what is good only PartiallyInvalid is a fault.
            let faults = entry.conditions.iter().filter(|condition| condition.status == (condition.kind == "PartiallyInvalid"));
            findings.extend(faults.map(|fault| {
                // Messages that speak of several things begin with the reason of each.
                let message = fault.message.strip_prefix(fault.reason).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&fault.message);
                Finding::of(Severity::Error, fault.reason, &key, "", message.to_owned())
            }));
        }
    }
    findings
}

fn of_frontend(world: &World, id: &FrontendId, frontend: Frontend, findings: &mut BTreeSet<Finding>) {
    let kind = frontend.kind;
    let table = RouteTable::compile(Arc::new(frontend));
    let frontend = table.frontend();
    let mut add = |severity, code, route: &Route, field: String, message| {
        let key = ObjectKey { kind: ObjectKind::Route(kind), namespace: route.namespace.clone(), name: route.name.clone() };
        findings.insert(Finding::of(severity, code, &key, field, message));
    };
    for (route, rule) in frontend.routes.iter().flat_map(|route| route.rules.iter().map(move |rule| (route, rule))) {
        for backend in backends(rule).filter(|backend| has_no_endpoint(world, backend)) {
            add(
                Severity::Warning,
                "NoEndpoint",
                route,
                field(rule),
                format!("{backend} has no endpoint: requests that go there get a 503"),
            );
        }
    }
    match kind {
        RouteKind::Http | RouteKind::Grpc => {
            for (route, rule, winner) in shadowed(&table) {
                let message =
                    format!("it never wins on {id}: rule {} of {}/{} takes all that it matches", winner.1, winner.0.0, winner.0.1);
                add(Severity::Warning, "Shadowed", route, field(rule), message);
            }
            for (selection, request) in loops(&table) {
                let message = format!("{request} on {id} is redirected to itself, for ever");
                add(Severity::Error, "RedirectLoop", selection.route, field(selection.rule), message);
            }
        }
        RouteKind::Tcp => {
            for route in frontend.routes.iter().skip(1) {
                let winner = frontend.routes.first().map(|route| format!("{}/{}", route.namespace, route.name)).unwrap_or_default();
                add(Severity::Warning, "Shadowed", route, String::new(), format!("it gets no connection on {id}: {winner} is older"));
            }
        }
        RouteKind::Tls => {}
    }
}

fn field(rule: &Rule) -> String {
    format!("spec.rules[{}]", rule.index)
}

/// What requests of a rule may be sent to.
fn backends(rule: &Rule) -> impl Iterator<Item = &BackendId> {
    let weighted = rule.backends.iter().filter(|backend| backend.weight > 0);
    weighted.filter_map(|backend| backend.target.backend()).chain(rule.filter_backends())
}

fn has_no_endpoint(world: &World, backend: &BackendId) -> bool {
    let has_none = |addresses: &Addresses| match addresses {
        Addresses::Endpoints(endpoints) => endpoints.is_empty(),
        Addresses::Vips(_) => false,
    };
    world.has_slices() && world.backend(backend).is_some_and(|backend| has_none(&backend.addresses))
}

/// Route and rule.
type Winner = ((String, String), u32);

/// Rules each of whose matches is covered by one of another rule that comes before it.
fn shadowed(table: &RouteTable) -> Vec<(&Route, &Rule, Winner)> {
    let order: Vec<Selection<'_>> = table.in_order().collect();
    let is_same = |a: &Selection<'_>, b: &Selection<'_>| (a.position.route, a.position.rule) == (b.position.route, b.position.rule);
    let first_before = |at: usize| {
        let later = order.get(at)?;
        order.iter().take(at).find(|earlier| !is_same(earlier, later) && covers(earlier.matched, later.matched))
    };
    let mut found = Vec::new();
    for (route_index, route) in table.frontend().routes.iter().enumerate() {
        for (rule_index, rule) in route.rules.iter().enumerate() {
            let own = order.iter().enumerate().filter(|(_, one)| (one.position.route, one.position.rule) == (route_index, rule_index));
            let winners: Option<Vec<&Selection<'_>>> = own.map(|(at, _)| first_before(at)).collect();
            if let Some(winner) = winners.as_ref().and_then(|winners| winners.first()) {
                found.push((route, rule, ((winner.route.namespace.clone(), winner.route.name.clone()), winner.rule.index)));
            }
        }
    }
    found
}

/// Requests that a rule's redirect sends back to where they came from.
fn loops(table: &RouteTable) -> Vec<(Selection<'_>, String)> {
    let mut found = Vec::new();
    for asked in table.in_order() {
        let Some(mut passing) = sample(table.frontend(), asked.matched) else { continue };
        let Some(selection) = table.select(&passing.head()).filter(|selection| selection.position == asked.position) else { continue };
        let request = format!("{} {}", passing.parts.method, passing.parts.uri);
        for filter in &selection.rule.filters {
            match filter.step(&mut passing, selection.matched, table.frontend().id.0.port) {
                Step::Redirects { leads_to_itself: true, .. } => found.push((selection, request.clone())),
                Step::Redirects { .. } | Step::Preflight(_) | Step::InvalidTarget(_) | Step::Unsupported(_) => break,
                Step::Passes | Step::Changes(_) | Step::Copies(_) | Step::Asks(_) => {}
            }
        }
    }
    found
}

/// A request that a match accepts, as a client of the frontend would make it; none where a pattern would have to be guessed.
fn sample(frontend: &Frontend, matched: &RouteMatch) -> Option<Passing> {
    let path = match &matched.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_str(),
        PathMatch::Regex(_) | PathMatch::Rpc(_) => return None,
    };
    let query: Option<Vec<String>> = matched.query.iter().map(|query| Some(format!("{}={}", query.name, query.value.exact()?))).collect();
    let query = query.filter(|query| !query.is_empty()).map(|query| format!("?{}", query.join("&")));
    let service = &frontend.id.0.service;
    let domain = if service.kind == ServiceKind::ServiceImport { "clusterset.local" } else { "cluster.local" };
    let mut authority = HeaderValue::try_from(format!("{}.{}.svc.{domain}", service.name, service.namespace)).ok()?;
    let mut request = Request::builder()
        .method(matched.method.clone().unwrap_or(Method::GET))
        .uri(format!("{path}{}", query.unwrap_or_default()))
        .body(())
        .ok()?;
    for header in &matched.headers {
        let value = HeaderValue::from_str(header.value.exact()?).ok()?;
        if header.name == http::header::HOST {
            authority = value;
        } else {
            request.headers_mut().insert(header.name.clone(), value);
        }
    }
    Some(Passing { parts: Box::new(request.into_parts().0), authority: Some(authority) })
}

#[cfg(test)]
mod tests;
