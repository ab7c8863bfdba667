//! HTTPRouteFilter: what is understood, what stands together.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::matches::{first_of_each, header_name};
use super::{Fault, Parsed, port};
use crate::api::{self, HeaderModifier, HttpRouteFilter, NamedValue, RequestRedirect, UrlRewrite};
use crate::model::{Filter, HeaderEdit, PathMatch, PathModifier, Redirect, Rewrite, RouteMatch, Scheme};

const HEADERS_MAX: usize = 16;

/// Framing and connection belong to the proxy: a route that edited them could smuggle requests.
const OWNED_BY_THE_PROXY: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

pub(super) fn filter(written: &HttpRouteFilter, matches: &[RouteMatch]) -> Parsed<Filter> {
    match written.kind.as_str() {
        "RequestHeaderModifier" => {
            let edit = required(written.request_header_modifier.as_ref(), "requestHeaderModifier")?;
            header_edit(edit, Side::Request).map(Filter::RequestHeaders).map_err(|fault| fault.within("requestHeaderModifier"))
        }
        "ResponseHeaderModifier" => {
            let edit = required(written.response_header_modifier.as_ref(), "responseHeaderModifier")?;
            header_edit(edit, Side::Response).map(Filter::ResponseHeaders).map_err(|fault| fault.within("responseHeaderModifier"))
        }
        "RequestRedirect" => {
            let value = required(written.request_redirect.as_ref(), "requestRedirect")?;
            redirect(value, matches).map(Filter::Redirect).map_err(|fault| fault.within("requestRedirect"))
        }
        "URLRewrite" => {
            let value = required(written.url_rewrite.as_ref(), "urlRewrite")?;
            rewrite(value, matches).map(Filter::Rewrite).map_err(|fault| fault.within("urlRewrite"))
        }
        // Known to the API, not obeyed here: never skipped, its requests get an error (digest H-11).
        "RequestMirror" | "CORS" | "ExternalAuth" | "ExtensionRef" => Ok(Filter::Unsupported(written.kind.clone())),
        other => Err(Fault::unsupported("type", format!("{other:?} is no type of filter"))),
    }
}

/// Which filters may stand in one list (HTTPRouteRule.filters).
pub(super) fn compatible(filters: &[Filter], field: &str) -> Parsed<()> {
    let kinds: Vec<&str> = filters.iter().filter_map(kind).collect();
    for (index, kind) in kinds.iter().enumerate() {
        if kinds.iter().take(index).any(|earlier| earlier == kind) {
            return Err(Fault::incompatible(field, format!("{kind} stands more than once")));
        }
    }
    if kinds.contains(&"RequestRedirect") && kinds.contains(&"URLRewrite") {
        return Err(Fault::incompatible(field, "RequestRedirect and URLRewrite exclude each other"));
    }
    Ok(())
}

/// The type of a filter that may stand only once.
fn kind(filter: &Filter) -> Option<&'static str> {
    match filter {
        Filter::RequestHeaders(_) => Some("RequestHeaderModifier"),
        Filter::ResponseHeaders(_) => Some("ResponseHeaderModifier"),
        Filter::Redirect(_) => Some("RequestRedirect"),
        Filter::Rewrite(_) => Some("URLRewrite"),
        Filter::Unsupported(_) => None,
    }
}

fn required<'v, T>(value: Option<&'v T>, field: &str) -> Parsed<&'v T> {
    value.ok_or_else(|| Fault::unsupported(field, "is missing"))
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
        remove: super::list(&written.remove, "remove", HEADERS_MAX, |name| header_name(name))?,
    };
    let names: Vec<&HeaderName> = edit.set.iter().chain(&edit.add).map(|(name, _)| name).chain(&edit.remove).collect();
    for (index, name) in names.iter().enumerate() {
        if OWNED_BY_THE_PROXY.contains(name) {
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
    let pairs = super::list(written, field, HEADERS_MAX, |pair| {
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
fn hostname(name: &str) -> Parsed<String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(name.to_owned());
    }
    Err(Fault::unsupported("hostname", format!("{name:?} is no host name")))
}

fn path_modifier(written: &api::PathModifier, matches: &[RouteMatch]) -> Parsed<PathModifier> {
    let modifier = match written.kind.as_str() {
        "ReplaceFullPath" => required(written.replace_full_path.as_ref(), "replaceFullPath").cloned().map(PathModifier::Full),
        "ReplacePrefixMatch" => {
            let replacement = required(written.replace_prefix_match.as_ref(), "replacePrefixMatch").cloned()?;
            let [RouteMatch { path: PathMatch::Prefix(_), .. }] = matches else {
                return Err(Fault::unsupported("path.type", "ReplacePrefixMatch needs a rule with exactly one match, a PathPrefix"));
            };
            Ok(PathModifier::Prefix(replacement))
        }
        other => Err(Fault::unsupported("type", format!("{other:?} is no type of path modifier"))),
    };
    modifier.map_err(|fault| fault.within("path"))
}
