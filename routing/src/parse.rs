//! The only door from untrusted rules to the model: each rule converts on its own, or is dropped with a [`Fault`] that names the field.
//!
//! Invariant: a bad value concerns its rule and nothing else (digest S-6, S-8).

mod cors;
mod duration;
mod filter;
mod matches;
mod policy;
mod rule;

use std::num::NonZeroU16;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{BackendObjectReference, BackendRef, GrpcRouteRule, HttpRouteRule, Route, StreamRouteRule, decode_at};
use crate::model::{AuthProtocol, Filter, Fraction, HostPattern, Persistence, Retry, RouteKind, RouteMatch, Timeouts};

pub(crate) use policy::{TlsPolicy, TlsRoots, TrafficPolicy, is_certificate_bundle, tls_policy, traffic_policy};

/// Limits of the API (HTTPRoute, HTTPRouteRule, HTTPRouteMatch).
const RULES_MAX: usize = 16;
/// Of a TLSRoute or TCPRoute.
const STREAM_RULES_MAX: usize = 1;
const MATCHES_MAX: usize = 64;
/// Of all rules of a route together.
const ROUTE_MATCHES_MAX: usize = 128;
const HOSTNAMES_MAX: usize = 1024;

const BACKENDS_MAX: usize = 16;
const WEIGHT_MAX: u32 = 1_000_000;

/// Why a rule is dropped.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Fault {
    /// The reason of Accepted=False if every rule is dropped.
    pub reason: FaultReason,
    /// For example `spec.rules[1].matches[0].path.value`.
    pub field: String,
    /// One sentence that names the value.
    pub message: String,
}

/// Reasons of Accepted=False that a rule can cause (RouteConditionReason).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FaultReason {
    /// A value that is unknown, out of range or not understood.
    UnsupportedValue,
    /// Filters that cannot stand together.
    IncompatibleFilters,
}

impl FaultReason {
    /// As written in the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedValue => "UnsupportedValue",
            Self::IncompatibleFilters => "IncompatibleFilters",
        }
    }
}

impl Fault {
    pub(crate) fn unsupported(field: &str, message: impl Into<String>) -> Self {
        Self { reason: FaultReason::UnsupportedValue, field: field.to_owned(), message: message.into() }
    }

    fn incompatible(field: &str, message: impl Into<String>) -> Self {
        Self { reason: FaultReason::IncompatibleFilters, field: field.to_owned(), message: message.into() }
    }

    /// The same fault seen from the object that holds the field.
    fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

type Parsed<T> = Result<T, Fault>;

/// A rule whose backends still are references.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedRule {
    /// Position in `spec.rules`.
    pub index: u32,
    /// `rules[].name`.
    pub name: Option<String>,
    /// Never empty.
    pub matches: Vec<RouteMatch>,
    /// In the order given.
    pub filters: Vec<ParsedFilter>,
    /// In the order given.
    pub backends: Vec<ParsedBackend>,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// See [`Retry`].
    pub retry: Option<Retry>,
    /// See [`Persistence`].
    pub persistence: Option<Persistence>,
}

impl ParsedRule {
    /// Everything that the rule refers to: backends, mirrors, authorization services.
    pub(crate) fn references(&self) -> impl Iterator<Item = &Reference> {
        let filters = self.filters.iter().chain(self.backends.iter().flat_map(|backend| &backend.filters));
        self.backends.iter().map(|backend| &backend.reference).chain(filters.filter_map(ParsedFilter::reference))
    }
}

/// A filter whose backend, if it has one, still is a reference.
#[derive(Clone, Debug, PartialEq)]
pub enum ParsedFilter {
    /// It refers to nothing.
    Ready(Filter),
    /// RequestMirror.
    Mirror {
        /// Where the copy goes.
        reference: Reference,
        /// Of which requests.
        fraction: Fraction,
    },
    /// ExternalAuth.
    Auth {
        /// Who is asked.
        reference: Reference,
        /// How.
        protocol: AuthProtocol,
        /// So much of the body is sent along.
        body_bytes_max: u32,
    },
}

impl ParsedFilter {
    fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Ready(_) => None,
            Self::Mirror { reference, .. } | Self::Auth { reference, .. } => Some(reference),
        }
    }
}

/// A reference that is well-formed; whether it leads anywhere is for `resolve` to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Empty for core.
    pub group: String,
    /// `Service` where none is written.
    pub kind: String,
    /// The route's if none is written.
    pub namespace: Option<String>,
    /// Name of the backend.
    pub name: String,
    /// Of the Service or ServiceImport.
    pub port: Option<NonZeroU16>,
}

/// A backendRef.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedBackend {
    /// Where it leads.
    pub reference: Reference,
    /// 0 to 1,000,000.
    pub weight: u32,
    /// Applied after the rule's.
    pub filters: Vec<ParsedFilter>,
}

/// The rules of a route in their order, each parsed or dropped.
#[must_use]
pub fn rules(route: &Route) -> Vec<Parsed<ParsedRule>> {
    if route.rules.is_empty() && matches!(route.kind, RouteKind::Tls | RouteKind::Tcp) {
        return vec![Err(Fault::unsupported("spec.rules", format!("a {} has one rule", route.kind.as_str())))];
    }
    let mut matches_left = ROUTE_MATCHES_MAX;
    let parsed = route.rules.iter().enumerate().map(|(index, written)| {
        let field = format!("spec.rules[{index}]");
        let parsed = rule(route.kind, index, written, &field)?;
        matches_left = matches_left
            .checked_sub(parsed.matches.len())
            .ok_or_else(|| Fault::unsupported(&field, format!("a route has at most {ROUTE_MATCHES_MAX} matches in all")))?;
        Ok(parsed)
    });
    parsed.collect()
}

/// The server names of a TLSRoute.
///
/// # Errors
/// There is none, or one is no host name: then no rule of the route can be obeyed.
pub fn hostnames(route: &Route) -> Parsed<Vec<HostPattern>> {
    match route.kind {
        RouteKind::Tls if route.hostnames.is_empty() => Err(Fault::unsupported("spec.hostnames", "a TLSRoute names at least one")),
        RouteKind::Tls => list(&route.hostnames, "spec.hostnames", HOSTNAMES_MAX, |name| filter::host_pattern(name)),
        RouteKind::Http | RouteKind::Grpc | RouteKind::Tcp => Ok(Vec::new()),
    }
}

fn rule(kind: RouteKind, index: usize, written: &Value, field: &str) -> Parsed<ParsedRule> {
    let rules_max = match kind {
        RouteKind::Http | RouteKind::Grpc => RULES_MAX,
        RouteKind::Tls | RouteKind::Tcp => STREAM_RULES_MAX,
    };
    if index >= rules_max {
        return Err(Fault::unsupported(field, format!("a {} has at most {rules_max} rules", kind.as_str())));
    }
    // RULES_MAX is far below the limit of the type.
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let parsed = match kind {
        RouteKind::Http => http_rule(index, &decoded(written, field)?),
        RouteKind::Grpc => grpc_rule(index, &decoded(written, field)?),
        RouteKind::Tls | RouteKind::Tcp => stream_rule(index, &decoded(written, field)?),
    };
    parsed.map_err(|fault| fault.within(field))
}

fn decoded<T: DeserializeOwned>(written: &Value, field: &str) -> Parsed<T> {
    decode_at(written, field).map_err(|error| Fault::unsupported(&error.field, error.message))
}

fn http_rule(index: u32, written: &HttpRouteRule) -> Parsed<ParsedRule> {
    let matches = if written.matches.is_empty() {
        vec![matches::everything()]
    } else {
        list(&written.matches, "matches", MATCHES_MAX, matches::route_match)?
    };
    let filters = filter::filters(&written.filters, RouteKind::Http, &matches)?;
    let backends = list(&written.backend_refs, "backendRefs", BACKENDS_MAX, |written| backend(written, RouteKind::Http, &matches))?;
    let redirects = filters.iter().any(|filter| matches!(filter, ParsedFilter::Ready(Filter::Redirect(_))));
    if redirects && !backends.is_empty() {
        return Err(Fault::incompatible("filters", "RequestRedirect and backendRefs exclude each other"));
    }
    let within = |field: &'static str| move |fault: Fault| fault.within(field);
    let timeouts = written.timeouts.as_ref().map(rule::timeouts).transpose().map_err(within("timeouts"))?.unwrap_or_default();
    let retry = written.retry.as_ref().map(rule::retry).transpose().map_err(within("retry"))?;
    let persistence = written.session_persistence.as_ref().map(rule::persistence).transpose().map_err(within("sessionPersistence"))?;
    Ok(ParsedRule { index, name: written.name.clone(), matches, filters, backends, timeouts, retry, persistence })
}

fn grpc_rule(index: u32, written: &GrpcRouteRule) -> Parsed<ParsedRule> {
    let matches = if written.matches.is_empty() {
        vec![matches::every_call()]
    } else {
        list(&written.matches, "matches", MATCHES_MAX, matches::grpc_match)?
    };
    let filters = filter::filters(&written.filters, RouteKind::Grpc, &matches)?;
    let backends = list(&written.backend_refs, "backendRefs", BACKENDS_MAX, |written| backend(written, RouteKind::Grpc, &matches))?;
    let persistence = written.session_persistence.as_ref().map(rule::persistence).transpose();
    let persistence = persistence.map_err(|fault| fault.within("sessionPersistence"))?;
    Ok(ParsedRule {
        index,
        name: written.name.clone(),
        matches,
        filters,
        backends,
        timeouts: Timeouts::default(),
        retry: None,
        persistence,
    })
}

fn stream_rule(index: u32, written: &StreamRouteRule) -> Parsed<ParsedRule> {
    if written.backend_refs.is_empty() {
        return Err(Fault::unsupported("backendRefs", "is empty"));
    }
    // Nothing of a stream is matched but what the route's hostnames say.
    let matches = vec![matches::everything()];
    let backends = list(&written.backend_refs, "backendRefs", BACKENDS_MAX, |written| backend(written, RouteKind::Tcp, &matches))?;
    Ok(ParsedRule {
        index,
        name: written.name.clone(),
        matches,
        filters: Vec::new(),
        backends,
        timeouts: Timeouts::default(),
        retry: None,
        persistence: None,
    })
}

fn backend(written: &BackendRef, kind: RouteKind, matches: &[RouteMatch]) -> Parsed<ParsedBackend> {
    let weight = written.weight.unwrap_or(1);
    let weight = u32::try_from(weight)
        .ok()
        .filter(|weight| *weight <= WEIGHT_MAX)
        .ok_or_else(|| Fault::unsupported("weight", format!("{weight} is not between 0 and {WEIGHT_MAX}")))?;
    let filters = filter::filters(&written.filters, kind, matches)?;
    Ok(ParsedBackend { reference: reference(&written.object)?, weight, filters })
}

fn reference(written: &BackendObjectReference) -> Parsed<Reference> {
    Ok(Reference {
        group: written.group.clone().unwrap_or_default(),
        kind: written.kind.clone().unwrap_or_else(|| "Service".to_owned()),
        namespace: written.namespace.clone(),
        name: written.name.clone(),
        port: written.port.map(|number| port(number, "port")).transpose()?,
    })
}

/// Parses each item of a list of at most `max`.
fn list<W, M>(written: &[W], field: &str, max: usize, parse: impl Fn(&W) -> Parsed<M>) -> Parsed<Vec<M>> {
    if written.len() > max {
        return Err(Fault::unsupported(field, format!("has {} entries, at most {max} are allowed", written.len())));
    }
    written.iter().enumerate().map(|(index, item)| parse(item).map_err(|fault| fault.within(&format!("{field}[{index}]")))).collect()
}

/// A port number, 1 to 65535.
fn port(number: i64, field: &str) -> Parsed<NonZeroU16> {
    u16::try_from(number).ok().and_then(NonZeroU16::new).ok_or_else(|| Fault::unsupported(field, format!("{number} is no port number")))
}

#[cfg(test)]
mod tests;
