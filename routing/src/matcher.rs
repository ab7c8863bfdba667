//! One match against one request head: every part of the match must hold (HTTPRouteMatch: "multiple match types ... ANDed together").
//!
//! Invariant: bytes are compared as received; nothing is normalised or decoded but the query, so that a route sees what the backend will.

use http::header::HOST;
use http::{HeaderMap, Method};

use crate::model::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, RpcMatch, ValueMatch};

/// What a request is matched by.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method token, case-sensitive.
    pub method: &'a Method,
    /// The raw path without the query; `*` or empty for a request target without a path (OPTIONS *, CONNECT).
    pub path: &'a str,
    /// The raw query without its `?`.
    pub query: Option<&'a str>,
    /// `:authority`, or the Host header of HTTP/1.
    pub authority: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

/// The first part of a match that a request does not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mismatch<'m> {
    /// Another path.
    Path(&'m PathMatch),
    /// Another method.
    Method(&'m Method),
    /// A header that is absent or another.
    Header(&'m HeaderMatch),
    /// A query parameter that is absent or another.
    Query(&'m QueryMatch),
}

impl RouteMatch {
    /// Whether the request has all that is asked for.
    #[must_use]
    pub fn accepts(&self, head: &RequestHead<'_>) -> bool {
        self.mismatch(head).is_none()
    }

    /// What it does not have; none: it has all.
    #[must_use]
    pub fn mismatch(&self, head: &RequestHead<'_>) -> Option<Mismatch<'_>> {
        if !self.path.accepts(head.path) {
            return Some(Mismatch::Path(&self.path));
        }
        if let Some(method) = self.method.as_ref().filter(|method| *method != head.method) {
            return Some(Mismatch::Method(method));
        }
        if let Some(header) = self.headers.iter().find(|header| !header.accepts(head)) {
            return Some(Mismatch::Header(header));
        }
        self.query.iter().find(|query| !query.accepts(head.query.unwrap_or_default())).map(Mismatch::Query)
    }
}

impl PathMatch {
    /// Whether the raw path is meant (HTTPPathMatch). A target without a path (`*` or empty) is under prefix `/` only.
    #[must_use]
    pub fn accepts(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => after_prefix(prefix, path).is_some(),
            Self::Regex(pattern) => path.starts_with('/') && pattern.accepts(path),
            Self::Rpc(rpc) => rpc.accepts(path),
        }
    }
}

impl RpcMatch {
    /// `/SERVICE/METHOD`, case-sensitive; without a condition whatever is called.
    fn accepts(&self, path: &str) -> bool {
        let holds = |wanted: &Option<ValueMatch>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted.accepts(value));
        match path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) {
            Some((service, method)) => holds(&self.service, service) && holds(&self.method, method),
            None => self.service.is_none() && self.method.is_none(),
        }
    }
}

/// What follows a matched prefix, empty or with a leading `/`; none if the prefix does not end at a segment border ("a trailing `/` is
/// ignored", PathMatchPathPrefix).
pub(crate) fn after_prefix<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let rest = path.strip_prefix(prefix)?;
    (prefix.is_empty() || rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

impl HeaderMatch {
    /// Any line of the name that is UTF-8, as patterns are, or all of them joined as RFC 9110 section 5.2 joins them; `host` is the authority.
    fn accepts(&self, head: &RequestHead<'_>) -> bool {
        if self.name == HOST {
            return head.authority.is_some_and(|authority| self.value.accepts(authority));
        }
        let lines: Vec<&str> =
            head.headers.get_all(&self.name).iter().filter_map(|line| std::str::from_utf8(line.as_bytes()).ok()).collect();
        lines.iter().any(|line| self.value.accepts(line)) || (lines.len() > 1 && self.value.accepts(&lines.join(", ")))
    }
}

impl QueryMatch {
    /// The first value of the name, decoded ("recommended ... match against the first value", HTTPQueryParamMatch).
    fn accepts(&self, query: &str) -> bool {
        form_urlencoded::parse(query.as_bytes()).find(|(name, _)| *name == self.name).is_some_and(|(_, value)| self.value.accepts(&value))
    }
}

impl ValueMatch {
    /// The one value that it accepts; none: a pattern.
    pub(crate) fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(exact) => Some(exact),
            Self::Regex(_) => None,
        }
    }

    pub(crate) fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Regex(pattern) => pattern.accepts(value),
        }
    }
}

#[cfg(test)]
mod tests;
