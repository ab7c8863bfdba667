//! Filters: what a rule or a backendRef does to a request and its response.

use std::num::NonZeroU16;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::BackendTarget;

/// A filter (HTTPRouteFilter).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Filter {
    /// Edits the request's headers.
    RequestHeaders(HeaderEdit),
    /// Edits the response's headers.
    ResponseHeaders(HeaderEdit),
    /// Answers with a redirect; no backend is asked.
    Redirect(Redirect),
    /// Rewrites host and path on the way to the backend.
    Rewrite(Rewrite),
    /// Sends a copy elsewhere.
    Mirror(Mirror),
    /// Answers preflight requests and marks answers for other origins.
    Cors(Cors),
    /// Asks an authorization service first.
    ExternalAuth(ExternalAuth),
    /// A filter that cannot be resolved or is not supported: "requests that would have been processed by that filter MUST receive a HTTP
    /// error response" (HTTPRouteFilter); the text says which.
    Unsupported(String),
}

/// HTTPRequestMirrorFilter: a copy goes to one endpoint, and nobody looks at its answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mirror {
    /// Where the copy goes; an invalid one is dropped.
    pub target: BackendTarget,
    /// Of which requests.
    pub fraction: Fraction,
}

/// A share of requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fraction {
    /// At most the denominator.
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

impl Fraction {
    /// All of them.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };

    /// Whether a request is among them, by a number that is uniform over all of `u64`.
    #[must_use]
    pub fn takes(self, random: u64) -> bool {
        random.checked_rem(self.denominator.into()).is_some_and(|drawn| drawn < self.numerator.into())
    }
}

/// HTTPCORSFilter (GEP-1767).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cors {
    /// Who may read answers.
    pub origins: Wildcard<Origin>,
    /// Methods beside the safelisted GET, HEAD and POST.
    pub methods: Wildcard<Method>,
    /// Request headers.
    pub headers: Wildcard<HeaderName>,
    /// Response headers that scripts may read.
    pub expose: Wildcard<HeaderName>,
    /// How long an answer to a preflight request may be kept.
    pub max_age_s: u32,
    /// Whether credentials may be sent.
    pub credentials: bool,
}

/// Everything, or some.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wildcard<T> {
    /// `*`.
    Any,
    /// These.
    These(Vec<T>),
}

/// An origin that is allowed: scheme, host and port (the scheme's own where none was written).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Its host.
    pub host: HostGlob,
    /// Its port.
    pub port: u16,
}

/// The host of an allowed origin, in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostGlob {
    /// This one.
    Exact(String),
    /// Whatever ends in this, with something before it: `*` is greedy to the left.
    Suffix(String),
}

/// HTTPExternalAuthFilter (GEP-1494).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExternalAuth {
    /// Who is asked; an invalid one lets nothing pass.
    pub target: BackendTarget,
    /// How.
    pub protocol: AuthProtocol,
    /// So much of the request's body is sent along; 0: none.
    pub body_bytes_max: u32,
}

/// How an authorization service is asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuthProtocol {
    /// An HTTP request like the client's; 200 means yes.
    Http {
        /// Before the client's path.
        path: String,
        /// Request headers sent beside Host, Authorization and Content-Length.
        allowed_headers: Vec<HeaderName>,
        /// Headers of the answer copied into the request; empty: all but Host.
        allowed_response_headers: Vec<HeaderName>,
    },
    /// Envoy's `ext_authz`.
    Grpc {
        /// Request headers that are sent; empty: all.
        allowed_headers: Vec<HeaderName>,
    },
}

/// Header changes (HTTPHeaderFilter): remove, set, add; one action a name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeaderEdit {
    /// Replaces every value of the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appends a value.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes every value of the name.
    pub remove: Vec<HeaderName>,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// Plain HTTP, well-known port 80.
    Http,
    /// HTTP over TLS, well-known port 443.
    Https,
}

/// HTTPRequestRedirectFilter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Redirect {
    /// Else the request's.
    pub scheme: Option<Scheme>,
    /// Else the request's Host.
    pub hostname: Option<String>,
    /// Else the request's path.
    pub path: Option<PathModifier>,
    /// Else by scheme, else the original destination port.
    pub port: Option<NonZeroU16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// HTTPURLRewriteFilter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rewrite {
    /// Replaces Host / `:authority`.
    pub hostname: Option<String>,
    /// Replaces the path or its matched prefix; the query stays.
    pub path: Option<PathModifier>,
}

/// HTTPPathModifier.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathModifier {
    /// ReplaceFullPath.
    Full(String),
    /// ReplacePrefixMatch; only in a rule whose one match is a path prefix.
    Prefix(String),
}
