//! Which HTTP a client speaks, by its first bytes; only asked on ports whose routes are HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::pipe::Socket;

/// What a client of HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A usual head comes whole with the first bytes.
const BEGUN_BYTES: usize = 1024;

/// What the first bytes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spoken {
    /// The beginning of a request line, or of something that the parser will refuse.
    Http1,
    /// The preface.
    Http2,
    /// No HTTP: TLS for example.
    Other,
    /// The client ended without a byte.
    Nothing,
}

/// Reads until it is clear what is spoken; the bytes are part of the stream again.
///
/// # Errors
/// The client's connection failed.
pub async fn detect<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Spoken, Rewound<S>)> {
    let mut begun = BytesMut::with_capacity(BEGUN_BYTES);
    let spoken = loop {
        if begun.len() >= PREFACE.len() {
            break Spoken::Http2;
        }
        if stream.read_buf(&mut begun).await? == 0 {
            break if begun.is_empty() { Spoken::Nothing } else { Spoken::Http1 };
        }
        if !PREFACE.starts_with(&begun[..begun.len().min(PREFACE.len())]) {
            break if is_token(begun[0]) { Spoken::Http1 } else { Spoken::Other };
        }
    };
    Ok((spoken, Rewound { begun: begun.freeze(), stream }))
}

/// A byte that a method can begin with (RFC 9110 section 5.6.2), or an empty line that a parser has to skip (RFC 9112 section 2.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~\r\n".contains(&byte)
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub struct Rewound<S> {
    begun: Bytes,
    stream: S,
}

impl<S> Rewound<S> {
    pub(crate) fn new(begun: Bytes, stream: S) -> Self {
        Self { begun, stream }
    }

    /// What was read already, and the rest.
    pub(crate) fn into_parts(self) -> (Bytes, S) {
        (self.begun, self.stream)
    }
}

// What was read already is in memory.
impl<S: Unpin> Socket for Rewound<S> {}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.begun.len().min(buffer.remaining());
        buffer.put_slice(&self.begun[..length]);
        self.begun.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn spoken(input: &[u8]) -> (Spoken, Vec<u8>) {
        let (spoken, mut stream) = detect(input).await.expect("reading a slice cannot fail");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("reading a slice cannot fail");
        (spoken, all)
    }

    #[tokio::test]
    async fn the_first_bytes_decide_and_stay_in_the_stream() {
        let preface = [PREFACE, b"rest"].concat();
        for (input, expected) in [
            (&preface[..], Spoken::Http2),
            (b"GET / HTTP/1.1\r\n", Spoken::Http1),
            (b"PRI * HTTP/1", Spoken::Http1),
            (b"\x16\x03\x01\x02\x00", Spoken::Other),
            (b"\x00", Spoken::Other),
            (b"", Spoken::Nothing),
        ] {
            assert_eq!(spoken(input).await, (expected, input.to_vec()), "{input:?}");
        }
    }
}
