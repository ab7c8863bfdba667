//! One request to a backend: an endpoint, a connection, the head of a response; again elsewhere when that is safe, or when the route wants it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::request::Parts;
use ::http::uri::{PathAndQuery, Scheme};
use ::http::{HeaderValue, Request, Response, Uri, Version};
use backon::BackoffBuilder;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use routing::model::{Retry, Rule, Timeouts};
use routing::table::{Position, RouteTable};
use tracing::debug;

use super::body::{BodyError, Outgoing, Replayable};
use super::head;
use super::response::{Counted, Judged, Used};
use crate::balance::{self, Circumstances};
use crate::connect::ConnectError;
use crate::endpoint::{EndpointState, Outcome};
use crate::pool::{Failure, Peer, Reuse, SendError, Transport};
use crate::reason::Reason;
use crate::snapshot::{LiveBackend, LiveEndpoint};
use crate::telemetry::Told;
use crate::worker::Worker;

/// Endpoints that are tried when connecting fails.
const CONNECTS_MAX: usize = 3;
/// Times a request is sent, the first included, while it is known not to have been processed.
const ATTEMPTS_MAX: u32 = 4;
/// The least wait before a retry where the route says none.
const BACKOFF_DEFAULT: Duration = Duration::from_millis(25);
/// A wait between retries grows to so many times the least one.
const BACKOFF_GROWTH_MAX: u32 = 10;

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
    fn is_whole(&self) -> bool {
        match self {
            Self::Client(body) => body.is_whole(),
            Self::Copy(copy) => copy.borrow().is_some(),
            Self::Own(_) => true,
        }
    }

    /// Attempts that are under way break off.
    fn give_up(&self) {
        match self {
            Self::Client(body) => body.give_up(),
            Self::Copy(_) | Self::Own(_) => {}
        }
    }

    fn is_untouched(&self) -> bool {
        match self {
            Self::Client(body) => body.is_untouched(),
            Self::Copy(copy) => copy.borrow().is_some(),
            Self::Own(_) => false,
        }
    }

    /// Whether there is one, of known length or not.
    fn has_bytes(&self) -> bool {
        match self {
            Self::Client(body) => body.has_bytes(),
            Self::Copy(copy) => copy.borrow().as_ref().is_some_and(|copy| !hyper::body::Body::is_end_stream(copy)),
            Self::Own(bytes) => !bytes.is_empty(),
        }
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
    pub(crate) parts: Parts,
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

/// A response and what it came on.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Its head, and the body that follows.
    pub(crate) response: Response<Incoming>,
    /// The connection and what else ends with it.
    pub(crate) used: Used,
    /// Who answered.
    pub(crate) endpoint: SocketAddr,
    /// When the attempt has to have ended, if the rule says so.
    pub(crate) deadline: Option<tokio::time::Instant>,
}

/// What attempts have come to.
#[derive(Debug, Default)]
struct Attempts {
    /// Endpoints that another one is preferred to.
    tried: Vec<SocketAddr>,
    /// Where the one under way has got to.
    current: Option<LiveEndpoint>,
}

impl Prepared {
    fn rule(&self) -> Option<&Rule> {
        self.obeyed.as_ref().and_then(Obeyed::rule)
    }

    /// Time limits of the rule.
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.rule().map(|rule| rule.timeouts).unwrap_or_default()
    }

    fn retry(&self) -> Option<&Retry> {
        self.rule().and_then(|rule| rule.retry.as_ref())
    }

    fn backend(&self) -> Option<&Arc<LiveBackend>> {
        match &self.target {
            Target::Backend(backend) => Some(backend),
            Target::Vip(_) => None,
        }
    }

    fn endpoint(&self, worker: &Worker, tried: &[SocketAddr]) -> Option<LiveEndpoint> {
        match &self.target {
            Target::Backend(backend) => {
                let is_ipv6 = self.destination.is_ipv6();
                let circumstances = Circumstances { is_ipv6, tried, now_ms: worker.now_ms(), now: Instant::now() };
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

    fn transport(&self) -> Transport {
        let is_http2 = match &self.target {
            Target::Backend(backend) => self.is_grpc || backend.speaks_http2(head::is_grpc(&self.parts)),
            // What the client spoke is what was spoken before there were routes.
            Target::Vip(_) => self.parts.version == Version::HTTP_2,
        };
        if is_http2 { Transport::Http2 } else { Transport::Http1 }
    }

    fn peer(&self, endpoint: &LiveEndpoint) -> Result<Peer, Reason> {
        let tls = match self.backend().and_then(|backend| backend.tls.as_ref()) {
            None => None,
            Some(Ok(tls)) => Some(Arc::clone(tls)),
            Some(Err(_)) => return Err(Reason::TlsUnusable),
        };
        Ok(Peer { address: endpoint.address, tls })
    }

    fn note(&self, worker: &Worker, endpoint: &LiveEndpoint, outcome: Outcome) {
        if let Some(backend) = self.backend() {
            backend.note(endpoint, outcome, worker.now_ms(), || worker.random());
        }
    }

    /// The request for one attempt.
    fn request(&self, transport: Transport, is_tls: bool) -> Result<Request<Outgoing>, Reason> {
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
                if self.body.has_bytes() && !headers.contains_key(CONTENT_LENGTH) {
                    // Said, because for a GET without either hyper takes the body to be none.
                    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                if let Some(upgrade) = &self.upgrade {
                    headers.insert(::http::header::CONNECTION, HeaderValue::from_static("upgrade"));
                    headers.insert(::http::header::UPGRADE, upgrade.clone());
                }
                *request.uri_mut() = match self.parts.uri.path_and_query() {
                    Some(path) => path.clone().into(),
                    None => self.parts.uri.clone(),
                };
            }
            Transport::Http2 => {
                headers.remove(::http::header::HOST);
                *request.version_mut() = Version::HTTP_2;
                let mut uri = Uri::builder().scheme(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
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

/// Sends a request and waits for the head of a response that the route is content with, within its retries.
pub(crate) async fn send(worker: &Rc<Worker>, prepared: &Prepared, told: &mut Told) -> Result<Sent, Reason> {
    let mut attempts = Attempts::default();
    let budget = prepared.backend().and_then(|backend| backend.budget.clone());
    if let Some(budget) = &budget {
        budget.sent(worker.now_ms());
    }
    let mut waits = None;
    let mut left = prepared.retry().map_or(0, |retry| retry.attempts);
    loop {
        let result = attempt_within(worker, prepared, &mut attempts, told).await;
        let Some(retry) = prepared.retry().filter(|retry| left > 0 && is_retried(retry, &result) && prepared.body.is_whole()) else {
            return result;
        };
        if budget.as_ref().is_some_and(|budget| !budget.take(worker.now_ms())) {
            return Err(Reason::RetryBudget);
        }
        left -= 1;
        told.retries += 1;
        worker.shared.telemetry.retry("route");
        attempts.tried.extend(told.endpoint);
        // What was answered is not read: its connection ends. Nor does it take in any more of the body, which the next attempt needs whole.
        drop(result);
        prepared.body.give_up();
        let waits = waits.get_or_insert_with(|| {
            let least = retry.backoff.unwrap_or(BACKOFF_DEFAULT);
            let growing = backon::ExponentialBuilder::default().with_min_delay(least).with_max_delay(least * BACKOFF_GROWTH_MAX);
            growing.with_jitter().without_max_times().build()
        });
        tokio::time::sleep(waits.next().unwrap_or(BACKOFF_DEFAULT)).await;
    }
}

/// Statuses as the route says; of what got no response everything but what another attempt cannot change (GEP-1731; digest H-27).
fn is_retried(retry: &Retry, result: &Result<Sent, Reason>) -> bool {
    match result {
        Ok(sent) => retry.codes.contains(&sent.response.status()),
        Err(reason) => {
            matches!(
                reason,
                Reason::ConnectFailed | Reason::EndpointReset | Reason::BackendTimeout | Reason::TlsFailed | Reason::EndpointProtocol
            )
        }
    }
}

/// One attempt within the rule's time for it.
async fn attempt_within(worker: &Rc<Worker>, prepared: &Prepared, attempts: &mut Attempts, told: &mut Told) -> Result<Sent, Reason> {
    let Some(limit) = prepared.timeouts().backend_request else { return attempt(worker, prepared, attempts, told).await };
    let deadline = tokio::time::Instant::now() + limit;
    match tokio::time::timeout_at(deadline, attempt(worker, prepared, attempts, told)).await {
        Ok(result) => result.map(|sent| Sent { deadline: Some(deadline), ..sent }),
        Err(_) => {
            if let Some(endpoint) = &attempts.current {
                prepared.note(worker, endpoint, Outcome::Failure);
            }
            Err(Reason::BackendTimeout)
        }
    }
}

/// One attempt: what was not processed is sent again at once, on another connection or to another endpoint.
async fn attempt(worker: &Rc<Worker>, prepared: &Prepared, attempts: &mut Attempts, told: &mut Told) -> Result<Sent, Reason> {
    let transport = prepared.transport();
    let mut reuse = Reuse::Allowed;
    let mut times = 0;
    let mut unreached: Vec<SocketAddr> = Vec::new();
    let mut last = Reason::NoEndpoint;
    while let Some(endpoint) = next(worker, prepared, attempts, &unreached) {
        told.endpoint = Some(endpoint.address);
        told.source_cluster = Arc::clone(&endpoint.cluster);
        attempts.current = Some(endpoint.clone());
        let peer = prepared.peer(&endpoint)?;
        let is_tls = peer.tls.is_some();
        let mut lease = match worker.pool.checkout(&worker.shared.connector, peer, transport, reuse).await {
            Ok(lease) => lease,
            Err(ConnectError::TooMany) => return Err(Reason::TooManyConnections),
            Err(error @ (ConnectError::TimedOut | ConnectError::FailedMeanwhile | ConnectError::Io(_) | ConnectError::Tls(_))) => {
                debug!(endpoint = %endpoint.address, %error, "connect");
                worker.shared.telemetry.endpoint_connect("failed");
                prepared.note(worker, &endpoint, Outcome::Unreachable);
                last = if matches!(error, ConnectError::Tls(_)) { Reason::TlsFailed } else { Reason::ConnectFailed };
                unreached.push(endpoint.address);
                if unreached.len() >= CONNECTS_MAX {
                    break;
                }
                continue;
            }
        };
        if !lease.is_reused() {
            worker.shared.telemetry.endpoint_connect("connected");
        }
        times += 1;
        let counted = Counted::begin(&endpoint.state);
        let sent_at = Instant::now();
        match lease.send(prepared.request(transport, is_tls)?).await {
            Ok(response) => {
                endpoint.state.observe(sent_at.elapsed());
                let outcome = head::outcome(response.status(), response.headers());
                let judged = match (outcome, prepared.backend()) {
                    (None, Some(backend)) => Some(Judged { backend: Arc::clone(backend), endpoint: endpoint.clone() }),
                    (Some(outcome), Some(_)) => {
                        prepared.note(worker, &endpoint, outcome);
                        None
                    }
                    (_, None) => None,
                };
                let used = Used { lease, worker: Rc::clone(worker), counted, judged };
                return Ok(Sent { response, used, endpoint: endpoint.address, deadline: None });
            }
            Err(failed) => {
                debug!(endpoint = %endpoint.address, error = %failed.error, is_reused = lease.is_reused(), "send");
                if !may_repeat(&failed, lease.is_reused() && reuse == Reuse::Allowed, transport, prepared) || times >= ATTEMPTS_MAX {
                    let reason = reason(&failed.error);
                    if matches!(reason, Reason::EndpointReset | Reason::EndpointProtocol) {
                        prepared.note(worker, &endpoint, Outcome::Failure);
                    }
                    return Err(reason);
                }
                if failed.failure != Failure::Refused {
                    reuse = Reuse::Refused;
                }
                worker.shared.telemetry.retry("unprocessed");
                told.retries += 1;
            }
        }
    }
    Err(last)
}

/// An endpoint that was neither tried nor out of reach; where only tried ones are left, one of these.
fn next(worker: &Worker, prepared: &Prepared, attempts: &mut Attempts, unreached: &[SocketAddr]) -> Option<LiveEndpoint> {
    if attempts.tried.is_empty() {
        return prepared.endpoint(worker, unreached);
    }
    let avoided: Vec<SocketAddr> = attempts.tried.iter().chain(unreached).copied().collect();
    prepared.endpoint(worker, &avoided).or_else(|| {
        attempts.tried.clear();
        prepared.endpoint(worker, unreached)
    })
}

/// Since the epoch: what sessions are dated with.
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
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
        Some(BodyError::Superseded | BodyError::CopyLost | BodyError::Deadline) | None => Reason::EndpointReset,
    }
}
