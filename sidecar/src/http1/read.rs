//! Reads heads and bodies. An idle reader holds no buffer; a small message is read at once and copied once.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::{HeaderMap, HeaderName, HeaderValue, Version};
use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use memchr::{memchr, memchr_iter};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::Error;
use crate::http::head::Fields;
use crate::pipe::{Filled, Part, Socket, Way};

/// What comes first is read into memory that all connections of a thread share.
const SHARED_BYTES: usize = 16 * 1024;
/// A body that fills what is read at once is read in ever larger parts, up to this.
const PART_BYTES_MAX: usize = 256 * 1024;
/// A chunk's size with its extensions.
const CHUNK_LINE_BYTES_MAX: usize = 4096;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; SHARED_BYTES].into());
}

/// Trailers after the last chunk.
const TRAILERS_BYTES_MAX: usize = 16 * 1024;
/// Fields of a response's head, or of trailers.
const FIELDS_MAX: usize = 256;

/// Room for what is usually added to the head of a request on its way: its place in a trace. Answers are rarely added to.
pub(super) const FIELDS_ADDED: usize = 2;

/// Where a body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// After so many bytes more.
    Exact(u64),
    /// After the last chunk and its trailers.
    Chunked,
    /// With the stream.
    UntilEnd,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Exact(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilEnd,
}

const ENDED: State = State::Exact(0);

/// The incoming side of a connection.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Read and not taken.
    buffered: BytesMut,
    /// So much of it holds no end of a head.
    searched: usize,
    state: State,
    /// Read at once of a body.
    part_bytes: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffered: BytesMut::new(), searched: 0, state: ENDED, part_bytes: SHARED_BYTES }
    }
}

impl Reader {
    /// Of a stream whose first bytes were read already.
    pub(super) fn with(begun: Bytes) -> Self {
        Self { buffered: begun.into(), ..Self::default() }
    }

    /// Whether nothing is left of a message, nor anything of another one there.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == ENDED && self.buffered.is_empty()
    }

    /// What was read and belongs to no message.
    pub(crate) fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.buffered).freeze()
    }

    /// Whether the body has been taken to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == ENDED
    }

    /// What is left of the body, where that is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Exact(left) => SizeHint::with_exact(left),
            State::ChunkSize | State::ChunkData(_) | State::ChunkEnd | State::Trailers | State::UntilEnd => SizeHint::default(),
        }
    }

    /// A body follows.
    pub(crate) fn begin_body(&mut self, framing: Framing) {
        self.part_bytes = SHARED_BYTES;
        self.state = match framing {
            Framing::Exact(length) => State::Exact(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilEnd => State::UntilEnd,
        };
    }

    /// The bytes of the next head.
    pub(crate) fn poll_head<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        bytes_max: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Error>> {
        loop {
            self.skip_empty_lines();
            if let Some(length) = head_end(&self.buffered, self.searched) {
                self.searched = 0;
                if length > bytes_max {
                    return Poll::Ready(Err(Error::Syntax(httparse::Error::TooManyHeaders)));
                }
                return Poll::Ready(Ok(self.take(length)));
            }
            self.searched = self.buffered.len();
            if self.buffered.len() > bytes_max {
                return Poll::Ready(Err(Error::Syntax(httparse::Error::TooManyHeaders)));
            }
            if ready!(self.poll_more(stream, context))? == 0 {
                return Poll::Ready(Err(if self.buffered.is_empty() { Error::Closed } else { Error::Incomplete }));
            }
        }
    }

    /// Empty lines before a message are none of it (RFC 9112 section 2.2).
    fn skip_empty_lines(&mut self) {
        while self.searched == 0 {
            match self.buffered[..] {
                [b'\n', ..] => self.buffered.advance(1),
                [b'\r', b'\n', ..] => self.buffered.advance(2),
                _ => return,
            }
        }
    }

    /// The next part of the body, in a pipe where that is open to it; none at its end.
    pub(super) fn poll_part<S: Socket + AsyncRead>(
        &mut self,
        stream: &mut S,
        way: &mut Way,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, Error>>> {
        if let (State::Exact(left @ 1..), true, Some(socket)) = (self.state, self.buffered.is_empty(), stream.plain())
            && let Some(pipe) = way.pipe(left)
        {
            let filled = SHARED.with_borrow_mut(|shared| {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(shared.len());
                let beside = shared.get_mut(..length).unwrap_or_default();
                let filled = ready!(pipe.poll_fill(socket, left, beside, context));
                if let Ok(Filled::Beside(length)) = filled {
                    self.buffered = BytesMut::from(beside.get(..length).unwrap_or_default());
                }
                Poll::Ready(filled)
            });
            let filled = ready!(filled)?;
            stream.passed();
            if let Filled::Pipe(length) = filled {
                self.state = State::Exact(left.saturating_sub(length as u64));
                return Poll::Ready(Some(Ok(Part::Piped(length))));
            }
            if self.buffered.is_empty() {
                return Poll::Ready(Some(Err(Error::Incomplete)));
            }
        }
        self.poll_frame(stream, context).map_ok(Part::Frame)
    }

    /// The next part of the body; none at its end.
    pub(crate) fn poll_frame<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match self.state {
                State::Exact(0) => return Poll::Ready(None),
                State::Exact(left) => {
                    let data = ready!(self.poll_data(stream, left, context))?;
                    if data.is_empty() {
                        return Poll::Ready(Some(Err(Error::Incomplete)));
                    }
                    self.state = State::Exact(left - data.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::UntilEnd => {
                    let data = ready!(self.poll_data(stream, u64::MAX, context))?;
                    if data.is_empty() {
                        self.state = ENDED;
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::ChunkData(left) => {
                    let data = ready!(self.poll_data(stream, left, context))?;
                    if data.is_empty() {
                        return Poll::Ready(Some(Err(Error::Incomplete)));
                    }
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::ChunkSize | State::ChunkEnd | State::Trailers => match self.between_chunks()? {
                    Between::More => {
                        if ready!(self.poll_more(stream, context))? == 0 {
                            return Poll::Ready(Some(Err(Error::Incomplete)));
                        }
                    }
                    Between::Next => {}
                    Between::Trailers(trailers) if trailers.is_empty() => return Poll::Ready(None),
                    Between::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                },
            }
        }
    }

    /// Reads what stands between the data of chunks.
    fn between_chunks(&mut self) -> Result<Between, Error> {
        match self.state {
            State::ChunkEnd => {
                match self.buffered[..] {
                    [b'\r', b'\n', ..] => self.buffered.advance(2),
                    [] | [b'\r'] => return Ok(Between::More),
                    _ => return Err(Error::Malformed("a chunk does not end where it says")),
                }
                self.state = State::ChunkSize;
                Ok(Between::Next)
            }
            State::ChunkSize => {
                let within = &self.buffered[..self.buffered.len().min(CHUNK_LINE_BYTES_MAX)];
                let Some(end) = memchr(b'\n', within) else {
                    return if within.len() < CHUNK_LINE_BYTES_MAX {
                        Ok(Between::More)
                    } else {
                        Err(Error::Malformed("a chunk's size is too long"))
                    };
                };
                let line = self.buffered.split_to(end + 1);
                self.state = match chunk_size(&line)? {
                    0 => State::Trailers,
                    size => State::ChunkData(size),
                };
                Ok(Between::Next)
            }
            State::Trailers => self.trailers(),
            State::Exact(_) | State::ChunkData(_) | State::UntilEnd => Ok(Between::Next),
        }
    }

    fn trailers(&mut self) -> Result<Between, Error> {
        let length = match self.buffered[..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => return Err(Error::Malformed("trailers begin with a line feed")),
            _ => match head_end(&self.buffered, self.searched) {
                Some(length) => length,
                None if self.buffered.len() > TRAILERS_BYTES_MAX => return Err(Error::Malformed("trailers are too long")),
                None => {
                    // A lone carriage return may be the beginning of the end.
                    self.searched = if self.buffered.len() > 1 { self.buffered.len() } else { 0 };
                    return Ok(Between::More);
                }
            },
        };
        self.searched = 0;
        let bytes = self.take(length);
        self.state = ENDED;
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        match httparse::parse_headers(&bytes, &mut fields)? {
            httparse::Status::Complete((used, fields)) if used == bytes.len() => Ok(Between::Trailers(headers(&bytes, fields, 0)?)),
            httparse::Status::Complete(_) | httparse::Status::Partial => Err(Error::Malformed("trailers")),
        }
    }

    /// Up to so many bytes of a body; empty at the end of the stream.
    fn poll_data<S: AsyncRead + Unpin>(&mut self, stream: &mut S, left: u64, context: &mut Context<'_>) -> Poll<Result<Bytes, Error>> {
        if self.buffered.is_empty() {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.part_bytes);
            let read = if wanted <= SHARED_BYTES {
                ready!(self.poll_shared(stream, wanted, context))?
            } else {
                self.buffered.reserve(wanted);
                ready!(poll_read_buf(Pin::new(stream), context, &mut self.buffered))?
            };
            // More may be read than is left: what follows is the next message.
            self.part_bytes = if read >= self.part_bytes { (self.part_bytes * 2).min(PART_BYTES_MAX) } else { self.part_bytes };
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffered.len());
        Poll::Ready(Ok(self.take(length)))
    }

    /// Takes bytes off the front; the last ones with their memory.
    fn take(&mut self, length: usize) -> Bytes {
        if length == self.buffered.len() { std::mem::take(&mut self.buffered).freeze() } else { self.buffered.split_to(length).freeze() }
    }

    fn poll_more<S: AsyncRead + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        if self.buffered.is_empty() {
            return self.poll_shared(stream, SHARED_BYTES, context);
        }
        self.buffered.reserve(SHARED_BYTES / 2);
        Poll::Ready(Ok(ready!(poll_read_buf(Pin::new(stream), context, &mut self.buffered))?))
    }

    /// Reads into the thread's memory, and keeps what has come.
    fn poll_shared<S: AsyncRead + Unpin>(&mut self, stream: &mut S, max: usize, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        SHARED.with_borrow_mut(|shared| {
            let mut buffer = ReadBuf::new(shared.get_mut(..max).unwrap_or_default());
            ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
            self.buffered = BytesMut::from(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Reads what comes after a message, once: how much of it is there, 0 if nothing ever will be.
    pub(super) fn poll_ahead<S: AsyncRead + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        if self.buffered.is_empty() { self.poll_shared(stream, SHARED_BYTES, context) } else { Poll::Ready(Ok(self.buffered.len())) }
    }

    /// Reads and forgets; 0 at the end of the stream.
    pub(super) fn poll_discard<S: AsyncRead + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        let polled = self.poll_shared(stream, SHARED_BYTES, context);
        self.buffered = BytesMut::new();
        polled
    }

    /// Whether the peer is silent and there, as it should be between messages.
    pub(crate) fn is_quiet<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.is_idle() && self.poll_shared(stream, SHARED_BYTES, &mut context).is_pending()
    }
}

enum Between {
    More,
    Next,
    Trailers(HeaderMap),
}

/// The size that a chunk's line says; what follows it is an extension, which nobody here knows.
fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    let line = line.strip_suffix(b"\r\n").ok_or(Error::Malformed("a chunk's size does not end in CR LF"))?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let after = rest.trim_ascii_start();
    if !(after.is_empty() || after.starts_with(b";")) || rest.contains(&b'\r') {
        return Err(Error::Malformed("a chunk's size is no number"));
    }
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(|_| Error::Malformed("a chunk's size is no number"))
}

/// The length of a head that is whole: up to and with its empty line.
fn head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(2);
    let tail = bytes.get(from..)?;
    memchr_iter(b'\n', tail).find_map(|at| match tail.get(at + 1..)? {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// Memory for the fields of a head while it is parsed.
pub(super) fn fields<'h>() -> [MaybeUninit<httparse::Header<'h>>; FIELDS_MAX] {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

/// Fields of a head, sharing its memory; with room for so many more.
pub(super) fn headers(head: &Bytes, fields: &[httparse::Header<'_>], room: usize) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(fields.len() + room);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Error::Malformed("a field's name"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| Error::Malformed("a field's value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

pub(super) fn version(minor: Option<u8>) -> Result<Version, Error> {
    match minor {
        Some(1) => Ok(Version::HTTP_11),
        Some(0) => Ok(Version::HTTP_10),
        Some(_) | None => Err(Error::Syntax(httparse::Error::Version)),
    }
}

/// What Transfer-Encoding and Content-Length say together; none: nothing (RFC 9112 section 6.3).
pub(super) fn framing(version: Version, fields: Fields<'_>) -> Result<Option<Framing>, Error> {
    if fields.has(&TRANSFER_ENCODING) {
        if version != Version::HTTP_11 {
            return Err(Error::Malformed("Transfer-Encoding in HTTP/1.0"));
        }
        let last = fields.members(&TRANSFER_ENCODING).last();
        let is_chunked = last.is_some_and(|name| name.eq_ignore_ascii_case(b"chunked"));
        return Ok(Some(if is_chunked { Framing::Chunked } else { Framing::UntilEnd }));
    }
    let mut length = None;
    for value in fields.members(&CONTENT_LENGTH) {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = is_number.then(|| std::str::from_utf8(value).ok()?.parse::<u64>().ok()).flatten();
        let number = number.ok_or(Error::Malformed("Content-Length is no number"))?;
        if length.replace(number).is_some_and(|before| before != number) {
            return Err(Error::Malformed("Content-Length says two lengths"));
        }
    }
    Ok(length.map(Framing::Exact))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::trial::body;
    use super::*;

    #[test]
    fn a_body_ends_where_its_framing_says() {
        for (framing, bytes, expected, rest) in [
            (Framing::Exact(3), &b"abcdef"[..], &b"abc"[..], &b"def"[..]),
            (Framing::Exact(0), b"GET", b"", b"GET"),
            (Framing::UntilEnd, b"abc", b"abc", b""),
            (Framing::Chunked, b"3\r\nabc\r\n0\r\n\r\nGET", b"abc", b"GET"),
            (Framing::Chunked, b"1;x=\"y\"\r\na\r\n00A \r\n0123456789\r\n0;z\r\n\r\n", b"a0123456789", b""),
        ] {
            let read = body(framing, &[bytes]);
            assert_eq!((read.body, read.broken, read.rest), (expected.to_vec(), None, rest.to_vec()), "{framing:?} {bytes:?}");
        }
    }

    #[test]
    fn trailers_are_read() {
        let read = body(Framing::Chunked, &[b"0\r\nGrpc-Status: 0\r\nx: y\r\n\r\nrest"]);
        let expected = [("grpc-status", "0"), ("x", "y")].map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!((read.trailers, read.broken, read.rest), (expected.to_vec(), None, b"rest".to_vec()));
    }

    #[test]
    fn what_leaves_the_end_in_doubt_is_refused() {
        for bytes in [
            &b"3\nabc\r\n0\r\n\r\n"[..],
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc0\r\n\r\n",
            b"-1\r\n",
            b"0x3\r\nabc\r\n",
            b"\r\n",
            b"3 4\r\nabc\r\n",
            b"fffffffffffffffff\r\n",
            b"3;\rx\r\nabc\r\n",
            b"0\r\nx y\r\n\r\n",
            b"0\r\n\nGET / HTTP/1.1\r\n\r\n",
        ] {
            let read = body(Framing::Chunked, &[bytes]);
            assert!(read.broken.as_ref().is_some_and(|why| !why.contains("ended within")), "{bytes:?}: {read:?}");
        }
        for bytes in [&b"3\r\nab"[..], b"3", b"3\r\nabc", b"3\r\nabc\r\n", b"0\r\n", b"0\r\nx: y\r\n"] {
            let read = body(Framing::Chunked, &[bytes]);
            assert_eq!(read.broken.as_deref(), Some("the connection ended within a message"), "{bytes:?}");
        }
        assert!(body(Framing::Chunked, &[&b"1;".repeat(CHUNK_LINE_BYTES_MAX)]).broken.is_some_and(|why| why.contains("too long")));
    }

    #[test]
    fn a_head_ends_with_its_empty_line() {
        for (bytes, end) in [
            (&b"a\r\n\r\nb"[..], Some(5)),
            (b"a\n\nb", Some(3)),
            (b"a\n\r\n", Some(4)),
            (b"a\r\nb: c\r\n", None),
            (b"a\r\n\r", None),
            (b"", None),
        ] {
            for searched in 0..bytes.len() {
                // Where nothing was found in the first so many bytes.
                if head_end(&bytes[..searched], 0).is_none() {
                    assert_eq!(head_end(bytes, searched), end, "{bytes:?} after {searched}");
                }
            }
        }
    }

    #[test]
    fn framing_by_length_and_by_encoding() {
        let of = |fields: &[(&'static str, &'static str)], version| {
            let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            framing(version, Fields::of(&fields.collect::<HeaderMap>())).ok()
        };
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        assert_eq!(of(&[], new), Some(None));
        assert_eq!(of(&[("content-length", "7")], old), Some(Some(Framing::Exact(7))));
        assert_eq!(of(&[("content-length", "7, 7"), ("content-length", "7")], new), Some(Some(Framing::Exact(7))));
        assert_eq!(of(&[("content-length", "7, 8")], new), None);
        assert_eq!(of(&[("content-length", "+7")], new), None);
        assert_eq!(of(&[("transfer-encoding", "gzip, Chunked"), ("content-length", "7")], new), Some(Some(Framing::Chunked)));
        assert_eq!(of(&[("transfer-encoding", "gzip")], new), Some(Some(Framing::UntilEnd)));
        assert_eq!(of(&[("transfer-encoding", "chunked")], old), None);
    }

    proptest! {
        /// What is chunked is read as it was, however it comes.
        #[test]
        fn chunks_are_put_together(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), cut in 1_usize..9) {
            let mut bytes = Vec::new();
            for part in &parts {
                bytes.extend(format!("{:X}\r\n", part.len()).into_bytes());
                bytes.extend(part);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\nrest");
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let read = body(Framing::Chunked, &pieces);
            prop_assert_eq!((read.body, read.broken, read.rest), (parts.concat(), None, b"rest".to_vec()));
        }
    }
}
