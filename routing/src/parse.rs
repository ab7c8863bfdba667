//! The only door from untrusted rules to the model: each rule converts on its own, or is dropped with a [`Fault`] that names the field.
//!
//! Invariant: a bad value concerns its rule and nothing else (digest S-6, S-8).

mod filter;
mod matches;

use std::num::NonZeroU16;

use serde_json::Value;

use crate::api::{BackendRef, HttpRoute, HttpRouteRule, decode_at};
use crate::model::{Filter, RouteMatch};

/// Limits of the API (HTTPRoute, HTTPRouteRule, HTTPRouteMatch).
const RULES_MAX: usize = 16;
const MATCHES_MAX: usize = 64;
const FILTERS_MAX: usize = 16;
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
    fn unsupported(field: &str, message: impl Into<String>) -> Self {
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
    pub filters: Vec<Filter>,
    /// In the order given.
    pub backends: Vec<ParsedBackend>,
}

/// A backendRef that is well-formed; whether it leads anywhere is for `resolve` to say.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedBackend {
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
    /// 0 to 1,000,000.
    pub weight: u32,
    /// Applied after the rule's.
    pub filters: Vec<Filter>,
}

/// The rules of a route in their order, each parsed or dropped.
#[must_use]
pub fn rules(route: &HttpRoute) -> Vec<Parsed<ParsedRule>> {
    route.rules.iter().enumerate().map(|(index, written)| rule(index, written)).collect()
}

fn rule(index: usize, written: &Value) -> Parsed<ParsedRule> {
    let field = format!("spec.rules[{index}]");
    if index >= RULES_MAX {
        return Err(Fault::unsupported(&field, format!("a route has at most {RULES_MAX} rules")));
    }
    let written: HttpRouteRule = decode_at(written, &field).map_err(|error| Fault::unsupported(&error.field, error.message))?;
    parse_rule(index, written).map_err(|fault| fault.within(&field))
}

fn parse_rule(index: usize, written: HttpRouteRule) -> Parsed<ParsedRule> {
    let matches = if written.matches.is_empty() {
        vec![matches::everything()]
    } else {
        list(&written.matches, "matches", MATCHES_MAX, matches::route_match)?
    };
    let filters = list(&written.filters, "filters", FILTERS_MAX, |written| filter::filter(written, &matches))?;
    filter::compatible(&filters, "filters")?;
    let backends = list(&written.backend_refs, "backendRefs", BACKENDS_MAX, |written| backend(written, &matches))?;
    let redirects = filters.iter().any(|filter| matches!(filter, Filter::Redirect(_)));
    if redirects && !backends.is_empty() {
        return Err(Fault::incompatible("filters", "RequestRedirect and backendRefs exclude each other"));
    }
    // RULES_MAX is far below the limit of the type.
    Ok(ParsedRule { index: u32::try_from(index).unwrap_or(u32::MAX), name: written.name, matches, filters, backends })
}

fn backend(written: &BackendRef, matches: &[RouteMatch]) -> Parsed<ParsedBackend> {
    let weight = written.weight.unwrap_or(1);
    let weight = u32::try_from(weight)
        .ok()
        .filter(|weight| *weight <= WEIGHT_MAX)
        .ok_or_else(|| Fault::unsupported("weight", format!("{weight} is not between 0 and {WEIGHT_MAX}")))?;
    let filters = list(&written.filters, "filters", FILTERS_MAX, |written| filter::filter(written, matches))?;
    filter::compatible(&filters, "filters")?;
    Ok(ParsedBackend {
        group: written.group.clone().unwrap_or_default(),
        kind: written.kind.clone().unwrap_or_else(|| "Service".to_owned()),
        namespace: written.namespace.clone(),
        name: written.name.clone(),
        port: written.port.map(|number| port(number, "port")).transpose()?,
        weight,
        filters,
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
