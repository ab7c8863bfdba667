//! Which rule wins, against an oracle: the specification's own sentences (`HTTPRouteRule.matches`), applied one after the other to the routes as
//! they are written. The oracle has its own reading of the objects and shares no code with the crate.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod spec;

use std::cmp::Reverse;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use routing::api::Object;
use routing::matcher::RequestHead;
use routing::model::{Frontend, FrontendId, PathMatch, Route, RouteMatch, Rule};
use routing::table::RouteTable;
use routing::world::{Settings, World};
use serde_json::{Value, json};
use spec::{Request, Winner};

const CASES: u32 = 3000;

fn import() -> Value {
    json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport", "metadata": {"name": "store", "namespace": "shop"},
        "spec": {"type": "ClusterSetIP", "ips": ["10.201.0.1"], "ports": [{"port": 80}]},
    })
}

fn objects(routes: &[Value]) -> Vec<Object> {
    let all = routes.iter().cloned().chain([import()]);
    all.map(|value| Object::decode(&value).expect("decodes").expect("a kind that is read")).collect()
}

/// What the crate makes of routes for a client in the parent's own namespace.
fn frontend(objects: impl IntoIterator<Item = Object>) -> Option<Frontend> {
    let mut world = World::new(Settings { cluster: "west".to_owned(), ..Settings::default() });
    for object in objects {
        world.apply(object);
    }
    let id = FrontendId("ServiceImport/shop/store/80".parse().expect("a name"));
    world.frontend(&id, "shop")
}

fn with_head<T>(request: &Request, ask: impl FnOnce(&RequestHead<'_>) -> T) -> T {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        headers.append(name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"));
    }
    let method: Method = request.method.parse().expect("a method");
    let (path, query) = request.target.split_once('?').map_or((request.target.as_str(), None), |(path, query)| (path, Some(query)));
    ask(&RequestHead { method: &method, path, query, authority: Some("store"), headers: &headers })
}

fn select(frontend: Option<Frontend>, request: &Request) -> Option<Winner> {
    let table = RouteTable::compile(Arc::new(frontend?));
    with_head(request, |head| {
        let selection = table.select(head)?;
        Some(Winner { route: format!("{}/{}", selection.route.namespace, selection.route.name), rule: selection.rule.index })
    })
}

fn path() -> impl Strategy<Value = Value> {
    let written = |kind: &'static str, values: &'static [&'static str]| {
        proptest::sample::select(values).prop_map(move |value| json!({"type": kind, "value": value}))
    };
    prop_oneof![
        3 => written("PathPrefix", &["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c"]),
        3 => written("Exact", &["/", "/a", "/a/", "/a/b", "/ab"]),
        1 => written("RegularExpression", spec::PATTERNS),
        1 => proptest::sample::select(&["/", "/a"][..]).prop_map(|value| json!({"value": value})),
    ]
}

fn named(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Value>> {
    let one = (proptest::sample::select(names), proptest::sample::select(&["1", "2"][..]), any::<bool>());
    let one = one.prop_map(|(name, value, is_pattern)| {
        let (kind, value) = if is_pattern { ("RegularExpression", spec::ONE_OR_TWO) } else { ("Exact", value) };
        json!({"type": kind, "name": name, "value": value})
    });
    proptest::collection::vec(one, 0..3)
}

fn written_match() -> impl Strategy<Value = Value> {
    let method = proptest::option::of(proptest::sample::select(&["GET", "POST"][..]));
    let parts = (proptest::option::of(path()), method, named(&["x-one", "X-One", "x-two"]), named(&["q", "Q", "r"]));
    parts.prop_map(|(path, method, headers, query)| {
        let mut written = serde_json::Map::new();
        written.extend(path.map(|path| ("path".to_owned(), path)));
        written.extend(method.map(|method| ("method".to_owned(), json!(method))));
        if !headers.is_empty() {
            written.insert("headers".to_owned(), json!(headers));
        }
        if !query.is_empty() {
            written.insert("queryParams".to_owned(), json!(query));
        }
        Value::Object(written)
    })
}

/// Few names, few times, few paths: most pairs of matches collide in something.
fn routes() -> impl Strategy<Value = Vec<Value>> {
    let rule = proptest::collection::vec(written_match(), 0..3)
        .prop_map(|matches| if matches.is_empty() { json!({}) } else { json!({"matches": matches}) });
    let created = proptest::sample::select(&[None, Some("2026-01-01T00:00:00Z"), Some("2026-01-02T00:00:00Z")][..]);
    let route = (created, proptest::collection::vec(rule, 1..4));
    proptest::collection::vec(route, 1..4).prop_map(|routes| {
        let written = routes.into_iter().zip(["b", "a", "a-b"]).map(|((created, rules), name)| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
                "spec": {"parentRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "store"}], "rules": rules},
            })
        });
        written.collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    let targets = &["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/a?q=1", "/a?q=2&q=1", "/a/b?Q=%31&r=2", "/?r=1&q=2", "/abc?q=1"];
    let header = (proptest::sample::select(&["x-one", "X-ONE", "x-two"][..]), proptest::sample::select(&["1", "2", "3"][..]));
    let parts = (
        proptest::sample::select(&["GET", "POST", "PUT"][..]),
        proptest::sample::select(&targets[..]),
        proptest::collection::vec(header, 0..3),
    );
    parts.prop_map(|(method, target, headers)| Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    })
}

/// Which cases are made does not depend on the day.
fn runner() -> TestRunner {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// Compares a way to select with the oracle on many cases; an error carries the smallest case that differs.
fn compare(select: impl Fn(Option<Frontend>, &Request) -> Option<Winner>) -> Result<(), String> {
    let outcome = runner().run(&(routes(), request()), |(routes, request)| {
        let expected = spec::winner(&routes, &request);
        let got = select(frontend(objects(&routes)), &request);
        if got == expected { Ok(()) } else { Err(TestCaseError::fail(format!("{got:?} instead of {expected:?}"))) }
    });
    outcome.map_err(|error| error.to_string())
}

#[test]
fn the_rule_that_the_specification_names_wins() {
    compare(select).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_order_in_which_objects_arrive_never_matters() {
    let shuffled = routes().prop_flat_map(|routes| (Just(objects(&routes)), Just(objects(&routes)).prop_shuffle()));
    let outcome = runner().run(&(shuffled, request()), |((objects, shuffled), request)| {
        prop_assert_eq!(select(frontend(objects), &request), select(frontend(shuffled), &request));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// A mistake that an implementation could make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mistake {
    /// An equally long prefix goes before an exact path.
    PrefixBeatsExact,
    /// A header match goes before a method match.
    HeaderBeatsMethod,
    /// None: shows that the construction itself is sound.
    None,
}

/// Selects by brute force over the crate's model, with a mistake in the order.
fn select_with(mistake: Mistake, frontend: Option<Frontend>, request: &Request) -> Option<Winner> {
    let frontend = frontend?;
    let rules = frontend.routes.iter().flat_map(|route| route.rules.iter().map(move |rule| (route, rule)));
    let matches = rules.flat_map(|(route, rule)| rule.matches.iter().map(move |found| (route, rule, found)));
    with_head(request, |head| {
        let accepted = matches.filter(|(_, _, found)| found.accepts(head));
        let (route, rule, _) = accepted.min_by_key(|(route, rule, found)| rank(mistake, route, rule, found))?;
        Some(Winner { route: format!("{}/{}", route.namespace, route.name), rule: rule.index })
    })
}

/// The smaller wins.
fn rank(mistake: Mistake, route: &Route, rule: &Rule, found: &RouteMatch) -> impl Ord + use<> {
    let path = match &found.path {
        // An exact path is as long as the request's, so a prefix that matches can be equally long.
        PathMatch::Exact(path) if mistake == Mistake::PrefixBeatsExact => (2, Reverse(path.len()), 1),
        PathMatch::Exact(_) => (0, Reverse(0), 0),
        PathMatch::Regex(pattern) => (1, Reverse(pattern.source().len()), 0),
        PathMatch::Prefix(path) => (2, Reverse(path.len()), 0),
        PathMatch::Rpc(_) => unreachable!("HTTPRoutes have none"),
    };
    let (method, headers) = (usize::from(found.method.is_some()), found.headers.len());
    let (third, fourth) = if mistake == Mistake::HeaderBeatsMethod { (headers, method) } else { (method, headers) };
    let name = format!("{}/{}", route.namespace, route.name);
    (path, Reverse(third), Reverse(fourth), Reverse(found.query.len()), route.created_s, name, rule.index)
}

#[test]
fn the_comparison_finds_planted_mistakes() {
    compare(|frontend, request| select_with(Mistake::None, frontend, request)).unwrap_or_else(|error| panic!("{error}"));
    for mistake in [Mistake::PrefixBeatsExact, Mistake::HeaderBeatsMethod] {
        let found = compare(|frontend, request| select_with(mistake, frontend, request));
        assert!(found.is_err(), "{mistake:?} went unnoticed");
    }
}
