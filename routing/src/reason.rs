//! Every answer that the sidecar makes itself has one of these reasons: its status, its label and its sentence in one place.

use http::StatusCode;

/// The response header that carries the label of an answer the sidecar made itself.
pub const REASON_HEADER: &str = "x-isthmus-reason";

/// Why the sidecar answered instead of a backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// A RequestRedirect filter answered; the status is the filter's.
    Redirect(StatusCode),
    /// A CORS filter answered a preflight request.
    Preflight,
    /// What came is no HTTP request.
    InvalidRequest,
    /// More bytes or fields than a head may have.
    HeadTooLarge,
    /// Not exactly one Host.
    InvalidHost,
    /// Both Content-Length and Transfer-Encoding, several lengths, or one that cannot be read.
    InvalidFraming,
    /// CONNECT: a route is no tunnel.
    UnsupportedConnect,
    /// No rule of the frontend's routes matches.
    NoRoute,
    /// The routes are GRPCRoutes and the request is no gRPC (digest G-6).
    NotGrpc,
    /// The routes are TLSRoutes and the client names no server (digest D-20).
    NoServerName,
    /// The rule has no backend with weight.
    NoBackend,
    /// The chosen backendRef is invalid.
    InvalidBackend,
    /// A filter cannot be obeyed.
    UnsupportedFilter,
    /// A redirect without a host to go to, or a rewrite that makes no request target.
    InvalidTarget,
    /// The routes of the frontend did not arrive in time.
    NotLoaded,
    /// The backend has no ready endpoint.
    NoEndpoint,
    /// No endpoint that was tried could be connected to.
    ConnectFailed,
    /// The pod has as many connections to endpoints as it may.
    TooManyConnections,
    /// The budget of an XBackendTrafficPolicy is used up.
    RetryBudget,
    /// The TLS handshake with an endpoint failed.
    TlsFailed,
    /// A BackendTLSPolicy that cannot be met.
    TlsUnusable,
    /// The endpoint ended the connection or the stream before its response was whole.
    EndpointReset,
    /// The endpoint sent what is no HTTP.
    EndpointProtocol,
    /// The client's body broke off.
    RequestAborted,
    /// Nothing moved for the stream's idle limit.
    StreamIdle,
    /// `timeouts.request` of the rule.
    RequestTimeout,
    /// `timeouts.backendRequest` of the rule.
    BackendTimeout,
    /// The authorization service said no.
    AuthDenied,
    /// The authorization service could not be asked: that is a no, too.
    AuthUnavailable,
    /// More than the authorization service is to see.
    AuthBodyTooLarge,
}

impl Reason {
    /// The status, the gRPC status where the routes are GRPCRoutes (G-3, G-4), the label, and what it means.
    fn parts(self) -> (StatusCode, u8, &'static str, &'static str) {
        const UNKNOWN: u8 = 2;
        const INVALID_ARGUMENT: u8 = 3;
        const DEADLINE_EXCEEDED: u8 = 4;
        const PERMISSION_DENIED: u8 = 7;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        let (bad, internal) = (StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR);
        let (unavailable, gateway) = (StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY);
        let timeout = StatusCode::GATEWAY_TIMEOUT;
        match self {
            Self::Redirect(status) => (status, UNKNOWN, "redirect", ""),
            Self::Preflight => (StatusCode::NO_CONTENT, UNKNOWN, "preflight", ""),
            Self::InvalidRequest => (bad, INVALID_ARGUMENT, "invalid_request", "what came is no HTTP request"),
            Self::HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                RESOURCE_EXHAUSTED,
                "head_too_large",
                "the request's head has too many bytes or fields",
            ),
            Self::InvalidHost => (bad, INVALID_ARGUMENT, "invalid_host", "the request does not have exactly one Host"),
            Self::InvalidFraming => {
                (bad, INVALID_ARGUMENT, "invalid_framing", "the request's length is not given in one way that can be read")
            }
            Self::UnsupportedConnect => {
                (StatusCode::NOT_IMPLEMENTED, UNIMPLEMENTED, "unsupported_connect", "CONNECT is not supported here")
            }
            Self::NoRoute => (StatusCode::NOT_FOUND, UNIMPLEMENTED, "no_route", "no rule of the routes on this frontend matches"),
            Self::NotGrpc => (StatusCode::NOT_FOUND, UNIMPLEMENTED, "not_grpc", "the routes on this frontend are for gRPC alone"),
            Self::NoServerName => (bad, INVALID_ARGUMENT, "no_server_name", "the client speaks no TLS or names no server"),
            Self::NoBackend => (internal, UNAVAILABLE, "no_backend", "the rule has no backend with weight"),
            Self::InvalidBackend => (internal, UNAVAILABLE, "invalid_backend", "the chosen backendRef is invalid"),
            Self::UnsupportedFilter => (internal, INTERNAL, "unsupported_filter", "a filter of the rule cannot be obeyed"),
            Self::InvalidTarget => (internal, INTERNAL, "invalid_target", "the filters make no valid request target"),
            Self::NotLoaded => (unavailable, UNAVAILABLE, "not_loaded", "the routes of this frontend have not arrived"),
            Self::NoEndpoint => (unavailable, UNAVAILABLE, "no_endpoint", "the backend has no ready endpoint"),
            Self::ConnectFailed => (unavailable, UNAVAILABLE, "connect_failed", "no endpoint could be connected to"),
            Self::TooManyConnections => (unavailable, UNAVAILABLE, "too_many_connections", "too many connections to endpoints"),
            Self::RetryBudget => (unavailable, UNAVAILABLE, "retry_budget", "the backend's budget for retries is used up"),
            Self::TlsFailed => (gateway, UNAVAILABLE, "tls_failed", "the endpoint is not who its BackendTLSPolicy wants, or speaks no TLS"),
            Self::TlsUnusable => (internal, UNAVAILABLE, "tls_unusable", "the backend's BackendTLSPolicy cannot be met"),
            Self::EndpointReset => (unavailable, UNAVAILABLE, "endpoint_reset", "the endpoint ended the connection without a response"),
            Self::EndpointProtocol => (gateway, INTERNAL, "endpoint_protocol", "the endpoint's answer is no valid HTTP"),
            Self::RequestAborted => (bad, UNKNOWN, "request_aborted", "the request's body broke off"),
            Self::StreamIdle => (timeout, DEADLINE_EXCEEDED, "stream_idle", "nothing moved for too long"),
            Self::RequestTimeout => (timeout, DEADLINE_EXCEEDED, "request_timeout", "the rule's time limit for a request is over"),
            Self::BackendTimeout => (timeout, DEADLINE_EXCEEDED, "backend_timeout", "the rule's time limit for one attempt is over"),
            Self::AuthDenied => (StatusCode::FORBIDDEN, PERMISSION_DENIED, "auth_denied", "the authorization service denies the request"),
            Self::AuthUnavailable => (unavailable, UNAVAILABLE, "auth_unavailable", "the authorization service gives no answer"),
            Self::AuthBodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, RESOURCE_EXHAUSTED, "auth_body_too_large", "the body is too large to be authorized")
            }
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.parts().0
    }

    /// The status of the answer to a gRPC call.
    #[must_use]
    pub fn grpc_status(self) -> u8 {
        self.parts().1
    }

    /// The label in the header, in metrics and in the access log.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.parts().2
    }

    /// One sentence for the one who reads the answer.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        self.parts().3
    }
}
