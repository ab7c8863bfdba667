//! Filters: header edits, redirects, rewrites, mirrors, CORS, authorization.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use routing::model::{
    AuthProtocol, Cors, ExternalAuth, Filter, Fraction, HeaderEdit, HostGlob, Mirror, Origin, PathModifier, Redirect, Rewrite, Scheme,
    Wildcard,
};
use wire::external_auth::Protocol;
use wire::filter::Kind;
use wire::origin::Host;
use wire::path_modifier::Kind as PathKind;

use super::frontend::{target, target_to_wire};
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
        Kind::Mirror(value) => mirror(value).map(Filter::Mirror).map_err(|error| error.within("mirror")),
        Kind::Cors(value) => cors(value).map(Filter::Cors).map_err(|error| error.within("cors")),
        Kind::ExternalAuth(value) => external_auth(value).map(Filter::ExternalAuth).map_err(|error| error.within("external_auth")),
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
        Filter::Mirror(mirror) => Kind::Mirror(wire::Mirror {
            target: Some(wire::Target { kind: Some(target_to_wire(&mirror.target)) }),
            numerator: mirror.fraction.numerator,
            denominator: mirror.fraction.denominator,
        }),
        Filter::Cors(cors) => Kind::Cors(cors_to_wire(cors)),
        Filter::ExternalAuth(auth) => Kind::ExternalAuth(external_auth_to_wire(auth)),
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

fn scheme(text: &str) -> Converted<Scheme> {
    match text {
        "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        other => Err(ConvertError::new("scheme", format!("{other:?} is neither http nor https"))),
    }
}

fn mirror(mirror: wire::Mirror) -> Converted<Mirror> {
    let target = target(required(required(mirror.target, "target")?.kind, "target.kind")?)?;
    if mirror.denominator == 0 || mirror.numerator > mirror.denominator {
        return Err(ConvertError::new("numerator", format!("{} of {} is no share", mirror.numerator, mirror.denominator)));
    }
    Ok(Mirror { target, fraction: Fraction { numerator: mirror.numerator, denominator: mirror.denominator } })
}

fn cors(cors: wire::Cors) -> Converted<Cors> {
    let origins = required(cors.origins, "origins")?;
    let origins = if origins.any { Wildcard::Any } else { Wildcard::These(list(origins.these, "origins.these", origin)?) };
    let method = |name: String| Method::from_bytes(name.as_bytes()).map_err(|_| ConvertError::new("", format!("{name:?} is no method")));
    Ok(Cors {
        origins,
        methods: names(cors.methods, "methods", method)?,
        headers: names(cors.headers, "headers", |name| header_name(&name))?,
        expose: names(cors.expose, "expose", |name| header_name(&name))?,
        max_age_s: cors.max_age_s,
        credentials: cors.credentials,
    })
}

fn names<T>(names: Option<wire::Names>, field: &str, convert: impl Fn(String) -> Converted<T>) -> Converted<Wildcard<T>> {
    let names = required(names, field)?;
    if names.any {
        return Ok(Wildcard::Any);
    }
    list(names.these, &format!("{field}.these"), convert).map(Wildcard::These)
}

fn names_to_wire<T: ToString>(names: &Wildcard<T>) -> wire::Names {
    match names {
        Wildcard::Any => wire::Names { any: true, these: Vec::new() },
        Wildcard::These(these) => wire::Names { any: false, these: these.iter().map(ToString::to_string).collect() },
    }
}

fn origin(origin: wire::Origin) -> Converted<Origin> {
    let host = match required(origin.host, "host")? {
        Host::Exact(name) => HostGlob::Exact(name),
        Host::Suffix(suffix) => HostGlob::Suffix(suffix),
    };
    Ok(Origin { scheme: scheme(&origin.scheme)?, host, port: port(origin.port, "port")?.get() })
}

fn cors_to_wire(cors: &Cors) -> wire::Cors {
    let origins = match &cors.origins {
        Wildcard::Any => wire::Origins { any: true, these: Vec::new() },
        Wildcard::These(these) => wire::Origins { any: false, these: these.iter().map(origin_to_wire).collect() },
    };
    wire::Cors {
        origins: Some(origins),
        methods: Some(names_to_wire(&cors.methods)),
        headers: Some(names_to_wire(&cors.headers)),
        expose: Some(names_to_wire(&cors.expose)),
        max_age_s: cors.max_age_s,
        credentials: cors.credentials,
    }
}

fn origin_to_wire(origin: &Origin) -> wire::Origin {
    let host = match &origin.host {
        HostGlob::Exact(name) => Host::Exact(name.clone()),
        HostGlob::Suffix(suffix) => Host::Suffix(suffix.clone()),
    };
    wire::Origin { scheme: origin.scheme.as_str().to_owned(), host: Some(host), port: origin.port.into() }
}

fn external_auth(auth: wire::ExternalAuth) -> Converted<ExternalAuth> {
    let headers = |names: Vec<String>, field: &str| list(names, field, |name| header_name(&name));
    let protocol = match required(auth.protocol, "protocol")? {
        Protocol::Http(http) => AuthProtocol::Http {
            path: http.path,
            allowed_headers: headers(http.allowed_headers, "http.allowed_headers")?,
            allowed_response_headers: headers(http.allowed_response_headers, "http.allowed_response_headers")?,
        },
        Protocol::Grpc(grpc) => AuthProtocol::Grpc { allowed_headers: headers(grpc.allowed_headers, "grpc.allowed_headers")? },
    };
    let target = target(required(required(auth.target, "target")?.kind, "target.kind")?)?;
    Ok(ExternalAuth { target, protocol, body_bytes_max: auth.body_bytes_max })
}

fn external_auth_to_wire(auth: &ExternalAuth) -> wire::ExternalAuth {
    let names = |names: &[HeaderName]| names.iter().map(ToString::to_string).collect();
    let protocol = match &auth.protocol {
        AuthProtocol::Http { path, allowed_headers, allowed_response_headers } => Protocol::Http(wire::HttpAuth {
            path: path.clone(),
            allowed_headers: names(allowed_headers),
            allowed_response_headers: names(allowed_response_headers),
        }),
        AuthProtocol::Grpc { allowed_headers } => Protocol::Grpc(wire::GrpcAuth { allowed_headers: names(allowed_headers) }),
    };
    wire::ExternalAuth {
        target: Some(wire::Target { kind: Some(target_to_wire(&auth.target)) }),
        protocol: Some(protocol),
        body_bytes_max: auth.body_bytes_max,
    }
}

fn redirect(redirect: wire::Redirect) -> Converted<Redirect> {
    let scheme = redirect.scheme.as_deref().map(scheme).transpose()?;
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
    let scheme = redirect.scheme.map(|scheme| scheme.as_str().to_owned());
    wire::Redirect {
        scheme,
        hostname: redirect.hostname.clone(),
        path: redirect.path.as_ref().map(path_modifier_to_wire),
        port: redirect.port.map(|port| port.get().into()),
        status: redirect.status.as_u16().into(),
    }
}
