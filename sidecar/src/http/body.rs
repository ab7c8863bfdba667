//! A request's body on its way through: it can be sent again while it is small, and copied for mirrors.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::time::{Instant, Sleep};

use super::meter::{InFlight, Meter, Metered};
use crate::pipe::{Part, PipedBody, Way};
use crate::{http1, http2};

/// A request's body is kept up to this, so that it can be sent again.
const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// So much of a request's body waits for a mirror; one that takes in less loses its copy.
const COPY_BYTES_MAX: usize = 1024 * 1024;
/// And so much for all mirrors of a worker together.
const COPIES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// In HTTP/2.
    #[error(transparent)]
    Http2(#[from] http2::Error),
    /// In HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] http1::Error),
    /// Nothing came for the stream's idle limit.
    #[error("nothing came for too long")]
    Idle,
    /// It broke off before its end, and stays broken.
    #[error("broke off before its end")]
    Broken,
    /// The request is being sent again on another connection, or nobody waits for it any more.
    #[error("sent again elsewhere")]
    Superseded,
    /// A time limit of the route is over.
    #[error("a time limit of the route is over")]
    Deadline,
    /// A copy of a body whose original broke off, or that was taken in too slowly.
    #[error("the copy is not whole")]
    CopyLost,
}

/// Fires when nothing happened for a time; costs nothing while things happen at once.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    /// When something last happened, and what fires; none: nobody had to wait yet.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, waiting: None }
    }

    pub(super) fn happened(&mut self) {
        if let Some((last, _)) = &mut self.waiting {
            *last = Instant::now();
        }
    }

    /// Ready once the limit has passed; called while nothing is there.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let (last, sleep) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(limit))));
        while sleep.as_mut().poll(context).is_ready() {
            let end = *last + limit;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(end);
        }
        Poll::Pending
    }
}

/// A body as it comes from a peer, in either version.
#[derive(Debug)]
pub(crate) enum PeerBody<B> {
    /// In HTTP/1.1.
    Http1(B),
    /// In HTTP/2.
    Http2(http2::Body),
}

/// A request's body as it comes from the client.
pub(crate) type ClientBody = PeerBody<http1::server::Body<Metered>>;
/// The body of an endpoint's answer.
pub(crate) type EndpointBody = PeerBody<http1::client::Body>;

impl<B: PipedBody<Error = http1::Error> + Unpin> PipedBody for PeerBody<B> {
    fn poll_part(self: Pin<&mut Self>, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<Part, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_part(way, context).map_err(Into::into),
            Self::Http2(body) => Pin::new(body).poll_frame(context).map_ok(Part::Frame).map_err(Into::into),
        }
    }
}

impl<B: PipedBody<Error = http1::Error> + Unpin> Body for PeerBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_part(&mut Way::default(), context).map_ok(Part::into_frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// A request's body and what of it has been sent.
#[derive(Debug)]
pub(crate) struct Source {
    incoming: ClientBody,
    hint: SizeHint,
    is_empty: bool,
    attempt: u32,
    kept: Vec<Kept>,
    kept_bytes: usize,
    is_lost: bool,
    /// Someone looks at the first bytes: all of them are kept meanwhile.
    is_held: bool,
    has_begun: bool,
    has_ended: bool,
    /// It broke off: nothing of it is ever sent as if it were whole.
    broken: Option<Broken>,
    moved: Instant,
    idle: Idle,
    copies: Vec<Rc<RefCell<Copied>>>,
    /// A body that outlives its answer is no head that has begun.
    #[expect(dead_code, reason = "kept for its end")]
    in_flight: Option<InFlight>,
}

/// How a client's body broke off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Broken {
    /// The client is gone, or sent what is no body.
    Aborted,
    /// The client stood still for the stream's idle limit.
    Idle,
}

#[derive(Clone, Debug)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Kept {
    fn length(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }

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
    /// `moved` is when it last moved: when its request came.
    pub(crate) fn new(incoming: ClientBody, idle: Duration, moved: Instant, meter: &Arc<Meter>) -> Self {
        let in_flight = (!incoming.is_end_stream()).then(|| meter.request());
        let source = Source {
            in_flight,
            hint: incoming.size_hint(),
            is_empty: incoming.is_end_stream(),
            incoming,
            attempt: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            is_lost: false,
            is_held: false,
            has_begun: false,
            has_ended: false,
            broken: None,
            moved,
            idle: Idle::new(idle),
            copies: Vec::new(),
        };
        Self(Rc::new(RefCell::new(source)))
    }

    /// Whether all that was sent could be sent again.
    pub(crate) fn is_whole(&self) -> bool {
        !self.0.borrow().is_lost
    }

    /// Whether the client did not send it to its end.
    pub(crate) fn broken(&self) -> Option<Broken> {
        self.0.borrow().broken
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
        Outgoing::Replayed(Attempt { source: Rc::clone(&self.0), attempt: source.attempt, next: 0 })
    }

    /// Attempts that are under way break off.
    pub(crate) fn give_up(&self) {
        self.0.borrow_mut().attempt += 1;
    }

    /// A copy of the body, which gets what attempts take in; it never holds them up.
    /// `waiting_bytes` counts what waits for all mirrors of the worker.
    pub(crate) fn copy(&self, waiting_bytes: &Rc<Cell<usize>>) -> Outgoing {
        let mut source = self.0.borrow_mut();
        let all_waiting_bytes = Rc::clone(waiting_bytes);
        let mut copied = Copied::default();
        (copied.hint, copied.is_empty, copied.all_waiting_bytes) = (source.hint, source.is_empty, all_waiting_bytes);
        let copied = Rc::new(RefCell::new(copied));
        if !source.is_empty {
            for kept in &source.kept {
                copied.borrow_mut().push(kept);
            }
            copied.borrow_mut().is_whole = source.has_ended;
            source.copies.push(Rc::clone(&copied));
        }
        Outgoing::Copied(copied)
    }

    /// The first bytes of the body, taken in now; the attempts get them all the same. Whether there are more is the second answer.
    pub(crate) async fn first_bytes(&self, max: usize) -> Result<(Bytes, bool), BodyError> {
        self.0.borrow_mut().is_held = true;
        loop {
            {
                let source = self.0.borrow();
                if source.is_empty || source.has_ended || source.kept_bytes > max {
                    break;
                }
            }
            std::future::poll_fn(|context| self.0.borrow_mut().poll(&mut Way::default(), context)).await.transpose()?;
        }
        let mut source = self.0.borrow_mut();
        source.is_held = false;
        let source = &*source;
        let mut first = Vec::with_capacity(source.kept_bytes.min(max));
        for kept in &source.kept {
            if let Kept::Data(data) = kept {
                first.extend_from_slice(&data[..data.len().min(max - first.len())]);
            }
        }
        Ok((first.into(), source.kept_bytes > max))
    }
}

/// A request's body on its way to an endpoint.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The client's.
    Replayed(Attempt),
    /// A copy of it, for a mirror.
    Copied(Rc<RefCell<Copied>>),
    /// The sidecar's own.
    Own(Full<Bytes>),
}

/// One attempt to send a body.
#[derive(Debug)]
pub(crate) struct Attempt {
    source: Rc<RefCell<Source>>,
    attempt: u32,
    next: usize,
}

/// A copy of a body: what has come in and was not taken out.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    hint: SizeHint,
    is_empty: bool,
    waiting: VecDeque<Kept>,
    waiting_bytes: usize,
    all_waiting_bytes: Rc<Cell<usize>>,
    is_whole: bool,
    is_lost: bool,
    waker: Option<Waker>,
}

impl Copied {
    fn push(&mut self, kept: &Kept) {
        if self.is_lost {
            return;
        }
        self.count(self.waiting_bytes + kept.length());
        if self.waiting_bytes > COPY_BYTES_MAX || self.all_waiting_bytes.get() > COPIES_BYTES_MAX {
            self.lose();
        } else {
            self.waiting.push_back(kept.clone());
            self.wake();
        }
    }

    fn lose(&mut self) {
        self.is_lost = true;
        self.waiting.clear();
        self.count(0);
        self.wake();
    }

    /// So much waits now.
    fn count(&mut self, waiting_bytes: usize) {
        let others = self.all_waiting_bytes.get().saturating_sub(self.waiting_bytes);
        self.all_waiting_bytes.set(others + waiting_bytes);
        self.waiting_bytes = waiting_bytes;
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(kept) = self.waiting.pop_front() {
            self.count(self.waiting_bytes.saturating_sub(kept.length()));
            return Poll::Ready(Some(Ok(kept.frame())));
        }
        if self.is_lost {
            return Poll::Ready(Some(Err(BodyError::CopyLost)));
        }
        if self.is_whole || self.is_empty {
            return Poll::Ready(None);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.count(0);
    }
}

impl PipedBody for Outgoing {
    fn poll_part(self: Pin<&mut Self>, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<Part, BodyError>>> {
        let attempt = match self.get_mut() {
            Self::Replayed(attempt) => attempt,
            Self::Copied(copied) => return copied.borrow_mut().poll(context).map_ok(Part::Frame),
            Self::Own(full) => return Pin::new(full).poll_part(way, context).map_err(|never| match never {}),
        };
        let mut source = attempt.source.borrow_mut();
        if source.attempt != attempt.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(kept) = source.kept.get(attempt.next) {
            attempt.next += 1;
            return Poll::Ready(Some(Ok(Part::Frame(kept.frame()))));
        }
        let polled = source.poll(way, context);
        attempt.next = source.kept.len();
        polled
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_part(&mut Way::default(), context).map_ok(Part::into_frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Replayed(attempt) => {
                let source = attempt.source.borrow();
                source.is_empty || (source.has_ended && attempt.next >= source.kept.len())
            }
            Self::Copied(copied) => copied.borrow().is_empty,
            Self::Own(full) => full.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Replayed(attempt) => attempt.source.borrow().hint,
            Self::Copied(copied) => copied.borrow().hint,
            Self::Own(full) => full.size_hint(),
        }
    }
}

impl Source {
    /// The next part from the client.
    fn poll(&mut self, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<Part, BodyError>>> {
        if self.broken.is_some() {
            return Poll::Ready(Some(Err(BodyError::Broken)));
        }
        let mut in_memory = Way::default();
        let way = if self.is_seen() { &mut in_memory } else { way };
        match Pin::new(&mut self.incoming).poll_part(way, context) {
            Poll::Ready(Some(Ok(part))) => {
                self.has_begun = true;
                self.moved = Instant::now();
                self.idle.happened();
                match &part {
                    Part::Frame(frame) => self.keep(frame),
                    Part::Piped(_) => self.forget(),
                }
                if self.incoming.is_end_stream() {
                    // Whoever knows the length does not ask again.
                    self.end();
                }
                Poll::Ready(Some(Ok(part)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.break_off(Broken::Aborted);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let idle = self.idle.poll(context);
                if idle.is_ready() {
                    self.break_off(Broken::Idle);
                }
                idle.map(|()| Some(Err(BodyError::Idle)))
            }
        }
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.copies.drain(..).for_each(|copied| {
            let mut copied = copied.borrow_mut();
            copied.is_whole = true;
            copied.wake();
        });
    }

    fn break_off(&mut self, broken: Broken) {
        self.broken = Some(broken);
        self.forget();
        self.copies.drain(..).for_each(|copied| copied.borrow_mut().lose());
    }

    /// Whether what comes next has to come through memory, because somebody looks at it, copies it, or may need it once more.
    /// Of a body that is known to be too long to be kept whole, only what came first is worth it.
    fn is_seen(&self) -> bool {
        let is_too_long = self.hint.exact().is_some_and(|length| length > REPLAY_BYTES_MAX as u64);
        let is_kept = !self.is_lost && (!is_too_long || !self.has_begun);
        is_kept || self.is_held || !self.copies.is_empty()
    }

    /// Nothing of it can be sent again.
    fn forget(&mut self) {
        self.is_lost = true;
        self.kept.clear();
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.is_lost && self.copies.is_empty() {
            return;
        }
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Kept::Data(data.clone()),
            (None, Some(trailers)) => Kept::Trailers(trailers.clone()),
            (None, None) => return,
        };
        for copied in &self.copies {
            copied.borrow_mut().push(&kept);
        }
        self.kept_bytes += kept.length();
        if self.kept_bytes > REPLAY_BYTES_MAX && !self.is_held {
            self.forget();
        } else {
            self.kept.push(kept);
        }
    }
}

impl Drop for Source {
    /// The original ends without having been taken in whole.
    fn drop(&mut self) {
        self.copies.drain(..).for_each(|copied| copied.borrow_mut().lose());
    }
}
