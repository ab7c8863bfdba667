//! What filters make of a request: rewritten paths, Locations, header fields.

use std::num::NonZeroU16;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use proptest::sample::select;
use routing::filter::{self, LocationError};
use routing::matcher::RequestHead;
use routing::model::{Filter, HeaderEdit, PathMatch, PathModifier, Redirect, RouteMatch, Scheme};
use routing::table::RouteTable;
use serde_json::{Value, json};

use crate::generate::{at_store, object, route, store, to_store};
use crate::spec::headers::Lines;
use crate::spec::{self, Answer, Request};
use crate::{compare, differs, subject};

/// One rule with at most one match and one filter, and a request.
#[derive(Clone, Debug)]
struct Case {
    objects: Vec<Value>,
    written_match: Value,
    filter: Value,
    request: Request,
    port: u16,
}

#[derive(Clone, Debug, PartialEq)]
enum Done {
    Untouched,
    NoMatch,
    Redirected { status: i64, location: String },
    Forwarded { authority: String, path: String, lines: Lines },
}

fn modifier() -> impl Strategy<Value = Value> {
    let full = select(vec!["/one", "/one/two/", ""]).prop_map(|path| json!({"type": "ReplaceFullPath", "replaceFullPath": path}));
    let prefix =
        select(vec!["/xyz", "/xyz/", "", "/", "/a/b"]).prop_map(|path| json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": path}));
    prop_oneof![1 => Just(Value::Null), 1 => full, 3 => prefix]
}

fn redirect() -> impl Strategy<Value = Value> {
    let parts = (
        proptest::option::of(select(vec!["http", "https"])),
        proptest::option::of(Just("other.example")),
        modifier(),
        proptest::option::of(select(vec![80, 443, 8080])),
        proptest::option::of(select(vec![301, 302, 303, 307, 308])),
    );
    let parts = parts.prop_map(|(scheme, hostname, path, port, status)| {
        let parts = [
            ("hostname", json!(hostname)),
            ("path", path),
            ("port", json!(port)),
            ("scheme", json!(scheme)),
            ("statusCode", json!(status)),
        ];
        object(parts)
    });
    parts.prop_map(|redirect| json!({"type": "RequestRedirect", "requestRedirect": redirect}))
}

fn rewrite() -> impl Strategy<Value = Value> {
    (proptest::option::of(Just("other.example")), modifier())
        .prop_map(|(hostname, path)| json!({"type": "URLRewrite", "urlRewrite": object([("hostname", json!(hostname)), ("path", path)])}))
}

fn header_edit() -> impl Strategy<Value = Value> {
    let names = || select(vec!["x-one", "X-One", "x-two", "x-three", "Host"]);
    let pairs = || {
        let pair = (names(), select(vec!["new", "new, newer", ""])).prop_map(|(name, value)| json!({"name": name, "value": value}));
        proptest::collection::vec(pair, 0..3)
    };
    (pairs(), pairs(), proptest::collection::vec(names(), 0..2)).prop_map(
        |(set, add, remove)| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": set, "add": add, "remove": remove}}),
    )
}

fn case(filter: impl Strategy<Value = Value>) -> impl Strategy<Value = Case> {
    let path = prop_oneof![
        4 => select(vec!["/foo", "/foo/", "/", "/foo/bar"]).prop_map(|value| json!({"path": {"type": "PathPrefix", "value": value}})),
        1 => Just(json!({})),
        1 => Just(json!({"path": {"type": "Exact", "value": "/foo"}})),
    ];
    let targets =
        ["/foo", "/foo/", "/foo/bar", "/foo/bar/", "/foobar", "/Foo", "/", "/foo?x=1", "/foo/bar?a=/foo", "/foo//bar", "/foo/?", "*"];
    let header = (select(vec!["x-one", "X-Two", "x-four"]), select(vec!["1", "2"]));
    let request = (
        select(targets.to_vec()),
        select(vec!["store.example", "store.example:8080", "[fd00::1]:8080", "[fd00::1]"]),
        proptest::collection::vec(header, 0..4),
    );
    let request = request.prop_map(|(target, authority, headers)| Request {
        method: "GET".to_owned(),
        target: target.to_owned(),
        authority: authority.to_owned(),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        server_name: String::new(),
    });
    (path, filter, request, select(vec![80, 443, 8080])).prop_map(|(written_match, filter, request, port)| {
        let rules = json!([{"matches": [written_match], "filters": [filter]}]);
        let route = route("HTTPRoute", "shop", "r", None, json!({"parentRefs": to_store(), "rules": rules}));
        Case { objects: vec![store(), route], written_match, filter, request, port }
    })
}

fn oracle(case: &Case) -> Done {
    match spec::answer(&case.objects, &at_store(case.port.into()), &case.request) {
        Answer::Untouched => return Done::Untouched,
        Answer::NoMatch => return Done::NoMatch,
        Answer::Rule(_) => {}
    }
    let (redirect, rewrite, edit) = (&case.filter["requestRedirect"], &case.filter["urlRewrite"], &case.filter["requestHeaderModifier"]);
    if !redirect.is_null() {
        let (status, location) = spec::redirect::answer(redirect, &case.written_match, &case.request, case.port);
        return Done::Redirected { status, location };
    }
    // "Hostname is the value to be used to replace the Host header value during forwarding." (H-15)
    let authority = rewrite["hostname"].as_str().or(spec::headers::authority(edit)).unwrap_or(&case.request.authority);
    let is_rewritten = !rewrite["path"].is_null();
    let path = case.request.path();
    let path = if is_rewritten { spec::path::modified(&rewrite["path"], &case.written_match, path) } else { path.to_owned() };
    let mut lines = spec::headers::modified(edit, &case.request.headers);
    lines.sort_by(|(a, _), (b, _)| a.cmp(b));
    Done::Forwarded { authority: authority.to_owned(), path, lines }
}

/// The crate's computations, each of which can be done wrongly.
#[derive(Clone, Copy)]
struct Computations {
    accepts: fn(&RouteMatch, &RequestHead<'_>) -> bool,
    path: fn(&PathModifier, &RouteMatch, &str) -> String,
    location: fn(&Redirect, &RequestHead<'_>, NonZeroU16, &RouteMatch) -> Result<HeaderValue, LocationError>,
    edit: fn(&HeaderEdit, &mut HeaderMap),
}

const CORRECT: Computations = Computations {
    accepts: |matched, head| matched.accepts(head),
    path: filter::rewrite_path,
    location: |redirect, head, port, matched| filter::location(redirect, head, Scheme::Http, port, matched),
    edit: HeaderEdit::apply,
};

fn subject(computations: Computations, case: &Case) -> Done {
    let Some(frontend) = subject::frontend(&subject::world(&case.objects), &at_store(case.port.into())) else { return Done::Untouched };
    let table = RouteTable::compile(Arc::new(frontend));
    let rule = &table.frontend().routes[0].rules[0];
    let (matched, port) = (&rule.matches[0], NonZeroU16::new(case.port).expect("not zero"));
    subject::with_head(&case.request, |head| {
        if !(computations.accepts)(matched, head) {
            return Done::NoMatch;
        }
        let mut headers = head.headers.clone();
        let (mut authority, mut path) = (case.request.authority.clone(), head.path.to_owned());
        match &rule.filters[0] {
            Filter::Redirect(redirect) => {
                let location = (computations.location)(redirect, head, port, matched).expect("a Location");
                let location = location.to_str().expect("text").to_owned();
                return Done::Redirected { status: redirect.status.as_u16().into(), location };
            }
            Filter::Rewrite(rewrite) => {
                authority = rewrite.hostname.clone().unwrap_or(authority);
                path = rewrite.path.as_ref().map_or(path, |modifier| (computations.path)(modifier, matched, head.path));
            }
            Filter::RequestHeaders(edit) => {
                (computations.edit)(edit, &mut headers);
                authority = filter::authority_of(edit).map_or(authority, |value| value.to_str().expect("text").to_owned());
            }
            Filter::ResponseHeaders(_) | Filter::Mirror(_) | Filter::Cors(_) | Filter::ExternalAuth(_) | Filter::Unsupported(_) => {
                panic!("not generated")
            }
        }
        let mut lines: Lines = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect();
        lines.sort_by(|(a, _), (b, _)| a.cmp(b));
        Done::Forwarded { authority, path, lines }
    })
}

#[test]
fn paths_are_rewritten_as_the_specification_says() {
    compare(&case(rewrite()), oracle, |case| subject(CORRECT, case)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn redirects_lead_where_the_specification_says() {
    compare(&case(redirect()), oracle, |case| subject(CORRECT, case)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn header_fields_are_edited_as_the_specification_says() {
    compare(&case(header_edit()), oracle, |case| subject(CORRECT, case)).unwrap_or_else(|error| panic!("{error}"));
}

/// The text of a prefix, without regard to its segments.
fn prefix_text(matched: &RouteMatch) -> &str {
    match &matched.path {
        PathMatch::Prefix(prefix) => prefix.strip_suffix('/').unwrap_or(prefix),
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Rpc(_) => "/no/prefix",
    }
}

/// The prefix of a path is replaced as text is: also that of `/foobar` by `/foo`.
fn replace_text(modifier: &PathModifier, matched: &RouteMatch, path: &str) -> String {
    match (modifier, path.strip_prefix(prefix_text(matched))) {
        (PathModifier::Prefix(replacement), Some(rest)) => format!("{}{rest}", replacement.trim_end_matches('/')),
        _ => filter::rewrite_path(modifier, matched, path),
    }
}

#[test]
fn the_comparison_finds_mistakes_in_rewriting() {
    let strips_foobar = Computations {
        accepts: |matched, head| matched.accepts(head) || head.path.starts_with(prefix_text(matched)),
        path: replace_text,
        ..CORRECT
    };
    let leaves_nothing = Computations { path: replace_text, ..CORRECT };
    let doubles_slashes = Computations {
        path: |modifier, matched, path| match modifier {
            PathModifier::Prefix(replacement) => format!("{replacement}{}", path.strip_prefix(prefix_text(matched)).unwrap_or(path)),
            PathModifier::Full(_) => filter::rewrite_path(modifier, matched, path),
        },
        ..CORRECT
    };
    for (mistake, computations) in [
        ("/foo strips from /foobar", strips_foobar),
        ("an empty path is left", leaves_nothing),
        ("the slash of a replacement is kept", doubles_slashes),
    ] {
        assert!(differs(&case(rewrite()), oracle, |case| subject(computations, case)), "{mistake}: unnoticed");
    }
}

#[test]
fn the_comparison_finds_mistakes_in_redirects() {
    let forgets_the_port = Computations {
        location: |redirect, head, _, matched| {
            let well_known = NonZeroU16::new(80).expect("not zero");
            filter::location(redirect, head, Scheme::Http, well_known, matched)
        },
        ..CORRECT
    };
    let keeps_the_port = Computations {
        location: |redirect, head, port, matched| {
            let redirect = Redirect { port: redirect.port.or(Some(port)), ..redirect.clone() };
            filter::location(&redirect, head, Scheme::Http, port, matched)
        },
        ..CORRECT
    };
    let loses_the_query = Computations {
        location: |redirect, head, port, matched| {
            filter::location(redirect, &RequestHead { query: None, ..*head }, Scheme::Http, port, matched)
        },
        ..CORRECT
    };
    for (mistake, computations) in [
        ("without a port the one that was dialled is forgotten", forgets_the_port),
        ("a new scheme keeps the port that was dialled", keeps_the_port),
        ("the query is lost", loses_the_query),
    ] {
        assert!(differs(&case(redirect()), oracle, |case| subject(computations, case)), "{mistake}: unnoticed");
    }
}

#[test]
fn the_comparison_finds_mistakes_in_header_edits() {
    let add_replaces = Computations {
        edit: |edit, headers| {
            edit.apply(headers);
            for (name, value) in &edit.add {
                headers.insert(name.clone(), value.clone());
            }
        },
        ..CORRECT
    };
    let edits_host = Computations {
        edit: |edit, headers| {
            edit.apply(headers);
            for (name, value) in edit.set.iter().filter(|(name, _)| name == HOST) {
                headers.insert(name.clone(), value.clone());
            }
        },
        ..CORRECT
    };
    for (mistake, computations) in [("add replaces", add_replaces), ("Host becomes a field", edits_host)] {
        assert!(differs(&case(header_edit()), oracle, |case| subject(computations, case)), "{mistake}: unnoticed");
    }
}
