//! A client's connection: requests are read and answered in turn by the task that serves it.
//!
//! Invariant: after a response the connection goes on only if its request was read to its end; what is left of one is never taken for another.

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING};
use ::http::uri::PathAndQuery;
use ::http::{Method, Request, Response, StatusCode, Uri, Version, request, response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::read::{FIELDS_ADDED, Framing, Reader, fields, framing, headers, version};
use super::write::{Connection, Encoding, Writer};
use super::{Error, keeps_alive};
use crate::detect::Rewound;
use crate::http::head::Fields;
use crate::passthrough;
use crate::pipe::{Part, PipedBody, Socket, Way};
use crate::reason::Reason;

/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields in a head.
pub(super) const FIELDS_MAX: usize = 128;
/// So much of a body that nobody wanted is read, so that the connection can go on.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// A client that is still sending has so long to read the answer before the connection is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the connection is about; shared with the body of the request that is being answered.
#[derive(Debug)]
struct Exchange<S> {
    /// None: it has become something else, or nobody serves it any more.
    stream: Option<S>,
    reader: Reader,
    writer: Writer,
    expectation: Expectation,
    /// Somebody may still read the request's body.
    is_body_held: bool,
    /// What came is no body: nothing after it can be told apart.
    is_broken: bool,
    /// Nothing after the request can be trusted.
    is_last: bool,
    /// Waits for the body's end, or to be told that the client has to be told to go on.
    server: Option<Waker>,
    /// Waits for more of the body.
    body: Option<Waker>,
    /// What the connection has become.
    switched: Option<Rewound<S>>,
    /// Waits for it.
    switch: Option<Waker>,
}

/// Whether the client waits before it sends its body (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expectation {
    /// It does not.
    Nothing,
    /// It does.
    Continue,
    /// It does, and is wanted to go on.
    Due,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Body<S>(Option<Rc<RefCell<Exchange<S>>>>);

/// What a connection becomes once a response that switches protocols has been written.
#[derive(Debug)]
pub(crate) struct Switch<S>(Rc<RefCell<Exchange<S>>>);

/// A request as it came: its head, its body, and what the connection becomes if the answer says so.
pub(crate) type Received<S> = (Box<request::Parts>, Body<S>, Switch<S>);

/// What the end of a response depends on.
struct Asked {
    version: Version,
    method: Method,
    keeps_alive: bool,
    wants_trailers: bool,
}

/// Ends what waits for a connection that nobody serves any more.
struct Served<S: Socket>(Rc<RefCell<Exchange<S>>>);

impl<S: Socket> Drop for Served<S> {
    fn drop(&mut self) {
        let exchange = &mut *self.0.borrow_mut();
        // Without a length and without chunks an end means that the answer is whole, and only a reset that it is not (RFC 9112 section 8).
        if exchange.writer.is_cut_by_end()
            && let Some(socket) = exchange.stream.as_ref().and_then(S::plain)
        {
            passthrough::reset(socket);
        }
        exchange.stream = None;
        wake(&mut exchange.body);
        wake(&mut exchange.switch);
    }
}

/// Serves a connection whose first bytes have been read already, until it ends or, once `is_ending`, nothing is being answered.
///
/// `answer` gets a request, or why what came is none; that answer is the last.
///
/// # Errors
/// The client, or the body of a response, broke off.
pub(crate) async fn serve<S, B, F>(
    stream: S,
    begun: Bytes,
    is_ending: &Cell<bool>,
    mut answer: impl FnMut(Result<Received<S>, Reason>) -> F,
) -> Result<(), Error>
where
    S: Socket + AsyncRead + AsyncWrite,
    B: PipedBody<Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
    F: Future<Output = Response<B>>,
{
    let served = Served(Rc::new(RefCell::new(Exchange::new(stream, begun))));
    let exchange = &served.0;
    loop {
        let request = match poll_fn(|context| exchange.borrow_mut().poll_request(is_ending, context)).await {
            Ok(request) => Ok(request),
            Err(Error::Closed) => return Ok(()),
            Err(error @ (Error::Incomplete | Error::Io(_) | Error::Body(_))) => return Err(error),
            Err(Error::Malformed(_)) => Err(Reason::InvalidFraming),
            Err(Error::Syntax(httparse::Error::TooManyHeaders)) => Err(Reason::HeadTooLarge),
            Err(Error::Syntax(_)) => Err(Reason::InvalidRequest),
        };
        let (request, asked) = match request {
            Ok((head, asked)) => (Ok((head, Body::new(exchange), Switch(Rc::clone(exchange)))), asked),
            Err(reason) => {
                (Err(reason), Asked { version: Version::HTTP_11, method: Method::GET, keeps_alive: false, wants_trailers: false })
            }
        };
        let is_refused = request.is_err();
        let response = {
            // Not part of this future: an idle connection has no request, and there are many of them. It is large, and made where it stays.
            let mut answering = Box::into_pin(Box::write(Box::new_uninit(), answer(request)));
            poll_fn(|context| match answering.as_mut().poll(context) {
                Poll::Ready(response) => Poll::Ready(Ok(response)),
                Poll::Pending => exchange.borrow_mut().poll_meanwhile(context).map(Err),
            })
            .await?
        };
        let (parts, mut body) = response.into_parts();
        let keeps_alive = exchange.borrow_mut().begin(&asked, &parts, &body, is_ending.get());
        poll_fn(|context| poll_response(exchange, &asked, &mut body, context)).await?;
        drop(body);
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return exchange.borrow_mut().switch();
        }
        // Also where it ends: somebody may still be reading the request's body.
        let is_whole = poll_fn(|context| exchange.borrow_mut().poll_rest(context)).await;
        if !(keeps_alive && is_whole) {
            return close(exchange, is_refused).await;
        }
    }
}

/// The response's body on its way. While it is asked for more, nothing is borrowed: its end may end the request's body, too.
fn poll_response<S, B>(exchange: &RefCell<Exchange<S>>, asked: &Asked, body: &mut B, context: &mut Context<'_>) -> Poll<Result<(), Error>>
where
    S: Socket + AsyncRead + AsyncWrite,
    B: PipedBody<Error: Into<Box<dyn StdError + Send + Sync>>> + Unpin,
{
    loop {
        let mut waits_for_body = false;
        while exchange.borrow().writer.wants_more() {
            let mut way = exchange.borrow_mut().lend();
            let polled = Pin::new(&mut *body).poll_part(&mut way, context);
            let Exchange { writer, stream, .. } = &mut *exchange.borrow_mut();
            writer.take_back(way);
            match polled {
                Poll::Ready(Some(Ok(Part::Piped(length)))) => writer.count(length)?,
                Poll::Ready(Some(Ok(Part::Frame(frame)))) => match frame.into_data() {
                    Ok(data) => writer.data(data)?,
                    Err(frame) => writer.end(frame.trailers_ref().filter(|_| asked.wants_trailers))?,
                },
                Poll::Ready(Some(Err(error))) => {
                    // As much as can be had of an answer that broke off; that it did is what counts.
                    let _ = stream.as_mut().map(|stream| writer.poll_flush(stream, context));
                    return Poll::Ready(Err(Error::Body(error.into())));
                }
                Poll::Ready(None) => writer.end(None)?,
                Poll::Pending => {
                    waits_for_body = true;
                    break;
                }
            }
        }
        let flushed = {
            let Exchange { stream: Some(stream), writer, .. } = &mut *exchange.borrow_mut() else { return Poll::Ready(Err(Error::Closed)) };
            writer.poll_flush(stream, context)?
        };
        if flushed.is_pending()
            && !waits_for_body
            && let Poll::Ready(error) = Pin::new(&mut *body).poll_overdue(context)
        {
            return Poll::Ready(Err(Error::Body(error.into())));
        }
        let exchange = &mut *exchange.borrow_mut();
        if flushed.is_ready() && exchange.writer.has_ended() {
            return Poll::Ready(Ok(()));
        }
        if waits_for_body && exchange.is_broken {
            // The client broke off: nobody else would notice.
            return Poll::Ready(Err(Error::Incomplete));
        }
        if flushed.is_pending() || waits_for_body {
            return exchange.poll_meanwhile(context).map(Err);
        }
    }
}

/// Ends a connection: what the client is still sending must not cost it the answer, which a reset would.
async fn close<S: Socket + AsyncRead + AsyncWrite>(exchange: &RefCell<Exchange<S>>, is_refused: bool) -> Result<(), Error> {
    let is_sending = {
        let exchange = exchange.borrow();
        is_refused || exchange.is_broken || !exchange.reader.is_idle()
    };
    if is_sending {
        poll_fn(|context| match &mut exchange.borrow_mut().stream {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        })
        .await?;
        let silent = poll_fn(|context| {
            let Exchange { stream: Some(stream), reader, .. } = &mut *exchange.borrow_mut() else { return Poll::Ready(()) };
            while ready!(reader.poll_discard(stream, context)).is_ok_and(|length| length > 0) {}
            Poll::Ready(())
        });
        // Over either way.
        let _ = tokio::time::timeout(LINGER_TIMEOUT, silent).await;
    }
    Ok(())
}

impl Asked {
    fn of(head: &request::Parts, fields: Fields<'_>) -> Self {
        let wants_trailers = fields.members(&TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
        Self { version: head.version, method: head.method.clone(), keeps_alive: keeps_alive(head.version, fields), wants_trailers }
    }
}

impl<S: Socket + AsyncRead + AsyncWrite> Exchange<S> {
    fn new(stream: S, begun: Bytes) -> Self {
        Self {
            stream: Some(stream),
            reader: Reader::with(begun),
            writer: Writer::default(),
            expectation: Expectation::Nothing,
            is_body_held: false,
            is_broken: false,
            is_last: false,
            server: None,
            body: None,
            switched: None,
            switch: None,
        }
    }

    /// The next request's head; its body is set up.
    fn poll_request(&mut self, is_ending: &Cell<bool>, context: &mut Context<'_>) -> Poll<Result<(Box<request::Parts>, Asked), Error>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(Error::Closed)) };
        if is_ending.get() && self.reader.is_idle() {
            return Poll::Ready(Err(Error::Closed));
        }
        let head = ready!(self.reader.poll_head(stream, HEAD_BYTES_MAX, context))?;
        let mut request = parse(&head, FIELDS_MAX)?;
        let fields = Fields::of(&request.headers);
        if fields.members(&TRANSFER_ENCODING).count() > 1 {
            // Whoever reads the body would take it for what it is not.
            return Poll::Ready(Err(Error::Malformed("a transfer coding besides chunked")));
        }
        let framing = match framing(request.version, fields)? {
            Some(Framing::UntilEnd) => return Poll::Ready(Err(Error::Malformed("the last Transfer-Encoding is not chunked"))),
            // A tunnel has no body.
            _ if request.method == Method::CONNECT => Framing::Exact(0),
            framing => framing.unwrap_or(Framing::Exact(0)),
        };
        self.reader.begin_body(framing);
        let expects = || fields.members(&EXPECT).any(|what| what.eq_ignore_ascii_case(b"100-continue"));
        let waits = !self.reader.has_ended() && request.version == Version::HTTP_11 && expects();
        self.expectation = if waits { Expectation::Continue } else { Expectation::Nothing };
        let asked = Asked::of(&request, fields);
        // Which of the two counts is decided here, for everyone after us too; and the client may have meant the other (RFC 9112 section 6.3).
        let has_both = framing == Framing::Chunked && request.headers.remove(CONTENT_LENGTH).is_some();
        // What follows a CONNECT may be meant for the tunnel, though there is none.
        self.is_last = has_both || request.method == Method::CONNECT;
        Poll::Ready(Ok((request, asked)))
    }

    /// What there is to do while an answer is awaited: tell the client to go on, and notice that it is gone. Ready when it is.
    fn poll_meanwhile(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Error::Closed) };
        if self.expectation == Expectation::Due {
            self.expectation = Expectation::Nothing;
            self.writer.raw(CONTINUE);
        }
        if let Poll::Ready(Err(error)) = self.writer.poll_flush(stream, context) {
            return Poll::Ready(error.into());
        }
        if !self.reader.has_ended() {
            // Whoever reads the body notices; afterwards it is up to this task again.
            if self.is_body_held {
                wait(&mut self.server, context);
            }
            return Poll::Pending;
        }
        match ready!(self.reader.poll_ahead(stream, context)) {
            Ok(0) => Poll::Ready(Error::Closed),
            // The next request.
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    /// The way for the next part of a response.
    fn lend(&mut self) -> Way {
        self.stream.as_ref().map(|stream| self.writer.lend(stream)).unwrap_or_default()
    }

    /// The next part of the request's body, for whoever reads it.
    fn poll_body(&mut self, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<Part, Error>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Some(Err(Error::Incomplete))) };
        let polled = self.reader.poll_part(stream, way, context);
        if polled.is_ready() {
            // Who sends without waiting has no need to be told to.
            self.expectation = Expectation::Nothing;
            return polled;
        }
        wait(&mut self.body, context);
        if self.expectation == Expectation::Continue {
            self.expectation = Expectation::Due;
            wake(&mut self.server);
        }
        Poll::Pending
    }

    /// Writes the head of a response, and says whether the connection can go on after it.
    fn begin(&mut self, asked: &Asked, parts: &response::Parts, body: &impl http_body::Body, is_ending: bool) -> bool {
        let is_switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let encoding = encoding(asked, parts, body);
        let goes_on = asked.keeps_alive
            && !(is_ending || self.is_last)
            && encoding != Encoding::UntilEnd
            // It may send its body or not: what comes next cannot be told apart.
            && self.expectation == Expectation::Nothing
            && (self.is_body_held || self.drain());
        self.expectation = Expectation::Nothing;
        let connection = match (goes_on, asked.version) {
            _ if is_switched => Connection::AsItIs,
            (false, _) => Connection::Close,
            (true, Version::HTTP_10) => Connection::KeepAlive,
            (true, _) => Connection::Unsaid,
        };
        self.writer.response(asked.version, parts, encoding, is_bodiless(asked, parts.status), connection);
        goes_on
    }

    /// After a response, what is left of the request: whether another one can follow.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if self.is_body_held && !self.reader.has_ended() {
            wait(&mut self.server, context);
            return Poll::Pending;
        }
        Poll::Ready(self.drain())
    }

    /// Reads what has come of a body that nobody wants; whether that is all of it.
    fn drain(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let mut context = Context::from_waker(Waker::noop());
        let mut left = DRAIN_BYTES_MAX;
        while !self.is_broken && !self.reader.has_ended() && left > 0 {
            match self.reader.poll_frame(stream, &mut context) {
                Poll::Ready(Some(Ok(frame))) => left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Ready(Some(Err(_))) => self.is_broken = true,
                Poll::Ready(None) => {}
                Poll::Pending => break,
            }
        }
        !self.is_broken && self.reader.has_ended()
    }

    fn switch(&mut self) -> Result<(), Error> {
        if !self.reader.has_ended() {
            return Err(Error::Malformed("another protocol before the end of the request"));
        }
        if let Some(stream) = self.stream.take() {
            self.switched = Some(Rewound::new(self.reader.take_rest(), stream));
        }
        wake(&mut self.switch);
        Ok(())
    }
}

/// Waits in a place for one.
fn wait(place: &mut Option<Waker>, context: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *place = Some(context.waker().clone());
    }
}

fn wake(place: &mut Option<Waker>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

fn is_bodiless(asked: &Asked, status: StatusCode) -> bool {
    asked.method == Method::HEAD || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// How the end of a response is told (RFC 9112 section 6.3).
fn encoding(asked: &Asked, parts: &response::Parts, body: &impl http_body::Body) -> Encoding {
    if is_bodiless(asked, parts.status) {
        return Encoding::Exact(0);
    }
    let said = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match said.or_else(|| body.size_hint().exact()) {
        Some(length) => Encoding::Exact(length),
        None if asked.version == Version::HTTP_11 => Encoding::Chunked,
        None => Encoding::UntilEnd,
    }
}

/// A target without a path means the root's, and is sent on with it (RFC 9112 section 3.2.1): `http://store?x=1` is `/?x=1`.
fn with_path(target: Uri) -> Uri {
    if !target.path_and_query().is_some_and(|path| path.as_str().starts_with('?')) {
        return target;
    }
    let mut parts = target.clone().into_parts();
    let path = parts.path_and_query.take().map(|path| format!("/{}", path.as_str()));
    parts.path_and_query = path.and_then(|path| PathAndQuery::try_from(path).ok());
    Uri::from_parts(parts).unwrap_or(target)
}

/// A request's head of so many fields at most.
pub(super) fn parse(head: &Bytes, fields_max: usize) -> Result<Box<request::Parts>, Error> {
    let mut memory = fields();
    let mut parsed = httparse::Request::new(&mut []);
    let memory = memory.get_mut(..fields_max).unwrap_or_default();
    if httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, memory)?.is_partial() {
        return Err(Error::Syntax(httparse::Error::NewLine));
    }
    // Handed on often, and large.
    let mut request = Box::new(Request::new(()).into_parts().0);
    let method = parsed.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    request.method = method.ok_or(Error::Syntax(httparse::Error::Token))?;
    let target = parsed.path.and_then(|target| Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).ok());
    request.uri = with_path(target.ok_or(Error::Syntax(httparse::Error::Token))?);
    request.version = version(parsed.version)?;
    request.headers = headers(head, parsed.headers, FIELDS_ADDED).map_err(|_| Error::Syntax(httparse::Error::HeaderName))?;
    Ok(request)
}

impl<S> Body<S> {
    fn new(exchange: &Rc<RefCell<Exchange<S>>>) -> Self {
        let is_held = {
            let exchange = &mut *exchange.borrow_mut();
            exchange.is_body_held = !exchange.reader.has_ended();
            exchange.is_body_held
        };
        Self(is_held.then(|| Rc::clone(exchange)))
    }

    fn let_go(&mut self) {
        if let Some(exchange) = self.0.take() {
            let exchange = &mut *exchange.borrow_mut();
            exchange.is_body_held = false;
            exchange.body = None;
            wake(&mut exchange.server);
        }
    }
}

impl<S> Drop for Body<S> {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl<S: Socket + AsyncRead + AsyncWrite> http_body::Body for Body<S> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_part(&mut Way::default(), context).map_ok(Part::into_frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |exchange| exchange.borrow().reader.size_hint())
    }
}

impl<S: Socket + AsyncRead + AsyncWrite> PipedBody for Body<S> {
    fn poll_part(self: Pin<&mut Self>, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<Part, Error>>> {
        let body = self.get_mut();
        let Some(exchange) = &body.0 else { return Poll::Ready(None) };
        let (polled, is_over) = {
            let exchange = &mut *exchange.borrow_mut();
            let polled = ready!(exchange.poll_body(way, context));
            exchange.is_broken |= matches!(polled, Some(Err(_)));
            (polled, exchange.is_broken || exchange.reader.has_ended())
        };
        if is_over {
            body.let_go();
        }
        Poll::Ready(polled)
    }
}

impl<S> Switch<S> {
    /// The stream after the response that switches; none: there was none.
    pub(crate) async fn stream(self) -> Option<Rewound<S>> {
        poll_fn(|context| {
            let exchange = &mut *self.0.borrow_mut();
            if exchange.switched.is_none() && exchange.stream.is_some() {
                wait(&mut exchange.switch, context);
                return Poll::Pending;
            }
            Poll::Ready(exchange.switched.take())
        })
        .await
    }
}

#[cfg(test)]
mod tests;
