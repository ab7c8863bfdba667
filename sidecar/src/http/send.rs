//! One request to one of a backend's endpoints, again elsewhere when that is safe.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::request::Parts;
use ::http::uri::{PathAndQuery, Scheme};
use ::http::{HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use tracing::debug;

use super::body::{BodyError, Counted, Replayable, Used};
use super::head;
use crate::balance::{self, Circumstances};
use crate::connect::ConnectError;
use crate::pool::{Failure, Reuse, SendError, Transport};
use crate::reason::Reason;
use crate::snapshot::{EndpointState, LiveBackend, LiveEndpoint};
use crate::telemetry::Record;
use crate::worker::Worker;

/// Endpoints that are tried when connecting fails.
const CONNECTS_MAX: usize = 3;
/// Times a request is sent, the first included, while it is known not to have been processed.
const ATTEMPTS_MAX: u32 = 4;

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// To one of a backend's endpoints.
    Backend(Arc<LiveBackend>),
    /// To the address that was dialled: its routes are gone.
    Vip(SocketAddr),
}

/// A request whose filters have been applied.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where it goes.
    pub(crate) target: Target,
    /// Its head, without what belongs to the client's connection.
    pub(crate) parts: Parts,
    /// Host or `:authority`.
    pub(crate) authority: Option<HeaderValue>,
    /// Its body.
    pub(crate) body: Replayable,
    /// What it asks to become.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The address that the client dialled.
    pub(crate) destination: SocketAddr,
}

impl Prepared {
    fn endpoint(&self, worker: &Worker, tried: &[SocketAddr]) -> Option<LiveEndpoint> {
        match &self.target {
            Target::Backend(backend) => {
                let is_ipv6 = self.destination.is_ipv6();
                let circumstances = Circumstances { is_ipv6, tried, now_ms: worker.now_ms(), now: Instant::now() };
                balance::pick(backend, &circumstances, || worker.random()).cloned()
            }
            Target::Vip(vip) => (!tried.contains(vip)).then(|| LiveEndpoint {
                address: *vip,
                cluster: Arc::clone(&worker.shared.empty),
                state: Arc::new(EndpointState::default()),
            }),
        }
    }

    fn transport(&self) -> Transport {
        let is_http2 = match &self.target {
            Target::Backend(backend) => backend.speaks_http2(head::is_grpc(&self.parts)),
            // What the client spoke is what was spoken before there were routes.
            Target::Vip(_) => self.parts.version == Version::HTTP_2,
        };
        if is_http2 { Transport::Http2 } else { Transport::Http1 }
    }

    /// The request for one attempt.
    fn request(&self, transport: Transport) -> Result<Request<super::body::Outgoing>, Reason> {
        let mut request = Request::new(self.body.outgoing());
        *request.method_mut() = self.parts.method.clone();
        *request.headers_mut() = self.parts.headers.clone();
        let headers = request.headers_mut();
        match transport {
            Transport::Http1 => {
                head::join_cookies(headers);
                let host = self.authority.clone().or_else(|| HeaderValue::try_from(self.destination.to_string()).ok());
                if let Some(host) = host {
                    headers.insert(::http::header::HOST, host);
                }
                if self.body.has_bytes() && !headers.contains_key(CONTENT_LENGTH) && self.parts.method != Method::CONNECT {
                    // Said, because for a GET without either hyper takes the body to be none.
                    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                if let Some(upgrade) = &self.upgrade {
                    headers.insert(::http::header::CONNECTION, HeaderValue::from_static("upgrade"));
                    headers.insert(::http::header::UPGRADE, upgrade.clone());
                }
                *request.uri_mut() = match self.parts.uri.path_and_query() {
                    Some(path) if self.parts.method != Method::CONNECT => path.clone().into(),
                    _ => self.parts.uri.clone(),
                };
            }
            Transport::Http2 => {
                headers.remove(::http::header::HOST);
                *request.version_mut() = Version::HTTP_2;
                let mut uri = Uri::builder().scheme(Scheme::HTTP);
                let path = self.parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
                let host = match &self.authority {
                    Some(authority) => authority.as_bytes().to_vec(),
                    None => self.destination.to_string().into_bytes(),
                };
                uri = uri.authority(host.as_slice()).path_and_query(path);
                *request.uri_mut() = uri.build().map_err(|_| Reason::InvalidTarget)?;
            }
        }
        Ok(request)
    }
}

/// Sends a request and waits for the head of its response.
pub(crate) async fn send(worker: &Rc<Worker>, prepared: &Prepared, record: &mut Record) -> Result<(Response<Incoming>, Used), Reason> {
    let transport = prepared.transport();
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut reuse = Reuse::Allowed;
    let mut attempts = 0;
    let mut last = Reason::NoEndpoint;
    while let Some(endpoint) = prepared.endpoint(worker, &tried) {
        record.told().endpoint = Some(endpoint.address);
        record.told().source_cluster = Arc::clone(&endpoint.cluster);
        let checkout = worker.pool.checkout(&worker.shared.connector, endpoint.address, transport, reuse);
        let mut lease = match checkout.await {
            Ok(lease) => lease,
            Err(ConnectError::TooMany) => return Err(Reason::TooManyConnections),
            Err(error @ (ConnectError::TimedOut | ConnectError::FailedMeanwhile | ConnectError::Io(_))) => {
                debug!(endpoint = %endpoint.address, %error, "connect");
                worker.shared.telemetry.endpoint_connect("failed");
                endpoint.state.fail(worker.now_ms());
                last = Reason::ConnectFailed;
                tried.push(endpoint.address);
                if tried.len() >= CONNECTS_MAX {
                    break;
                }
                continue;
            }
        };
        if !lease.is_reused() {
            worker.shared.telemetry.endpoint_connect("connected");
        }
        attempts += 1;
        let counted = Counted::begin(&endpoint.state);
        let sent_at = Instant::now();
        match lease.send(prepared.request(transport)?).await {
            Ok(response) => {
                endpoint.state.observe(sent_at.elapsed());
                return Ok((response, Used { lease, worker: Rc::clone(worker), counted }));
            }
            Err(failed) => {
                debug!(endpoint = %endpoint.address, error = %failed.error, is_reused = lease.is_reused(), "send");
                if !may_repeat(&failed, lease.is_reused() && reuse == Reuse::Allowed, transport, prepared) || attempts >= ATTEMPTS_MAX {
                    return Err(reason(&failed.error));
                }
                if failed.failure != Failure::Refused {
                    reuse = Reuse::Refused;
                }
                worker.shared.telemetry.endpoint_retry();
                record.told().retries += 1;
            }
        }
    }
    Err(last)
}

/// A request that was not processed may be sent again; so may, once, one whose reused connection ended without a response, if sending it
/// twice is harmless or nothing of its body was sent.
fn may_repeat(failed: &SendError, was_reused: bool, transport: Transport, prepared: &Prepared) -> bool {
    if !prepared.body.is_whole() {
        return false;
    }
    // In HTTP/2 a head can be acted upon before the first byte of its body.
    let is_unread = transport == Transport::Http1 && prepared.body.is_untouched();
    let is_harmless = prepared.parts.method.is_idempotent() || is_unread;
    let ended = !failed.error.is_parse() && !failed.error.is_user();
    failed.failure != Failure::Lost || (was_reused && ended && is_harmless)
}

fn reason(error: &hyper::Error) -> Reason {
    if error.is_parse() {
        return Reason::EndpointProtocol;
    }
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<BodyError>());
    match source {
        Some(BodyError::Peer(_)) => Reason::RequestAborted,
        Some(BodyError::Idle) => Reason::StreamIdle,
        Some(BodyError::Superseded) | None => Reason::EndpointReset,
    }
}
