//! A message as it is read, without a connection around it: for who tries it with bytes of their own (`fuzz/`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::Framing;
use super::read::Reader;

/// What came of bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    /// The body, as far as it goes.
    pub body: Vec<u8>,
    /// Its trailers: names and values.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// Why it ends before its end; none: it is whole.
    pub broken: Option<String>,
    /// What follows it, as far as it was read.
    pub rest: Vec<u8>,
}

/// Bytes that come in pieces, and then no more.
struct Pieces<'b>(Vec<&'b [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while let Some(piece) = self.0.first_mut() {
            let length = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece[..length]);
            *piece = &piece[length..];
            if piece.is_empty() {
                self.0.remove(0);
            }
            if length > 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads a body that comes in these pieces.
#[must_use]
pub fn body(framing: Framing, pieces: &[&[u8]]) -> Read {
    let mut stream = Pieces(pieces.to_vec());
    let mut reader = Reader::default();
    reader.begin_body(framing);
    let mut read = Read { body: Vec::new(), trailers: Vec::new(), broken: None, rest: Vec::new() };
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = reader.poll_frame(&mut stream, &mut context) {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => read.body.extend_from_slice(&data),
            Ok(Err(frame)) => {
                let trailers = frame.trailers_ref().into_iter().flatten();
                read.trailers.extend(trailers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())));
            }
            Err(error) => {
                read.broken = Some(error.to_string());
                break;
            }
        }
    }
    read.rest = reader.take_rest().to_vec();
    read.rest.extend(stream.0.concat());
    read
}
