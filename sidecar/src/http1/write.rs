//! Writes heads and bodies: what is small in one piece, what is large without a copy. An idle writer holds no buffer.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE};
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, response};
use bytes::{Buf, Bytes, BytesMut};
use hyper::ext::ReasonPhrase;
use tokio::io::AsyncWrite;

use super::Error;
use crate::http::head::{self, Content};
use crate::http::outbound::OutboundHead;
use crate::pipe::{Socket, Way};

/// More is not copied together.
const SMALL_BYTES: usize = 8 * 1024;
/// A usual head.
const HEAD_BYTES: usize = 512;

/// How a body's end is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    /// It has so many bytes more.
    Exact(u64),
    /// Each part says its length.
    Chunked,
    /// The connection's end is its end.
    UntilEnd,
}

/// What a response says of its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Connection {
    /// Nothing: it goes on, as is usual.
    Unsaid,
    /// It goes on, which an HTTP/1.0 client has to be told.
    KeepAlive,
    /// It ends.
    Close,
    /// What its headers say: it becomes something else.
    AsItIs,
}

/// The outgoing side of a connection.
#[derive(Debug)]
pub(super) struct Writer {
    /// What goes first;
    small: BytesMut,
    /// then this,
    large: Bytes,
    /// and this,
    after: &'static [u8],
    /// and what is on this: only while there is nothing of the others.
    way: Way,
    encoding: Encoding,
    has_ended: bool,
    /// The stream has taken bytes that it may not have sent: TLS keeps some.
    needs_flush: bool,
    /// Bytes of the message that have left.
    written: u64,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            small: BytesMut::new(),
            large: Bytes::new(),
            after: b"",
            way: Way::default(),
            encoding: Encoding::Exact(0),
            has_ended: true,
            needs_flush: false,
            written: 0,
        }
    }
}

impl Writer {
    /// Begins a request.
    pub(super) fn request(&mut self, head: &OutboundHead<'_>) -> Result<(), Error> {
        self.begin(encoding(head)?);
        self.raw(head.method.as_str().as_bytes());
        self.raw(b" ");
        match head.uri.path_and_query() {
            Some(path) => self.raw(path.as_str().as_bytes()),
            None => self.raw(head.uri.to_string().as_bytes()),
        }
        self.raw(b" HTTP/1.1\r\n");
        if let Some(host) = &head.host {
            self.field(&HOST, host.as_bytes());
        }
        let mut has_cookies = false;
        for (name, value) in head.headers {
            match *name {
                HOST | TRANSFER_ENCODING => {}
                CONNECTION | UPGRADE if head.upgrade.is_some() => {}
                // HTTP/2 clients may split it into several fields; HTTP/1.1 has one (RFC 9113 section 8.2.3).
                COOKIE if has_cookies => {}
                COOKIE => {
                    has_cookies = true;
                    let crumbs: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
                    self.field(name, &crumbs.join(&b"; "[..]));
                }
                _ => self.field(name, value.as_bytes()),
            }
        }
        if self.encoding == Encoding::Chunked {
            self.raw(b"transfer-encoding: chunked\r\n");
        }
        if let Some(upgrade) = head.upgrade {
            self.raw(b"connection: upgrade\r\n");
            self.field(&UPGRADE, upgrade.as_bytes());
        }
        self.raw(b"\r\n");
        Ok(())
    }

    /// What has been begun, for who sends nothing.
    pub(super) fn into_head(self) -> Bytes {
        self.small.freeze()
    }

    /// Begins a response; one that is bodiless has ended with its head.
    pub(super) fn response(
        &mut self,
        version: Version,
        parts: &response::Parts,
        encoding: Encoding,
        is_bodiless: bool,
        connection: Connection,
    ) {
        self.begin(encoding);
        self.has_ended = is_bodiless;
        self.raw(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        self.raw(parts.status.as_str().as_bytes());
        self.raw(b" ");
        let reason = parts.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
        self.raw(reason.unwrap_or_else(|| parts.status.canonical_reason().unwrap_or_default().as_bytes()));
        self.raw(b"\r\n");
        // What a body would have had for a length is told of a HEAD and a 304 (RFC 9110 section 8.6).
        let has_length = is_bodiless && !(parts.status.is_informational() || parts.status == StatusCode::NO_CONTENT);
        let is_switched = connection == Connection::AsItIs;
        self.fields(&parts.headers, |name| match *name {
            CONTENT_LENGTH => has_length,
            TRANSFER_ENCODING => false,
            CONNECTION => is_switched,
            _ => true,
        });
        match encoding {
            Encoding::Exact(length) if !is_bodiless => self.length(length),
            Encoding::Chunked => self.raw(b"transfer-encoding: chunked\r\n"),
            Encoding::Exact(_) | Encoding::UntilEnd => {}
        }
        match connection {
            Connection::Unsaid | Connection::AsItIs => {}
            Connection::KeepAlive => self.raw(b"connection: keep-alive\r\n"),
            Connection::Close => self.raw(b"connection: close\r\n"),
        }
        self.raw(b"\r\n");
    }

    /// Bytes of no message, or of a head.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.small.extend_from_slice(bytes);
    }

    fn begin(&mut self, encoding: Encoding) {
        (self.written, self.encoding, self.has_ended) = (0, encoding, false);
        self.small.reserve(HEAD_BYTES);
    }

    fn length(&mut self, length: u64) {
        // Writing to memory cannot fail.
        let _ = write!(self.small, "content-length: {length}\r\n");
    }

    fn fields(&mut self, headers: &HeaderMap, is_sent: impl Fn(&HeaderName) -> bool) {
        for (name, value) in headers.iter().filter(|(name, _)| is_sent(name)) {
            self.field(name, value.as_bytes());
        }
    }

    fn field(&mut self, name: &HeaderName, value: &[u8]) {
        self.raw(name.as_str().as_bytes());
        self.raw(b": ");
        self.raw(value);
        self.raw(b"\r\n");
    }

    /// Whether another part of the body can be taken now.
    pub(super) fn has_room(&self) -> bool {
        self.large.is_empty() && self.after.is_empty() && self.way.is_empty() && self.small.len() < SMALL_BYTES
    }

    /// The way for the next part of the body, to be given back with what comes of it. Only called while there is room.
    pub(super) fn lend(&mut self, stream: &impl Socket) -> Way {
        let is_next = self.small.is_empty() && !self.needs_flush;
        self.way.open(is_next && matches!(self.encoding, Encoding::Exact(_)) && stream.plain().is_some());
        std::mem::take(&mut self.way)
    }

    /// Takes back what was lent.
    pub(super) fn take_back(&mut self, way: Way) {
        self.way = way;
    }

    /// Counts so much more of the body: what is on the way that was taken back, or is given as data.
    pub(super) fn count(&mut self, length: usize) -> Result<(), Error> {
        if let Encoding::Exact(left) = &mut self.encoding {
            *left = left.checked_sub(length as u64).ok_or(Error::Malformed("the body is longer than its Content-Length"))?;
        }
        Ok(())
    }

    /// Whether the message has been given to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether there is more of a message whose end is the connection's: an end now would say that it is whole.
    pub(super) fn is_cut_by_end(&self) -> bool {
        let is_written = self.small.is_empty() && self.large.is_empty() && self.after.is_empty() && self.way.is_empty();
        self.encoding == Encoding::UntilEnd && !(self.has_ended && is_written)
    }

    /// Whether the message goes on and another part of it can be taken now.
    pub(super) fn wants_more(&self) -> bool {
        !self.has_ended && self.has_room()
    }

    /// Whether nothing of the message has left yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.written == 0
    }

    /// A part of the body. Only called while there is room.
    pub(super) fn data(&mut self, data: Bytes) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        self.count(data.len())?;
        let after: &'static [u8] = match self.encoding {
            Encoding::Chunked => {
                // Writing to memory cannot fail.
                let _ = write!(self.small, "{:x}\r\n", data.len());
                b"\r\n"
            }
            Encoding::Exact(_) | Encoding::UntilEnd => b"",
        };
        if self.small.len() + data.len() <= SMALL_BYTES {
            self.raw(&data);
            self.raw(after);
        } else {
            (self.large, self.after) = (data, after);
        }
        Ok(())
    }

    /// The body's end. Only called while there is room.
    pub(super) fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        self.has_ended = true;
        self.way = Way::default();
        match self.encoding {
            Encoding::Exact(0) | Encoding::UntilEnd => Ok(()),
            Encoding::Exact(_) => Err(Error::Malformed("the body is shorter than its Content-Length")),
            Encoding::Chunked => {
                self.raw(b"0\r\n");
                if let Some(trailers) = trailers {
                    // What frames and addresses a message is no trailer (RFC 9110 section 6.5.1).
                    self.fields(trailers, |name| !(head::is_hop_by_hop(name) || *name == CONTENT_LENGTH || *name == HOST));
                }
                self.raw(b"\r\n");
                self.encoding = Encoding::Exact(0);
                Ok(())
            }
        }
    }

    /// Writes until nothing is left, neither here nor in the stream.
    pub(super) fn poll_flush<S: Socket + AsyncWrite>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !(self.small.is_empty() && self.large.is_empty() && self.after.is_empty()) {
            let polled = if self.large.is_empty() && self.after.is_empty() {
                Pin::new(&mut *stream).poll_write(context, &self.small)
            } else {
                let parts = [IoSlice::new(&self.small), IoSlice::new(&self.large), IoSlice::new(self.after)];
                Pin::new(&mut *stream).poll_write_vectored(context, &parts)
            };
            let mut length = ready!(polled)?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += length as u64;
            self.needs_flush = true;
            let mut pass = |left: usize| {
                let passed = length.min(left);
                length -= passed;
                passed
            };
            self.small.advance(pass(self.small.len()));
            self.large.advance(pass(self.large.len()));
            self.after = self.after.get(pass(self.after.len())..).unwrap_or_default();
            if self.small.is_empty() && self.large.is_empty() && self.after.is_empty() {
                (self.small, self.large) = Default::default();
            }
        }
        ready!(self.way.poll_drain(stream, context))?;
        if self.needs_flush {
            ready!(Pin::new(stream).poll_flush(context))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// As the head says: the length, or else whether there is a body (RFC 9112 section 6.3).
fn encoding(head: &OutboundHead<'_>) -> Result<Encoding, Error> {
    let length = head.headers.get(CONTENT_LENGTH);
    let Some(length) = length else {
        return Ok(if head.content == Content::Present { Encoding::Chunked } else { Encoding::Exact(0) });
    };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    length.map(Encoding::Exact).ok_or(Error::Malformed("Content-Length is no number"))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use ::http::Request;

    use super::super::Framing;
    use super::super::trial::body;
    use super::*;

    /// The head that is sent for a request to `store`.
    fn outbound(request: &Request<()>, content: Content) -> OutboundHead<'_> {
        let host = Some(Cow::Owned(HeaderValue::from_static("store")));
        OutboundHead { host, content, ..OutboundHead::of(request) }
    }

    /// What is written of a request with these parts of a body, which is as long as is said.
    async fn written(length: Option<&str>, parts: &[usize], trailers: Option<&HeaderMap>) -> Result<Vec<u8>, Error> {
        let mut request = Request::post("/cart?x=1").body(()).expect("a request");
        request.headers_mut().extend(length.map(|length| (CONTENT_LENGTH, length.parse().expect("a value"))));
        let (mut writer, mut stream) = (Writer::default(), Vec::new());
        writer.request(&outbound(&request, Content::Present))?;
        for length in parts {
            if !writer.has_room() {
                std::future::poll_fn(|context| writer.poll_flush(&mut stream, context)).await?;
            }
            writer.data(vec![b'x'; *length].into())?;
        }
        if !writer.has_room() {
            std::future::poll_fn(|context| writer.poll_flush(&mut stream, context)).await?;
        }
        writer.end(trailers)?;
        std::future::poll_fn(|context| writer.poll_flush(&mut stream, context)).await?;
        Ok(stream)
    }

    #[tokio::test]
    async fn what_is_written_is_read_as_it_was() {
        let trailers = HeaderMap::from_iter([
            (HeaderName::from_static("grpc-status"), "0".parse().expect("a value")),
            (CONTENT_LENGTH, "9".parse().expect("a value")),
        ]);
        for parts in [&[][..], &[1, 2, 3], &[100_000], &[10, 8192, 0, 50_000, 1]] {
            let bytes = written(None, parts, Some(&trailers)).await.expect("written");
            let head = b"POST /cart?x=1 HTTP/1.1\r\nhost: store\r\ntransfer-encoding: chunked\r\n\r\n";
            let read = body(Framing::Chunked, &[bytes.strip_prefix(head).expect("the head")]);
            assert_eq!((read.body.len(), read.broken, read.rest.len()), (parts.iter().sum(), None, 0), "{parts:?}");
            assert_eq!(read.trailers, [("grpc-status".to_owned(), b"0".to_vec())], "a length is no trailer");
        }
    }

    /// A request as it is written, which came with these fields and asks for an upgrade or not.
    fn head(fields: &[(&'static str, &'static str)], upgrade: Option<&HeaderValue>, content: Content) -> String {
        let mut request = Request::get("http://elsewhere/cart?x=1").body(()).expect("a request");
        let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        for (name, value) in fields {
            request.headers_mut().append(name, value);
        }
        let mut writer = Writer::default();
        writer.request(&OutboundHead { upgrade, ..outbound(&request, content) }).expect("begun");
        String::from_utf8(writer.into_head().to_vec()).expect("text")
    }

    #[test]
    fn a_head_has_one_host_one_cookie_and_its_own_framing() {
        let begin = "GET /cart?x=1 HTTP/1.1\r\nhost: store\r\n";
        let came = [("host", "other"), ("cookie", "a=1"), ("x-mine", "1"), ("cookie", "b=2"), ("transfer-encoding", "gzip")];
        assert_eq!(head(&came, None, Content::Absent), format!("{begin}cookie: a=1; b=2\r\nx-mine: 1\r\n\r\n"));
        let chunked = format!("{begin}x-mine: 1\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(head(&came[2..3], None, Content::Present), chunked, "what the head does not say has no body");
        let known = [("content-length", "3")];
        assert_eq!(head(&known, None, Content::Present), format!("{begin}content-length: 3\r\n\r\n"));
    }

    #[test]
    fn an_upgrade_is_asked_for_once() {
        let websocket = HeaderValue::from_static("websocket");
        let asked = head(&[("connection", "x-mine"), ("upgrade", "other")], Some(&websocket), Content::Absent);
        assert_eq!(asked, "GET /cart?x=1 HTTP/1.1\r\nhost: store\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    }

    /// Takes whatever it is given, and sends it only when it is flushed a second time.
    #[derive(Default)]
    struct Keeping {
        flushes: usize,
    }

    impl Socket for Vec<u8> {}
    impl Socket for Keeping {}

    impl AsyncWrite for Keeping {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes < 2 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_a_stream_keeps_is_flushed_until_it_is_sent() {
        let (mut writer, mut stream) = (Writer::default(), Keeping::default());
        let request = Request::get("/").body(()).expect("a request");
        writer.request(&outbound(&request, Content::Absent)).expect("begun");
        std::future::poll_fn(|context| writer.poll_flush(&mut stream, context)).await.expect("sent");
        assert_eq!(stream.flushes, 2);
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_its_head_says_or_an_error() {
        let length = Some("5");
        assert!(written(length, &[2, 3], None).await.expect("written").ends_with(b"\r\n\r\nxxxxx"));
        for parts in [&[2][..], &[6], &[5, 1]] {
            assert!(matches!(written(length, parts, None).await, Err(Error::Malformed(_))), "{parts:?}");
        }
    }
}
