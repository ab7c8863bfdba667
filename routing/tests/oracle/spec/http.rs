//! Which rule of an HTTPRoute wins (H-1 to H-7; `HTTPRouteRule.matches`).

use serde_json::{Value, json};

use super::{Candidate, Request, Winner, first_by_age, has_header, has_value, items, keep, keep_most, once, text, valid};

/// A match that the request satisfies.
struct Satisfied<'v> {
    route: &'v Value,
    rule: u64,
    path_type: String,
    path: String,
    has_method: bool,
    headers: usize,
    query: usize,
}

impl Candidate for Satisfied<'_> {
    fn route(&self) -> &Value {
        self.route
    }

    fn rule(&self) -> u64 {
        self.rule
    }
}

/// "Proxy or Load Balancer routing configuration generated from HTTPRoutes MUST prioritize matches based on the following criteria,
/// continuing on ties. Across all rules specified on applicable Routes, precedence must be given to the match having:"
pub(super) fn winner(routes: &[&Value], request: &Request) -> Option<Winner> {
    let mut left = candidates(routes, request);
    // "Exact" path match.
    keep(&mut left, |candidate| candidate.path_type == "Exact");
    // "The precedence of RegularExpression path matches are implementation-specific": between the two, the longest pattern first (H-4).
    keep(&mut left, |candidate| candidate.path_type == "RegularExpression");
    keep_most(&mut left, |candidate| if candidate.path_type == "RegularExpression" { candidate.path.chars().count() } else { 0 });
    // "Prefix" path match with largest number of characters.
    keep_most(&mut left, |candidate| if candidate.path_type == "PathPrefix" { candidate.path.chars().count() } else { 0 });
    // Method match.
    keep(&mut left, |candidate| candidate.has_method);
    // Largest number of header matches.
    keep_most(&mut left, |candidate| candidate.headers);
    // Largest number of query param matches.
    keep_most(&mut left, |candidate| candidate.query);
    first_by_age(left)
}

fn candidates<'v>(routes: &[&'v Value], request: &Request) -> Vec<Satisfied<'v>> {
    let mut found = Vec::new();
    for route in routes {
        for (index, rule) in valid::rules(route) {
            // "If no matches are specified, the default is a prefix path match on "/"".
            let everything = [json!({})];
            let written: Vec<&Value> = items(&rule["matches"]).collect();
            let written = if written.is_empty() { everything.iter().collect() } else { written };
            for written in written.into_iter().filter(|written| accepts(written, request)) {
                found.push(Satisfied {
                    route,
                    rule: index,
                    path_type: written["path"]["type"].as_str().unwrap_or("PathPrefix").to_owned(),
                    path: written["path"]["value"].as_str().unwrap_or("/").to_owned(),
                    has_method: written.get("method").is_some(),
                    headers: once(&written["headers"], true).len(),
                    query: once(&written["queryParams"], false).len(),
                });
            }
        }
    }
    found
}

/// All of its parts have to hold.
fn accepts(written: &Value, request: &Request) -> bool {
    let has_method = written.get("method").is_none_or(|method| text(method) == request.method);
    let has_headers = once(&written["headers"], true).into_iter().all(|entry| has_header(entry, request));
    has_path(&written["path"], request.path()) && has_method && has_headers && has_query(written, request)
}

fn has_query(written: &Value, request: &Request) -> bool {
    let pairs = request.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let parameters: Vec<(String, String)> = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect();
    // "it is *recommended* ... [to] match against the first value of the param".
    once(&written["queryParams"], false).into_iter().all(|entry| {
        let first = parameters.iter().find(|(name, _)| name == text(&entry["name"]));
        first.is_some_and(|(_, value)| has_value(entry, value))
    })
}

/// "Decode percent-encoding and "+" before comparing" (H-6); nothing but ASCII is generated.
fn decoded(text: &str) -> String {
    let mut rest = text.replace('+', " ");
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('%') {
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push_str(before);
        let after = if let Some(byte) = byte {
            plain.push(char::from(byte));
            after.get(2..).unwrap_or_default().to_owned()
        } else {
            plain.push('%');
            after.to_owned()
        };
        rest = after;
    }
    plain + &rest
}

/// A request target that is no path is under prefix "/" alone (H-3).
fn has_path(written: &Value, path: &str) -> bool {
    let value = written["value"].as_str().unwrap_or("/");
    match written["type"].as_str().unwrap_or("PathPrefix") {
        "Exact" => path == value,
        "RegularExpression" => match value {
            "/a.*" => path.starts_with("/a"),
            "/a/[bc]" => path == "/a/b" || path == "/a/c",
            _ => path.starts_with('/') && path.len() > 1,
        },
        _ => is_under(value, path),
    }
}

/// "Matching is case-sensitive and done on a path element by element basis. ... A path element refers to the list of labels in the path split by
/// the `/` separator. When specified, a trailing `/` is ignored."
pub(super) fn is_under(prefix: &str, path: &str) -> bool {
    let wanted = super::path::elements(prefix.strip_suffix('/').unwrap_or(prefix));
    super::path::elements(path).starts_with(&wanted)
}
