//! Why a request goes where it goes: the walk of the data path, told. It decides nothing itself: matches are judged by
//! [`RouteTable::verdicts`], filters by [`Filter::step`], routes and backends by the [`World`], as for every request.

mod candidates;
mod filters;
mod shares;

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderValue, Version};
use serde::Serialize;

use crate::filter::step::{Passing, Step};
use crate::locality::Location;
use crate::model::{BackendId, BackendTarget, Filter, FrontendId, RouteKind, ServiceKind, ServicePort, ServiceRef};
use crate::reason::Reason;
use crate::server_name;
use crate::table::RouteTable;
use crate::world::World;

pub use crate::world::considered::{Considered, Role};
pub use candidates::{Candidate, Verdict};
pub use filters::Applied;
pub use shares::{Destination, Share};

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Namespace of the client's pod.
    pub client_namespace: String,
    /// Where the client is, as far as it matters for endpoints.
    pub location: Location,
    /// What the client's resolver is asked for: a name or an address.
    pub host: String,
    /// The server name in a TLS client's hello; none: the host.
    pub server_name: Option<String>,
    /// The port that is dialled.
    pub port: NonZeroU16,
    /// The request: path and query alone in its target.
    pub request: Parts,
}

/// Why a request goes where it goes.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What is dialled: `KIND/NAMESPACE/NAME/PORT`.
    pub frontend: String,
    /// Its addresses.
    pub vips: Vec<IpAddr>,
    /// Every route that names it or something that shares its addresses, and whether it is in force for this client.
    pub routes: Vec<Considered>,
    /// Matches of the routes in force, in their order of precedence.
    pub matches: Vec<Candidate>,
    /// Filters of the rule.
    pub filters: Vec<Applied>,
    /// Backends of the rule, with their share.
    pub backends: Vec<Share>,
    /// What the client gets.
    pub outcome: Outcome,
}

/// What the client gets.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Outcome {
    /// What becomes of the request.
    pub kind: OutcomeKind,
    /// The reason's label, where the sidecar answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The status, where the sidecar answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// In one sentence.
    pub message: String,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// No route is in force: the platform forwards it.
    PassesThrough,
    /// A backend answers, whichever is chosen.
    Forwarded,
    /// A backend answers a share of such requests; others get an error.
    PartlyForwarded,
    /// A filter answers.
    Answered,
    /// The sidecar answers with an error.
    Refused,
}

impl Outcome {
    fn new(kind: OutcomeKind, message: impl Into<String>) -> Self {
        Self { kind, reason: None, status: None, message: message.into() }
    }

    fn refused(reason: Reason) -> Self {
        Self::of(OutcomeKind::Refused, reason, reason.sentence())
    }

    fn of(kind: OutcomeKind, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, reason: Some(reason.label()), status: Some(reason.status().as_u16()), message: message.into() }
    }
}

/// Why nothing can be said.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unexplained {
    /// No Service or ServiceImport has this name or address.
    #[error("{0}: no Service or ServiceImport is known by this name or address")]
    UnknownHost(String),
    /// It has other ports.
    #[error("{service} has no TCP port {port}; it has {ports}")]
    UnknownPort {
        /// Which.
        service: ServiceRef,
        /// What was asked for.
        port: NonZeroU16,
        /// What there is.
        ports: String,
    },
}

/// The Service or ServiceImport that a DNS name means to a client of a namespace (digest C-8; Kubernetes' own names for Services).
fn named(host: &str, client_namespace: &str) -> Option<ServiceRef> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let of = |kind, namespace: &str, name: &str| ServiceRef { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    match host.split('.').collect::<Vec<_>>()[..] {
        [name] => Some(of(ServiceKind::Service, client_namespace, name)),
        [name, namespace] | [name, namespace, "svc"] | [name, namespace, "svc", "cluster", "local"] => {
            Some(of(ServiceKind::Service, namespace, name))
        }
        [name, namespace, "svc", "clusterset", "local"] => Some(of(ServiceKind::ServiceImport, namespace, name)),
        _ => None,
    }
}

/// What is dialled.
fn frontend(world: &World, asked: &Asked) -> Result<FrontendId, Unexplained> {
    let unknown = || Unexplained::UnknownHost(asked.host.clone());
    if let Ok(ip) = asked.host.trim_matches(['[', ']']).parse() {
        return world.dialled(ip, asked.port).ok_or_else(unknown);
    }
    let service = named(&asked.host, &asked.client_namespace).ok_or_else(unknown)?;
    let ports = world.ports(&service).ok_or_else(unknown)?;
    // The name leads to an address, and who has that address decides: with a derived Service its import (digest D-8).
    if let Some(dialled) = world.vips_of(&service).first().and_then(|ip| world.dialled(*ip, asked.port)) {
        return Ok(dialled);
    }
    if !ports.contains(&asked.port) {
        let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(Unexplained::UnknownPort { service, port: asked.port, ports });
    }
    Ok(FrontendId(ServicePort { service, port: asked.port }))
}

/// Tells the walk of a request.
///
/// # Errors
/// What is dialled is not known.
pub fn explain(world: &World, asked: &Asked) -> Result<Explanation, Unexplained> {
    let id = frontend(world, asked)?;
    let mut explanation = Explanation {
        frontend: id.to_string(),
        vips: world.vips_of(&id.0.service),
        routes: world.considered(&id, &asked.client_namespace),
        matches: Vec::new(),
        filters: Vec::new(),
        backends: Vec::new(),
        outcome: Outcome::new(
            OutcomeKind::PassesThrough,
            "no route is in force for this client: the platform forwards the connection unread",
        ),
    };
    if explanation.vips.is_empty() {
        explanation.outcome.message = "it has no virtual IP: clients dial its endpoints, and no route applies".to_owned();
        return Ok(explanation);
    }
    let Some(frontend) = world.frontend(&id, &asked.client_namespace) else { return Ok(explanation) };
    let table = RouteTable::compile(Arc::new(frontend));
    match table.frontend().kind {
        RouteKind::Http | RouteKind::Grpc => http(world, asked, &table, &mut explanation),
        RouteKind::Tls | RouteKind::Tcp => stream(world, asked, &table, &mut explanation),
    }
    Ok(explanation)
}

fn http(world: &World, asked: &Asked, table: &RouteTable, explanation: &mut Explanation) {
    let authority = asked.request.headers.get(HOST).cloned().or_else(|| HeaderValue::try_from(&asked.host).ok());
    let mut passing = Passing { parts: Box::new(asked.request.clone()), authority };
    explanation.matches = candidates::all(table, &passing.head());
    let kind = table.frontend().kind;
    let is_grpc = kind == RouteKind::Grpc;
    let content_type = asked.request.headers.get(CONTENT_TYPE);
    let speaks_grpc = || content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc && !(asked.request.version == Version::HTTP_2 && speaks_grpc()) {
        explanation.outcome = Outcome::refused(Reason::NotGrpc);
        return;
    }
    let Some(selection) = table.select(&passing.head()) else {
        explanation.outcome = Outcome::refused(Reason::NoRoute);
        return;
    };
    let matched = (selection.matched, table.frontend().id.0.port);
    let cannot_ask = |service: &BackendId| shares::cannot_ask(world, asked, service);
    let (applied, ended) = filters::apply(&selection.rule.filters, &mut passing, matched, &cannot_ask);
    explanation.filters = applied;
    explanation.backends =
        shares::all(world, asked, (kind, selection.rule), |of: &[Filter]| filters::apply(of, &mut passing.clone(), matched, &cannot_ask));
    explanation.outcome = ended.unwrap_or_else(|| shares::outcome(&explanation.backends));
}

/// Bytes are not read: a name or the weights decide.
fn stream(world: &World, asked: &Asked, table: &RouteTable, explanation: &mut Explanation) {
    let frontend = table.frontend();
    let name = asked.server_name.as_ref().unwrap_or(&asked.host);
    let selected = match frontend.kind {
        RouteKind::Tls => server_name::select(frontend, name).map(|(index, _)| index),
        RouteKind::Tcp | RouteKind::Http | RouteKind::Grpc => (!frontend.routes.is_empty()).then_some(0),
    };
    explanation.matches = candidates::of_streams(frontend, selected, name);
    let rule = selected.and_then(|index| frontend.routes.get(index)).and_then(|route| route.rules.first());
    let Some(rule) = rule else {
        explanation.outcome = Outcome::new(OutcomeKind::Refused, "no TLSRoute has this server name: the connection is reset");
        explanation.outcome.reason = Some(Reason::NoRoute.label());
        return;
    };
    explanation.backends = shares::all(world, asked, (frontend.kind, rule), |_| (Vec::new(), None));
    explanation.outcome = shares::outcome(&explanation.backends);
}

/// Whether a step ends the walk, and as what.
fn ended(step: &Step<'_>, cannot_ask: &impl Fn(&BackendId) -> Option<Outcome>) -> Option<Outcome> {
    match step {
        Step::Passes | Step::Changes(_) | Step::Copies(_) => None,
        Step::Asks(asked) => match &asked.target {
            // Whether one that can be asked says yes is known to nobody before.
            BackendTarget::Backend(service) => cannot_ask(service),
            BackendTarget::Invalid(fault) => {
                let why = format!("the authorization service: {}: {}", fault.reason.as_str(), fault.message);
                Some(Outcome::of(OutcomeKind::Refused, Reason::InvalidBackend, why))
            }
        },
        Step::Redirects { status, location, leads_to_itself } => {
            let location = String::from_utf8_lossy(location.as_bytes());
            let again = if *leads_to_itself { ", which is the very same: a loop" } else { "" };
            Some(Outcome::of(OutcomeKind::Answered, Reason::Redirect(*status), format!("the client is sent to {location}{again}")))
        }
        Step::Preflight(_) => Some(Outcome::of(OutcomeKind::Answered, Reason::Preflight, "the preflight request is answered")),
        Step::InvalidTarget(why) => {
            Some(Outcome::of(OutcomeKind::Refused, Reason::InvalidTarget, format!("{}: {why}", Reason::InvalidTarget.sentence())))
        }
        Step::Unsupported(why) => {
            Some(Outcome::of(OutcomeKind::Refused, Reason::UnsupportedFilter, format!("{}: {why}", Reason::UnsupportedFilter.sentence())))
        }
    }
}

#[cfg(test)]
mod tests;
