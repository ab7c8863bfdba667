//! Connections to endpoints, kept by the worker that opened them.
//!
//! Invariant: what can grow has a maximum, and an idle connection ends.

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::Response;
use tokio::sync::Mutex;

use crate::FastMap;
use crate::connect::{ConnectError, Connector};
use crate::http::body::EndpointBody;
use crate::http::outbound::Outbound;
use crate::http2::client::Windows;
use crate::pipe;
use crate::tls::ClientTls;
use crate::{http1, http2};

/// HTTP/1.1 connections to one endpoint that wait for use; more are closed.
const IDLE_MAX: usize = 1024;
/// A connection that was not used for so long is closed: shorter than the patience of common servers.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// How often that is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Streams on one HTTP/2 connection; beyond it another is opened.
const STREAMS_MAX: u16 = 100;
/// Requests on a connection to a VIP; then another is opened, and perhaps another endpoint reached.
const VIP_USES_MAX: u32 = 100;
/// And so long at most.
const VIP_TIME_MAX: Duration = Duration::from_secs(10);
/// What an endpoint may send of one answer before it is taken in; a connection has room for all of its streams, so that one answer that nobody
/// takes in never holds up another.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * (STREAMS_MAX as u32);

/// An endpoint and the policy under which it is spoken to: connections are only shared where both are the same.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Its TLS policy; none: plain text.
    pub(crate) tls: Option<Arc<ClientTls>>,
    /// What is behind the address.
    pub(crate) reach: Reach,
}

/// What is behind an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// One endpoint.
    Endpoint,
    /// Several, of which the platform chooses one for each connection: none is kept for long, so that all get their share (digest D-3).
    Vip,
}

impl Reach {
    fn allows(self, uses: u32, opened: Instant) -> bool {
        self == Self::Endpoint || (uses < VIP_USES_MAX && opened.elapsed() < VIP_TIME_MAX)
    }
}

impl Peer {
    fn key(&self) -> (SocketAddr, Option<u64>) {
        (self.address, self.tls.as_ref().map(|tls| tls.id()))
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Which HTTP an endpoint is spoken to in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Transport {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, in plain text with prior knowledge.
    Http2,
}

/// Whether a connection that waits in the pool will do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reuse {
    /// It will.
    Allowed,
    /// One just ended under a request that was sent then; the others may be as old, unless they are newer.
    OpenedSince(Instant),
}

/// The connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    http1: RefCell<FastMap<Peer, Vec<Idle>>>,
    http2: RefCell<FastMap<Peer, Rc<Group>>>,
}

/// The HTTP/2 connections to one endpoint.
#[derive(Debug, Default)]
struct Group {
    connections: RefCell<Vec<Multiplexed>>,
    /// One opens, the others wait and share what comes of it: a connection, or the time of the failure.
    opening: Mutex<Option<Instant>>,
}

impl Group {
    fn roomy(&self, reuse: Reuse, reach: Reach) -> Option<Multiplexed> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(Multiplexed::is_open);
        let is_new_enough = |usage: &Usage| match reuse {
            Reuse::Allowed => true,
            Reuse::OpenedSince(then) => usage.opened >= then,
        };
        let is_fit = |usage: &Usage| is_new_enough(usage) && reach.allows(usage.uses.get(), usage.opened);
        connections.iter().find(|connection| connection.has_room() && is_fit(&connection.usage)).cloned()
    }
}

#[derive(Debug)]
struct Idle {
    exclusive: Exclusive,
    since: Instant,
}

/// An HTTP/1.1 connection: one request at a time.
#[derive(Debug)]
struct Exclusive {
    opened: Instant,
    uses: u32,
    connection: http1::client::Connection,
}

#[derive(Clone, Debug)]
struct Multiplexed {
    connection: http2::client::Connection,
    usage: Rc<Usage>,
}

impl Multiplexed {
    fn has_room(&self) -> bool {
        self.usage.streams.get() < self.connection.allowed().streams.get().min(STREAMS_MAX.into())
    }

    fn is_open(&self) -> bool {
        !self.connection.allowed().is_over.get() && !self.usage.retired.get()
    }
}

#[derive(Debug)]
struct Usage {
    opened: Instant,
    uses: Cell<u32>,
    streams: Cell<usize>,
    ended: Cell<Instant>,
    /// No further stream: the endpoint refused one or is going away.
    retired: Cell<bool>,
}

impl Usage {
    fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self { opened: now, uses: Cell::new(0), streams: Cell::new(0), ended: Cell::new(now), retired: Cell::new(false) })
    }
}

/// The right to send one request.
#[derive(Debug)]
pub(crate) struct Lease {
    peer: Peer,
    is_reused: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Http1(Exclusive),
    Http2(Stream),
}

#[derive(Debug)]
struct Stream(Multiplexed);

impl Stream {
    fn begin(connection: Multiplexed) -> Self {
        connection.usage.streams.set(connection.usage.streams.get() + 1);
        connection.usage.uses.set(connection.usage.uses.get().saturating_add(1));
        Self(connection)
    }

    async fn send(&mut self, request: Outbound<'_>) -> Result<Response<EndpointBody>, SendError> {
        let sent = self.0.connection.send(request).await;
        sent.map(|response| response.map(EndpointBody::Http2)).map_err(|http2::client::SendError { error, is_unsent }| {
            let failure = match is_unsent || error.is_going_away() {
                true => Failure::Unsent,
                false if error.was_refused() => Failure::Refused,
                false => Failure::Lost,
            };
            // One that takes no request takes none of the next ones either.
            if is_unsent || error.is_going_away() {
                self.0.usage.retired.set(true);
            }
            SendError { error: Cause::Http2(error), failure }
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let usage = &self.0.usage;
        usage.streams.set(usage.streams.get().saturating_sub(1));
        usage.ended.set(Instant::now());
    }
}

/// A request that got no response.
#[derive(Debug)]
pub(crate) struct SendError {
    /// Why.
    pub(crate) error: Cause,
    /// What that says about the request.
    pub(crate) failure: Failure,
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    /// Of an HTTP/1.1 connection.
    #[error(transparent)]
    Http1(http1::Error),
    /// Of an HTTP/2 connection.
    #[error(transparent)]
    Http2(http2::Error),
}

impl Cause {
    /// Whether the endpoint sent what is no HTTP.
    pub(crate) fn is_protocol(&self) -> bool {
        match self {
            Self::Http1(error) => error.is_protocol(),
            Self::Http2(error) => error.is_protocol(),
        }
    }

    /// Whether the connection ended, and not this one exchange on it.
    pub(crate) fn is_of_connection(&self) -> bool {
        match self {
            Self::Http1(_) => true,
            Self::Http2(error) => error.is_of_connection(),
        }
    }

    /// Whether the request's own body broke off.
    pub(crate) fn is_own(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, http1::Error::Body(_)),
            Self::Http2(error) => matches!(error, http2::Error::Body(_)),
        }
    }
}

/// What is known of a request without a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// Its connection ended before it was sent, or the endpoint says that it was going away and did not look at it.
    Unsent,
    /// The endpoint refused this stream unseen; the connection lives on.
    Refused,
    /// It may have been looked at.
    Lost,
}

impl Lease {
    /// Whether the connection was used before: then it may have ended without our knowing.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(&mut self, request: Outbound<'_>) -> Result<Response<EndpointBody>, SendError> {
        match &mut self.kind {
            Kind::Http1(exclusive) => match exclusive.connection.send(request).await {
                Ok(response) => Ok(response.map(EndpointBody::Http1)),
                Err(http1::client::SendError { error, is_unsent }) => {
                    Err(SendError { error: Cause::Http1(error), failure: if is_unsent { Failure::Unsent } else { Failure::Lost } })
                }
            },
            Kind::Http2(stream) => stream.send(request).await,
        }
    }

    /// The stream of an answer that switches protocols, which holds its place; none: HTTP/2 has no such thing.
    pub(crate) fn switch(&self) -> Option<http1::client::Switched> {
        match &self.kind {
            Kind::Http1(exclusive) => exclusive.connection.switch(),
            Kind::Http2(_) => None,
        }
    }
}

impl Pool {
    /// A connection to an endpoint, from the pool or a new one.
    pub(crate) async fn checkout(
        &self,
        connector: &Connector,
        peer: Peer,
        transport: Transport,
        reuse: Reuse,
    ) -> Result<Lease, ConnectError> {
        match transport {
            Transport::Http1 => {
                if let Some(connection) = (reuse == Reuse::Allowed).then(|| self.idle(&peer)).flatten() {
                    return Ok(Lease { peer, is_reused: true, kind: Kind::Http1(connection) });
                }
                let connection = Box::pin(open_http1(connector, &peer)).await?;
                Ok(Lease { peer, is_reused: false, kind: Kind::Http1(connection) })
            }
            Transport::Http2 => Box::pin(self.stream(connector, peer, reuse)).await,
        }
    }

    fn idle(&self, peer: &Peer) -> Option<Exclusive> {
        let mut http1 = self.http1.borrow_mut();
        let waiting = http1.get_mut(peer)?;
        // The one used last is the likeliest to live. One that still takes in the rest of a request's body is not ready, and is let go.
        while let Some(idle) = waiting.pop() {
            if idle.exclusive.connection.is_ready() {
                return Some(idle.exclusive);
            }
        }
        None
    }

    async fn stream(&self, connector: &Connector, peer: Peer, reuse: Reuse) -> Result<Lease, ConnectError> {
        let group = Rc::clone(self.http2.borrow_mut().entry(peer.clone()).or_default());
        let shared = || group.roomy(reuse, peer.reach);
        let lease = |connection, is_reused| Lease { peer: peer.clone(), is_reused, kind: Kind::Http2(Stream::begin(connection)) };
        if let Some(connection) = shared() {
            return Ok(lease(connection, true));
        }
        let asked = Instant::now();
        let mut failed = group.opening.lock().await;
        if let Some(connection) = shared() {
            return Ok(lease(connection, true));
        }
        if failed.is_some_and(|failed| failed >= asked) {
            return Err(ConnectError::FailedMeanwhile);
        }
        let opened = open_http2(connector, &peer).await;
        *failed = opened.is_err().then(Instant::now);
        let connection = opened?;
        group.connections.borrow_mut().push(connection.clone());
        Ok(lease(connection, false))
    }

    /// Takes a connection back whose response was read to its end.
    pub(crate) fn give_back(&self, lease: Lease) {
        let Kind::Http1(mut exclusive) = lease.kind else { return };
        exclusive.uses = exclusive.uses.saturating_add(1);
        if !exclusive.connection.is_kept() || !lease.peer.reach.allows(exclusive.uses, exclusive.opened) {
            return;
        }
        let mut http1 = self.http1.borrow_mut();
        let waiting = http1.entry(lease.peer).or_default();
        if waiting.len() < IDLE_MAX {
            waiting.push(Idle { exclusive, since: Instant::now() });
        }
    }

    /// Closes what was idle for too long, for ever.
    pub(crate) async fn sweep(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            pipe::sweep();
            let now = Instant::now();
            let is_fresh = |since: Instant| now.duration_since(since) < IDLE_TIME_MAX;
            self.http1.borrow_mut().retain(|_, waiting| {
                waiting.retain(|idle| is_fresh(idle.since) && idle.exclusive.connection.is_ready());
                !waiting.is_empty()
            });
            self.http2.borrow_mut().retain(|_, group| {
                let mut connections = group.connections.borrow_mut();
                connections.retain(|connection| {
                    let is_used = connection.usage.streams.get() > 0 || is_fresh(connection.usage.ended.get());
                    is_used && connection.is_open()
                });
                // Someone may be opening one.
                !connections.is_empty() || Rc::strong_count(group) > 1
            });
        }
    }
}

async fn open_http1(connector: &Connector, peer: &Peer) -> Result<Exclusive, ConnectError> {
    let (stream, place) = connector.open(peer, Some(Transport::Http1)).await?;
    Ok(Exclusive { opened: Instant::now(), uses: 0, connection: http1::client::Connection::new(stream, place) })
}

async fn open_http2(connector: &Connector, peer: &Peer) -> Result<Multiplexed, ConnectError> {
    let (stream, place) = connector.open(peer, Some(Transport::Http2)).await?;
    let windows = Windows { stream_bytes: STREAM_WINDOW_BYTES, connection_bytes: CONNECTION_WINDOW_BYTES };
    let connection = http2::client::Connection::open(stream, place, windows).await.map_err(std::io::Error::other)?;
    Ok(Multiplexed { connection, usage: Usage::new() })
}
