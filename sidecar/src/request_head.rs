//! The path of a request's head without anything around it: as `http` reads it from a client, to as it is sent to an HTTP/1.1 endpoint.
//!
//! Public for who tries it with bytes of their own (`fuzz/`); each step is the one that `http` takes.

use std::borrow::Cow;

use ::http::request::Parts;
use ::http::{HeaderValue, Method};

pub use crate::http::head::Content;
use crate::http::head::{self, Fields};
use crate::http::outbound::OutboundHead;
use crate::http1::{self, trial};
use crate::reason::Reason;

/// The head that an endpoint reads where no filter edits it; an error instead of it would be ours.
///
/// # Errors
/// The label of the answer that the client gets instead.
pub fn forwarded(mut parts: Parts, destination: &HeaderValue, content: Content) -> Result<Result<Parts, http1::Error>, &'static str> {
    let fields = Fields::of(&parts.headers);
    head::check_framing(fields).map_err(|reason| reason.label())?;
    let authority = head::authority(&parts).map_err(|reason| reason.label())?;
    if parts.method == Method::CONNECT {
        return Err(Reason::UnsupportedConnect.label());
    }
    let upgrade = head::upgrade(parts.version, fields);
    head::strip_hop_by_hop(&mut parts.headers);
    let head = OutboundHead {
        method: &parts.method,
        uri: Cow::Borrowed(&parts.uri),
        headers: &parts.headers,
        host: Some(authority.as_ref().map_or(Cow::Borrowed(destination), Cow::Borrowed)),
        upgrade: upgrade.as_ref(),
        content,
    };
    Ok(trial::written(&head))
}
