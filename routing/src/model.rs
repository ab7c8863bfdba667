//! The routing model: every value here has been parsed and is valid by construction (`parse` is the only door for untrusted text).
//!
//! Invariant: everything is plain data, ordered and comparable, so that equal inputs give equal bytes on the wire.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

/// The two kinds that can be dialled and can be backends (GEP-1294 "Allowed service types", GEP-1748).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ServiceKind {
    /// A core Kubernetes `Service`: its endpoints are those of the local cluster.
    Service,
    /// A `multicluster.x-k8s.io` `ServiceImport`: its endpoints are those of the whole ClusterSet.
    ServiceImport,
}

impl ServiceKind {
    /// The Kubernetes kind, as written in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::ServiceImport => "ServiceImport",
        }
    }
}

/// A Service or ServiceImport by name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceRef {
    /// Service or ServiceImport.
    pub kind: ServiceKind,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// One port of a Service or ServiceImport; `Display` gives `KIND/NAMESPACE/NAME/PORT`, which is also its name on the wire.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServicePort {
    /// The Service or ServiceImport.
    pub service: ServiceRef,
    /// `spec.ports[].port`, never a target port.
    pub port: NonZeroU16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.port)
    }
}

/// A text that is not `KIND/NAMESPACE/NAME/PORT`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not KIND/NAMESPACE/NAME/PORT")]
pub struct InvalidServicePort(pub String);

impl FromStr for ServicePort {
    type Err = InvalidServicePort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidServicePort(text.to_owned());
        let mut parts = text.split('/');
        let (Some(kind), Some(namespace), Some(name), Some(port), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let kind = match kind {
            "Service" => ServiceKind::Service,
            "ServiceImport" => ServiceKind::ServiceImport,
            _ => return Err(invalid()),
        };
        if namespace.is_empty() || name.is_empty() {
            return Err(invalid());
        }
        let port = port.parse().map_err(|_| invalid())?;
        Ok(Self { service: ServiceRef { kind, namespace: namespace.to_owned(), name: name.to_owned() }, port })
    }
}

/// What a client dialled: a Service or ServiceImport and one of its ports.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FrontendId(pub ServicePort);

impl fmt::Display for FrontendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a rule chose: a Service or ServiceImport and one of its ports; it means endpoints, never a frontend (GEP-1294: routes never chain).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(pub ServicePort);

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

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
    /// A filter that cannot be resolved or is not supported: "requests that would have been processed by that filter MUST receive a HTTP
    /// error response" (HTTPRouteFilter); the text says which.
    Unsupported(String),
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

/// `http` or `https` of a redirect.
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

/// What HTTP version a backend port speaks (GEP-1911 appProtocol).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AppProtocol {
    /// Unset or unknown: HTTP/1.1, and HTTP/2 for gRPC.
    #[default]
    Infer,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A backend with its endpoints in every cluster that has some.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// Which port of which Service or ServiceImport.
    pub id: BackendId,
    /// From the port's appProtocol.
    pub protocol: AppProtocol,
    /// Session affinity ClientIP, if on: how long a client keeps its endpoint (digest D-16).
    pub affinity: Option<Duration>,
    /// Where its requests go.
    pub addresses: Addresses,
}

/// Where the requests of a backend go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Addresses {
    /// Usable endpoints, sorted by cluster, then address, without repeats; may be empty (503).
    Endpoints(Vec<Endpoint>),
    /// The implementation publishes no EndpointSlices: the platform's own VIPs are dialled (digest D-3).
    Vips(Vec<SocketAddr>),
}

/// An address that serves a backend.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// Source cluster; the local cluster's name for a Service.
    pub cluster: String,
    /// Pod address and port.
    pub address: SocketAddr,
    /// Zone in the source cluster, if known.
    pub zone: Option<String>,
    /// Node in the source cluster, if known.
    pub node: Option<String>,
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
