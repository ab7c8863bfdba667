//! Filters: header edits, redirects, rewrites.

use http::{HeaderName, HeaderValue, StatusCode};
use routing::model::{Filter, HeaderEdit, PathModifier, Redirect, Rewrite, Scheme};
use wire::filter::Kind;
use wire::path_modifier::Kind as PathKind;

use super::{ConvertError, Converted, list, port, required};
use crate::resources as wire;

pub(super) fn filter(filter: wire::Filter) -> Converted<Filter> {
    match required(filter.kind, "kind")? {
        Kind::RequestHeaders(edit) => Ok(Filter::RequestHeaders(header_edit(edit).map_err(|error| error.within("request_headers"))?)),
        Kind::ResponseHeaders(edit) => Ok(Filter::ResponseHeaders(header_edit(edit).map_err(|error| error.within("response_headers"))?)),
        Kind::Redirect(value) => Ok(Filter::Redirect(redirect(value).map_err(|error| error.within("redirect"))?)),
        Kind::Rewrite(value) => Ok(Filter::Rewrite(Rewrite {
            hostname: value.hostname,
            path: path_modifier(value.path).map_err(|error| error.within("rewrite"))?,
        })),
        Kind::Unsupported(what) => Ok(Filter::Unsupported(what)),
    }
}

pub(super) fn filter_to_wire(filter: &Filter) -> wire::Filter {
    let kind = match filter {
        Filter::RequestHeaders(edit) => Kind::RequestHeaders(header_edit_to_wire(edit)),
        Filter::ResponseHeaders(edit) => Kind::ResponseHeaders(header_edit_to_wire(edit)),
        Filter::Redirect(redirect) => Kind::Redirect(redirect_to_wire(redirect)),
        Filter::Rewrite(rewrite) => {
            Kind::Rewrite(wire::Rewrite { hostname: rewrite.hostname.clone(), path: rewrite.path.as_ref().map(path_modifier_to_wire) })
        }
        Filter::Unsupported(what) => Kind::Unsupported(what.clone()),
    };
    wire::Filter { kind: Some(kind) }
}

pub(super) fn header_name(name: &str) -> Converted<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| ConvertError::new("name", format!("{name:?} is no header name")))
}

fn header(header: wire::Header) -> Converted<(HeaderName, HeaderValue)> {
    let name = header_name(&header.name)?;
    let value = HeaderValue::from_bytes(&header.value)
        .map_err(|_| ConvertError::new("value", format!("{:?} is no header value", String::from_utf8_lossy(&header.value))))?;
    Ok((name, value))
}

fn header_edit(edit: wire::HeaderEdit) -> Converted<HeaderEdit> {
    Ok(HeaderEdit {
        set: list(edit.set, "set", header)?,
        add: list(edit.add, "add", header)?,
        remove: list(edit.remove, "remove", |name| header_name(&name))?,
    })
}

fn header_edit_to_wire(edit: &HeaderEdit) -> wire::HeaderEdit {
    let headers = |pairs: &[(HeaderName, HeaderValue)]| {
        pairs.iter().map(|(name, value)| wire::Header { name: name.to_string(), value: value.as_bytes().to_vec() }).collect()
    };
    wire::HeaderEdit { set: headers(&edit.set), add: headers(&edit.add), remove: edit.remove.iter().map(ToString::to_string).collect() }
}

fn path_modifier(modifier: Option<wire::PathModifier>) -> Converted<Option<PathModifier>> {
    let Some(modifier) = modifier else { return Ok(None) };
    Ok(Some(match required(modifier.kind, "path.kind")? {
        PathKind::Full(path) => PathModifier::Full(path),
        PathKind::Prefix(path) => PathModifier::Prefix(path),
    }))
}

fn path_modifier_to_wire(modifier: &PathModifier) -> wire::PathModifier {
    let kind = match modifier {
        PathModifier::Full(path) => PathKind::Full(path.clone()),
        PathModifier::Prefix(path) => PathKind::Prefix(path.clone()),
    };
    wire::PathModifier { kind: Some(kind) }
}

fn redirect(redirect: wire::Redirect) -> Converted<Redirect> {
    let scheme = match redirect.scheme.as_deref() {
        None => None,
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some(other) => return Err(ConvertError::new("scheme", format!("{other:?} is neither http nor https"))),
    };
    let status = u16::try_from(redirect.status)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(StatusCode::is_redirection)
        .ok_or_else(|| ConvertError::new("status", format!("{} is no redirect", redirect.status)))?;
    Ok(Redirect {
        scheme,
        hostname: redirect.hostname,
        path: path_modifier(redirect.path)?,
        port: redirect.port.map(|value| port(value, "port")).transpose()?,
        status,
    })
}

fn redirect_to_wire(redirect: &Redirect) -> wire::Redirect {
    let scheme = redirect.scheme.map(|scheme| match scheme {
        Scheme::Http => "http".to_owned(),
        Scheme::Https => "https".to_owned(),
    });
    wire::Redirect {
        scheme,
        hostname: redirect.hostname.clone(),
        path: redirect.path.as_ref().map(path_modifier_to_wire),
        port: redirect.port.map(|port| port.get().into()),
        status: redirect.status.as_u16().into(),
    }
}
