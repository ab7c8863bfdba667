//! What filters compute: header edits, the Location of a redirect, rewritten paths. Nothing is sent here.

pub mod cors;
pub mod step;

use std::num::NonZeroU16;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

use crate::matcher::{RequestHead, after_prefix};
use crate::model::{HeaderEdit, PathMatch, PathModifier, Redirect, RouteMatch, Scheme};

impl HeaderEdit {
    /// Removes, sets and adds. One action a name, so their order does not matter (HTTPHeaderFilter). Host is not a header to edit but the
    /// authority: see [`authority_of`].
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in self.set.iter().filter(|(name, _)| name != HOST) {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// The authority that an edit asks for by setting Host.
#[must_use]
pub fn authority_of(edit: &HeaderEdit) -> Option<&HeaderValue> {
    edit.set.iter().find(|(name, _)| name == HOST).map(|(_, value)| value)
}

/// Why a redirect has no Location.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LocationError {
    /// The filter names no hostname and the request has none either.
    #[error("neither the redirect nor the request names a host")]
    NoHost,
    /// The parts do not make a header value.
    #[error("{0:?} is no header value")]
    Invalid(String),
}

impl Scheme {
    /// As written in a URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub(crate) fn well_known_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The Location of a redirect (HTTPRequestRedirectFilter): an absolute URI, the query kept; the port is the filter's, else that of the
/// filter's scheme, else the one that the client dialled, and is left out where the scheme implies it.
///
/// # Errors
/// There is no host to redirect to, or the result is no header value.
pub fn location(
    redirect: &Redirect,
    head: &RequestHead<'_>,
    scheme: Scheme,
    destination_port: NonZeroU16,
    matched: &RouteMatch,
) -> Result<HeaderValue, LocationError> {
    let host = match &redirect.hostname {
        Some(hostname) => hostname.clone(),
        None => request_host(head).ok_or(LocationError::NoHost)?,
    };
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port.get(),
        (None, Some(scheme)) => scheme.well_known_port(),
        (None, None) => destination_port.get(),
    };
    let scheme = redirect.scheme.unwrap_or(scheme);
    let port = if port == scheme.well_known_port() { String::new() } else { format!(":{port}") };
    let path = redirect.path.as_ref().map_or_else(|| head.path.to_owned(), |modifier| rewrite_path(modifier, matched, head.path));
    // The `*` of OPTIONS has no prefix that could be replaced, and no place behind a host.
    let path = if path.starts_with('/') { path } else { "/".to_owned() };
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let text = format!("{}://{host}{port}{path}{query}", scheme.as_str());
    HeaderValue::try_from(&text).map_err(|_| LocationError::Invalid(text))
}

/// Whether a client that follows this Location asks for the very same again: the author's fault, obeyed as told (digest D-14).
#[must_use]
pub fn leads_to_itself(
    location: &HeaderValue,
    head: &RequestHead<'_>,
    scheme: Scheme,
    destination_port: NonZeroU16,
    matched: &RouteMatch,
) -> bool {
    let nothing = Redirect { scheme: None, hostname: None, path: None, port: None, status: http::StatusCode::FOUND };
    self::location(&nothing, head, scheme, destination_port, matched).is_ok_and(|here| here == *location)
}

fn request_host(head: &RequestHead<'_>) -> Option<String> {
    let authority: Authority = head.authority?.parse().ok()?;
    Some(authority.host().to_owned())
}

/// The path after a modifier (HTTPPathModifier). A prefix is replaced only where a prefix matched; the parser allows nothing else.
#[must_use]
pub fn rewrite_path(modifier: &PathModifier, matched: &RouteMatch, path: &str) -> String {
    let rewritten = match (modifier, &matched.path) {
        (PathModifier::Full(full), _) => full.clone(),
        (PathModifier::Prefix(replacement), PathMatch::Prefix(prefix)) => match after_prefix(prefix, path) {
            Some(rest) if path.starts_with('/') => format!("{}{rest}", replacement.strip_suffix('/').unwrap_or(replacement)),
            Some(_) | None => return path.to_owned(),
        },
        (PathModifier::Prefix(_), PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Rpc(_)) => return path.to_owned(),
    };
    if rewritten.starts_with('/') { rewritten } else { format!("/{rewritten}") }
}

#[cfg(test)]
mod tests;
