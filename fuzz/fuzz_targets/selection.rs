//! The rule that a request selects is the one that a reading of the specification, match by match, comes to.
//!
//! The reading looks at every match, keeps those that accept the request, and then goes down the published list (HTTPRouteRule.matches,
//! GRPCRouteRule.matches); it shares no code with the table.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use routing::matcher::RequestHead;
use routing::model::{
    Frontend, FrontendId, HeaderMatch, PathMatch, Pattern, QueryMatch, Route, RouteKind, RouteMatch, RpcMatch, Rule, Timeouts, ValueMatch,
};
use routing::table::{Position, RouteTable};

/// Small, so that matches meet requests and ties are frequent.
const SEGMENTS: [&str; 5] = ["a", "b", "ab", "", "é"];
const VALUES: [&str; 5] = ["1", "2", "12", "", "é"];
const NAMES: [&str; 3] = ["x-one", "x-two", "host"];
const PARAMETERS: [&str; 3] = ["q", "r", "Q"];
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::PUT];

#[derive(Arbitrary, Debug)]
struct Input {
    is_grpc: bool,
    routes: Vec<RouteInput>,
    requests: Vec<RequestInput>,
}

#[derive(Arbitrary, Debug)]
struct RouteInput {
    namespace: u8,
    created: u8,
    rules: Vec<Vec<MatchInput>>,
}

#[derive(Arbitrary, Debug)]
struct MatchInput {
    path: PathInput,
    method: Option<u8>,
    headers: Vec<(u8, ValueInput)>,
    query: Vec<(u8, ValueInput)>,
    rpc: (Option<ValueInput>, Option<ValueInput>),
}

#[derive(Arbitrary, Debug)]
enum PathInput {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Regex(u8),
}

/// A pattern among these means what [`ValueInput::accepts`] says.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum ValueInput {
    Exact(u8),
    /// `1|2`.
    OneOrTwo,
    /// `1.*`.
    BeginsWithOne,
}

#[derive(Arbitrary, Debug)]
struct RequestInput {
    path: Vec<u8>,
    has_path: bool,
    query: Vec<(u8, u8)>,
    method: u8,
    authority: Option<u8>,
    headers: Vec<(bool, u8)>,
}

fn of<T: Copy>(list: &[T], index: u8) -> T {
    list[usize::from(index) % list.len()]
}

fn path(segments: &[u8]) -> String {
    segments.iter().map(|segment| of(&SEGMENTS, *segment)).fold(String::from("/"), |mut path, segment| {
        if path.len() > 1 || segment.is_empty() {
            path.push('/');
        }
        path + segment
    })
}

impl ValueInput {
    fn model(self) -> ValueMatch {
        match self {
            Self::Exact(index) => ValueMatch::Exact(of(&VALUES, index).to_owned()),
            Self::OneOrTwo => ValueMatch::Regex(compiled("1|2")),
            Self::BeginsWithOne => ValueMatch::Regex(compiled("1.*")),
        }
    }

    fn accepts(self, text: &str) -> bool {
        match self {
            Self::Exact(index) => text == of(&VALUES, index),
            Self::OneOrTwo => text == "1" || text == "2",
            Self::BeginsWithOne => text.starts_with('1'),
        }
    }

    fn characters(self) -> usize {
        match self {
            Self::Exact(index) => of(&VALUES, index).chars().count(),
            Self::OneOrTwo | Self::BeginsWithOne => 3,
        }
    }
}

/// The first of each name counts, as the parser of routes has it.
fn first_of_each(entries: &[(u8, ValueInput)], names: &[&'static str]) -> Vec<(&'static str, ValueInput)> {
    let mut kept: Vec<(&str, ValueInput)> = Vec::new();
    for (name, value) in entries {
        let name = of(names, *name);
        if !kept.iter().any(|(earlier, _)| *earlier == name) {
            kept.push((name, *value));
        }
    }
    kept
}

/// Compiled once: that takes longer than everything else here.
fn compiled(source: &'static str) -> Pattern {
    static PATTERNS: Mutex<BTreeMap<&str, Pattern>> = Mutex::new(BTreeMap::new());
    let mut patterns = PATTERNS.lock().expect("nobody panics with it");
    patterns.entry(source).or_insert_with(|| Pattern::new(source).expect("a pattern")).clone()
}

/// The patterns of paths and what they mean.
fn path_pattern(index: u8) -> (&'static str, fn(&str) -> bool) {
    let patterns: [(&str, fn(&str) -> bool); 3] =
        [("/a.*", |path| path.starts_with("/a")), ("/a|/b", |path| path == "/a" || path == "/b"), ("/.+", |path| path.len() > 1)];
    of(&patterns, index)
}

impl MatchInput {
    fn model(&self, is_grpc: bool) -> RouteMatch {
        let path = match &self.path {
            _ if is_grpc => {
                PathMatch::Rpc(RpcMatch { service: self.rpc.0.map(ValueInput::model), method: self.rpc.1.map(ValueInput::model) })
            }
            PathInput::Exact(segments) => PathMatch::Exact(path(segments)),
            PathInput::Prefix(segments) => PathMatch::Prefix(path(segments)),
            PathInput::Regex(index) => PathMatch::Regex(compiled(path_pattern(*index).0)),
        };
        let headers = first_of_each(&self.headers, &NAMES);
        let headers = headers.into_iter().map(|(name, value)| HeaderMatch { name: HeaderName::from_static(name), value: value.model() });
        let query = first_of_each(if is_grpc { &[] } else { &self.query }, &PARAMETERS);
        RouteMatch {
            path,
            method: self.method.filter(|_| !is_grpc).map(|index| METHODS[usize::from(index) % METHODS.len()].clone()),
            headers: headers.collect(),
            query: query.into_iter().map(|(name, value)| QueryMatch { name: name.to_owned(), value: value.model() }).collect(),
        }
    }

    fn accepts(&self, request: &Request, is_grpc: bool) -> bool {
        let has_path = match &self.path {
            _ if is_grpc => self.accepts_call(&request.path),
            PathInput::Exact(segments) => request.path == path(segments),
            PathInput::Prefix(segments) => accepts_prefix(&path(segments), &request.path),
            PathInput::Regex(index) => request.path.starts_with('/') && path_pattern(*index).1(&request.path),
        };
        let has_headers = first_of_each(&self.headers, &NAMES).into_iter().all(|(name, value)| {
            if name == "host" {
                return request.authority.is_some_and(|authority| value.accepts(authority));
            }
            let lines: Vec<&str> = request.headers.iter().filter(|(found, _)| *found == name).map(|(_, value)| *value).collect();
            lines.iter().any(|line| value.accepts(line)) || (!lines.is_empty() && value.accepts(&lines.join(", ")))
        });
        let has_method = self.method.is_none_or(|index| METHODS[usize::from(index) % METHODS.len()] == request.method);
        let has_query = first_of_each(&self.query, &PARAMETERS).into_iter().all(|(name, value)| {
            let first = request.query.iter().find(|(found, _)| *found == name);
            first.is_some_and(|(_, found)| value.accepts(found))
        });
        has_path && has_headers && (is_grpc || (has_method && has_query))
    }

    /// "/SERVICE/METHOD"; a service's name has no slash, a call without one is under no condition.
    fn accepts_call(&self, path: &str) -> bool {
        let segments: Vec<&str> = path.split('/').collect();
        let holds = |wanted: Option<ValueInput>, text: &str| wanted.is_none_or(|wanted| wanted.accepts(text));
        match segments.as_slice() {
            ["", between @ .., method] if !between.is_empty() => holds(self.rpc.0, &between.join("/")) && holds(self.rpc.1, method),
            _ => self.rpc.0.is_none() && self.rpc.1.is_none(),
        }
    }
}

/// "Matching is ... done on a path element by element basis ... When specified, a trailing `/` is ignored."
fn accepts_prefix(prefix: &str, path: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    let mut wanted: Vec<&str> = prefix.split('/').collect();
    if wanted.last() == Some(&"") {
        wanted.pop();
    }
    path.split('/').collect::<Vec<_>>().starts_with(&wanted)
}

struct Request {
    path: String,
    query: Vec<(&'static str, &'static str)>,
    method: Method,
    authority: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
}

impl Request {
    fn new(input: &RequestInput) -> Self {
        Self {
            path: if input.has_path { path(&input.path) } else { "*".to_owned() },
            query: input.query.iter().map(|(name, value)| (of(&PARAMETERS, *name), of(&VALUES, *value))).collect(),
            method: METHODS[usize::from(input.method) % METHODS.len()].clone(),
            authority: input.authority.map(|index| of(&VALUES, index)),
            headers: input.headers.iter().map(|(first, value)| (NAMES[usize::from(!*first)], of(&VALUES, *value))).collect(),
        }
    }
}

/// The published list; of what is left the first wins.
fn wins(input: &Input, request: &Request) -> Option<Position> {
    let mut left: Vec<(Position, &RouteInput, &MatchInput)> = Vec::new();
    for (route, of_route) in input.routes.iter().enumerate() {
        for (rule, matches) in of_route.rules.iter().enumerate() {
            for (matched, of_match) in matches.iter().enumerate().filter(|(_, found)| found.accepts(request, input.is_grpc)) {
                left.push((Position { route, rule, matched }, of_route, of_match));
            }
        }
    }
    let mut keep_most = |number: &dyn Fn(&(Position, &RouteInput, &MatchInput)) -> i64| {
        let most = left.iter().map(number).max();
        left.retain(|candidate| Some(number(candidate)) == most);
    };
    let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    if input.is_grpc {
        // "Characters in a matching service. Characters in a matching method. Header matches."
        keep_most(&|(_, _, found)| size(found.rpc.0.map_or(0, ValueInput::characters)));
        keep_most(&|(_, _, found)| size(found.rpc.1.map_or(0, ValueInput::characters)));
        keep_most(&|(_, _, found)| size(first_of_each(&found.headers, &NAMES).len()));
    } else {
        // "Exact path match"; then, which is left to the implementation, patterns; "prefix path match with largest number of characters".
        keep_most(&|(_, _, found)| match &found.path {
            PathInput::Exact(_) => 2,
            PathInput::Regex(_) => 1,
            PathInput::Prefix(_) => 0,
        });
        keep_most(&|(_, _, found)| match &found.path {
            PathInput::Exact(_) => 0,
            PathInput::Regex(index) => size(path_pattern(*index).0.len()),
            PathInput::Prefix(segments) => size(path(segments).chars().count()),
        });
        // "Method match. Largest number of header matches. Largest number of query param matches."
        keep_most(&|(_, _, found)| i64::from(found.method.is_some()));
        keep_most(&|(_, _, found)| size(first_of_each(&found.headers, &NAMES).len()));
        keep_most(&|(_, _, found)| size(first_of_each(&found.query, &PARAMETERS).len()));
    }
    // "The oldest Route based on creation timestamp. The Route appearing first in alphabetical order by {namespace}/{name}."
    keep_most(&|(_, route, _)| -i64::from(route.created));
    let first = left.iter().map(|(position, route, _)| full_name(position.route, route)).min();
    left.retain(|(position, route, _)| Some(full_name(position.route, route)) == first);
    // "The FIRST matching rule (in list order)."
    left.into_iter().map(|(position, ..)| position).min_by_key(|position| (position.rule, position.matched))
}

/// No two routes of a kind have one name.
fn full_name(index: usize, route: &RouteInput) -> String {
    format!("{}/{}", ["shop", "shop-b", "a"][usize::from(route.namespace) % 3], name(index))
}

fn name(index: usize) -> String {
    format!("r{index}")
}

fuzz_target!(|input: Input| {
    let routes = input.routes.iter().enumerate().map(|(index, route)| Route {
        namespace: full_name(index, route).split_once('/').expect("a slash").0.to_owned(),
        name: name(index),
        created_s: route.created.into(),
        generation: 1,
        hostnames: Vec::new(),
        rules: (0..).zip(&route.rules).map(|(index, matches)| rule(index, matches, input.is_grpc)).collect(),
    });
    let id = FrontendId("ServiceImport/shop/store/80".parse().expect("a name"));
    let kind = if input.is_grpc { RouteKind::Grpc } else { RouteKind::Http };
    let table = RouteTable::compile(Arc::new(Frontend { id, kind, routes: routes.collect() }));
    for request in input.requests.iter().map(Request::new) {
        let query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = query.join("&");
        let headers: HeaderMap = request
            .headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")))
            .collect();
        let head = RequestHead {
            method: &request.method,
            path: &request.path,
            query: (!query.is_empty()).then_some(&query),
            authority: request.authority,
            headers: &headers,
        };
        assert_eq!(table.select(&head).map(|selection| selection.position), wins(&input, &request), "{head:?}");
    }
});

fn rule(index: u32, matches: &[MatchInput], is_grpc: bool) -> Rule {
    Rule {
        index,
        name: None,
        matches: matches.iter().map(|found| found.model(is_grpc)).collect(),
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        persistence: None,
    }
}
