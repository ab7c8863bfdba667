//! The routing model: every value here has been parsed and is valid by construction (`parse` is the only door for untrusted text).
//!
//! Invariant: everything is plain data, ordered and comparable, so that equal inputs give equal bytes on the wire.

mod backend;
mod filter;
mod service;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

pub use backend::{
    Addresses, AltName, AppProtocol, Backend, BackendTls, Distribution, Endpoint, MinRetryRate, RetryBudget, Roots, TrafficPolicy,
};
pub use filter::{
    AuthProtocol, Cors, ExternalAuth, Filter, Fraction, HeaderEdit, HostGlob, Mirror, Origin, PathModifier, Redirect, Rewrite, Scheme,
    Wildcard,
};
pub use service::{BackendId, FrontendId, InvalidServicePort, ServiceKind, ServicePort, ServiceRef};

/// Route kinds in the order in which one excludes the next on the same port (GEP-1294, "Route types": GRPCRoute wins).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RouteKind {
    /// GRPCRoute.
    Grpc,
    /// HTTPRoute.
    Http,
    /// TLSRoute.
    Tls,
    /// TCPRoute.
    Tcp,
}

impl RouteKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Grpc, Self::Http, Self::Tls, Self::Tcp];

    /// The Kubernetes kind, as written in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

/// The routes in force on one frontend for the clients of one namespace (the producer or the consumer set, GEP-1294).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frontend {
    /// What was dialled.
    pub id: FrontendId,
    /// All active routes are of this kind (GEP-1294 "Route types").
    pub kind: RouteKind,
    /// The active routes, oldest first, then by namespace and name; never empty.
    pub routes: Vec<Route>,
}

/// One route with the rules that are valid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
    /// `metadata.creationTimestamp`, seconds since the epoch; breaks ties between routes (HTTPRouteRule.matches).
    pub created_s: i64,
    /// `metadata.generation` these rules were read from.
    pub generation: i64,
    /// Server names of a TLSRoute; empty for every other kind (GEP-1294 "Hostnames": nothing is inferred from an HTTPRoute's).
    pub hostnames: Vec<HostPattern>,
    /// Valid rules in the order of the object; dropped ones leave a gap in `Rule::index`.
    pub rules: Vec<Rule>,
}

/// One rule of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Position in `spec.rules`, from 0.
    pub index: u32,
    /// `rules[].name` (GEP-995).
    pub name: Option<String>,
    /// ORed; never empty (an absent list is one match of every request).
    pub matches: Vec<RouteMatch>,
    /// Applied in the order given, before those of the chosen backend.
    pub filters: Vec<Filter>,
    /// Chosen among by weight; an invalid one keeps its weight.
    pub backends: Vec<WeightedBackend>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When a request is sent again, if asked for.
    pub retry: Option<Retry>,
    /// Which endpoint a session keeps, if asked for.
    pub persistence: Option<Persistence>,
}

/// A server name of a TLSRoute (TLSRouteSpec.hostnames), in lower case.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// `*.` and this: every name with one or more labels before it.
    Under(String),
}

/// HTTPRouteTimeouts (GEP-1742); none: no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timeouts {
    /// From a request's head to the end of its response, retries included.
    pub request: Option<Duration>,
    /// One attempt, from its first byte to the end of its response.
    pub backend_request: Option<Duration>,
}

/// HTTPRouteRetry (GEP-1731). A stanza without codes retries what failed without a response.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Retry {
    /// Statuses that are retried, in order, without repeats.
    pub codes: Vec<StatusCode>,
    /// Times a request is sent again, at least 1.
    pub attempts: u32,
    /// The least wait before the first of them.
    pub backoff: Option<Duration>,
}

/// SessionPersistence (GEP-1619).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Persistence {
    /// Name of the cookie or header; one of our own making if none is written.
    pub session_name: Option<String>,
    /// What carries the session.
    pub carrier: Carrier,
    /// After this a session is over, however much it is used.
    pub absolute_timeout: Option<Duration>,
}

/// What carries a session (GEP-1619).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// A cookie that ends with the client's own session.
    SessionCookie,
    /// A cookie that lives for the absolute timeout.
    PermanentCookie,
    /// A header field.
    Header,
}

/// One match: all its parts must hold (HTTPRouteMatch).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteMatch {
    /// Absent in the object means prefix `/`.
    pub path: PathMatch,
    /// Exact method, if asked for.
    pub method: Option<Method>,
    /// One entry a header name.
    pub headers: Vec<HeaderMatch>,
    /// One entry a parameter name.
    pub query: Vec<QueryMatch>,
}

/// A path match (HTTPPathMatch).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PathMatch {
    /// The whole path, case-sensitive.
    Exact(String),
    /// Whole segments, case-sensitive; kept as written (its length counts for precedence).
    Prefix(String),
    /// The whole path must match the pattern.
    Regex(Pattern),
    /// A remote procedure call, `/SERVICE/METHOD` (GRPCMethodMatch).
    Rpc(RpcMatch),
}

/// GRPCMethodMatch; neither: every call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RpcMatch {
    /// What the service's full name must be.
    pub service: Option<ValueMatch>,
    /// What the method's name must be.
    pub method: Option<ValueMatch>,
}

/// A value match of a header or a query parameter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ValueMatch {
    /// Equal, case-sensitive.
    Exact(String),
    /// The whole value must match the pattern.
    Regex(Pattern),
}

/// A header match (HTTPHeaderMatch); `host` means the authority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderMatch {
    /// Case-insensitive by type.
    pub name: HeaderName,
    /// What the value must be.
    pub value: ValueMatch,
}

/// A query parameter match (HTTPQueryParamMatch).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueryMatch {
    /// Compared exactly, after percent-decoding the request's side.
    pub name: String,
    /// What the first value of that name must be.
    pub value: ValueMatch,
}

/// A regular expression anchored at both ends, compiled within a size limit.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: regex::Regex,
}

impl Pattern {
    /// Above this a compiled pattern is refused, so that one route cannot eat the memory of every sidecar.
    pub const SIZE_BYTES_MAX: usize = 256 * 1024;

    /// Compiles `source`, anchored at both ends.
    ///
    /// # Errors
    /// The text is no regular expression of the `regex` crate's dialect, or its program is above [`Self::SIZE_BYTES_MAX`].
    pub fn new(source: &str) -> Result<Self, regex::Error> {
        // Compiled alone first, so that "a)(b" cannot escape from the group that anchors it.
        regex::Regex::new(source)?;
        let regex = regex::RegexBuilder::new(&format!("^(?:{source})$")).size_limit(Self::SIZE_BYTES_MAX).build()?;
        Ok(Self { source: source.to_owned(), regex })
    }

    /// As the user wrote it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn accepts(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

/// A backendRef with its weight.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WeightedBackend {
    /// 0..=1,000,000; a share of the sum.
    pub weight: u32,
    /// Where it goes, or why nowhere.
    pub target: BackendTarget,
    /// Applied after the rule's.
    pub filters: Vec<Filter>,
}

/// A resolved backendRef.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BackendTarget {
    /// Requests go to this backend's endpoints.
    Backend(BackendId),
    /// Requests get a 500 (HTTPRouteRule.backendRefs).
    Invalid(BackendFault),
}

/// Why a backendRef is invalid; `reason` is that of the ResolvedRefs condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendFault {
    /// The condition's reason.
    pub reason: BackendFaultReason,
    /// One sentence that names the value.
    pub message: String,
}

/// Reasons of ResolvedRefs=False (RouteConditionReason).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum BackendFaultReason {
    /// Unknown group or kind, or a kind of Service that has no endpoints of its own.
    InvalidKind,
    /// The object, or the port in it, does not exist.
    BackendNotFound,
    /// Another namespace without a ReferenceGrant.
    RefNotPermitted,
    /// The appProtocol cannot be spoken.
    UnsupportedProtocol,
}

impl Frontend {
    /// Every backend that its rules and their filters refer to, some more than once.
    pub fn backend_ids(&self) -> impl Iterator<Item = &BackendId> {
        let rules = self.routes.iter().flat_map(|route| &route.rules);
        rules.flat_map(|rule| rule.backends.iter().filter_map(|backend| backend.target.backend()).chain(rule.filter_backends()))
    }
}

impl Rule {
    /// What its filters and those of its backends refer to.
    pub fn filter_backends(&self) -> impl Iterator<Item = &BackendId> {
        let filters = self.filters.iter().chain(self.backends.iter().flat_map(|backend| &backend.filters));
        filters.filter_map(|filter| match filter {
            Filter::Mirror(mirror) => mirror.target.backend(),
            Filter::ExternalAuth(auth) => auth.target.backend(),
            Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Redirect(_)
            | Filter::Rewrite(_)
            | Filter::Cors(_)
            | Filter::Unsupported(_) => None,
        })
    }
}

impl BackendTarget {
    /// The backend, if it is a valid one.
    #[must_use]
    pub fn backend(&self) -> Option<&BackendId> {
        match self {
            Self::Backend(id) => Some(id),
            Self::Invalid(_) => None,
        }
    }
}

impl BackendFaultReason {
    /// As written in the condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidKind => "InvalidKind",
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
        }
    }
}

/// One entry of the VIP index: a frontend with at least one active route, and an address under which it is dialled.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Vip {
    /// ClusterSetIP or ClusterIP.
    pub ip: IpAddr,
    /// The frontend dialled at `ip` and the frontend's port.
    pub frontend: FrontendId,
}

impl Vip {
    /// The address a client dials.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.frontend.0.port.get())
    }
}
