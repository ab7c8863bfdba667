//! Filters of rules and backendRefs: what is understood, what stands together.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::cors::cors;
use super::matches::{first_of_each, header_name};
use super::{Fault, Parsed, ParsedFilter, list, port, reference};
use crate::api::{self, ExternalAuth, HeaderModifier, HttpRouteFilter, NamedValue, RequestMirror, RequestRedirect, UrlRewrite};
use crate::model::{
    AuthProtocol, Filter, Fraction, HeaderEdit, HostPattern, PathMatch, PathModifier, Redirect, Rewrite, RouteKind, RouteMatch, Scheme,
};

const FILTERS_MAX: usize = 16;
const HEADERS_MAX: usize = 16;
const AUTH_HEADERS_MAX: usize = 64;
const PATH_BYTES_MAX: usize = 1024;
/// A request's body is held for the authorization service up to this.
const AUTH_BODY_BYTES_MAX: u32 = 1024 * 1024;

/// Framing and connection belong to the proxy: a route that edited them could smuggle requests.
const OWNED_BY_THE_PROXY: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The filters of one list: what is understood, what stands together.
pub(super) fn filters(written: &[HttpRouteFilter], kind: RouteKind, matches: &[RouteMatch]) -> Parsed<Vec<ParsedFilter>> {
    let filters = list(written, "filters", FILTERS_MAX, |written| filter(written, kind, matches))?;
    compatible(&filters)?;
    Ok(filters)
}

fn filter(written: &HttpRouteFilter, kind: RouteKind, matches: &[RouteMatch]) -> Parsed<ParsedFilter> {
    let within = |field: &'static str| move |fault: Fault| fault.within(field);
    let ready = |filter: Parsed<Filter>, field: &'static str| filter.map(ParsedFilter::Ready).map_err(within(field));
    match (written.kind.as_str(), kind) {
        ("RequestHeaderModifier", RouteKind::Http | RouteKind::Grpc) => {
            let edit = required(written.request_header_modifier.as_ref(), "requestHeaderModifier")?;
            ready(header_edit(edit, Side::Request).map(Filter::RequestHeaders), "requestHeaderModifier")
        }
        ("ResponseHeaderModifier", RouteKind::Http | RouteKind::Grpc) => {
            let edit = required(written.response_header_modifier.as_ref(), "responseHeaderModifier")?;
            ready(header_edit(edit, Side::Response).map(Filter::ResponseHeaders), "responseHeaderModifier")
        }
        ("RequestMirror", RouteKind::Http | RouteKind::Grpc) => {
            mirror(required(written.request_mirror.as_ref(), "requestMirror")?).map_err(within("requestMirror"))
        }
        // Never skipped: its requests get an error (digest H-11, H-19).
        ("ExtensionRef", RouteKind::Http | RouteKind::Grpc) => Ok(ParsedFilter::Ready(Filter::Unsupported(written.kind.clone()))),
        ("RequestRedirect", RouteKind::Http) => {
            let value = required(written.request_redirect.as_ref(), "requestRedirect")?;
            ready(redirect(value, matches).map(Filter::Redirect), "requestRedirect")
        }
        ("URLRewrite", RouteKind::Http) => {
            let value = required(written.url_rewrite.as_ref(), "urlRewrite")?;
            ready(rewrite(value, matches).map(Filter::Rewrite), "urlRewrite")
        }
        ("CORS", RouteKind::Http) => ready(cors(required(written.cors.as_ref(), "cors")?).map(Filter::Cors), "cors"),
        ("ExternalAuth", RouteKind::Http) => {
            external_auth(required(written.external_auth.as_ref(), "externalAuth")?).map_err(within("externalAuth"))
        }
        (other, kind) => Err(Fault::unsupported("type", format!("{other:?} is no type of filter of a {}", kind.as_str()))),
    }
}

/// Which filters may stand in one list (HTTPRouteRule.filters).
fn compatible(filters: &[ParsedFilter]) -> Parsed<()> {
    let kinds: Vec<&str> = filters.iter().filter_map(once).collect();
    for (index, kind) in kinds.iter().enumerate() {
        if kinds.iter().take(index).any(|earlier| earlier == kind) {
            return Err(Fault::incompatible("filters", format!("{kind} stands more than once")));
        }
    }
    if kinds.contains(&"RequestRedirect") && kinds.contains(&"URLRewrite") {
        return Err(Fault::incompatible("filters", "RequestRedirect and URLRewrite exclude each other"));
    }
    Ok(())
}

/// The type of a filter that may stand only once.
fn once(filter: &ParsedFilter) -> Option<&'static str> {
    match filter {
        ParsedFilter::Ready(Filter::RequestHeaders(_)) => Some("RequestHeaderModifier"),
        ParsedFilter::Ready(Filter::ResponseHeaders(_)) => Some("ResponseHeaderModifier"),
        ParsedFilter::Ready(Filter::Redirect(_)) => Some("RequestRedirect"),
        ParsedFilter::Ready(Filter::Rewrite(_)) => Some("URLRewrite"),
        ParsedFilter::Ready(Filter::Cors(_)) => Some("CORS"),
        ParsedFilter::Auth { .. } => Some("ExternalAuth"),
        ParsedFilter::Ready(Filter::Unsupported(_) | Filter::Mirror(_) | Filter::ExternalAuth(_)) | ParsedFilter::Mirror { .. } => None,
    }
}

fn mirror(written: &RequestMirror) -> Parsed<ParsedFilter> {
    let number = |value: i64, field: &str| {
        u32::try_from(value).map_err(|_| Fault::unsupported(field, format!("{value} is not between 0 and {}", u32::MAX)))
    };
    let fraction = match (written.percent, &written.fraction) {
        (None, None) => Fraction::ALL,
        (Some(_), Some(_)) => return Err(Fault::unsupported("", "has both percent and fraction")),
        (Some(percent), None) => {
            let numerator = number(percent, "percent")?;
            if numerator > 100 {
                return Err(Fault::unsupported("percent", format!("{percent} is not between 0 and 100")));
            }
            Fraction { numerator, denominator: 100 }
        }
        (None, Some(written)) => {
            let numerator = number(written.numerator, "fraction.numerator")?;
            let denominator = number(written.denominator.unwrap_or(100), "fraction.denominator")?;
            if denominator == 0 || numerator > denominator {
                return Err(Fault::unsupported("fraction", format!("{numerator} of {denominator} is no share")));
            }
            Fraction { numerator, denominator }
        }
    };
    Ok(ParsedFilter::Mirror { reference: reference(&written.backend_ref).map_err(|fault| fault.within("backendRef"))?, fraction })
}

fn external_auth(written: &ExternalAuth) -> Parsed<ParsedFilter> {
    let names = |written: &[String], field: &str| list(written, field, AUTH_HEADERS_MAX, |name| header_name(name));
    let protocol = match (written.protocol.as_str(), &written.http, &written.grpc) {
        ("HTTP", Some(http), None) => AuthProtocol::Http {
            path: http.path.clone().map(auth_path).transpose()?.unwrap_or_default(),
            allowed_headers: names(&http.allowed_headers, "http.allowedHeaders")?,
            allowed_response_headers: names(&http.allowed_response_headers, "http.allowedResponseHeaders")?,
        },
        ("GRPC", None, Some(grpc)) => AuthProtocol::Grpc { allowed_headers: names(&grpc.allowed_headers, "grpc.allowedHeaders")? },
        ("HTTP" | "GRPC", _, _) => {
            return Err(Fault::unsupported("protocol", format!("{} goes with {}", written.protocol, written.protocol.to_lowercase())));
        }
        (other, _, _) => return Err(Fault::unsupported("protocol", format!("{other:?} is neither HTTP nor GRPC"))),
    };
    let size = written.forward_body.as_ref().and_then(|body| body.max_size).unwrap_or(0);
    let body_bytes_max = u32::try_from(size)
        .ok()
        .filter(|size| *size <= AUTH_BODY_BYTES_MAX)
        .ok_or_else(|| Fault::unsupported("forwardBody.maxSize", format!("{size} is not between 0 and {AUTH_BODY_BYTES_MAX}")))?;
    let reference = reference(&written.backend_ref).map_err(|fault| fault.within("backendRef"))?;
    Ok(ParsedFilter::Auth { reference, protocol, body_bytes_max })
}

/// A prefix of a path: what stands behind a path of the API, ending anywhere.
fn auth_path(path: String) -> Parsed<String> {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&byte));
    if is_plain && (path.is_empty() || path.starts_with('/')) && !path.contains("..") && !path.contains("//") && path.len() <= 1024 {
        return Ok(path.trim_end_matches('/').to_owned());
    }
    Err(Fault::unsupported("http.path", format!("{path:?} is no prefix of a path")))
}

fn required<'v, T>(value: Option<&'v T>, field: &str) -> Parsed<&'v T> {
    value.ok_or_else(|| Fault::unsupported(field, "is missing"))
}

/// Whether a header field belongs to the connection and not to the message.
pub(super) fn is_owned_by_the_proxy(name: &HeaderName) -> bool {
    OWNED_BY_THE_PROXY.contains(name)
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Request,
    Response,
}

fn header_edit(written: &HeaderModifier, side: Side) -> Parsed<HeaderEdit> {
    let edit = HeaderEdit {
        set: headers(&written.set, "set")?,
        add: headers(&written.add, "add")?,
        remove: list(&written.remove, "remove", HEADERS_MAX, |name| header_name(name))?,
    };
    let names: Vec<&HeaderName> = edit.set.iter().chain(&edit.add).map(|(name, _)| name).chain(&edit.remove).collect();
    for (index, name) in names.iter().enumerate() {
        if is_owned_by_the_proxy(name) {
            return Err(Fault::unsupported("", format!("{name} belongs to the connection and cannot be edited")));
        }
        if names.iter().take(index).any(|earlier| earlier == name) {
            return Err(Fault::unsupported("", format!("{name} has more than one action")));
        }
    }
    let host_is_set_only = edit.set.iter().any(|(name, _)| name == HOST) && side == Side::Request;
    if names.contains(&&HOST) && !host_is_set_only {
        return Err(Fault::unsupported("", "Host can be set on a request and nothing else"));
    }
    Ok(edit)
}

fn headers(written: &[NamedValue], field: &str) -> Parsed<Vec<(HeaderName, HeaderValue)>> {
    let pairs = list(written, field, HEADERS_MAX, |pair| {
        let value =
            HeaderValue::from_str(&pair.value).map_err(|_| Fault::unsupported("value", format!("{:?} is no header value", pair.value)))?;
        Ok((header_name(&pair.name)?, value))
    })?;
    Ok(first_of_each(pairs, |(name, _)| name.clone()))
}

fn redirect(written: &RequestRedirect, matches: &[RouteMatch]) -> Parsed<Redirect> {
    let scheme = match written.scheme.as_deref() {
        None => None,
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some(other) => return Err(Fault::unsupported("scheme", format!("{other:?} is neither http nor https"))),
    };
    let status = match written.status_code.unwrap_or(302) {
        301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        303 => StatusCode::SEE_OTHER,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => StatusCode::PERMANENT_REDIRECT,
        other => return Err(Fault::unsupported("statusCode", format!("{other} is not one of 301, 302, 303, 307, 308"))),
    };
    Ok(Redirect {
        scheme,
        hostname: written.hostname.as_deref().map(hostname).transpose()?,
        path: written.path.as_ref().map(|path| path_modifier(path, matches)).transpose()?,
        port: written.port.map(|number| port(number, "port")).transpose()?,
        status,
    })
}

fn rewrite(written: &UrlRewrite, matches: &[RouteMatch]) -> Parsed<Rewrite> {
    Ok(Rewrite {
        hostname: written.hostname.as_deref().map(hostname).transpose()?,
        path: written.path.as_ref().map(|path| path_modifier(path, matches)).transpose()?,
    })
}

/// PreciseHostname: lower-case labels, no wildcard, no port.
pub(super) fn hostname(name: &str) -> Parsed<String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(name.to_owned());
    }
    Err(Fault::unsupported("hostname", format!("{name:?} is no host name")))
}

/// Hostname: a PreciseHostname, perhaps with a leading `*.`; no address.
pub(super) fn host_pattern(name: &str) -> Parsed<HostPattern> {
    let unnamed = |mut fault: Fault| {
        fault.field.clear();
        fault
    };
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err(Fault::unsupported("", format!("{name:?} is an address and no host name")));
    }
    match name.strip_prefix("*.") {
        Some(rest) => hostname(rest).map(HostPattern::Under).map_err(unnamed),
        None => hostname(name).map(HostPattern::Exact).map_err(unnamed),
    }
}

fn path_modifier(written: &api::PathModifier, matches: &[RouteMatch]) -> Parsed<PathModifier> {
    let modifier = match written.kind.as_str() {
        "ReplaceFullPath" => required(written.replace_full_path.as_ref(), "replaceFullPath")
            .and_then(|path| replacement(path, "replaceFullPath"))
            .map(PathModifier::Full),
        "ReplacePrefixMatch" => {
            let prefix = required(written.replace_prefix_match.as_ref(), "replacePrefixMatch")
                .and_then(|path| replacement(path, "replacePrefixMatch"))
                .map_err(|fault| fault.within("path"))?;
            let [RouteMatch { path: PathMatch::Prefix(_), .. }] = matches else {
                return Err(Fault::unsupported("path.type", "ReplacePrefixMatch needs a rule with exactly one match, a PathPrefix"));
            };
            Ok(PathModifier::Prefix(prefix))
        }
        other => Err(Fault::unsupported("type", format!("{other:?} is no type of path modifier"))),
    };
    modifier.map_err(|fault| fault.within("path"))
}

/// What can stand in a path: a query or fragment in it would change what the request means, anything else no request at all.
fn replacement(path: &str, field: &str) -> Parsed<String> {
    let is_path = path.len() <= PATH_BYTES_MAX
        && !path.contains(['?', '#'])
        && (path.is_empty() || http::uri::PathAndQuery::try_from(format!("/{path}")).is_ok());
    if is_path { Ok(path.to_owned()) } else { Err(Fault::unsupported(field, format!("{path:?} is no path"))) }
}
