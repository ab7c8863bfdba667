//! What a client connection is doing: reading a head, serving requests, or nothing; and for how long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::config::Limits;
use crate::pipe::Socket;
use crate::telemetry::ConnectionKind;

/// Bytes and requests of one connection. The stream, the requests on it and its time limits share it; one thread uses it.
#[derive(Debug)]
pub(crate) struct Meter {
    base_ms: u64,
    /// Requests that are being served.
    in_flight: AtomicUsize,
    /// Milliseconds after `base_ms`, plus one, at which bytes came in after the last request: the next head has begun. 0: it has not.
    head_begun_ms: AtomicU64,
    /// Milliseconds after `base_ms` since which nothing is served.
    quiet_ms: AtomicU64,
    /// Milliseconds after `base_ms` at which a byte last came or went.
    moved_ms: AtomicU64,
    /// In HTTP/2 not every byte between requests is the beginning of a head.
    is_http2: AtomicBool,
    emptied: Notify,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            base_ms: coarse_ms(),
            in_flight: AtomicUsize::new(0),
            head_begun_ms: AtomicU64::new(0),
            quiet_ms: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            is_http2: AtomicBool::new(false),
            emptied: Notify::new(),
        }
    }
}

impl Meter {
    /// A request that is served for as long as the guard lives.
    pub(crate) fn request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.head_begun_ms.store(0, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// What the connection turned out to be.
    pub(crate) fn speaks(&self, kind: ConnectionKind) {
        if kind == ConnectionKind::Http2 {
            self.is_http2.store(true, Relaxed);
            self.head_begun_ms.store(0, Relaxed);
            self.quiet_ms.store(self.now_ms(), Relaxed);
        }
    }

    /// Whether nothing is served and no head has begun.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.load(Relaxed) == 0 && self.head_begun_ms.load(Relaxed) == 0
    }

    /// Ends once no request is served.
    pub(crate) async fn emptied(&self) {
        while self.in_flight.load(Relaxed) > 0 {
            self.emptied.notified().await;
        }
    }

    fn read(&self) {
        let now_ms = self.now_ms();
        self.moved_ms.store(now_ms, Relaxed);
        if self.is_quiet() && !self.is_http2.load(Relaxed) {
            self.head_begun_ms.store(now_ms + 1, Relaxed);
        }
    }

    /// Bytes have come within a message, or gone.
    fn moved(&self) {
        self.moved_ms.store(self.now_ms(), Relaxed);
    }

    fn now_ms(&self) -> u64 {
        coarse_ms().saturating_sub(self.base_ms)
    }

    fn is_expired(&self, limits: Limits) -> bool {
        let (since_ms, limit) = match (self.in_flight.load(Relaxed), self.head_begun_ms.load(Relaxed)) {
            (0, 0) => (self.quiet_ms.load(Relaxed), limits.connection_idle),
            (0, begun_ms) => (begun_ms - 1, limits.head),
            (_, _) => (self.moved_ms.load(Relaxed), limits.stream_idle),
        };
        u128::from(self.now_ms().saturating_sub(since_ms)) >= limit.as_millis()
    }

    /// Ends when a head has taken too long, nothing was asked for too long, or nothing moved while something was asked. Looks only now and then, so that nothing is paid per
    /// request: a limit is kept to within twice its time.
    pub(crate) async fn expires(&self, limits: Limits) {
        let pause = limits.head.min(limits.connection_idle).min(limits.stream_idle).max(Duration::from_millis(10));
        while !self.is_expired(limits) {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Milliseconds of a clock that only goes forward, as of its last tick, which is some milliseconds ago at most: with each message it is asked several
/// times, and to ask it costs little.
fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    let now = now.map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A request that is being served.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Meter>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let meter = &self.0;
        meter.quiet_ms.store(meter.now_ms(), Relaxed);
        if meter.in_flight.fetch_sub(1, Relaxed) == 1 {
            meter.emptied.notify_waiters();
        }
    }
}

/// A stream that tells a meter what comes in.
#[derive(Debug)]
pub(crate) struct Metered {
    stream: TcpStream,
    meter: Arc<Meter>,
}

impl Metered {
    pub(crate) fn new(stream: TcpStream, meter: Arc<Meter>) -> Self {
        Self { stream, meter }
    }
}

impl Socket for Metered {
    fn plain(&self) -> Option<&TcpStream> {
        Some(&self.stream)
    }

    fn passed(&self) {
        self.meter.moved();
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.meter.read();
        }
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, buffer);
        if polled.is_ready() {
            self.meter.moved();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        if polled.is_ready() {
            self.meter.moved();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
