//! Messages as they are read, without a sidecar around them: for who tries it with bytes of their own (`fuzz/`).

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ::http::Response;
use ::http::request::Parts;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::read::Reader;
use super::write::Writer;
use super::{Error, Framing, server};
use crate::detect::Rewound;
use crate::http::outbound::OutboundHead;

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

/// The head of a request as it is read by whom it is written to.
pub(crate) fn written(head: &OutboundHead<'_>) -> Result<Parts, Error> {
    let mut writer = Writer::default();
    writer.request(head)?;
    // A Host may have come to those that a client may send.
    server::parse(&writer.into_head(), server::FIELDS_MAX + 1).map(|parts| *parts)
}

/// Serves a client; every request is read to its end and answered with nothing, and what is none is refused.
/// `seen` gets the head of each, and the length of its body: 0 where there is none, none where its end says how long it is.
///
/// # Errors
/// The client broke off.
pub async fn requests<S: AsyncRead + AsyncWrite + Unpin>(stream: S, mut seen: impl FnMut(Parts, Option<u64>)) -> Result<(), Error> {
    server::serve(Rewound::new(Bytes::new(), stream), Bytes::new(), &Cell::new(false), |request| {
        let (body, status) = match request {
            Ok((head, body, _)) => {
                seen(*head, if body.is_end_stream() { Some(0) } else { body.size_hint().exact() });
                (Some(body), ::http::StatusCode::OK)
            }
            Err(reason) => (None, reason.status()),
        };
        async move {
            if let Some(body) = body {
                // What broke off is noticed by who serves.
                let _ = body.collect().await;
            }
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = status;
            response
        }
    })
    .await
}
