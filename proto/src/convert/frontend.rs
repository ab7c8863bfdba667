//! Frontends: routes, rules, matches and weighted backends.

use http::Method;
use routing::model::{
    BackendFault, BackendFaultReason, BackendTarget, Frontend, HeaderMatch, HostPattern, PathMatch, Pattern, QueryMatch, Route, RouteKind,
    RouteMatch, RpcMatch, Rule, Timeouts, ValueMatch, WeightedBackend,
};
use wire::path_match::Kind as PathKind;
use wire::value_match::Kind as ValueKind;
use wire::weighted_backend::Target;

use super::filter::{filter, filter_to_wire, header_name};
use super::rule::{persistence, persistence_to_wire, retry, retry_to_wire};
use super::{ConvertError, Converted, backend_id, duration_ms, frontend_id, list, millis, required, service_port_to_wire};
use crate::resources as wire;

impl TryFrom<wire::Frontend> for Frontend {
    type Error = ConvertError;

    fn try_from(frontend: wire::Frontend) -> Converted<Self> {
        let kind = match wire::RouteKind::try_from(frontend.kind) {
            Ok(wire::RouteKind::Grpc) => RouteKind::Grpc,
            Ok(wire::RouteKind::Http) => RouteKind::Http,
            Ok(wire::RouteKind::Tls) => RouteKind::Tls,
            Ok(wire::RouteKind::Tcp) => RouteKind::Tcp,
            Ok(wire::RouteKind::Unspecified) | Err(_) => {
                return Err(ConvertError::new("kind", format!("{} is no route kind", frontend.kind)));
            }
        };
        if frontend.routes.is_empty() {
            return Err(ConvertError::new("routes", "is empty; a frontend without routes is not sent"));
        }
        Ok(Self { id: frontend_id(frontend.id, "id")?, kind, routes: list(frontend.routes, "routes", route)? })
    }
}

impl From<&Frontend> for wire::Frontend {
    fn from(frontend: &Frontend) -> Self {
        let kind = match frontend.kind {
            RouteKind::Grpc => wire::RouteKind::Grpc,
            RouteKind::Http => wire::RouteKind::Http,
            RouteKind::Tls => wire::RouteKind::Tls,
            RouteKind::Tcp => wire::RouteKind::Tcp,
        };
        Self {
            id: Some(service_port_to_wire(&frontend.id.0)),
            kind: kind.into(),
            routes: frontend.routes.iter().map(route_to_wire).collect(),
        }
    }
}

fn route(route: wire::Route) -> Converted<Route> {
    Ok(Route {
        namespace: route.namespace,
        name: route.name,
        created_s: route.created_s,
        generation: route.generation,
        hostnames: route.hostnames.into_iter().map(host_pattern).collect(),
        rules: list(route.rules, "rules", rule)?,
    })
}

fn route_to_wire(route: &Route) -> wire::Route {
    wire::Route {
        namespace: route.namespace.clone(),
        name: route.name.clone(),
        created_s: route.created_s,
        generation: route.generation,
        hostnames: route.hostnames.iter().map(host_pattern_to_wire).collect(),
        rules: route.rules.iter().map(rule_to_wire).collect(),
    }
}

fn host_pattern(text: String) -> HostPattern {
    match text.strip_prefix("*.") {
        Some(suffix) => HostPattern::Under(suffix.to_owned()),
        None => HostPattern::Exact(text),
    }
}

fn host_pattern_to_wire(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Under(suffix) => format!("*.{suffix}"),
    }
}

fn rule(rule: wire::Rule) -> Converted<Rule> {
    if rule.matches.is_empty() {
        return Err(ConvertError::new("matches", "is empty; a match of everything is sent as prefix /"));
    }
    Ok(Rule {
        index: rule.index,
        name: rule.name,
        matches: list(rule.matches, "matches", route_match)?,
        filters: list(rule.filters, "filters", filter)?,
        backends: list(rule.backends, "backends", weighted_backend)?,
        timeouts: Timeouts {
            request: rule.request_timeout_ms.map(duration_ms),
            backend_request: rule.backend_request_timeout_ms.map(duration_ms),
        },
        retry: rule.retry.map(retry).transpose().map_err(|error| error.within("retry"))?,
        persistence: rule.persistence.map(persistence).transpose().map_err(|error| error.within("persistence"))?,
    })
}

fn rule_to_wire(rule: &Rule) -> wire::Rule {
    wire::Rule {
        index: rule.index,
        name: rule.name.clone(),
        matches: rule.matches.iter().map(route_match_to_wire).collect(),
        filters: rule.filters.iter().map(filter_to_wire).collect(),
        backends: rule.backends.iter().map(weighted_backend_to_wire).collect(),
        request_timeout_ms: rule.timeouts.request.map(millis),
        backend_request_timeout_ms: rule.timeouts.backend_request.map(millis),
        retry: rule.retry.as_ref().map(retry_to_wire),
        persistence: rule.persistence.as_ref().map(persistence_to_wire),
    }
}

fn route_match(value: wire::RouteMatch) -> Converted<RouteMatch> {
    let path = match required(required(value.path, "path")?.kind, "path.kind")? {
        PathKind::Exact(path) => PathMatch::Exact(path),
        PathKind::Prefix(path) => PathMatch::Prefix(path),
        PathKind::Regex(source) => PathMatch::Regex(pattern(&source, "path.regex")?),
        PathKind::Rpc(rpc) => {
            let value = |value: Option<wire::ValueMatch>, field: &str| {
                value.map(|value| value_match(value.kind)).transpose().map_err(|error| error.within(&format!("path.rpc.{field}")))
            };
            PathMatch::Rpc(RpcMatch { service: value(rpc.service, "service")?, method: value(rpc.method, "method")? })
        }
    };
    let method = value
        .method
        .map(|name| Method::from_bytes(name.as_bytes()).map_err(|_| ConvertError::new("method", format!("{name:?} is no method"))))
        .transpose()?;
    Ok(RouteMatch {
        path,
        method,
        headers: list(value.headers, "headers", |header| {
            Ok(HeaderMatch { name: header_name(&header.name)?, value: value_match(header.kind)? })
        })?,
        query: list(value.query, "query", |query| Ok(QueryMatch { name: query.name, value: value_match(query.kind)? }))?,
    })
}

fn route_match_to_wire(value: &RouteMatch) -> wire::RouteMatch {
    let path = match &value.path {
        PathMatch::Exact(path) => PathKind::Exact(path.clone()),
        PathMatch::Prefix(path) => PathKind::Prefix(path.clone()),
        PathMatch::Regex(pattern) => PathKind::Regex(pattern.source().to_owned()),
        PathMatch::Rpc(rpc) => {
            let value = |value: &Option<ValueMatch>| {
                value.as_ref().map(|value| wire::ValueMatch { name: String::new(), kind: Some(value_match_to_wire(value)) })
            };
            PathKind::Rpc(wire::Rpc { service: value(&rpc.service), method: value(&rpc.method) })
        }
    };
    let named = |name: &str, value: &ValueMatch| wire::ValueMatch { name: name.to_owned(), kind: Some(value_match_to_wire(value)) };
    wire::RouteMatch {
        path: Some(wire::PathMatch { kind: Some(path) }),
        method: value.method.as_ref().map(ToString::to_string),
        headers: value.headers.iter().map(|header| named(header.name.as_str(), &header.value)).collect(),
        query: value.query.iter().map(|query| named(&query.name, &query.value)).collect(),
    }
}

fn pattern(source: &str, field: &str) -> Converted<Pattern> {
    Pattern::new(source).map_err(|error| ConvertError::new(field, format!("{source:?}: {error}")))
}

fn value_match(kind: Option<ValueKind>) -> Converted<ValueMatch> {
    Ok(match required(kind, "kind")? {
        ValueKind::Exact(value) => ValueMatch::Exact(value),
        ValueKind::Regex(source) => ValueMatch::Regex(pattern(&source, "regex")?),
    })
}

fn value_match_to_wire(value: &ValueMatch) -> ValueKind {
    match value {
        ValueMatch::Exact(value) => ValueKind::Exact(value.clone()),
        ValueMatch::Regex(pattern) => ValueKind::Regex(pattern.source().to_owned()),
    }
}

fn weighted_backend(backend: wire::WeightedBackend) -> Converted<WeightedBackend> {
    let target = match required(backend.target, "target")? {
        Target::Backend(id) => target(wire::target::Kind::Backend(id))?,
        Target::Invalid(fault) => target(wire::target::Kind::Invalid(fault))?,
    };
    Ok(WeightedBackend { weight: backend.weight, target, filters: list(backend.filters, "filters", filter)? })
}

fn weighted_backend_to_wire(backend: &WeightedBackend) -> wire::WeightedBackend {
    let target = match target_to_wire(&backend.target) {
        wire::target::Kind::Backend(id) => Target::Backend(id),
        wire::target::Kind::Invalid(fault) => Target::Invalid(fault),
    };
    wire::WeightedBackend { weight: backend.weight, target: Some(target), filters: backend.filters.iter().map(filter_to_wire).collect() }
}

pub(super) fn target(target: wire::target::Kind) -> Converted<BackendTarget> {
    Ok(match target {
        wire::target::Kind::Backend(id) => BackendTarget::Backend(backend_id(Some(id), "backend")?),
        wire::target::Kind::Invalid(fault) => BackendTarget::Invalid(backend_fault(fault)?),
    })
}

pub(super) fn target_to_wire(target: &BackendTarget) -> wire::target::Kind {
    match target {
        BackendTarget::Backend(id) => wire::target::Kind::Backend(service_port_to_wire(&id.0)),
        BackendTarget::Invalid(fault) => wire::target::Kind::Invalid(backend_fault_to_wire(fault)),
    }
}

fn backend_fault(fault: wire::BackendFault) -> Converted<BackendFault> {
    let reason = match wire::BackendFaultReason::try_from(fault.reason) {
        Ok(wire::BackendFaultReason::InvalidKind) => BackendFaultReason::InvalidKind,
        Ok(wire::BackendFaultReason::BackendNotFound) => BackendFaultReason::BackendNotFound,
        Ok(wire::BackendFaultReason::RefNotPermitted) => BackendFaultReason::RefNotPermitted,
        Ok(wire::BackendFaultReason::UnsupportedProtocol) => BackendFaultReason::UnsupportedProtocol,
        Ok(wire::BackendFaultReason::Unspecified) | Err(_) => {
            return Err(ConvertError::new("invalid.reason", format!("{} is no known reason", fault.reason)));
        }
    };
    Ok(BackendFault { reason, message: fault.message })
}

fn backend_fault_to_wire(fault: &BackendFault) -> wire::BackendFault {
    let reason = match fault.reason {
        BackendFaultReason::InvalidKind => wire::BackendFaultReason::InvalidKind,
        BackendFaultReason::BackendNotFound => wire::BackendFaultReason::BackendNotFound,
        BackendFaultReason::RefNotPermitted => wire::BackendFaultReason::RefNotPermitted,
        BackendFaultReason::UnsupportedProtocol => wire::BackendFaultReason::UnsupportedProtocol,
    };
    wire::BackendFault { reason: reason.into(), message: fault.message.clone() }
}
