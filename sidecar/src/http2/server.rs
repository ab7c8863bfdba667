//! A client's connection: its streams are answered by the task that serves it.
//!
//! What answers a stream is kept for the next one, so that a request costs neither an allocation of its state nor a task.

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::http::{Request, Response, request};
use bytes::Bytes;
use futures::Stream as _;
use futures::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop::unconstrained;
use tracing::debug;

use super::gather::gather;
use super::{Body, Error, FRAME_OVERHEAD_BYTES_MAX, RESET_STREAMS_MAX, SEND_BUFFER_BYTES_MAX, Sending, complete};
use crate::pipe::PipedBody;

/// Largest head of a request.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Requests at once on one connection.
pub(crate) const STREAMS_MAX: u32 = 256;
/// What a client may send of one request before it is taken in; a connection has room for all of its streams, so that one upload that nobody takes in
/// never holds up another. The client is in the same pod, so that little does not slow it down.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX;
/// So many that have answered a stream wait for another one.
const IDLE_MAX: usize = 128;

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// Where one that answers streams finds the next.
#[derive(Default)]
struct Desk {
    asked: Cell<Option<Asked>>,
    waker: Cell<Option<Waker>>,
}

impl Desk {
    fn put(&self, asked: Asked) {
        self.asked.set(Some(asked));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Asked> {
        match self.asked.take() {
            Some(asked) => Poll::Ready(asked),
            None => {
                self.waker.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

/// Those who wait for a stream.
type Free = RefCell<Vec<Rc<Desk>>>;

/// Serves a connection until it ends or, once `is_ending`, its streams have been answered.
///
/// # Errors
/// The connection failed, or the client spoke no HTTP/2.
pub(crate) async fn serve<S, B, F>(stream: S, is_ending: &Cell<bool>, answer: impl Fn(Box<request::Parts>, Body) -> F) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: PipedBody<Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
    F: Future<Output = Response<B>>,
{
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .data_frame_budget(FRAME_OVERHEAD_BYTES_MAX)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX);
    let (stream, outlet) = gather(stream);
    let mut connection = {
        let mut handshake = pin!(builder.handshake(stream));
        poll_fn(|context| outlet.poll_after(handshake.as_mut().poll(context), context)).await?
    };
    let free = Free::default();
    let steps = Cell::new(0_u64);
    let mut answering = FuturesUnordered::new();
    let mut has_said = false;
    poll_fn(|context| {
        if is_ending.get() && !has_said {
            has_said = true;
            connection.graceful_shutdown();
        }
        let polled = loop {
            // The set pauses as soon as two of them have woken themselves: it is asked until nobody has anything to do, so that what they have to
            // say is written at once.
            let mut steps_before = None;
            while steps_before != Some(steps.get()) {
                steps_before = Some(steps.get());
                // Those who have nothing to do any more come out of it.
                while let Poll::Ready(Some(())) = Pin::new(&mut answering).poll_next(context) {}
            }
            let mut has_come = false;
            // Takes frames in, and puts those of the answers into a form to be written.
            let polled = loop {
                // The streams have had their turn: what they have used up of the task's budget is not to keep frames from moving.
                let accepting = pin!(unconstrained(poll_fn(|context| connection.poll_accept(context))));
                let asked = match accepting.poll(context) {
                    Poll::Ready(Some(Ok(asked))) => asked,
                    Poll::Ready(Some(Err(error))) => break Poll::Ready(Err(error)),
                    Poll::Ready(None) => break Poll::Ready(Ok(())),
                    Poll::Pending => break Poll::Pending,
                };
                has_come = true;
                let desk = free.borrow_mut().pop();
                let desk = desk.unwrap_or_else(|| {
                    let desk = Rc::new(Desk::default());
                    let mut attending = Box::pin(attend(Rc::clone(&desk), &free, &answer));
                    answering.push(poll_fn({
                        let steps = &steps;
                        move |context| {
                            steps.set(steps.get().wrapping_add(1));
                            attending.as_mut().poll(context)
                        }
                    }));
                    desk
                });
                desk.put(asked);
            };
            if polled.is_ready() || !has_come {
                break polled;
            }
        };
        let mut polled = Some(polled);
        let written = pin!(unconstrained(poll_fn(|context| outlet.poll_after(polled.take().unwrap_or(Poll::Pending), context))));
        written.poll(context)
    })
    .await
}

/// Answers one stream after the other.
async fn attend<B, F>(desk: Rc<Desk>, free: &Free, answer: impl Fn(Box<request::Parts>, Body) -> F)
where
    B: PipedBody<Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
    F: Future<Output = Response<B>>,
{
    loop {
        let (request, respond) = poll_fn(|context| desk.poll(context)).await;
        if let Err(error) = serve_stream(request, respond, &answer).await {
            debug!(%error, "stream");
        }
        let mut free = free.borrow_mut();
        if free.len() >= IDLE_MAX {
            return;
        }
        free.push(Rc::clone(&desk));
    }
}

/// From a request to the end of its response.
async fn serve_stream<B, F>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    answer: impl Fn(Box<request::Parts>, Body) -> F,
) -> Result<(), Error>
where
    B: PipedBody<Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
    F: Future<Output = Response<B>>,
{
    let (parts, stream) = request.into_parts();
    let head = Box::new(parts);
    let body = Body::new(stream, &head.headers);
    let response = {
        let mut answered = pin!(answer(head, body));
        poll_fn(|context| match answered.as_mut().poll(context) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            // Nobody waits for it any more.
            Poll::Pending => {
                respond.poll_reset(context).map(|reset| Err(reset.map_or_else(Error::Stream, |reason| Error::Stream(reason.into()))))
            }
        })
        .await?
    };
    let (parts, body) = response.into_parts();
    let mut response = Response::from_parts(parts, ());
    let is_whole = body.is_end_stream();
    complete(response.headers_mut(), body.size_hint().exact().filter(|_| !is_whole));
    let sent = respond.send_response(response, is_whole);
    let stream = match sent {
        Ok(stream) => stream,
        Err(error) => {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
            return Err(error.into());
        }
    };
    if is_whole {
        return Ok(());
    }
    let mut sending = Sending::new(body, stream);
    poll_fn(|context| sending.poll(context)).await
}
