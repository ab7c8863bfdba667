//! URLs of a command line, where a scheme may be left out.

use anyhow::{Context as _, ensure};
use http::Uri;
use http::uri::Authority;

/// The URL, of `http` if it names no scheme, and its host and port.
///
/// # Errors
/// It is none, has no host, or a scheme that is neither `http` nor `https`.
pub(crate) fn parse(text: &str) -> anyhow::Result<(Uri, Authority)> {
    // A scheme comes before everything else: `store/?next=http://cart` has none (RFC 3986, 3.1).
    let has_scheme = text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?', '#']));
    let url = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    ensure!(matches!(uri.scheme_str(), Some("http" | "https")), "{url}: neither http nor https");
    let authority = uri.authority().with_context(|| format!("{url}: no host"))?.clone();
    Ok((uri, authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_left_out() {
        for (text, url) in [
            ("store", "http://store/"),
            ("store:8080/cart?x=1", "http://store:8080/cart?x=1"),
            ("https://store/", "https://store/"),
            ("store/?next=http://cart", "http://store/?next=http://cart"),
            ("store?next=http://cart", "http://store/?next=http://cart"),
            ("http://store/?next=http://cart", "http://store/?next=http://cart"),
        ] {
            assert_eq!(parse(text).expect(text).0, url, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_named() {
        for (text, why) in
            [("a b", r#""http://a b" is no URL"#), ("", r#""http://" is no URL"#), ("ftp://x", "ftp://x: neither http nor https")]
        {
            assert_eq!(parse(text).expect_err(text).to_string(), why);
        }
    }
}
