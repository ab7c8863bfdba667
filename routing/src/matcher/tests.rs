//! Rules H-1 and H-3 to H-7.

use http::{HeaderName, HeaderValue};

use super::*;
use crate::model::Pattern;

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.to_owned())
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch::Exact(text.to_owned())
}

fn everything() -> RouteMatch {
    RouteMatch { path: prefix("/"), method: None, headers: Vec::new(), query: Vec::new() }
}

#[test]
fn a_prefix_ends_at_a_segment_border() {
    for written in ["/foo", "/foo/"] {
        for (path, hit) in [("/foo", true), ("/foo/", true), ("/foo/x", true), ("/foobar", false), ("/Foo", false), ("/x/foo", false)] {
            assert_eq!(prefix(written).accepts(path), hit, "{written} on {path}");
        }
    }
}

#[test]
fn prefix_slash_matches_everything_even_a_target_without_a_path() {
    for path in ["/", "/x", "*", ""] {
        assert!(prefix("/").accepts(path), "{path}");
    }
}

#[test]
fn a_target_without_a_path_matches_nothing_else() {
    let any = Pattern::new(".*").expect("compiles");
    for path in ["*", ""] {
        assert!(!PathMatch::Regex(any.clone()).accepts(path));
        assert!(!prefix("/foo").accepts(path));
    }
}

#[test]
fn exact_is_the_whole_path_in_its_own_case() {
    let matched = PathMatch::Exact("/abc".to_owned());
    for (path, hit) in [("/abc", true), ("/abc/", false), ("/ABC", false), ("/abcd", false), ("/%61bc", false)] {
        assert_eq!(matched.accepts(path), hit, "{path}");
    }
}

#[test]
fn a_pattern_must_match_the_whole_path() {
    let matched = PathMatch::Regex(Pattern::new("/a|/b").expect("compiles"));
    for (path, hit) in [("/a", true), ("/b", true), ("/ab", false), ("/b/", false), ("x/b", false)] {
        assert_eq!(matched.accepts(path), hit, "{path}");
    }
}

fn accepts_headers(matched: HeaderMatch, lines: &[(&'static str, &'static str)], authority: Option<&str>) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    let head = RequestHead { method: &Method::GET, path: "/", query: None, authority, headers: &headers };
    RouteMatch { headers: vec![matched], ..everything() }.accepts(&head)
}

#[test]
fn a_header_matches_by_any_line_or_by_all_lines_joined() {
    let version = |value: &str| HeaderMatch { name: HeaderName::from_static("version"), value: exact(value) };
    let lines = [("version", "one"), ("version", "two")];
    for (value, hit) in [("one", true), ("two", true), ("one, two", true), ("two, one", false), ("One", false)] {
        assert_eq!(accepts_headers(version(value), &lines, None), hit, "{value}");
    }
    assert!(!accepts_headers(version("one"), &[], None));
}

#[test]
fn a_header_may_say_more_than_ascii() {
    let name = HeaderName::from_static("city");
    for value in [exact("Köln"), ValueMatch::Regex(Pattern::new("K.*").expect("compiles"))] {
        assert!(accepts_headers(HeaderMatch { name: name.clone(), value }, &[("city", "Köln")], None));
    }
}

#[test]
fn host_means_the_authority() {
    let host = HeaderMatch { name: HOST, value: exact("store.example") };
    assert!(accepts_headers(host.clone(), &[], Some("store.example")));
    assert!(!accepts_headers(host, &[("host", "store.example")], Some("other.example")));
}

#[test]
fn a_query_matches_by_its_first_decoded_value() {
    let matched = RouteMatch { query: vec![QueryMatch { name: "animal".to_owned(), value: exact("blue whale") }], ..everything() };
    let headers = HeaderMap::new();
    for (query, hit) in [
        ("animal=blue+whale", true),
        ("x=1&animal=blue%20whale", true),
        ("%61nimal=blue%20whale", true),
        ("animal=blue+whale&animal=dog", true),
        ("animal=dog&animal=blue+whale", false),
        ("animal=blue+whaledolphin", false),
        ("Animal=blue+whale", false),
        ("animal", false),
        ("", false),
    ] {
        let head = RequestHead { method: &Method::GET, path: "/", query: Some(query), authority: None, headers: &headers };
        assert_eq!(matched.accepts(&head), hit, "{query}");
    }
}

#[test]
fn head_is_not_get() {
    let matched = RouteMatch { method: Some(Method::GET), ..everything() };
    let headers = HeaderMap::new();
    let head = |method| RequestHead { method, path: "/", query: None, authority: None, headers: &headers };
    assert!(matched.accepts(&head(&Method::GET)));
    assert!(!matched.accepts(&head(&Method::HEAD)));
}
