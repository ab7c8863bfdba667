//! URLs of a command line, where a scheme may be left out.

use std::num::NonZeroU16;

use anyhow::{Context as _, bail, ensure};
use http::Uri;
use http::uri::Authority;

/// The URL, of `http` if it names no scheme, its authority, and the port, which is that of the scheme if none is written.
///
/// # Errors
/// It is none, has no host, a port that is none, or a scheme that is neither `http` nor `https`.
pub(crate) fn parse(text: &str) -> anyhow::Result<(Uri, Authority, NonZeroU16)> {
    // A scheme comes before everything else: `store/?next=http://cart` has none (RFC 3986, 3.1).
    let has_scheme = text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?', '#']));
    let url = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    let default = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => bail!("{url}: neither http nor https"),
    };
    let authority = uri.authority().with_context(|| format!("{url}: no host"))?.clone();
    ensure!(!authority.host().is_empty(), "{url}: no host");
    let without_user = authority.as_str().rsplit('@').next().unwrap_or_default();
    let port = match without_user.strip_prefix(authority.host()) {
        Some("" | ":") => Some(default),
        _ => authority.port_u16(),
    };
    let port = port.and_then(NonZeroU16::new).with_context(|| format!("{url}: the port is not one of 1 to 65535"))?;
    Ok((uri, authority, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_left_out() {
        for (text, expected, expected_port) in [
            ("store", "http://store/", 80),
            ("store:8080/cart?x=1", "http://store:8080/cart?x=1", 8080),
            ("user@store:/", "http://user@store:/", 80),
            ("[fd00::1]", "http://[fd00::1]/", 80),
            ("[fd00::1]:81", "http://[fd00::1]:81/", 81),
            ("https://store/", "https://store/", 443),
            ("store/?next=http://cart", "http://store/?next=http://cart", 80),
            ("store?next=http://cart", "http://store/?next=http://cart", 80),
            ("http://store/?next=http://cart", "http://store/?next=http://cart", 80),
        ] {
            let (url, _, port) = parse(text).expect(text);
            assert_eq!((url.to_string().as_str(), port.get()), (expected, expected_port), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_named() {
        for (text, why) in [
            ("a b", r#""http://a b" is no URL"#),
            ("", r#""http://" is no URL"#),
            ("ftp://x", "ftp://x: neither http nor https"),
            ("x:99999", "http://x:99999: the port is not one of 1 to 65535"),
            ("6:65536", "http://6:65536: the port is not one of 1 to 65535"),
            ("x:0", "http://x:0: the port is not one of 1 to 65535"),
            (":80", "http://:80: no host"),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), why);
        }
    }
}
