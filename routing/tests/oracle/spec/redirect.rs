//! The Location of a redirect (H-13, D-14; `HTTPRequestRedirectFilter`).

use serde_json::Value;

use super::{Request, path};

/// Status and Location for a plaintext request that was sent to a port.
pub(crate) fn answer(redirect: &Value, written_match: &Value, request: &Request, port: u16) -> (i64, String) {
    // "When empty, the scheme of the request is used."
    let scheme = redirect["scheme"].as_str().unwrap_or("http");
    // "When empty, the hostname in the `Host` header of the request is used."
    let host = redirect["hostname"].as_str().map_or_else(|| host(&request.authority), str::to_owned);
    // "If no port is specified, the redirect port MUST be derived using the following rules: If redirect scheme is not-empty, the redirect port MUST
    // be the well-known port associated with the redirect scheme ... If redirect scheme is empty, the redirect port MUST be the Gateway Listener
    // port": here the port that was dialled (D-14).
    let port = match (redirect["port"].as_i64(), redirect["scheme"].as_str()) {
        (Some(port), _) => port,
        (None, Some("http")) => 80,
        (None, Some(_)) => 443,
        (None, None) => port.into(),
    };
    // "Implementations SHOULD NOT add the port number in the 'Location' header in the following cases: HTTP ... and port 80, HTTPS ... and port 443".
    let port = if (scheme, port) == ("http", 80) || (scheme, port) == ("https", 443) { String::new() } else { format!(":{port}") };
    // "When empty, the request path is used as-is."
    let path = if redirect["path"].is_null() {
        request.path().to_owned()
    } else {
        path::modified(&redirect["path"], written_match, request.path())
    };
    // An absolute URI has a path or none, and none is not the `*` of OPTIONS.
    let path = if path.starts_with('/') { path } else { "/".to_owned() };
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    (redirect["statusCode"].as_i64().unwrap_or(302), format!("{scheme}://{host}{port}{path}{query}"))
}

/// The authority without its port.
fn host(authority: &str) -> String {
    match authority.find(']') {
        Some(end) => authority[..=end].to_owned(),
        None => authority.split(':').next().unwrap_or_default().to_owned(),
    }
}
