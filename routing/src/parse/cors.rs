//! HTTPCORSFilter (GEP-1767).

use http::{HeaderName, Method};

use super::matches::{METHODS, header_name};
use super::{Fault, Parsed, list};
use crate::api;
use crate::model::{Cors, HostGlob, Origin, Scheme, Wildcard};

const ORIGINS_MAX: usize = 64;
const METHODS_MAX: usize = 9;
const HEADERS_MAX: usize = 64;
const MAX_AGE_S_DEFAULT: u32 = 5;

pub(super) fn cors(written: &api::Cors) -> Parsed<Cors> {
    let max_age = written.max_age.unwrap_or(MAX_AGE_S_DEFAULT.into());
    let max_age_s = u32::try_from(max_age).ok().filter(|age| *age > 0);
    Ok(Cors {
        origins: wildcard(&written.allow_origins, "allowOrigins", ORIGINS_MAX, |text| origin(text))?,
        methods: wildcard(&written.allow_methods, "allowMethods", METHODS_MAX, |text| method(text))?,
        headers: wildcard(&written.allow_headers, "allowHeaders", HEADERS_MAX, |text| name(text))?,
        expose: exposed(&written.expose_headers)?,
        max_age_s: max_age_s.ok_or_else(|| Fault::unsupported("maxAge", format!("{max_age} is no number of seconds")))?,
        credentials: written.allow_credentials.unwrap_or(false),
    })
}

fn wildcard<T>(written: &[String], field: &str, max: usize, parse: impl Fn(&String) -> Parsed<T>) -> Parsed<Wildcard<T>> {
    if !written.iter().any(|text| text == "*") {
        return list(written, field, max, parse).map(Wildcard::These);
    }
    if written.len() == 1 { Ok(Wildcard::Any) } else { Err(Fault::unsupported(field, "\"*\" stands beside others")) }
}

/// Unlike the others, `*` may stand beside names here; it means everything all the same.
fn exposed(written: &[String]) -> Parsed<Wildcard<HeaderName>> {
    let field = "exposeHeaders";
    let listed = list(written, field, HEADERS_MAX, |text| if text == "*" { Ok(None) } else { name(text).map(Some) })?;
    Ok(listed.into_iter().collect::<Option<Vec<_>>>().map_or(Wildcard::Any, Wildcard::These))
}

fn name(text: &str) -> Parsed<HeaderName> {
    header_name(text).map_err(|mut fault| {
        fault.field.clear();
        fault
    })
}

fn method(text: &str) -> Parsed<Method> {
    let known = METHODS.iter().find(|method| method.as_str() == text).cloned();
    known.ok_or_else(|| Fault::unsupported("", format!("{text:?} is no method of the API")))
}

/// `SCHEME://HOST[:PORT]`; the host is a name, `*`, or `*.` and a name.
fn origin(text: &str) -> Parsed<Origin> {
    let invalid = || Fault::unsupported("", format!("{text:?} is no origin such as https://example.com"));
    let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(invalid()),
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?),
        None => (rest, scheme.well_known_port()),
    };
    let host = host.to_ascii_lowercase();
    let is_name = |name: &str| {
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        name.split('.').all(is_label)
    };
    let host = match host.strip_prefix('*') {
        Some("") => HostGlob::Suffix(String::new()),
        Some(suffix) if suffix.strip_prefix('.').is_some_and(is_name) => HostGlob::Suffix(suffix.to_owned()),
        None if is_name(&host) => HostGlob::Exact(host),
        Some(_) | None => return Err(invalid()),
    };
    Ok(Origin { scheme, host, port })
}
