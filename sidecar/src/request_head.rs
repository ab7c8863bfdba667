//! The path of a request's head without anything around it: as `http` reads it from a client, to as it is sent to an HTTP/1.1 endpoint.
//!
//! Public for who tries it with bytes of their own (`fuzz/`); each step is the one that `http` takes.

use ::http::request::Parts;
use ::http::{HeaderValue, Method};

use crate::http::head;
pub use crate::http::head::Content;
use crate::reason::Reason;

/// The head for an endpoint where no filter edits it.
///
/// # Errors
/// The label of the answer that the client gets instead.
pub fn forwarded(mut parts: Parts, destination: &HeaderValue, content: Content) -> Result<Parts, &'static str> {
    head::check_framing(&parts.headers).map_err(|reason| reason.label())?;
    let authority = head::authority(&parts).map_err(|reason| reason.label())?;
    if parts.method == Method::CONNECT {
        return Err(Reason::UnsupportedConnect.label());
    }
    let upgrade = head::upgrade(&parts);
    head::strip_hop_by_hop(&mut parts.headers);
    head::complete_http1(&mut parts.headers, authority.or_else(|| Some(destination.clone())), upgrade.as_ref(), content);
    Ok(parts)
}
