//! What a CORS filter answers and adds (HTTPCORSFilter, GEP-1767; digest H-17).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION,
    COOKIE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::model::{Cors, HostGlob, Origin, Scheme, Wildcard};

/// Methods that are always allowed (<https://fetch.spec.whatwg.org/#cors-safelisted-method>).
const SAFELISTED: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];

/// What the answer to an actual request can say about CORS. Where a filter speaks it alone does: `Access-Control-Allow-Credentials` in
/// particular is omitted "entirely" unless the filter allows them (HTTPCORSFilter).
pub const OF_ACTUAL: [HeaderName; 3] = [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS];

/// Whether a request is a preflight request: such a one never reaches a backend.
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    /// The headers of the answer to a preflight request; none of CORS if the origin is not allowed.
    #[must_use]
    pub fn preflight(&self, request: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        if !self.marks_origin(request, &mut answer) {
            return answer;
        }
        let asked_method = request.get(ACCESS_CONTROL_REQUEST_METHOD).cloned();
        let methods = match &self.methods {
            Wildcard::Any if self.credentials => asked_method,
            Wildcard::Any => Some(HeaderValue::from_static("*")),
            Wildcard::These(methods) => {
                let others =
                    SAFELISTED.iter().filter(|method| methods.is_empty() && Some(method.as_str().as_bytes()) == bytes(&asked_method));
                joined(methods.iter().chain(others).map(Method::as_str))
            }
        };
        let asked_headers = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let headers = allowed(&self.headers, self.credentials, asked_headers);
        for (name, value) in [(ACCESS_CONTROL_ALLOW_METHODS, methods), (ACCESS_CONTROL_ALLOW_HEADERS, headers)] {
            if let Some(value) = value {
                answer.insert(name, value);
            }
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age_s));
        self.marks_exposed(&mut answer);
        answer
    }

    /// The headers that the answer to an actual request gets; none if its origin is not allowed, or if it has credentials and may not.
    #[must_use]
    pub fn actual(&self, request: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        let has_credentials = request.contains_key(COOKIE) || request.contains_key(AUTHORIZATION);
        if (has_credentials && !self.credentials) || !self.marks_origin(request, &mut answer) {
            return answer;
        }
        self.marks_exposed(&mut answer);
        answer
    }

    /// Says what scripts may read of the answer.
    fn marks_exposed(&self, answer: &mut HeaderMap) {
        let expose = match &self.expose {
            // With credentials a literal `*` would be a name; there is nothing to echo.
            Wildcard::Any if self.credentials => None,
            Wildcard::Any => Some(HeaderValue::from_static("*")),
            Wildcard::These(names) => joined(names.iter().map(HeaderName::as_str)),
        };
        if let Some(expose) = expose {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }

    /// Whether the request's origin is allowed; if so, says it in the answer.
    fn marks_origin(&self, request: &HeaderMap, answer: &mut HeaderMap) -> bool {
        let Some(origin) = request.get(ORIGIN) else { return false };
        let marked = match &self.origins {
            Wildcard::Any if !self.credentials => HeaderValue::from_static("*"),
            Wildcard::Any => origin.clone(),
            Wildcard::These(origins) => {
                let Some(asked) = origin.to_str().ok().and_then(Asked::parse) else { return false };
                if !origins.iter().any(|allowed| allowed.accepts(&asked)) {
                    return false;
                }
                origin.clone()
            }
        };
        if marked != "*" {
            answer.insert(VARY, HeaderValue::from_static("Origin"));
        }
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, marked);
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}

/// What a preflight answer allows of headers; with credentials never a literal `*`.
fn allowed(headers: &Wildcard<HeaderName>, credentials: bool, asked: Option<HeaderValue>) -> Option<HeaderValue> {
    match headers {
        Wildcard::Any if credentials => asked,
        Wildcard::Any => Some(HeaderValue::from_static("*")),
        Wildcard::These(names) => joined(names.iter().map(HeaderName::as_str)),
    }
}

fn bytes(value: &Option<HeaderValue>) -> Option<&[u8]> {
    value.as_ref().map(HeaderValue::as_bytes)
}

fn joined<'t>(items: impl Iterator<Item = &'t str>) -> Option<HeaderValue> {
    let text = items.collect::<Vec<_>>().join(", ");
    // Tokens and commas make a header value.
    (!text.is_empty()).then(|| HeaderValue::try_from(text).ok()).flatten()
}

/// An Origin as a client sends it.
struct Asked {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Asked {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let authority: http::uri::Authority = rest.parse().ok()?;
        let port = authority.port_u16().unwrap_or_else(|| scheme.well_known_port());
        Some(Self { scheme, host: authority.host().to_ascii_lowercase(), port })
    }
}

impl Origin {
    fn accepts(&self, asked: &Asked) -> bool {
        let host = match &self.host {
            HostGlob::Exact(name) => *name == asked.host,
            HostGlob::Suffix(suffix) => asked.host.len() > suffix.len() && asked.host.ends_with(suffix.as_str()),
        };
        host && self.scheme == asked.scheme && self.port == asked.port
    }
}

#[cfg(test)]
mod tests;
