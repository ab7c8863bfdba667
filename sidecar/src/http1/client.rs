//! A connection to an endpoint: one request at a time, sent and answered in the task of whoever asks.
//!
//! Invariant: an answer may come before its request has been sent whole; the rest is then sent by a task of its own, which ends with the
//! request's body or with the connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::{Method, Response, StatusCode};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::ext::ReasonPhrase;

use super::read::{Framing, Reader, fields, framing, headers, version};
use super::write::Writer;
use super::{Error, keeps_alive};
use crate::connect::Place;
use crate::detect::Rewound;
use crate::http::body::Outgoing;
use crate::http::head::Fields;
use crate::http::outbound::{Outbound, OutboundHead};
use crate::pipe::{Part, PipedBody, Way};
use crate::tls::Stream;

/// Largest head of a response.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct Connection(Rc<RefCell<Exchange>>);

#[derive(Debug)]
struct Exchange {
    /// None: it has become something else.
    stream: Option<Stream>,
    place: Option<Place>,
    reader: Reader,
    writer: Writer,
    /// What is left of the request's body; none: it has been taken whole.
    upload: Option<Outgoing>,
    /// The request cannot be sent any more; an answer may have come all the same.
    upload_failed: Option<Error>,
    /// Woken when nobody wants the connection any more.
    uploader: Option<Waker>,
    is_abandoned: bool,
    keeps_alive: bool,
}

/// A connection that speaks no HTTP any more.
#[derive(Debug)]
pub(crate) struct Switched {
    /// What is spoken now.
    pub(crate) stream: Rewound<Stream>,
    _place: Option<Place>,
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct SendError {
    /// Why.
    pub(crate) error: Error,
    /// Not a byte of it was sent.
    pub(crate) is_unsent: bool,
}

/// The body of an answer; once it has ended, the connection may be somebody else's.
#[derive(Debug)]
pub(crate) struct Body(Option<Rc<RefCell<Exchange>>>);

impl Body {
    fn new(exchange: &Rc<RefCell<Exchange>>) -> Self {
        Self((!exchange.borrow().reader.has_ended()).then(|| Rc::clone(exchange)))
    }
}

impl Connection {
    /// Speaks HTTP/1.1 on a stream, which keeps its place until it ends.
    pub(crate) fn new(stream: Stream, place: Place) -> Self {
        Self(Rc::new(RefCell::new(Exchange {
            stream: Some(stream),
            place: Some(place),
            reader: Reader::default(),
            writer: Writer::default(),
            upload: None,
            upload_failed: None,
            uploader: None,
            is_abandoned: false,
            keeps_alive: true,
        })))
    }

    /// Whether another request can be sent: the last one is over on both sides, and the endpoint is silent and there.
    pub(crate) fn is_ready(&self) -> bool {
        let exchange = &mut *self.0.borrow_mut();
        exchange.is_over() && exchange.stream.as_mut().is_some_and(|stream| exchange.reader.is_quiet(stream))
    }

    /// Whether it will be, as soon as the request has been sent whole.
    pub(crate) fn is_kept(&self) -> bool {
        let exchange = self.0.borrow();
        exchange.keeps_alive && exchange.reader.is_idle() && exchange.stream.is_some() && exchange.upload_failed.is_none()
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(&self, Outbound { head, body }: Outbound<'_>) -> Result<Response<Body>, SendError> {
        let method = head.method;
        let begun = self.0.borrow_mut().begin(&head, body);
        drop(head);
        let answered = match begun {
            Ok(()) => poll_fn(|context| self.0.borrow_mut().poll_answer(method, context)).await,
            Err(error) => Err(error),
        };
        let response = answered.map_err(|error| {
            let exchange = self.0.borrow();
            let is_unsent = exchange.writer.is_untouched() && !matches!(error, Error::Body(_));
            SendError { error, is_unsent }
        })?;
        if self.0.borrow().upload.is_some() {
            // Ends with the body, or when the connection is abandoned.
            tokio::task::spawn_local(upload(Rc::clone(&self.0)));
        }
        Ok(response.map(|()| Body::new(&self.0)))
    }

    /// The stream of an answer that switches protocols.
    pub(crate) fn switch(&self) -> Option<Switched> {
        let exchange = &mut *self.0.borrow_mut();
        let stream = exchange.stream.take()?;
        Some(Switched { stream: Rewound::new(exchange.reader.take_rest(), stream), _place: exchange.place.take() })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut exchange = self.0.borrow_mut();
        // An answer that was read whole may leave a request behind that is not sent whole.
        exchange.is_abandoned = !(exchange.keeps_alive && exchange.reader.is_idle());
        if let Some(uploader) = exchange.uploader.take() {
            uploader.wake();
        }
    }
}

async fn upload(exchange: Rc<RefCell<Exchange>>) {
    poll_fn(|context| {
        let mut exchange = exchange.borrow_mut();
        if exchange.is_abandoned {
            return Poll::Ready(());
        }
        exchange.uploader = Some(context.waker().clone());
        if let Err(error) = ready!(exchange.poll_upload(context)) {
            exchange.fail_upload(error);
        }
        exchange.uploader = None;
        Poll::Ready(())
    })
    .await;
}

impl Exchange {
    fn is_over(&self) -> bool {
        self.keeps_alive && self.upload.is_none() && self.upload_failed.is_none() && self.reader.has_ended()
    }

    fn begin(&mut self, head: &OutboundHead<'_>, body: Outgoing) -> Result<(), Error> {
        self.writer.request(head)?;
        if body.is_end_stream() {
            // One of no bytes whose head says that it comes in chunks has its last one all the same.
            self.writer.end(None)?;
        } else {
            self.upload = Some(body);
        }
        // Until an answer says otherwise: nothing of a connection whose answer is not known is used again.
        self.keeps_alive = false;
        Ok(())
    }

    fn fail_upload(&mut self, error: Error) {
        self.upload = None;
        self.upload_failed = Some(error);
    }

    /// The request's body on its way, as far as it goes.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        loop {
            let mut waits_for_body = false;
            while let Some(body) = self.upload.as_mut().filter(|_| self.writer.has_room()) {
                let mut way = self.writer.lend(stream);
                let polled = Pin::new(body).poll_part(&mut way, context);
                self.writer.take_back(way);
                match polled {
                    Poll::Ready(Some(Ok(Part::Piped(length)))) => self.writer.count(length)?,
                    Poll::Ready(Some(Ok(Part::Frame(frame)))) => match frame.into_data() {
                        Ok(data) => self.writer.data(data)?,
                        Err(frame) => {
                            self.writer.end(frame.trailers_ref())?;
                            self.upload = None;
                        }
                    },
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Error::Body(Box::new(error)))),
                    Poll::Ready(None) => {
                        self.writer.end(None)?;
                        self.upload = None;
                    }
                    Poll::Pending => {
                        waits_for_body = true;
                        break;
                    }
                }
            }
            ready!(self.writer.poll_flush(stream, context))?;
            match &self.upload {
                None => return Poll::Ready(Ok(())),
                Some(_) if waits_for_body => return Poll::Pending,
                Some(_) => {}
            }
        }
    }

    /// The head of the answer, while the request is being sent.
    fn poll_answer(&mut self, method: &Method, context: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        if self.upload_failed.is_none()
            && let Poll::Ready(Err(error)) = self.poll_upload(context)
        {
            if matches!(error, Error::Body(_)) {
                return Poll::Ready(Err(error));
            }
            // An endpoint may answer what it does not want to read on, and close.
            self.fail_upload(error);
        }
        loop {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Err(Error::Closed)) };
            let head = match ready!(self.reader.poll_head(stream, HEAD_BYTES_MAX, context)) {
                Ok(head) => head,
                Err(error) => return Poll::Ready(Err(self.upload_failed.take().filter(|_| !error.is_protocol()).unwrap_or(error))),
            };
            let response = parse(&head)?;
            // Interim answers are not handed on.
            if response.status().is_informational() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                continue;
            }
            return Poll::Ready(self.receive(method, response));
        }
    }

    fn receive(&mut self, method: &Method, mut response: Response<()>) -> Result<Response<()>, Error> {
        let status = response.status();
        let is_bodiless =
            *method == Method::HEAD || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let fields = Fields::of(response.headers());
        let framing = match framing(response.version(), fields)? {
            _ if is_bodiless => Framing::Exact(0),
            None => Framing::UntilEnd,
            Some(framing) => framing,
        };
        self.keeps_alive = framing != Framing::UntilEnd && !status.is_informational() && keeps_alive(response.version(), fields);
        if fields.has(&TRANSFER_ENCODING) {
            // Which of the two counts is decided here, for everyone after us too.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        self.reader.begin_body(framing);
        Ok(response)
    }

    fn poll_part(&mut self, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<Part, Error>>> {
        match &mut self.stream {
            Some(stream) => self.reader.poll_part(stream, way, context),
            None => Poll::Ready(None),
        }
    }
}

fn parse(head: &Bytes) -> Result<Response<()>, Error> {
    let mut memory = fields();
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut memory)?;
    if status.is_partial() {
        return Err(Error::Malformed("a head that does not end"));
    }
    let version = version(parsed.version)?;
    let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Error::Syntax(httparse::Error::Status))?;
    let mut response = Response::new(());
    *response.status_mut() = code;
    *response.version_mut() = version;
    *response.headers_mut() = headers(head, parsed.headers, 0)?;
    let reason = parsed.reason.unwrap_or_default();
    if code.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    Ok(response)
}

impl PipedBody for Body {
    fn poll_part(self: Pin<&mut Self>, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<Part, Error>>> {
        let body = self.get_mut();
        let Some(exchange) = &body.0 else { return Poll::Ready(None) };
        let (polled, has_ended) = {
            let mut exchange = exchange.borrow_mut();
            let polled = ready!(exchange.poll_part(way, context));
            let has_ended = exchange.reader.has_ended() || !matches!(polled, Some(Ok(_)));
            (polled, has_ended)
        };
        if has_ended {
            body.0 = None;
        }
        Poll::Ready(polled)
    }
}

impl http_body::Body for Body {
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
