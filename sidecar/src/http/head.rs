//! Heads on their way through: what is refused, and what belongs to one connection only and stays behind.
//!
//! Invariant: what is sent has exactly one framing, and it is the sender's own: nothing of the received framing is copied.

use ::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use crate::endpoint::Outcome;
use crate::reason::Reason;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Status of a gRPC call.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What it means, percent-encoded.
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields of one connection (RFC 9110 section 7.6.1). Trailer stays: it announces fields that are forwarded.
static HOP_BY_HOP: [HeaderName; 7] = [CONNECTION, HTTP2_SETTINGS, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];

/// Whether a field is one of the connection's.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// The fields of a head, and which there may be: one look at their names spares most look-ups of those that are not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'h> {
    headers: &'h HeaderMap,
    /// A bit for each name, which few names share.
    names: u64,
}

impl<'h> Fields<'h> {
    /// Looks at them.
    pub(crate) fn of(headers: &'h HeaderMap) -> Self {
        Self { headers, names: headers.keys().fold(0, |names, name| names | bit(name)) }
    }

    fn may_have(self, field: &HeaderName) -> bool {
        self.names & bit(field) != 0
    }

    /// Whether a field is there.
    pub(crate) fn has(self, field: &HeaderName) -> bool {
        self.may_have(field) && self.headers.contains_key(field)
    }

    /// The lines of a field.
    pub(crate) fn lines(self, field: &HeaderName) -> impl Iterator<Item = &'h HeaderValue> {
        self.may_have(field).then(|| self.headers.get_all(field)).into_iter().flatten()
    }

    /// The comma-separated members of a field, in all its lines; bytes, since a member that is no text takes none of the others with it.
    pub(crate) fn members(self, field: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
        self.lines(field).flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    }
}

/// By length and first letter.
fn bit(name: &HeaderName) -> u64 {
    let name = name.as_str();
    1 << ((name.len() * 15 + usize::from(name.as_bytes().first().copied().unwrap_or_default())) % 64)
}

/// The one authority of a request: `:authority` or that of an absolute-form target, else Host (RFC 9112 section 3.2).
pub(crate) fn authority(parts: &Parts) -> Result<Option<HeaderValue>, Reason> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Reason::InvalidHost);
    }
    if let Some(authority) = parts.uri.authority() {
        return HeaderValue::from_str(authority.as_str()).map(Some).map_err(|_| Reason::InvalidHost);
    }
    match first {
        Some(host) if host.to_str().is_ok() => Ok(Some(host.clone())),
        Some(_) => Err(Reason::InvalidHost),
        None if parts.version == Version::HTTP_10 => Ok(None),
        None => Err(Reason::InvalidHost),
    }
}

/// Refuses a request whose length is given in more than one way (RFC 9112 section 6.3: a sender that does so may be smuggling).
pub(crate) fn check_framing(fields: Fields<'_>) -> Result<(), Reason> {
    let mut lengths = fields.lines(&CONTENT_LENGTH);
    let Some(first) = lengths.next() else { return Ok(()) };
    let is_number = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    if lengths.next().is_some() || !is_number || fields.has(&TRANSFER_ENCODING) {
        return Err(Reason::InvalidFraming);
    }
    Ok(())
}

/// What a request asks to become instead of HTTP, if it does (RFC 9110 section 7.8).
pub(crate) fn upgrade(version: Version, fields: Fields<'_>) -> Option<HeaderValue> {
    let asks = version == Version::HTTP_11 && fields.members(&CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    // An upgrade to HTTP/2 would be a tunnel past every route (RFC 9113 section 3.1: no longer used).
    let is_h2c = |protocol: &[u8]| protocol.split(|byte| *byte == b'/').next().is_some_and(|name| name.eq_ignore_ascii_case(b"h2c"));
    let is_http2 = || fields.members(&UPGRADE).any(is_h2c);
    (asks && !is_http2()).then(|| fields.lines(&UPGRADE).next().cloned()).flatten()
}

/// Whether a body follows a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// None does.
    Absent,
    /// One does, of known length or not.
    Present,
}

/// Whether it is gRPC, which needs HTTP/2 all the way.
pub(crate) fn is_grpc(parts: &Parts) -> bool {
    let says_grpc = || parts.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    parts.version == Version::HTTP_2 && says_grpc()
}

/// What a gRPC answer's trailers, or its head where it has nothing else, say about the endpoint: UNAVAILABLE is its failure, every other
/// status the call's own affair.
pub(crate) fn outcome_of_trailers(trailers: &HeaderMap) -> Outcome {
    if trailers.get(GRPC_STATUS).is_some_and(|status| status.as_bytes() == b"14") { Outcome::Failure } else { Outcome::Success }
}

/// What a response's head says about the endpoint; none: its trailers will.
pub(crate) fn outcome(status: StatusCode, headers: &HeaderMap) -> Option<Outcome> {
    if status.is_server_error() {
        return Some(Outcome::Failure);
    }
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return Some(Outcome::Success);
    }
    headers.contains_key(GRPC_STATUS).then(|| outcome_of_trailers(headers))
}

/// Removes what belongs to the connection that a message came in on. `TE: trailers` stays: it is about the whole path in practice, gRPC
/// relies on it.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let fields = Fields::of(headers);
    let there: Vec<&HeaderName> = HOP_BY_HOP.iter().filter(|name| fields.has(name)).collect();
    if there.is_empty() {
        return;
    }
    let wants_trailers = fields.members(&TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    let is_known = |name: &[u8]| HOP_BY_HOP.iter().any(|known| known.as_str().as_bytes().eq_ignore_ascii_case(name));
    let listed: Vec<HeaderName> =
        fields.members(&CONNECTION).filter(|name| !is_known(name)).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in there.into_iter().chain(listed.iter().filter(|name| !is_needed(name))) {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// What `Connection` cannot take away: the one who lists it would change what the message means.
fn is_needed(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, TRAILER].contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let mut map = headers(&[
            ("connection", "close, X-Mine, Host"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("host", "store"),
            ("x-other", "2"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("te", "trailers"), ("host", "store"), ("x-other", "2")]));
    }

    #[test]
    fn an_upgrade_is_asked_for_in_connection_and_never_to_http2() {
        let asked = |fields: &[(&str, &str)]| {
            let mut request = ::http::Request::builder().version(Version::HTTP_11).body(()).expect("a request");
            *request.headers_mut() = headers(fields);
            upgrade(request.version(), Fields::of(request.headers())).is_some()
        };
        assert!(asked(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]));
        assert!(!asked(&[("upgrade", "websocket")]));
        for protocol in ["h2c", "H2C", "websocket, h2c", "h2c/1"] {
            assert!(!asked(&[("connection", "upgrade, http2-settings"), ("upgrade", protocol), ("http2-settings", "AAAA")]), "{protocol}");
        }
    }

    #[test]
    fn a_member_that_is_no_text_hides_no_other() {
        let mut map = headers(&[("x-mine", "1"), ("x-other", "2")]);
        map.insert(CONNECTION, HeaderValue::from_bytes(b"\xff, x-mine").expect("a value"));
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("x-other", "2")]));
    }

    #[test]
    fn a_length_is_given_once() {
        for (fields, good) in [
            (&[("content-length", "5")][..], true),
            (&[("transfer-encoding", "chunked")], true),
            (&[], true),
            (&[("content-length", "5"), ("transfer-encoding", "chunked")], false),
            (&[("content-length", "5"), ("content-length", "5")], false),
            (&[("content-length", "5, 5")], false),
            (&[("content-length", "+5")], false),
        ] {
            assert_eq!(check_framing(Fields::of(&headers(fields))).is_ok(), good, "{fields:?}");
        }
    }

    #[test]
    fn there_is_one_authority() {
        let parts = |uri: &str, version, fields: &[(&str, &str)]| {
            let mut request = ::http::Request::builder().uri(uri).version(version).body(()).expect("a request");
            *request.headers_mut() = headers(fields);
            request.into_parts().0
        };
        let of = |uri, version, fields| {
            authority(&parts(uri, version, fields)).map(|host| host.map(|host| host.to_str().expect("text").to_owned()))
        };
        assert_eq!(of("/", Version::HTTP_11, &[("host", "a")]), Ok(Some("a".to_owned())));
        assert_eq!(of("http://b/x", Version::HTTP_11, &[("host", "a")]), Ok(Some("b".to_owned())), "absolute-form wins");
        assert_eq!(of("/", Version::HTTP_10, &[]), Ok(None));
        assert_eq!(of("/", Version::HTTP_11, &[]), Err(Reason::InvalidHost));
        assert_eq!(of("/", Version::HTTP_11, &[("host", "a"), ("host", "a")]), Err(Reason::InvalidHost));
    }
}
