//! Bodies on their way through: a request's can be sent again while it is small, a response's ends the record and frees its connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::meter::InFlight;
use crate::pool::Lease;
use crate::reason::Reason;
use crate::snapshot::EndpointState;
use crate::telemetry::Record;
use crate::worker::Worker;

/// A request's body is kept up to this, so that it can be sent again.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The other side's error.
    #[error(transparent)]
    Peer(#[from] hyper::Error),
    /// Nothing came for the stream's idle limit.
    #[error("nothing came for too long")]
    Idle,
    /// The request is being sent again on another connection.
    #[error("sent again elsewhere")]
    Superseded,
}

/// Fires when nothing happened for a time; costs nothing while things happen at once.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    last: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), sleep: None }
    }

    fn happened(&mut self) {
        if self.sleep.is_some() {
            self.last = Instant::now();
        }
    }

    /// Ready once the limit has passed; called while nothing is there.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        if self.sleep.is_none() {
            self.last = Instant::now();
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        while sleep.as_mut().poll(context).is_ready() {
            let end = self.last + limit;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(end);
        }
        Poll::Pending
    }
}

/// A request's body and what of it has been sent.
#[derive(Debug)]
pub(crate) struct Source {
    incoming: Incoming,
    hint: SizeHint,
    is_empty: bool,
    attempt: u32,
    kept: Vec<Kept>,
    kept_bytes: usize,
    is_lost: bool,
    has_begun: bool,
    has_ended: bool,
    moved: Instant,
    idle: Idle,
}

#[derive(Clone, Debug)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Kept {
    fn frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers(trailers.clone()),
        }
    }
}

/// A request's body, to be sent as often as can be.
#[derive(Clone, Debug)]
pub(crate) struct Replayable(Rc<RefCell<Source>>);

impl Replayable {
    pub(crate) fn new(incoming: Incoming, idle: Duration) -> Self {
        let source = Source {
            hint: incoming.size_hint(),
            is_empty: incoming.is_end_stream(),
            incoming,
            attempt: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            is_lost: false,
            has_begun: false,
            has_ended: false,
            moved: Instant::now(),
            idle: Idle::new(idle),
        };
        Self(Rc::new(RefCell::new(source)))
    }

    /// Whether all that was sent could be sent again.
    pub(crate) fn is_whole(&self) -> bool {
        !self.0.borrow().is_lost
    }

    /// Whether there is a body and none of it was sent.
    pub(crate) fn is_untouched(&self) -> bool {
        let source = self.0.borrow();
        !source.is_empty && !source.has_begun && !source.has_ended
    }

    /// Whether there is a body, of known length or not.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.0.borrow().is_empty
    }

    /// When a part of it was last sent; before the first one, when the request came.
    pub(crate) fn moved(&self) -> Instant {
        self.0.borrow().moved
    }

    /// The body for the next attempt; those of earlier attempts break off.
    pub(crate) fn outgoing(&self) -> Outgoing {
        let mut source = self.0.borrow_mut();
        source.attempt += 1;
        Outgoing { source: Rc::clone(&self.0), attempt: source.attempt, next: 0 }
    }
}

/// A request's body on its way to an endpoint.
#[derive(Debug)]
pub(crate) struct Outgoing {
    source: Rc<RefCell<Source>>,
    attempt: u32,
    next: usize,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut source = this.source.borrow_mut();
        let source = &mut *source;
        if source.attempt != this.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(kept) = source.kept.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(kept.frame())));
        }
        match Pin::new(&mut source.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                source.keep(&frame);
                this.next = source.kept.len();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                source.has_ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => source.idle.poll(context).map(|()| Some(Err(BodyError::Idle))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        source.is_empty || (source.has_ended && self.next >= source.kept.len())
    }

    fn size_hint(&self) -> SizeHint {
        self.source.borrow().hint
    }
}

impl Source {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        self.has_begun = true;
        self.moved = Instant::now();
        self.idle.happened();
        if self.is_lost {
            return;
        }
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Kept::Data(data.clone()),
            (None, Some(trailers)) => Kept::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.kept_bytes += frame.data_ref().map_or(0, Bytes::len);
        if self.kept_bytes > REPLAY_BYTES_MAX {
            self.is_lost = true;
            self.kept.clear();
        } else {
            self.kept.push(kept);
        }
    }
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// An answer of the sidecar's own.
    Own(Full<Bytes>, #[expect(dead_code, reason = "kept for its end")] Box<Guards>),
    /// An endpoint's answer.
    Streamed(Box<Streamed>),
    /// None: the connection goes on as something else.
    Switched,
}

/// What ends with the response.
#[derive(Debug)]
pub(crate) struct Guards {
    /// Told when dropped.
    pub(crate) record: Record,
    /// The client's connection is busy until then.
    pub(crate) in_flight: InFlight,
}

/// An endpoint's answer.
#[derive(Debug)]
pub(crate) struct Streamed {
    incoming: Incoming,
    idle: Idle,
    guards: Guards,
    used: Option<Used>,
}

/// The connection that an answer came on.
#[derive(Debug)]
pub(crate) struct Used {
    /// Given back when the answer has been read to its end.
    pub(crate) lease: Lease,
    /// To whom.
    pub(crate) worker: Rc<Worker>,
    /// The endpoint's count of requests.
    #[expect(dead_code, reason = "kept for its end")]
    pub(crate) counted: Counted,
}

/// A request in an endpoint's count.
#[derive(Debug)]
pub(crate) struct Counted(Arc<EndpointState>);

impl Counted {
    pub(crate) fn begin(state: &Arc<EndpointState>) -> Self {
        state.begin();
        Self(Arc::clone(state))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Streamed {
    pub(crate) fn new(incoming: Incoming, idle: Duration, guards: Guards, used: Used) -> Self {
        let mut streamed = Self { incoming, idle: Idle::new(idle), guards, used: Some(used) };
        if streamed.incoming.is_end_stream() {
            streamed.end();
        }
        streamed
    }

    fn end(&mut self) {
        if let Some(used) = self.used.take() {
            used.worker.pool.give_back(used.lease);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let streamed = match self.get_mut() {
            Self::Own(full, _) => return Pin::new(full).poll_frame(context).map_err(|never| match never {}),
            Self::Streamed(streamed) => streamed,
            Self::Switched => return Poll::Ready(None),
        };
        match Pin::new(&mut streamed.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                streamed.idle.happened();
                streamed.guards.record.told().bytes_sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                if streamed.incoming.is_end_stream() {
                    streamed.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                streamed.guards.record.broke(Reason::EndpointReset);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                streamed.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let expired = streamed.idle.poll(context);
                if expired.is_ready() {
                    streamed.guards.record.broke(Reason::StreamIdle);
                }
                expired.map(|()| Some(Err(BodyError::Idle)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(full, _) => full.is_end_stream(),
            Self::Streamed(streamed) => streamed.incoming.is_end_stream(),
            Self::Switched => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(full, _) => full.size_hint(),
            Self::Streamed(streamed) => streamed.incoming.size_hint(),
            Self::Switched => SizeHint::with_exact(0),
        }
    }
}
