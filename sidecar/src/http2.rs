//! HTTP/2 on the wire: frames, flow control and HPACK are the library's; which task moves a stream on is decided here.
//!
//! Invariant: a body that was reset, for whatever reason, has no end.

pub(crate) mod client;
mod gather;
pub(crate) mod server;

use std::cell::Cell;
use std::error::Error as StdError;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use ::http::HeaderMap;
use ::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http_body::{Frame, SizeHint};

use crate::http::head;
use crate::pipe::PipedBody;

/// Bytes of one stream's body that wait to be written.
const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// What small DATA frames that nobody takes in may cost beyond their bytes, as the library reckons: 256 less their length each. A connection that exceeds it
/// ends; some twenty streams of messages of 20 bytes stay below it when nobody reads them.
const FRAME_OVERHEAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Streams that were reset here and of which frames may still come; what comes for one that is forgotten counts against the peer.
const RESET_STREAMS_MAX: usize = 1024;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The stream or its connection ended.
    #[error(transparent)]
    Stream(#[from] h2::Error),
    /// The connection cannot be written to.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The body that was to be sent broke off.
    #[error("the body that was to be sent: {0}")]
    Body(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Whether the peer sent what is no HTTP/2.
    pub(crate) fn is_protocol(&self) -> bool {
        matches!(self, Self::Stream(error) if error.is_library())
    }

    /// REFUSED_STREAM: it was never processed (RFC 9113 section 8.7).
    pub(crate) fn was_refused(&self) -> bool {
        matches!(self, Self::Stream(error) if error.reason() == Some(Reason::REFUSED_STREAM))
    }

    /// A stream above the last one of a GOAWAY was never processed, whatever its reason (RFC 9113 section 6.8); those below it never fail for it.
    pub(crate) fn is_going_away(&self) -> bool {
        matches!(self, Self::Stream(error) if error.is_go_away() && error.is_remote())
    }

    /// Whether it is the connection that ended, and not this one stream.
    pub(crate) fn is_of_connection(&self) -> bool {
        match self {
            Self::Stream(error) => error.is_io() || error.is_go_away(),
            Self::Io(_) => true,
            Self::Body(_) => false,
        }
    }
}

/// A body as it comes in.
#[derive(Debug)]
pub(crate) struct Body {
    stream: RecvStream,
    hint: SizeHint,
    has_data: bool,
    /// What is still being sent to who answers, if that is so.
    upload: Option<Rc<Upload>>,
}

/// The rest of a request that has been answered before it was sent whole.
#[derive(Default)]
struct Upload {
    is_abandoned: Cell<bool>,
    sender: Cell<Option<Waker>>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("is_abandoned", &self.is_abandoned).finish_non_exhaustive()
    }
}

impl Drop for Body {
    /// Nobody wants the answer any more: then the request is not sent on either, so that the stream can end.
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take().filter(|_| !self.stream.is_end_stream()) {
            upload.is_abandoned.set(true);
            if let Some(sender) = upload.sender.take() {
                sender.wake();
            }
        }
    }
}

impl Body {
    fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        // That it is a number, and that the data comes to it, is seen to by the library.
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { stream, hint: length.map_or_else(SizeHint::default, SizeHint::with_exact), has_data: true, upload: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let body = self.get_mut();
        if body.has_data {
            match ready!(body.stream.poll_data(context)).transpose()? {
                Some(data) => {
                    body.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => body.has_data = false,
            }
        }
        let trailers = ready!(body.stream.poll_trailers(context))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// Says how long a body is, if its head does not; and takes away what a filter may have set and HTTP/2 does not know (RFC 9113 section 8.2.2).
fn complete(headers: &mut HeaderMap, length: Option<u64>) {
    if headers.keys().any(head::is_hop_by_hop) {
        head::strip_hop_by_hop(headers);
    }
    if let Some(length) = length
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

/// A body on its way out.
#[derive(Debug)]
struct Sending<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// Data for which the peer has no room yet, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
}

impl<B: PipedBody<Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin> Sending<B> {
    fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, waiting: None }
    }

    /// Ready once all of it is on its way, or it cannot be sent any more: then the stream has been reset.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let sent = ready!(self.poll_frames(context));
        if sent.is_err() {
            // Nothing, if it is over already.
            self.stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Poll::Ready(sent)
    }

    fn poll_frames(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if let Some((data, is_last)) = self.waiting.take() {
                // No more room is claimed than is needed to begin: a stream that claims and does not send would starve the others.
                if !data.is_empty() && self.stream.capacity() == 0 {
                    self.stream.reserve_capacity(1);
                    if !self.poll_room(context)?.is_ready() {
                        self.waiting = Some((data, is_last));
                        let error = ready!(Pin::new(&mut self.body).poll_overdue(context));
                        return Poll::Ready(Err(self.break_off(error.into())));
                    }
                }
                self.stream.send_data(data, is_last)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending => {
                    // The peer may lose interest meanwhile.
                    let reason = ready!(self.stream.poll_reset(context))?;
                    return Poll::Ready(Err(Error::Stream(reason.into())));
                }
                Poll::Ready(None) => {
                    self.stream.send_data(Bytes::new(), true)?;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.break_off(error.into()))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.waiting = Some((data, self.body.is_end_stream())),
                    Err(frame) => {
                        if let Ok(mut trailers) = frame.into_trailers() {
                            complete(&mut trailers, None);
                            self.stream.reserve_capacity(0);
                            self.stream.send_trailers(trailers)?;
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
            }
        }
    }

    /// The body has no end.
    fn break_off(&mut self, error: Box<dyn StdError + Send + Sync>) -> Error {
        self.stream.send_reset(reset_reason(&*error));
        Error::Body(error)
    }

    /// Ready once the peer has room for something.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, Error> {
        loop {
            match self.stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(_))) => return Ok(Poll::Ready(())),
                Poll::Ready(Some(Err(error))) => return Err(error.into()),
                Poll::Ready(None) => return Err(Error::Stream(Reason::STREAM_CLOSED.into())),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }
}

/// What the peer is told of a body that broke off: what this side was told, if it was.
fn reset_reason(error: &(dyn StdError + 'static)) -> Reason {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.filter_map(|error| error.downcast_ref::<h2::Error>()?.reason()).next().unwrap_or(Reason::INTERNAL_ERROR)
}

#[cfg(test)]
mod tests;
