//! Answers of the sidecar's own.

use std::time::Instant;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use routing::filter::step::ResponseChange;

use super::head::{GRPC_MESSAGE, GRPC_STATUS};
use super::response::{Guards, ResponseBody};
use crate::reason::{REASON_HEADER, Reason};

/// An answer of the sidecar's own.
#[derive(Debug)]
pub(crate) struct Own {
    /// Why.
    pub(crate) reason: Reason,
    /// Status, headers and body where they are somebody else's words.
    pub(crate) words: Option<Box<Words>>,
    /// What the filters that had their turn want of any answer.
    pub(crate) changes: Vec<ResponseChange>,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// A head and a body.
    Whole,
    /// The answer to a HEAD: a head alone.
    Head,
    /// The answer to a gRPC call under GRPCRoutes: a head that says everything ("Trailers-Only").
    Grpc,
}

/// What an answer says instead of the reason's own status and sentence.
#[derive(Debug)]
pub(crate) struct Words {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

impl From<Reason> for Own {
    fn from(reason: Reason) -> Self {
        Self { reason, words: None, changes: Vec::new() }
    }
}

impl Own {
    /// An answer with headers of its own and nothing else.
    pub(crate) fn with_headers(reason: Reason, headers: HeaderMap) -> Self {
        Self::with_words(reason, Words { status: reason.status(), headers, body: Bytes::new() })
    }

    /// An answer in somebody else's words.
    pub(crate) fn with_words(reason: Reason, words: Words) -> Self {
        Self { words: Some(Box::new(words)), ..reason.into() }
    }

    /// The same, changed as an endpoint's answer would be.
    pub(crate) fn changed(self, changes: Vec<ResponseChange>) -> Self {
        Self { changes, ..self }
    }

    /// The response in the form that the request wants.
    pub(crate) fn response(self, form: Form, mut guards: Guards) -> Response<ResponseBody> {
        let Self { reason, words, changes } = self;
        let mut words = match (words, form) {
            (Some(words), _) => *words,
            (None, Form::Grpc) => grpc(reason),
            (None, Form::Whole | Form::Head) => plain(reason),
        };
        if form == Form::Head {
            // In HTTP/2 nobody else leaves it out (RFC 9110 section 9.3.2).
            words.body = Bytes::new();
        }
        for change in &changes {
            change.apply(&mut words.headers);
        }
        words.headers.insert(REASON_HEADER, HeaderValue::from_static(reason.label()));
        guards.record.head(words.status, Some(reason), Instant::now());
        let mut response = Response::new(ResponseBody::Own(Full::new(words.body), Box::new(guards)));
        *response.status_mut() = words.status;
        *response.headers_mut() = words.headers;
        response
    }
}

fn plain(reason: Reason) -> Words {
    let mut headers = HeaderMap::with_capacity(2);
    let body = if reason.sentence().is_empty() { Bytes::new() } else { format!("isthmus: {}\n", reason.sentence()).into() };
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    Words { status: reason.status(), headers, body }
}

fn grpc(reason: Reason) -> Words {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(reason.grpc_status())));
    // The sentences have no percent sign and nothing beyond ASCII, so they are their own encoding.
    if let Ok(message) = HeaderValue::try_from(format!("isthmus: {}", reason.sentence())) {
        headers.insert(GRPC_MESSAGE, message);
    }
    Words { status: StatusCode::OK, headers, body: Bytes::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_answered_in_its_own_terms() {
        let words = grpc(Reason::NoRoute);
        assert_eq!((words.status, &words.headers[GRPC_STATUS]), (StatusCode::OK, &HeaderValue::from_static("12")));
        assert_eq!(grpc(Reason::InvalidBackend).headers[GRPC_STATUS], "14", "G-4");
        assert!(words.body.is_empty() && words.headers[GRPC_MESSAGE].to_str().is_ok_and(|text| !text.contains('%')));
    }
}
