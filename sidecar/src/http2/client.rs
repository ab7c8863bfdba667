//! Connections to endpoints: a request is sent and answered in the task of whoever asks; one task a connection moves the frames.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use ::http::header::HOST;
use ::http::{Method, Request, Response, Version};
use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, SendRequest};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::gather::gather;
use super::{Body, Error, FRAME_OVERHEAD_BYTES_MAX, RESET_STREAMS_MAX, SEND_BUFFER_BYTES_MAX, Sending, Upload, complete};
use crate::http::body::Outgoing;
use crate::http::outbound::Outbound;

/// Largest head of a response.
const HEAD_BYTES_MAX: u32 = 64 * 1024;

/// What a connection allows to be done on it, kept up to date by its task.
#[derive(Debug)]
pub(crate) struct Allowed {
    /// Streams at once, as far as the endpoint has said.
    pub(crate) streams: Cell<usize>,
    /// It has ended.
    pub(crate) is_over: Cell<bool>,
}

/// What an endpoint may send of answers that nobody takes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// On one stream, bytes.
    pub(crate) stream_bytes: u32,
    /// On all of them.
    pub(crate) connection_bytes: u32,
}

/// A connection to an endpoint; a clone is the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    allowed: Rc<Allowed>,
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct SendError {
    /// Why.
    pub(crate) error: Error,
    /// Not a byte of it was sent.
    pub(crate) is_unsent: bool,
}

impl Connection {
    /// Speaks HTTP/2 on a stream, which is kept together with its place until it ends.
    pub(crate) async fn open<S, P>(stream: S, place: P, windows: Windows) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
        P: 'static,
    {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(windows.stream_bytes)
            .initial_connection_window_size(windows.connection_bytes)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
            .data_frame_budget(FRAME_OVERHEAD_BYTES_MAX)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            // An endpoint is not to pay for clients that go away.
            .max_local_error_reset_streams(None);
        let (stream, outlet) = gather(stream);
        let (sender, mut connection) = {
            let mut handshake = pin!(builder.handshake(stream));
            poll_fn(|context| outlet.poll_after(handshake.as_mut().poll(context), context)).await?
        };
        let allowed = Rc::new(Allowed { streams: Cell::new(usize::MAX), is_over: Cell::new(false) });
        let told = Rc::clone(&allowed);
        // Ends with the connection, or once nobody can ask for anything on it; the worker's LocalSet owns it.
        tokio::task::spawn_local(async move {
            let _place = place;
            let ended = poll_fn(|context| {
                let polled = Pin::new(&mut connection).poll(context);
                // SETTINGS may have come with this.
                told.streams.set(connection.max_concurrent_send_streams());
                outlet.poll_after(polled, context)
            });
            let ended = ended.await;
            told.is_over.set(true);
            if let Err(error) = ended {
                debug!(%error, "connection to an endpoint");
            }
        });
        Ok(Self { sender, allowed })
    }

    /// What can be done on it now.
    pub(crate) fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(&mut self, Outbound { head, body }: Outbound<'_>) -> Result<Response<Body>, SendError> {
        let unsent = |error| SendError { error: Error::Stream(error), is_unsent: true };
        poll_fn(|context| self.sender.poll_ready(context)).await.map_err(unsent)?;
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.into_owned();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = head.headers.clone();
        // The target says it.
        request.headers_mut().remove(HOST);
        let has_content = |length: &u64| *length != 0 || [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
        let length = body.size_hint().exact().filter(has_content);
        complete(request.headers_mut(), length);
        let is_whole = body.is_end_stream();
        let (mut response, stream) = self.sender.send_request(request, is_whole).map_err(|error| {
            let is_unsent = error.reason().is_some() || error.is_io();
            SendError { error: Error::Stream(error), is_unsent }
        })?;
        let mut sending = (!is_whole).then(|| Sending::new(body, stream));
        let answered = poll_fn(|context| {
            if let Some(Poll::Ready(sent)) = sending.as_mut().map(|sending| sending.poll(context)) {
                sending = None;
                if let Err(error @ Error::Body(_)) = sent {
                    return Poll::Ready(Err(error));
                }
                // What else went wrong is said by the answer: it may have come all the same.
            }
            Pin::new(&mut response).poll(context).map_err(Error::Stream)
        });
        let response = answered.await.map_err(|error| SendError { error, is_unsent: false })?;
        let (parts, stream) = response.into_parts();
        let mut body = Body::new(stream, &parts.headers);
        if let Some(sending) = sending {
            let upload = Rc::new(Upload::default());
            body.upload = Some(Rc::clone(&upload));
            // Ends with the body, with the stream, or when nobody wants the answer any more.
            tokio::task::spawn_local(send_rest(sending, upload));
        }
        Ok(Response::from_parts(parts, body))
    }
}

async fn send_rest(mut sending: Sending<Outgoing>, upload: Rc<Upload>) {
    let sent = poll_fn(|context| {
        if upload.is_abandoned.get() {
            sending.stream.send_reset(Reason::CANCEL);
            return Poll::Ready(Ok(()));
        }
        upload.sender.set(Some(context.waker().clone()));
        sending.poll(context)
    });
    if let Err(error) = sent.await {
        debug!(%error, "the rest of a request");
    }
}
