//! The server name of a TLS client, read from the first bytes of its connection and from nothing else (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! Written by hand because what is looked at is passed on as it is: a library that also judges versions, ciphers and signatures would refuse
//! what the backend may accept.

/// Records that a ClientHello may be spread over, and its length; a server would refuse more.
const HELLO_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a record (RFC 8446 section 5.1), and some for its header.
const RECORD_BYTES_MAX: usize = 16 * 1024;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerName {
    /// It is not clear yet; more bytes are needed.
    Unclear,
    /// A ClientHello for this name; none: it names none.
    Hello(Option<String>),
    /// No TLS, or none that can be read.
    Other,
}

/// Looks at the first bytes of a connection.
#[must_use]
pub fn server_name(bytes: &[u8]) -> ServerName {
    match hello(bytes) {
        Ok(hello) => parse(&hello).map_or(ServerName::Other, ServerName::Hello),
        Err(Stop::Unclear) => ServerName::Unclear,
        Err(Stop::Other) => ServerName::Other,
    }
}

enum Stop {
    Unclear,
    Other,
}

/// The body of the ClientHello, put together from its records.
fn hello(mut bytes: &[u8]) -> Result<Vec<u8>, Stop> {
    let mut message = Vec::new();
    loop {
        match *bytes {
            [HANDSHAKE, 3, _, high, low, ref rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length == 0 || length > RECORD_BYTES_MAX {
                    return Err(Stop::Other);
                }
                let (record, after) = rest.split_at(length.min(rest.len()));
                message.extend_from_slice(record);
                if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
                    return Err(Stop::Other);
                }
                if let [_, a, b, c, body @ ..] = message.as_slice() {
                    let wanted = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap_or(usize::MAX);
                    if wanted > HELLO_BYTES_MAX {
                        return Err(Stop::Other);
                    }
                    if body.len() >= wanted {
                        return Ok(body[..wanted].to_vec());
                    }
                }
                if record.len() < length {
                    return Err(Stop::Unclear);
                }
                bytes = after;
            }
            [] | [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, _] | [HANDSHAKE, 3, _, _] => return Err(Stop::Unclear),
            _ => return Err(Stop::Other),
        }
    }
}

/// Takes a vector with a length of so many bytes in front.
fn take<'b>(bytes: &mut &'b [u8], length_bytes: usize) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_at_checked(length_bytes)?;
    let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    let (taken, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// None: it cannot be read.
fn parse(hello: &[u8]) -> Option<Option<String>> {
    // Version and random.
    let mut rest = hello.get(2 + 32..)?;
    let _session = take(&mut rest, 1)?;
    let _ciphers = take(&mut rest, 2)?;
    let _compressions = take(&mut rest, 1)?;
    if rest.is_empty() {
        return Some(None);
    }
    let mut extensions = take(&mut rest, 2)?;
    while !extensions.is_empty() {
        let (kind, after) = extensions.split_first_chunk::<2>()?;
        extensions = after;
        let mut body = take(&mut extensions, 2)?;
        if u16::from_be_bytes(*kind) == SERVER_NAME {
            let mut names = take(&mut body, 2)?;
            while !names.is_empty() {
                let (kind, after) = names.split_first()?;
                names = after;
                let name = take(&mut names, 2)?;
                if *kind == HOST_NAME {
                    let text = std::str::from_utf8(name).ok().filter(|text| text.is_ascii() && !text.is_empty())?;
                    return Some(Some(text.to_ascii_lowercase()));
                }
            }
            return None;
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName as Name;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// A ClientHello as a real client sends it.
    fn real(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = Name::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).expect("written");
        bytes
    }

    #[test]
    fn a_real_client_s_name_is_read_from_its_whole_hello_and_not_before() {
        let bytes = real("a.Shop.example.com");
        for length in 0..bytes.len() {
            assert_eq!(server_name(&bytes[..length]), ServerName::Unclear, "{length} of {}", bytes.len());
        }
        assert_eq!(server_name(&bytes), ServerName::Hello(Some("a.shop.example.com".to_owned())));
        assert_eq!(server_name(&real("10.0.0.1")), ServerName::Hello(None), "an address is not named");
    }

    #[test]
    fn a_hello_in_many_records_is_put_together() {
        let bytes = real("b.example.com");
        let body = &bytes[5..];
        let mut many = Vec::new();
        for part in body.chunks(7) {
            many.extend_from_slice(&[HANDSHAKE, 3, 1, 0, u8::try_from(part.len()).expect("short")]);
            many.extend_from_slice(part);
        }
        assert_eq!(server_name(&many), ServerName::Hello(Some("b.example.com".to_owned())));
    }

    #[test]
    fn what_is_no_hello_is_known_at_once() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0", &[22, 2], &[22, 3, 1, 0, 0], &[22, 3, 1, 0, 4, 2], &[22, 3, 1, 0, 4, 1, 255, 255, 255]]
        {
            assert_eq!(server_name(bytes), ServerName::Other, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..300_usize, byte in any::<u8>()) {
            // Either verdict may be right for such bytes; that there is one, without a panic, is the check.
            let _ = server_name(&bytes);
            let mut damaged = real("c.example.com");
            let at = at % damaged.len();
            damaged[at] = byte;
            // As above.
            let _ = server_name(&damaged);
        }
    }
}
