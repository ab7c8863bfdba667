//! A request whose filters have been applied: where it goes, and the form it takes for each attempt.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ::http::request::Parts;
use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{HeaderValue, Response, Uri, Version};
use bytes::Bytes;
use http_body_util::Full;
use routing::model::{Addresses, Retry, Rule, Timeouts};
use routing::table::{Position, RouteTable};

use super::body::{Broken, EndpointBody, Outgoing, Replayable};
use super::head::{self, Content};
use super::outbound::{Outbound, OutboundHead};
use super::response::Judged;
use crate::balance::{self, Circumstances};
use crate::endpoint::{EndpointState, Outcome};
use crate::pool::{Peer, Reach, Transport};
use crate::reason::Reason;
use crate::snapshot::{LiveBackend, LiveEndpoint};
use crate::worker::Worker;

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// To one of a backend's endpoints.
    Backend(Arc<LiveBackend>),
    /// To the address that was dialled: its routes are gone.
    Vip(SocketAddr),
}

/// What is sent as a body.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// The client's.
    Client(Replayable),
    /// A copy of it.
    Copy(std::cell::RefCell<Option<Outgoing>>),
    /// The sidecar's own.
    Own(Bytes),
}

impl RequestBody {
    fn outgoing(&self) -> Outgoing {
        match self {
            Self::Client(body) => body.outgoing(),
            Self::Copy(copy) => copy.take().unwrap_or_else(|| Outgoing::Own(Full::default())),
            Self::Own(bytes) => Outgoing::Own(Full::new(bytes.clone())),
        }
    }

    /// Whether all that was sent could be sent again.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Client(body) => body.is_whole(),
            Self::Copy(copy) => copy.borrow().is_some(),
            Self::Own(_) => true,
        }
    }

    /// Why the client's body cannot be sent, if it broke off.
    pub(super) fn broken(&self) -> Option<Reason> {
        let Self::Client(body) = self else { return None };
        body.broken().map(|broken| match broken {
            Broken::Aborted => Reason::RequestAborted,
            Broken::Idle => Reason::StreamIdle,
        })
    }

    /// Attempts that are under way break off.
    pub(super) fn give_up(&self) {
        match self {
            Self::Client(body) => body.give_up(),
            Self::Copy(_) | Self::Own(_) => {}
        }
    }

    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Self::Client(body) => body.is_untouched(),
            Self::Copy(copy) => copy.borrow().is_some(),
            Self::Own(_) => false,
        }
    }

    fn content(&self) -> Content {
        let has_bytes = match self {
            Self::Client(body) => body.has_bytes(),
            Self::Copy(copy) => copy.borrow().as_ref().is_some_and(|copy| !hyper::body::Body::is_end_stream(copy)),
            Self::Own(bytes) => !bytes.is_empty(),
        };
        if has_bytes { Content::Present } else { Content::Absent }
    }
}

/// The rule that a request obeys on its way.
#[derive(Debug)]
pub(crate) struct Obeyed {
    table: Arc<RouteTable>,
    position: Position,
}

impl Obeyed {
    /// The rule at a position of a table.
    pub(crate) fn new(table: &Arc<RouteTable>, position: Position) -> Self {
        Self { table: Arc::clone(table), position }
    }

    fn rule(&self) -> Option<&Rule> {
        self.table.at(self.position).map(|selection| selection.rule)
    }
}

/// A request whose filters have been applied.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where it goes.
    pub(crate) target: Target,
    /// Its head, without what belongs to the client's connection.
    pub(crate) parts: Box<Parts>,
    /// Host or `:authority`.
    pub(crate) authority: Option<HeaderValue>,
    /// Its body.
    pub(crate) body: RequestBody,
    /// What it asks to become.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The address that the client dialled.
    pub(crate) destination: SocketAddr,
    /// Time limits and retries; none: no rule is concerned.
    pub(crate) obeyed: Option<Obeyed>,
    /// The endpoint that its session keeps.
    pub(crate) kept: Option<SocketAddr>,
    /// It is a gRPC call under GRPCRoutes: HTTP/2 whatever the port says.
    pub(crate) is_grpc: bool,
}

impl Prepared {
    /// Notes a failure that the head of a response says; else who is to hear of the answer's end.
    pub(super) fn judge(&self, worker: &Worker, endpoint: &LiveEndpoint, response: &Response<EndpointBody>) -> Option<Judged> {
        let backend = self.backend()?;
        match head::outcome(response.status(), response.headers()) {
            Some(Outcome::Failure | Outcome::Unreachable) => {
                self.note(worker, endpoint, Outcome::Failure);
                None
            }
            // Well begun is half done.
            Some(Outcome::Success) | None => Some(Judged { backend: Arc::clone(backend), endpoint: endpoint.clone() }),
        }
    }

    fn rule(&self) -> Option<&Rule> {
        self.obeyed.as_ref().and_then(Obeyed::rule)
    }

    /// Time limits of the rule.
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.rule().map(|rule| rule.timeouts).unwrap_or_default()
    }

    pub(super) fn retry(&self) -> Option<&Retry> {
        self.rule().and_then(|rule| rule.retry.as_ref())
    }

    pub(super) fn backend(&self) -> Option<&Arc<LiveBackend>> {
        match &self.target {
            Target::Backend(backend) => Some(backend),
            Target::Vip(_) => None,
        }
    }

    pub(super) fn endpoint(&self, worker: &Worker, tried: &[SocketAddr], now: Instant) -> Option<LiveEndpoint> {
        match &self.target {
            Target::Backend(backend) => {
                let is_ipv6 = self.destination.is_ipv6();
                let circumstances = Circumstances { is_ipv6, tried, now_ms: worker.ms_of(now), now };
                let kept = self.kept.and_then(|kept| balance::kept(backend, kept, &circumstances));
                kept.or_else(|| balance::pick(backend, &circumstances, || worker.random())).cloned()
            }
            Target::Vip(vip) => (!tried.contains(vip)).then(|| LiveEndpoint {
                address: *vip,
                cluster: Arc::clone(&worker.shared.empty),
                state: Arc::new(EndpointState::default()),
            }),
        }
    }

    pub(super) fn transport(&self) -> Transport {
        let is_http2 = match &self.target {
            Target::Backend(backend) => self.is_grpc || backend.speaks_http2(head::is_grpc(&self.parts)),
            // What the client spoke is what was spoken before there were routes.
            Target::Vip(_) => self.parts.version == Version::HTTP_2,
        };
        if is_http2 { Transport::Http2 } else { Transport::Http1 }
    }

    pub(super) fn peer(&self, endpoint: &LiveEndpoint) -> Result<Peer, Reason> {
        let tls = match self.backend().and_then(|backend| backend.tls.as_ref()) {
            None => None,
            Some(Ok(tls)) => Some(Arc::clone(tls)),
            Some(Err(_)) => return Err(Reason::TlsUnusable),
        };
        let is_vip = self.backend().is_none_or(|backend| matches!(backend.model.addresses, Addresses::Vips(_)));
        Ok(Peer { address: endpoint.address, tls, reach: if is_vip { Reach::Vip } else { Reach::Endpoint } })
    }

    pub(super) fn note(&self, worker: &Worker, endpoint: &LiveEndpoint, outcome: Outcome) {
        if let Some(backend) = self.backend() {
            worker.note(backend, endpoint, outcome);
        }
    }

    /// `:authority`: that of the request's own target, read already, if no filter has changed it.
    fn uri_authority(&self) -> Result<Authority, Reason> {
        match (&self.authority, self.parts.uri.authority()) {
            (Some(value), Some(own)) if own.as_str().as_bytes() == value.as_bytes() => Ok(own.clone()),
            (Some(value), _) => Authority::try_from(value.as_bytes()).map_err(|_| Reason::InvalidTarget),
            (None, _) => Authority::try_from(self.destination.to_string()).map_err(|_| Reason::InvalidTarget),
        }
    }

    /// The request for one attempt.
    pub(super) fn outbound(&self, transport: Transport, is_tls: bool) -> Result<Outbound<'_>, Reason> {
        let (uri, host) = match transport {
            Transport::Http1 => {
                let host = match &self.authority {
                    Some(authority) => Some(Cow::Borrowed(authority)),
                    None => HeaderValue::try_from(self.destination.to_string()).ok().map(Cow::Owned),
                };
                (Cow::Borrowed(&self.parts.uri), host)
            }
            Transport::Http2 => {
                let mut uri = ::http::uri::Parts::default();
                uri.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
                uri.authority = Some(self.uri_authority()?);
                uri.path_and_query = Some(self.parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
                (Cow::Owned(Uri::from_parts(uri).map_err(|_| Reason::InvalidTarget)?), None)
            }
        };
        let head = OutboundHead {
            method: &self.parts.method,
            uri,
            headers: &self.parts.headers,
            host,
            upgrade: self.upgrade.as_ref(),
            // A copy is asked before it is taken.
            content: self.body.content(),
        };
        Ok(Outbound { head, body: self.body.outgoing() })
    }
}
