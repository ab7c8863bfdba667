//! The oracle: routes as JSON, read here and nowhere else, and the sentences of the specification in their order.

use serde_json::Value;

/// The path patterns that are generated; the oracle knows by heart what they mean.
pub(crate) const PATTERNS: &[&str] = &["/a.*", "/a/[bc]", "/.+"];
/// The pattern of values that is generated.
pub(crate) const ONE_OR_TWO: &str = "1|2";

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// The rule that wins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Winner {
    pub(crate) route: String,
    pub(crate) rule: u32,
}

/// A match that the request satisfies.
#[derive(Clone, Debug)]
struct Candidate {
    route: String,
    created: String,
    rule: u32,
    path_type: String,
    path: String,
    has_method: bool,
    headers: usize,
    query: usize,
}

/// "Proxy or Load Balancer routing configuration generated from HTTPRoutes MUST prioritize matches based on the following criteria,
/// continuing on ties. Across all rules specified on applicable Routes, precedence must be given to the match having:"
pub(crate) fn winner(routes: &[Value], request: &Request) -> Option<Winner> {
    let mut left = candidates(routes, request);
    // "Exact" path match.
    keep(&mut left, |candidate| candidate.path_type == "Exact");
    // "The precedence of RegularExpression path matches are implementation-specific": between the two, the longest pattern first.
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
    // "If ties still exist across multiple Routes, matching precedence MUST be determined in order of the following criteria, continuing on
    // ties:" The oldest Route based on creation timestamp. (None is the epoch; the format sorts as the time does.)
    let oldest = left.iter().map(|candidate| candidate.created.clone()).min();
    keep(&mut left, |candidate| Some(&candidate.created) == oldest.as_ref());
    // The Route appearing first in alphabetical order by "{namespace}/{name}".
    let first = left.iter().map(|candidate| candidate.route.clone()).min();
    keep(&mut left, |candidate| Some(&candidate.route) == first.as_ref());
    // "If ties still exist within an HTTPRoute, matching precedence MUST be granted to the FIRST matching rule (in list order)".
    let rule = left.iter().map(|candidate| candidate.rule).min()?;
    left.into_iter().find(|candidate| candidate.rule == rule).map(|candidate| Winner { route: candidate.route, rule: candidate.rule })
}

/// Keeps those that fulfil a condition, if any does.
fn keep(left: &mut Vec<Candidate>, condition: impl Fn(&Candidate) -> bool) {
    if left.iter().any(&condition) {
        left.retain(condition);
    }
}

fn keep_most(left: &mut Vec<Candidate>, number: impl Fn(&Candidate) -> usize) {
    let most = left.iter().map(&number).max();
    keep(left, |candidate| Some(number(candidate)) == most);
}

fn candidates(routes: &[Value], request: &Request) -> Vec<Candidate> {
    let mut found = Vec::new();
    for route in routes {
        let metadata = &route["metadata"];
        for (index, rule) in (0..).zip(route["spec"]["rules"].as_array().into_iter().flatten()) {
            // "If no matches are specified, the default is a prefix path match on "/"".
            let everything = [serde_json::json!({})];
            let matches = rule["matches"].as_array().map_or(&everything[..], Vec::as_slice);
            for written in matches.iter().filter(|written| accepts(written, request)) {
                found.push(Candidate {
                    route: format!("{}/{}", metadata["namespace"].as_str().unwrap_or("default"), text(&metadata["name"])),
                    created: metadata["creationTimestamp"].as_str().unwrap_or("1970-01-01T00:00:00Z").to_owned(),
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// "If multiple entries specify equivalent ... names, only the first entry with an equivalent name MUST be considered for a match."
fn once(written: &Value, ignores_case: bool) -> Vec<&Value> {
    let mut seen = Vec::new();
    let mut kept = Vec::new();
    for entry in written.as_array().into_iter().flatten() {
        let name = text(&entry["name"]);
        let name = if ignores_case { name.to_lowercase() } else { name.to_owned() };
        if !seen.contains(&name) {
            seen.push(name);
            kept.push(entry);
        }
    }
    kept
}

/// All of its parts have to hold.
fn accepts(written: &Value, request: &Request) -> bool {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let parameters: Vec<(String, String)> = query.split('&').filter(|pair| !pair.is_empty()).map(parameter).collect();
    let has_method = written.get("method").is_none_or(|method| text(method) == request.method);
    let has_headers = once(&written["headers"], true).into_iter().all(|entry| {
        let lines = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(text(&entry["name"])));
        lines.into_iter().any(|(_, value)| has_value(entry, value))
    });
    let has_query = once(&written["queryParams"], false).into_iter().all(|entry| {
        let first = parameters.iter().find(|(name, _)| name == text(&entry["name"]));
        first.is_some_and(|(_, value)| has_value(entry, value))
    });
    has_path(&written["path"], path) && has_method && has_headers && has_query
}

fn parameter(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    // The one escape that is generated.
    (name.to_owned(), value.replace("%31", "1"))
}

fn has_value(entry: &Value, value: &str) -> bool {
    match text(&entry["value"]) {
        ONE_OR_TWO if entry["type"] == "RegularExpression" => value == "1" || value == "2",
        exact => value == exact,
    }
}

fn has_path(written: &Value, path: &str) -> bool {
    let value = written["value"].as_str().unwrap_or("/");
    match written["type"].as_str().unwrap_or("PathPrefix") {
        "Exact" => path == value,
        "RegularExpression" => match value {
            "/a.*" => path.starts_with("/a"),
            "/a/[bc]" => path == "/a/b" || path == "/a/c",
            _ => path.len() > 1,
        },
        // "Matching is ... done on a path element by element basis. ... A path element refers to the list of labels in the path split by the
        // `/` separator. When specified, a trailing `/` is ignored."
        _ => {
            let elements = |text: &str| text.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
            let wanted = elements(value.trim_end_matches('/'));
            elements(path).starts_with(&wanted)
        }
    }
}
