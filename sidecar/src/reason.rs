//! Every answer that the sidecar makes itself has one of these reasons: its status, its label and its sentence in one place.

use ::http::StatusCode;

/// The response header that carries the label of an answer the sidecar made itself.
pub(crate) const REASON_HEADER: &str = "x-isthmus-reason";

/// Why the sidecar answered instead of a backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Reason {
    /// A RequestRedirect filter answered; the status is the filter's.
    Redirect(StatusCode),
    /// Not exactly one Host.
    InvalidHost,
    /// Both Content-Length and Transfer-Encoding, or several different lengths.
    InvalidFraming,
    /// CONNECT where no tunnel can be made.
    UnsupportedConnect,
    /// No rule of the frontend's routes matches.
    NoRoute,
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
    /// The endpoint ended the connection or the stream before its response was whole.
    EndpointReset,
    /// The endpoint sent what is no HTTP.
    EndpointProtocol,
    /// The client's body broke off.
    RequestAborted,
    /// Nothing moved for the stream's idle limit.
    StreamIdle,
}

impl Reason {
    /// The status, the label and what it means.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Redirect(status) => (status, "redirect", ""),
            Self::InvalidHost => (StatusCode::BAD_REQUEST, "invalid_host", "the request does not have exactly one Host"),
            Self::InvalidFraming => (StatusCode::BAD_REQUEST, "invalid_framing", "the request's length is given in more than one way"),
            Self::UnsupportedConnect => (StatusCode::NOT_IMPLEMENTED, "unsupported_connect", "CONNECT is not supported here"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no_route", "no rule of the routes on this frontend matches"),
            Self::NoBackend => (StatusCode::INTERNAL_SERVER_ERROR, "no_backend", "the rule has no backend with weight"),
            Self::InvalidBackend => (StatusCode::INTERNAL_SERVER_ERROR, "invalid_backend", "the chosen backendRef is invalid"),
            Self::UnsupportedFilter => (StatusCode::INTERNAL_SERVER_ERROR, "unsupported_filter", "a filter of the rule cannot be obeyed"),
            Self::InvalidTarget => (StatusCode::INTERNAL_SERVER_ERROR, "invalid_target", "the filters make no valid request target"),
            Self::NotLoaded => (StatusCode::SERVICE_UNAVAILABLE, "not_loaded", "the routes of this frontend have not arrived"),
            Self::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "no_endpoint", "the backend has no ready endpoint"),
            Self::ConnectFailed => (StatusCode::SERVICE_UNAVAILABLE, "connect_failed", "no endpoint could be connected to"),
            Self::TooManyConnections => (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", "too many connections to endpoints"),
            Self::EndpointReset => (StatusCode::BAD_GATEWAY, "endpoint_reset", "the endpoint ended the connection without a response"),
            Self::EndpointProtocol => (StatusCode::BAD_GATEWAY, "endpoint_protocol", "the endpoint's answer is no valid HTTP"),
            Self::RequestAborted => (StatusCode::BAD_REQUEST, "request_aborted", "the request's body broke off"),
            Self::StreamIdle => (StatusCode::GATEWAY_TIMEOUT, "stream_idle", "nothing moved for too long"),
        }
    }

    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        self.parts().0
    }

    /// The label in the header, in metrics and in the access log.
    pub(crate) fn label(self) -> &'static str {
        self.parts().1
    }

    /// One sentence for the one who reads the answer.
    pub(crate) fn sentence(self) -> &'static str {
        self.parts().2
    }
}
