//! What a CORS filter may answer (H-17, GEP-1767; `HTTPCORSFilter`): where the API leaves a choice, either is right.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{items, text};

/// Header fields by their names in lower case.
pub(crate) type Fields = BTreeMap<String, String>;

/// "preflight = OPTIONS + Origin + Access-Control-Request-Method".
pub(crate) fn is_preflight(method: &str, request: &Fields) -> bool {
    method == "OPTIONS" && request.contains_key("origin") && request.contains_key("access-control-request-method")
}

/// What is wrong with the answer to a preflight request.
pub(crate) fn preflight_complaint(cors: &Value, request: &Fields, answer: &Fields) -> Option<String> {
    if !allows_origin(cors, request) {
        return silence(answer);
    }
    let asked = |name: &str| request.get(name).map(String::as_str);
    let wants = [
        ("access-control-allow-methods", list(cors, "allowMethods", asked("access-control-request-method"))),
        ("access-control-allow-headers", list(cors, "allowHeaders", asked("access-control-request-headers"))),
        // "the gateway sets the response header "Access-Control-Max-Age: 5" by default".
        ("access-control-max-age", vec![Some(cors["maxAge"].as_i64().unwrap_or(5).to_string())]),
    ];
    let complaint = wants.into_iter().find_map(|(name, wanted)| {
        let got = answer.get(name).map(|value| folded(value));
        let is_right = wanted.iter().any(|wanted| wanted.as_ref().map(|value| folded(value)) == got);
        // "The CORS-safelisted methods are always allowed": saying so, where nothing else is to be said, is no mistake.
        let asked_method = asked("access-control-request-method").unwrap_or_default();
        let is_safelisted =
            name.ends_with("methods") && ["GET", "HEAD", "POST"].contains(&asked_method) && got == Some(folded(asked_method));
        let is_right = is_right || (is_safelisted && items(&cors["allowMethods"]).next().is_none());
        (!is_right).then(|| format!("{name}: {got:?} and not one of {wanted:?}"))
    });
    complaint.or_else(|| origin_complaint(cors, request, answer))
}

/// What is wrong with what an answer to an actual request gets.
pub(crate) fn actual_complaint(cors: &Value, request: &Fields, answer: &Fields) -> Option<String> {
    let has_credentials = request.contains_key("cookie") || request.contains_key("authorization");
    // "Credentialed request + allowCredentials=false -> no CORS headers (GEP matrix)."
    if !allows_origin(cors, request) || (has_credentials && !is_credentialed(cors)) {
        return silence(answer);
    }
    // With credentials "the gateway cannot use the `*`", and there is nothing to echo.
    let wanted = match items(&cors["exposeHeaders"]).map(text).collect::<Vec<_>>().as_slice() {
        [] => vec![None],
        ["*"] if is_credentialed(cors) => vec![None],
        ["*"] => vec![None, Some("*".to_owned())],
        names => vec![Some(names.join(","))],
    };
    let got = answer.get("access-control-expose-headers").map(|value| folded(value));
    if !wanted.iter().any(|wanted| wanted.as_ref().map(|value| folded(value)) == got) {
        return Some(format!("access-control-expose-headers: {got:?} and not one of {wanted:?}"));
    }
    origin_complaint(cors, request, answer)
}

/// "204/200 response but doesn't set the relevant cross-origin response headers".
fn silence(answer: &Fields) -> Option<String> {
    answer.keys().find(|name| name.starts_with("access-control-")).map(|name| format!("{name} is said though nothing is allowed"))
}

fn is_credentialed(cors: &Value) -> bool {
    cors["allowCredentials"] == true
}

/// What may be said of methods or headers: the list; of `*` without credentials itself or what was asked for; with credentials what was asked for.
fn list(cors: &Value, field: &str, asked: Option<&str>) -> Vec<Option<String>> {
    let asked = asked.map(str::to_owned);
    match items(&cors[field]).map(text).collect::<Vec<_>>().as_slice() {
        [] => vec![None],
        ["*"] if is_credentialed(cors) => vec![asked],
        ["*"] => vec![Some("*".to_owned()), asked],
        names => vec![Some(names.join(","))],
    }
}

/// In any order and case, whatever the blanks.
fn folded(list: &str) -> Vec<String> {
    let mut names: Vec<String> = list.split(',').map(|name| name.trim().to_lowercase()).collect();
    names.sort();
    names
}

fn origin_complaint(cors: &Value, request: &Fields, answer: &Fields) -> Option<String> {
    let origin = request.get("origin").cloned().unwrap_or_default();
    let is_any = items(&cors["allowOrigins"]).any(|allowed| allowed == "*");
    let said = answer.get("access-control-allow-origin").cloned().unwrap_or_default();
    let is_right = said == origin || (is_any && !is_credentialed(cors) && said == "*");
    let credentials = answer.get("access-control-allow-credentials").map(String::as_str);
    let wanted = is_credentialed(cors).then_some("true");
    if !is_right {
        return Some(format!("access-control-allow-origin: {said:?} for {origin:?}"));
    }
    (credentials != wanted).then(|| format!("access-control-allow-credentials: {credentials:?} and not {wanted:?}"))
}

fn allows_origin(cors: &Value, request: &Fields) -> bool {
    let Some(origin) = request.get("origin") else { return false };
    items(&cors["allowOrigins"]).map(text).any(|allowed| allowed == "*" || is_allowed(allowed, origin))
}

/// "The `Origin` consists of a scheme and a host, with an optional port ... if not included, port `80` is assumed for `http` scheme origins, and
/// port `443` is assumed for `https` origins. ... `*` is a greedy match to the _left_, including any number of DNS labels".
fn is_allowed(allowed: &str, origin: &str) -> bool {
    let (Some((scheme, host, port)), Some((their_scheme, their_host, their_port))) = (parts(allowed), parts(origin)) else { return false };
    let is_host = match host.strip_prefix('*') {
        Some(rest) => their_host.ends_with(rest) && their_host != rest,
        None => host == their_host,
    };
    scheme == their_scheme && is_host && port == their_port
}

fn parts(origin: &str) -> Option<(String, String, u32)> {
    let (scheme, rest) = origin.split_once("://")?;
    let implied = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = rest.split_once(':').map_or((rest, Some(implied)), |(host, port)| (host, port.parse().ok()));
    Some((scheme.to_owned(), host.to_lowercase(), port?))
}
