//! The oracle: Kubernetes objects as JSON, read here and nowhere else, and the sentences of the specification in their order.
//!
//! Slow and literal on purpose; it shares no code with the crate. Quoted sentences are the API's own, letters with numbers (M-20, D-5) are rules of
//! `docs/semantics.md`.

pub(crate) mod attach;
pub(crate) mod cors;
pub(crate) mod duration;
mod grpc;
pub(crate) mod headers;
mod http;
pub(crate) mod path;
pub(crate) mod redirect;
mod server_name;
pub(crate) mod status;
pub(crate) mod valid;
pub(crate) mod weight;

use serde_json::Value;

/// The regular expressions that are generated; the oracle knows by heart what they mean.
pub(crate) const PATH_PATTERNS: &[&str] = &["/a.*", "/a/[bc]", "/.+"];
/// Of values of headers and parameters.
pub(crate) const ONE_OR_TWO: &str = "1|2";
/// Of services and methods.
pub(crate) const CART_ANY: &str = "shop[.]Cart.*";
/// Of services and methods.
pub(crate) const GET_OR_LIST: &str = "Get|List";
/// No regular expression at all.
pub(crate) const BROKEN: &str = "(";

/// What a client sends.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, or `*`.
    pub(crate) target: String,
    /// Host, or `:authority`.
    pub(crate) authority: String,
    pub(crate) headers: Vec<(String, String)>,
    /// In the client hello, where the connection is TLS.
    pub(crate) server_name: String,
}

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

/// Where it is sent: a port of an object's virtual IP, from a pod in a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Dialled {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: i64,
    pub(crate) client: String,
}

/// The rule that wins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Winner {
    pub(crate) kind: String,
    /// `{namespace}/{name}`.
    pub(crate) route: String,
    pub(crate) rule: u64,
}

/// What becomes of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// "proceed per the mesh's default behavior ... as if the mesh were not present" (M-8).
    Untouched,
    /// "a HTTP 404 status code MUST be returned" (M-9), UNIMPLEMENTED (G-3), or the connection is refused (D-20).
    NoMatch,
    Rule(Winner),
}

/// "replacing that implicit logic - not adding to it" (M-8): if a route is in force, one of its rules decides, or nothing does.
pub(crate) fn answer(objects: &[Value], dialled: &Dialled, request: &Request) -> Answer {
    let routes = attach::in_force(objects, dialled);
    let Some(first) = routes.first() else { return Answer::Untouched };
    let winner = match text(&first["kind"]) {
        "GRPCRoute" => grpc::winner(&routes, request),
        "HTTPRoute" => http::winner(&routes, request),
        "TLSRoute" => server_name::winner(&routes, request),
        // "oldest wins" (L-2).
        _ => oldest(&routes).map(|route| winner_of(route, 0)),
    };
    winner.map_or(Answer::NoMatch, Answer::Rule)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or("default")
}

/// `{namespace}/{name}`.
pub(crate) fn full_name(object: &Value) -> String {
    format!("{}/{}", namespace(object), text(&object["metadata"]["name"]))
}

/// None is the epoch; the format sorts as the time does.
fn created(route: &Value) -> String {
    route["metadata"]["creationTimestamp"].as_str().unwrap_or("1970-01-01T00:00:00Z").to_owned()
}

fn winner_of(route: &Value, rule: u64) -> Winner {
    Winner { kind: text(&route["kind"]).to_owned(), route: full_name(route), rule }
}

/// "The oldest Route based on creation timestamp. The Route appearing first in alphabetical order by "{namespace}/{name}"."
fn oldest<'v>(routes: &[&'v Value]) -> Option<&'v Value> {
    let mut left = routes.to_vec();
    left.sort_by_key(|route| (created(route), full_name(route)));
    left.first().copied()
}

/// Keeps those that fulfil a condition, if any does.
fn keep<T>(left: &mut Vec<T>, condition: impl Fn(&T) -> bool) {
    if left.iter().any(&condition) {
        left.retain(condition);
    }
}

fn keep_most<T>(left: &mut Vec<T>, number: impl Fn(&T) -> usize) {
    let most = left.iter().map(&number).max();
    keep(left, |candidate| Some(number(candidate)) == most);
}

/// A match that a request satisfies, with the route it stands in.
trait Candidate {
    fn route(&self) -> &Value;
    fn rule(&self) -> u64;
}

/// "If ties still exist across multiple Routes, matching precedence MUST be determined in order of the following criteria, continuing on ties:
/// the oldest Route ..., the Route appearing first in alphabetical order ... If ties still exist within an HTTPRoute, matching precedence MUST be
/// granted to the FIRST matching rule (in list order)".
fn first_by_age<T: Candidate>(mut left: Vec<T>) -> Option<Winner> {
    let oldest = left.iter().map(|candidate| created(candidate.route())).min()?;
    keep(&mut left, |candidate| created(candidate.route()) == oldest);
    let first = left.iter().map(|candidate| full_name(candidate.route())).min()?;
    keep(&mut left, |candidate| full_name(candidate.route()) == first);
    left.iter().min_by_key(|candidate| candidate.rule()).map(|candidate| winner_of(candidate.route(), candidate.rule()))
}

/// "If multiple entries specify equivalent ... names, only the first entry with an equivalent name MUST be considered for a match."
fn once(written: &Value, ignores_case: bool) -> Vec<&Value> {
    let mut seen = Vec::new();
    let mut kept = Vec::new();
    for entry in items(written) {
        let name = text(&entry["name"]);
        let name = if ignores_case { name.to_lowercase() } else { name.to_owned() };
        if !seen.contains(&name) {
            seen.push(name);
            kept.push(entry);
        }
    }
    kept
}

/// A header match named Host must work (M-22); of several lines any one counts, or all of them joined (H-5).
fn has_header(entry: &Value, request: &Request) -> bool {
    let name = text(&entry["name"]);
    if name.eq_ignore_ascii_case("host") {
        return has_value(entry, &request.authority);
    }
    let lines: Vec<&str> =
        request.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect();
    !lines.is_empty() && (lines.iter().any(|line| has_value(entry, line)) || has_value(entry, &lines.join(", ")))
}

fn has_value(entry: &Value, value: &str) -> bool {
    match text(&entry["value"]) {
        ONE_OR_TWO if entry["type"] == "RegularExpression" => value == "1" || value == "2",
        exact => value == exact,
    }
}
