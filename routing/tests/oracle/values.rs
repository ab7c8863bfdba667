//! Durations, weights, and what CORS answers.

use std::time::Duration;

use http::{HeaderMap, Method};
use proptest::prelude::*;
use proptest::sample::select;
use routing::filter::cors;
use routing::model::{Cors, Filter, Rule, WeightedBackend};
use routing::split;
use serde_json::{Value, json};

use crate::generate::{at_store, object, route, store, to_store};
use crate::spec::cors::Fields;
use crate::spec::{self};
use crate::{compare, differs, subject};

/// The one rule of an HTTPRoute; none: it is dropped.
fn rule(written: &Value) -> Option<Rule> {
    let route = route("HTTPRoute", "shop", "r", None, json!({"parentRefs": to_store(), "rules": [written]}));
    let frontend = subject::frontend(&subject::world([&store(), &route]), &at_store(80))?;
    Some(frontend.routes[0].rules[0].clone())
}

/// Durations, and what looks like some.
fn duration() -> impl Strategy<Value = String> {
    let number = select(vec!["0", "1", "07", "99999", "100000", "", "1.5", "-1", "１"]);
    let unit = select(vec!["h", "m", "s", "ms", "d", "", "H"]);
    let good = (0..100_000_u32, select(vec!["h", "m", "s", "ms"])).prop_map(|(number, unit)| format!("{number}{unit}"));
    let part = prop_oneof![1 => (number, unit).prop_map(|(number, unit)| format!("{number}{unit}")), 6 => good];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

#[test]
fn durations_are_read_as_the_specification_says() {
    let oracle = |(request, attempt): &(String, String)| {
        let (request, attempt) = (spec::duration::parse(request)?, spec::duration::parse(attempt)?);
        // "0s" is no limit.
        let limit = |duration: Duration| (!duration.is_zero()).then_some(duration);
        let is_longer = limit(request).is_some() && attempt > request;
        (!is_longer).then(|| (limit(request), limit(attempt), Some(attempt)))
    };
    let subject = |(request, attempt): &(String, String)| {
        let rule = rule(&json!({"timeouts": {"request": request, "backendRequest": attempt}, "retry": {"backoff": attempt}}))?;
        Some((rule.timeouts.request, rule.timeouts.backend_request, rule.retry.and_then(|retry| retry.backoff)))
    };
    compare(&(duration(), duration()), oracle, subject).unwrap_or_else(|error| panic!("{error}"));
    let takes_minutes_for_millis = |case: &(String, String)| subject(&(case.0.replace("ms", "m"), case.1.clone()));
    assert!(differs(&(duration(), duration()), oracle, takes_minutes_for_millis), "a mistake went unnoticed");
}

fn backends() -> impl Strategy<Value = (Vec<Value>, u64)> {
    let backend = (proptest::option::of(0..9_u32), any::<bool>()).prop_map(|(weight, is_missing)| {
        let name = if is_missing { "missing" } else { "store" };
        object([
            ("group", json!("multicluster.x-k8s.io")),
            ("kind", json!("ServiceImport")),
            ("name", json!(name)),
            ("weight", json!(weight)),
        ])
    });
    (proptest::collection::vec(backend, 0..6), 0..u64::from(u32::MAX))
}

/// How often each backend is picked in one period of the random number.
fn counts(backends: &[WeightedBackend], start: u64) -> Vec<u64> {
    let mut counts = vec![0; backends.len()];
    let period: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    for step in 0..period {
        if let Some(index) = split::pick(backends, start + step) {
            counts[index] += 1;
        }
    }
    counts
}

#[test]
fn shares_are_weights_whether_or_not_a_backend_is_valid() {
    let oracle = |(written, _): &(Vec<Value>, u64)| spec::weight::shares(&json!(written));
    let subject = |(written, start): &(Vec<Value>, u64)| {
        let rule = rule(&json!({"backendRefs": written})).expect("valid");
        counts(&rule.backends, *start)
    };
    compare(&backends(), oracle, subject).unwrap_or_else(|error| panic!("{error}"));
    let leaves_out_the_invalid = |(written, start): &(Vec<Value>, u64)| {
        let mut backends = rule(&json!({"backendRefs": written})).expect("valid").backends;
        for backend in &mut backends {
            if matches!(backend.target, routing::model::BackendTarget::Invalid(_)) {
                backend.weight = 0;
            }
        }
        counts(&backends, *start)
    };
    assert!(differs(&backends(), oracle, leaves_out_the_invalid), "a mistake went unnoticed");
}

#[derive(Clone, Debug)]
struct CrossOrigin {
    cors: Value,
    method: &'static str,
    request: Fields,
}

fn cross_origin() -> impl Strategy<Value = CrossOrigin> {
    let list = |values: &'static [&'static str]| {
        let some = proptest::collection::vec(select(values), 0..3).prop_map(|mut names| {
            names.sort_unstable();
            names.dedup();
            json!(names)
        });
        prop_oneof![1 => Just(Value::Null), 1 => Just(json!(["*"])), 3 => some]
    };
    let cors = (
        list(&["https://a.example", "http://a.example:8080", "https://*.a.example", "http://*", "https://*:8443", "https://A.example:443"]),
        list(&["GET", "PUT", "OPTIONS", "DELETE"]),
        list(&["x-one", "X-Two", "x-three"]),
        list(&["x-four", "X-Five"]),
        proptest::option::of(1..100_u32),
        proptest::option::of(any::<bool>()),
    );
    let cors = cors.prop_map(|(origins, methods, headers, expose, age, credentials)| {
        let parts = [("allowOrigins", origins), ("allowMethods", methods), ("allowHeaders", headers), ("exposeHeaders", expose)];
        let mut cors = object(parts);
        for (field, value) in [("maxAge", json!(age)), ("allowCredentials", json!(credentials))] {
            if !value.is_null() {
                cors[field] = value;
            }
        }
        cors
    });
    let origins = [
        "https://a.example",
        "https://a.example:443",
        "https://A.Example",
        "http://a.example:8080",
        "http://a.example",
        "https://x.a.example",
        "https://x.y.a.example",
        "https://xa.example",
        "http://b",
        "https://b:8443",
        "null",
        "https://",
        "",
    ];
    let field = |name: &'static str, values: &'static [&'static str]| {
        proptest::option::of(select(values)).prop_map(move |value| value.map(|value| (name.to_owned(), value.to_owned())))
    };
    let fields = (
        proptest::option::weighted(0.9, select(origins.to_vec()))
            .prop_map(|value| value.map(|value| ("origin".to_owned(), value.to_owned()))),
        field("access-control-request-method", &["GET", "PUT", "PATCH", "POST"]),
        field("access-control-request-headers", &["x-one", "x-one, X-Nine"]),
        field("cookie", &["a=1"]),
        field("authorization", &["Basic x"]),
    );
    let fields = fields.prop_map(|(a, b, c, d, e)| [a, b, c, d, e].into_iter().flatten().collect::<Fields>());
    (cors, select(vec!["OPTIONS", "OPTIONS", "GET", "PUT"]), fields).prop_map(|(cors, method, request)| CrossOrigin {
        cors,
        method,
        request,
    })
}

fn map(fields: &Fields) -> HeaderMap {
    subject::headers(fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>().iter())
}

fn fields(map: &HeaderMap) -> Fields {
    map.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect()
}

type Answer = fn(&Cors, bool, &HeaderMap) -> HeaderMap;

/// What is wrong with an answer; none: nothing.
fn complaint(case: &CrossOrigin, answer: Answer) -> Option<String> {
    let method: Method = case.method.parse().expect("a method");
    let request = map(&case.request);
    let is_preflight = cors::is_preflight(&method, &request);
    if is_preflight != spec::cors::is_preflight(case.method, &case.request) {
        return Some(format!("a preflight request: {is_preflight}"));
    }
    let rule = rule(&json!({"filters": [{"type": "CORS", "cors": case.cors}]})).expect("valid");
    let [Filter::Cors(cors)] = rule.filters.as_slice() else { panic!("{rule:?}") };
    let answer = fields(&answer(cors, is_preflight, &request));
    let complaint = if is_preflight { spec::cors::preflight_complaint } else { spec::cors::actual_complaint };
    complaint(&case.cors, &case.request, &answer)
}

fn correct(cors: &Cors, is_preflight: bool, request: &HeaderMap) -> HeaderMap {
    if is_preflight { cors.preflight(request) } else { cors.actual(request) }
}

#[test]
fn cross_origin_requests_are_answered_as_the_specification_says() {
    compare(&cross_origin(), |_| None, |case| complaint(case, correct)).unwrap_or_else(|error| panic!("{error}"));
    let literal: Answer = |cors, is_preflight, request| {
        let mut answer = correct(&Cors { credentials: false, ..cors.clone() }, is_preflight, request);
        if cors.credentials && !answer.is_empty() {
            answer.insert("access-control-allow-credentials", "true".parse().expect("a value"));
        }
        answer
    };
    let forgets_credentials: Answer = |cors, is_preflight, request| {
        let mut request = request.clone();
        request.remove("cookie");
        correct(cors, is_preflight, &request)
    };
    for (mistake, answer) in [("a literal * with credentials", literal), ("a cookie goes unseen", forgets_credentials)] {
        assert!(differs(&cross_origin(), |_| None, |case| complaint(case, answer)), "{mistake}: unnoticed");
    }
}
