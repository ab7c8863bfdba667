//! One request to a backend: an endpoint, a connection, the head of a response; again elsewhere when that is safe, or when the route wants it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::http::Response;
use backon::BackoffBuilder;
use routing::model::Retry;
use tracing::debug;

use super::body::EndpointBody;
use super::prepared::Prepared;
use super::response::{Counted, Used};
use crate::endpoint::Outcome;
use crate::pool::{Cause, Failure, Reuse, SendError, Transport};
use crate::reason::Reason;
use crate::snapshot::LiveEndpoint;
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

/// A response and what it came on; large, so that it is handed on in a box.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Its head, and the body that follows.
    pub(crate) response: Response<EndpointBody>,
    /// The connection and what else ends with it.
    pub(crate) used: Used,
    /// Who answered.
    pub(crate) endpoint: SocketAddr,
    /// When its head came.
    pub(crate) answered: Instant,
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

/// Sends a request and waits for the head of a response that the route is content with, within its retries.
pub(crate) async fn send(worker: &Rc<Worker>, prepared: &Prepared, told: &mut Told) -> Result<Box<Sent>, Reason> {
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
fn is_retried(retry: &Retry, result: &Result<Box<Sent>, Reason>) -> bool {
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
async fn attempt_within(worker: &Rc<Worker>, prepared: &Prepared, attempts: &mut Attempts, told: &mut Told) -> Result<Box<Sent>, Reason> {
    let Some(limit) = prepared.timeouts().backend_request else { return attempt(worker, prepared, attempts, told).await };
    let deadline = tokio::time::Instant::now() + limit;
    match tokio::time::timeout_at(deadline, attempt(worker, prepared, attempts, told)).await {
        Ok(Ok(mut sent)) => {
            sent.deadline = Some(deadline);
            Ok(sent)
        }
        Ok(Err(reason)) => Err(reason),
        Err(_) => {
            if let Some(endpoint) = &attempts.current {
                prepared.note(worker, endpoint, Outcome::Failure);
            }
            Err(Reason::BackendTimeout)
        }
    }
}

/// One attempt: what was not processed is sent again at once, on another connection or to another endpoint.
async fn attempt(worker: &Rc<Worker>, prepared: &Prepared, attempts: &mut Attempts, told: &mut Told) -> Result<Box<Sent>, Reason> {
    let transport = prepared.transport();
    let mut reuse = Reuse::Allowed;
    let mut times = 0;
    let mut unreached: Vec<SocketAddr> = Vec::new();
    let mut last = Reason::NoEndpoint;
    // When an endpoint is chosen; after a wait for its connection, when the request is sent to it.
    let mut now = Instant::now();
    while let Some(endpoint) = next(worker, prepared, attempts, &unreached, now) {
        told.endpoint = Some(endpoint.address);
        told.source_cluster = Arc::clone(&endpoint.cluster);
        attempts.current = Some(endpoint.clone());
        let peer = prepared.peer(&endpoint)?;
        let is_tls = peer.tls.is_some();
        let mut lease = match worker.pool.checkout(&worker.shared.connector, peer, transport, reuse).await {
            Ok(lease) => lease,
            Err(error) => {
                debug!(endpoint = %endpoint.address, %error, "connect");
                worker.shared.telemetry.endpoint_connect("failed");
                if error.is_local() {
                    return Err(error.reason());
                }
                prepared.note(worker, &endpoint, Outcome::Unreachable);
                last = error.reason();
                unreached.push(endpoint.address);
                if unreached.len() >= CONNECTS_MAX {
                    break;
                }
                now = Instant::now();
                continue;
            }
        };
        if !lease.is_reused() {
            worker.shared.telemetry.endpoint_connect("connected");
        }
        // What had to wait for a connection, be it one that somebody else opened, is sent now and not before.
        if !lease.is_reused() || transport == Transport::Http2 {
            now = Instant::now();
        }
        times += 1;
        let counted = Counted::begin(&endpoint.state);
        match lease.send(prepared.outbound(transport, is_tls)?).await {
            Ok(response) => {
                let answered = Instant::now();
                endpoint.state.observe(answered.saturating_duration_since(now));
                let judged = prepared.judge(worker, &endpoint, &response);
                let used = Used { lease, worker: Rc::clone(worker), counted, judged };
                return Ok(Box::new(Sent { response, used, endpoint: endpoint.address, answered, deadline: None }));
            }
            Err(failed) => {
                debug!(endpoint = %endpoint.address, error = %failed.error, is_reused = lease.is_reused(), "send");
                if let Some(reason) = prepared.body.broken() {
                    // The client's own fault, whatever it looks like from here.
                    return Err(reason);
                }
                if !may_repeat(&failed, lease.is_reused() && reuse == Reuse::Allowed, transport, prepared) || times >= ATTEMPTS_MAX {
                    let reason = reason(&failed.error);
                    if matches!(reason, Reason::EndpointReset | Reason::EndpointProtocol) {
                        prepared.note(worker, &endpoint, Outcome::Failure);
                    }
                    return Err(reason);
                }
                if failed.failure != Failure::Refused {
                    reuse = Reuse::OpenedSince(now);
                }
                worker.shared.telemetry.retry("unprocessed");
                told.retries += 1;
                now = Instant::now();
            }
        }
    }
    Err(last)
}

/// An endpoint that was neither tried nor out of reach; where only tried ones are left, one of these.
fn next(worker: &Worker, prepared: &Prepared, attempts: &mut Attempts, unreached: &[SocketAddr], now: Instant) -> Option<LiveEndpoint> {
    if attempts.tried.is_empty() {
        return prepared.endpoint(worker, unreached, now);
    }
    let avoided: Vec<SocketAddr> = attempts.tried.iter().chain(unreached).copied().collect();
    prepared.endpoint(worker, &avoided, now).or_else(|| {
        attempts.tried.clear();
        prepared.endpoint(worker, unreached, now)
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
    let ended = failed.error.is_of_connection() && !failed.error.is_protocol() && !failed.error.is_own();
    failed.failure != Failure::Lost || (was_reused && ended && is_harmless)
}

fn reason(error: &Cause) -> Reason {
    if error.is_protocol() { Reason::EndpointProtocol } else { Reason::EndpointReset }
}
