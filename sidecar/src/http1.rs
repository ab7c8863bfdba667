//! HTTP/1.1 on the wire: messages are read from and written to a stream by whoever wants them, without a task or a channel between.
//!
//! Invariant: where a message ends is decided once, by its head; what would leave that in doubt is an error (RFC 9112 section 6.3).

pub(crate) mod client;
mod read;
pub(crate) mod server;
pub mod trial;
mod write;

pub use read::Framing;

use std::io;

use ::http::Version;
use ::http::header::CONNECTION;

use crate::http::head::Fields;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no HTTP/1.
    #[error("no HTTP/1: {0}")]
    Syntax(#[from] httparse::Error),
    /// What of it is none.
    #[error("{0}")]
    Malformed(&'static str),
    /// The stream ended before a message began.
    #[error("the connection ended before a message")]
    Closed,
    /// The stream ended within a message.
    #[error("the connection ended within a message")]
    Incomplete,
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The body that was to be sent broke off.
    #[error("the body that was to be sent: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the peer sent what is no HTTP/1.1.
    pub(crate) fn is_protocol(&self) -> bool {
        matches!(self, Self::Syntax(_) | Self::Malformed(_))
    }
}

/// Whether a connection goes on after a message that says this (RFC 9112 section 9.3).
fn keeps_alive(version: Version, fields: Fields<'_>) -> bool {
    let says = |option: &[u8]| fields.members(&CONNECTION).any(|name| name.eq_ignore_ascii_case(option));
    !says(b"close") && (version == Version::HTTP_11 || says(b"keep-alive"))
}

#[cfg(test)]
mod tests;
