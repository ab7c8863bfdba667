//! A request as one attempt sends it: borrowed from what was prepared, so that each attempt writes the head and none copies it.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderValue, Method, Uri};

use super::body::Outgoing;
use super::head::Content;

/// A request for one attempt.
#[derive(Debug)]
pub(crate) struct Outbound<'p> {
    /// Its head.
    pub(crate) head: OutboundHead<'p>,
    /// Its body.
    pub(crate) body: Outgoing,
}

/// The head of a request for one attempt.
#[derive(Debug)]
pub(crate) struct OutboundHead<'p> {
    /// Its method.
    pub(crate) method: &'p Method,
    /// Its target: all of it in HTTP/2; over HTTP/1.1 its path is sent.
    pub(crate) uri: Cow<'p, Uri>,
    /// Its fields, of which Host and what belongs to the connection is written below if at all.
    pub(crate) headers: &'p HeaderMap,
    /// Host; none in HTTP/2, whose target says it.
    pub(crate) host: Option<Cow<'p, HeaderValue>>,
    /// What it asks to become.
    pub(crate) upgrade: Option<&'p HeaderValue>,
    /// Whether a body follows.
    pub(crate) content: Content,
}

#[cfg(test)]
impl<'p> OutboundHead<'p> {
    /// The head of a request as it is, without a body.
    pub(crate) fn of(request: &'p ::http::Request<()>) -> Self {
        let (method, uri, headers) = (request.method(), Cow::Borrowed(request.uri()), request.headers());
        Self { method, uri, headers, host: None, upgrade: None, content: Content::Absent }
    }
}
