//! What a client connection is doing: reading a head, serving requests, or nothing; and for how long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::config::Limits;

/// Bytes and requests of one connection. One thread uses it; it is atomic because hyper moves upgraded streams between threads.
#[derive(Debug)]
pub(crate) struct Meter {
    base: Instant,
    /// Requests that are being served.
    in_flight: AtomicUsize,
    /// Milliseconds after `base`, plus one, at which bytes came in after the last request: the next head has begun. 0: it has not.
    head_begun_ms: AtomicU64,
    /// Milliseconds after `base` since which nothing is served.
    quiet_ms: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { base: Instant::now(), in_flight: AtomicUsize::new(0), head_begun_ms: AtomicU64::new(0), quiet_ms: AtomicU64::new(0) }
    }
}

impl Meter {
    /// A request that is served for as long as the guard lives.
    pub(crate) fn request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.head_begun_ms.store(0, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn is_reading_head(&self) -> bool {
        self.head_begun_ms.load(Relaxed) != 0
    }

    fn read(&self) {
        if self.in_flight.load(Relaxed) == 0 && !self.is_reading_head() {
            self.head_begun_ms.store(self.now_ms() + 1, Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_expired(&self, limits: Limits) -> bool {
        if self.in_flight.load(Relaxed) > 0 {
            return false;
        }
        let (since_ms, limit) = match self.head_begun_ms.load(Relaxed) {
            0 => (self.quiet_ms.load(Relaxed), limits.connection_idle),
            begun_ms => (begun_ms - 1, limits.head),
        };
        u128::from(self.now_ms().saturating_sub(since_ms)) >= limit.as_millis()
    }

    /// Ends when a head has taken too long, or nothing was asked for too long. Looks only now and then, so that nothing is paid per
    /// request: a limit is kept to within twice its time.
    pub(crate) async fn expires(&self, limits: Limits) {
        let pause = limits.head.min(limits.connection_idle).max(Duration::from_millis(10));
        while !self.is_expired(limits) {
            tokio::time::sleep(pause).await;
        }
    }
}

/// A request that is being served.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Meter>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let meter = &self.0;
        meter.in_flight.fetch_sub(1, Relaxed);
        meter.quiet_ms.store(meter.now_ms(), Relaxed);
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
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
