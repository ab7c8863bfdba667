//! HTTPRouteMatch and GRPCRouteMatch: paths, headers, query parameters, methods.

use http::{HeaderName, Method};

use super::{Fault, Parsed, list};
use crate::api::{GrpcMethodMatch, GrpcRouteMatch, HttpRouteMatch, NamedMatch, PathValue};
use crate::model::{HeaderMatch, PathMatch, Pattern, QueryMatch, RouteMatch, RpcMatch, ValueMatch};

const HEADERS_MAX: usize = 16;
const QUERY_PARAMS_MAX: usize = 16;
const PATH_BYTES_MAX: usize = 1024;

/// HTTPMethod; every other token is refused.
pub(super) const METHODS: [Method; 9] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::CONNECT, Method::OPTIONS, Method::TRACE, Method::PATCH];

/// What a rule without matches means.
pub(super) fn everything() -> RouteMatch {
    RouteMatch { path: PathMatch::Prefix("/".to_owned()), method: None, headers: Vec::new(), query: Vec::new() }
}

/// What a rule of a GRPCRoute without matches means.
pub(super) fn every_call() -> RouteMatch {
    RouteMatch { path: PathMatch::Rpc(RpcMatch::default()), ..everything() }
}

pub(super) fn grpc_match(written: &GrpcRouteMatch) -> Parsed<RouteMatch> {
    let rpc = written.method.as_ref().map(rpc).transpose().map_err(|fault| fault.within("method"))?.unwrap_or_default();
    let headers = first_of_each(list(&written.headers, "headers", HEADERS_MAX, header)?, |header| header.name.clone());
    Ok(RouteMatch { path: PathMatch::Rpc(rpc), method: None, headers, query: Vec::new() })
}

fn rpc(written: &GrpcMethodMatch) -> Parsed<RpcMatch> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, method) = (given(&written.service), given(&written.method));
    if service.is_none() && method.is_none() {
        return Err(Fault::unsupported("", "names neither a service nor a method"));
    }
    let kind = written.kind.as_deref().unwrap_or("Exact");
    let value = |text: Option<String>, field: &str, dots: bool| {
        let Some(text) = text else { return Ok(None) };
        match kind {
            "Exact" if is_identifier(&text, dots) => Ok(Some(ValueMatch::Exact(text))),
            "Exact" => Err(Fault::unsupported(field, format!("{text:?} is no name of a {field}"))),
            "RegularExpression" => pattern(&text).map(|pattern| Some(ValueMatch::Regex(pattern))).map_err(|fault| fault.within(field)),
            other => Err(Fault::unsupported("type", format!("{other:?} is no type of method match"))),
        }
    };
    Ok(RpcMatch { service: value(service, "service", true)?, method: value(method, "method", false)? })
}

/// The rules of GRPCMethodMatch for values that are no patterns: identifiers, of a service joined by dots.
fn is_identifier(text: &str, dots: bool) -> bool {
    if text.len() > PATH_BYTES_MAX {
        return false;
    }
    let part = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !part.is_empty() && !part.as_bytes()[0].is_ascii_digit()
    };
    if dots { text.strip_prefix('.').unwrap_or(text).split('.').all(part) } else { part(text) }
}

pub(super) fn route_match(written: &HttpRouteMatch) -> Parsed<RouteMatch> {
    Ok(RouteMatch {
        path: written.path.as_ref().map_or_else(|| Ok(everything().path), path).map_err(|fault| fault.within("path"))?,
        method: written.method.as_deref().map(method).transpose()?,
        headers: first_of_each(list(&written.headers, "headers", HEADERS_MAX, header)?, |header| header.name.clone()),
        query: first_of_each(list(&written.query_params, "queryParams", QUERY_PARAMS_MAX, query)?, |query| query.name.clone()),
    })
}

/// "Only the first entry with an equivalent name MUST be considered" (HTTPHeaderMatch.name, HTTPQueryParamMatch.name).
pub(super) fn first_of_each<T, K: PartialEq>(items: Vec<T>, name: impl Fn(&T) -> K) -> Vec<T> {
    let mut kept: Vec<T> = Vec::with_capacity(items.len());
    for item in items {
        if !kept.iter().any(|earlier| name(earlier) == name(&item)) {
            kept.push(item);
        }
    }
    kept
}

fn path(written: &PathValue) -> Parsed<PathMatch> {
    let value = written.value.as_deref().unwrap_or("/");
    if value.len() > PATH_BYTES_MAX {
        return Err(Fault::unsupported("value", format!("is {} bytes long, at most {PATH_BYTES_MAX} are allowed", value.len())));
    }
    match written.kind.as_deref().unwrap_or("PathPrefix") {
        "Exact" => plain_path(value).map(PathMatch::Exact),
        "PathPrefix" => plain_path(value).map(PathMatch::Prefix),
        "RegularExpression" => pattern(value).map(PathMatch::Regex),
        other => Err(Fault::unsupported("type", format!("{other:?} is no type of path match"))),
    }
}

/// The rules of HTTPPathMatch for values that are no patterns.
fn plain_path(value: &str) -> Parsed<String> {
    let forbidden = ["//", "/./", "/../", "%2f", "%2F", "#"];
    let complaint = if !value.starts_with('/') {
        Some("does not start with /".to_owned())
    } else if let Some(part) = forbidden.iter().find(|part| value.contains(**part)) {
        Some(format!("contains {part}"))
    } else if value.ends_with("/.") || value.ends_with("/..") {
        Some("ends in a dot segment".to_owned())
    } else {
        None
    };
    complaint.map_or_else(|| Ok(value.to_owned()), |complaint| Err(Fault::unsupported("value", format!("{value:?} {complaint}"))))
}

fn pattern(source: &str) -> Parsed<Pattern> {
    Pattern::new(source).map_err(|error| Fault::unsupported("value", format!("{source:?} is no regular expression: {error}")))
}

fn method(token: &str) -> Parsed<Method> {
    METHODS
        .iter()
        .find(|method| method.as_str() == token)
        .cloned()
        .ok_or_else(|| Fault::unsupported("method", format!("{token:?} is no method of the API")))
}

fn header(written: &NamedMatch) -> Parsed<HeaderMatch> {
    Ok(HeaderMatch { name: header_name(&written.name)?, value: value_match(written)? })
}

pub(super) fn header_name(name: &str) -> Parsed<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| Fault::unsupported("name", format!("{name:?} is no header name")))
}

fn query(written: &NamedMatch) -> Parsed<QueryMatch> {
    if written.name.is_empty() {
        return Err(Fault::unsupported("name", "is empty"));
    }
    Ok(QueryMatch { name: written.name.clone(), value: value_match(written)? })
}

fn value_match(written: &NamedMatch) -> Parsed<ValueMatch> {
    match written.kind.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(ValueMatch::Exact(written.value.clone())),
        "RegularExpression" => pattern(&written.value).map(ValueMatch::Regex),
        other => Err(Fault::unsupported("type", format!("{other:?} is no type of value match"))),
    }
}
