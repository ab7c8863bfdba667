//! Rules H-12 to H-14 and D-14.

use http::{HeaderName, Method, StatusCode};

use super::*;

fn under(prefix: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Prefix(prefix.to_owned()), method: None, headers: Vec::new(), query: Vec::new() }
}

#[test]
fn replacing_a_prefix_follows_the_table_of_the_api() {
    for (path, prefix, replacement, result) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/bar", "/", "/xyz", "/xyz/bar"),
        ("*", "/", "/xyz", "*"),
    ] {
        let modifier = PathModifier::Prefix(replacement.to_owned());
        assert_eq!(rewrite_path(&modifier, &under(prefix), path), result, "{path} | {prefix} | {replacement}");
    }
}

#[test]
fn replacing_the_full_path_keeps_nothing_of_it() {
    assert_eq!(rewrite_path(&PathModifier::Full("/one".to_owned()), &under("/"), "/foo/bar"), "/one");
}

fn redirect() -> Redirect {
    Redirect { scheme: None, hostname: None, path: None, port: None, status: StatusCode::FOUND }
}

fn located(redirect: &Redirect, authority: Option<&str>, target: (&str, Option<&str>), port: u16) -> Result<String, LocationError> {
    let headers = HeaderMap::new();
    let head = RequestHead { method: &Method::GET, path: target.0, query: target.1, authority, headers: &headers };
    let port = NonZeroU16::new(port).expect("not zero");
    location(redirect, &head, Scheme::Http, port, &under("/")).map(|value| value.to_str().expect("ASCII").to_owned())
}

#[test]
fn a_redirect_says_the_port_that_was_dialled_unless_the_scheme_implies_it() {
    let port = |number| NonZeroU16::new(number);
    for (scheme, filter_port, dialled, result) in [
        (None, None, 8080, "http://example.org:8080/x"),
        (None, None, 80, "http://example.org/x"),
        (None, port(80), 8080, "http://example.org/x"),
        (None, port(8443), 8080, "http://example.org:8443/x"),
        (Some(Scheme::Https), None, 8080, "https://example.org/x"),
        (Some(Scheme::Https), port(443), 8080, "https://example.org/x"),
        (Some(Scheme::Https), port(8443), 8080, "https://example.org:8443/x"),
        (Some(Scheme::Http), None, 8080, "http://example.org/x"),
    ] {
        let redirect = Redirect { scheme, port: filter_port, ..redirect() };
        assert_eq!(located(&redirect, Some("example.org:9999"), ("/x", None), dialled).as_deref(), Ok(result));
    }
}

#[test]
fn a_redirect_keeps_the_query_and_rewrites_the_path() {
    let redirect =
        Redirect { hostname: Some("other.example".to_owned()), path: Some(PathModifier::Prefix("/new".to_owned())), ..redirect() };
    assert_eq!(located(&redirect, None, ("/x", Some("a=b")), 80).as_deref(), Ok("http://other.example/new/x?a=b"));
}

#[test]
fn a_redirect_of_a_target_without_a_path_leads_to_the_root() {
    let replaced = Redirect { path: Some(PathModifier::Prefix("/new".to_owned())), ..redirect() };
    for redirect in [redirect(), replaced] {
        assert_eq!(located(&redirect, Some("example.org"), ("*", None), 80).as_deref(), Ok("http://example.org/"));
    }
}

#[test]
fn a_redirect_without_any_host_is_an_error() {
    assert_eq!(located(&redirect(), None, ("/x", None), 80), Err(LocationError::NoHost));
}

#[test]
fn a_redirect_keeps_the_brackets_of_an_address() {
    assert_eq!(located(&redirect(), Some("[fd00::1]:8080"), ("/", None), 8080).as_deref(), Ok("http://[fd00::1]:8080/"));
}

#[test]
fn a_header_edit_removes_sets_and_adds() {
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static;
    let edit = HeaderEdit {
        set: vec![(name("replaced"), value("new")), (HOST, value("other.example"))],
        add: vec![(name("my-header"), value("bar,baz"))],
        remove: vec![name("gone")],
    };
    let mut headers = HeaderMap::new();
    for (header, text) in [("replaced", "1"), ("replaced", "2"), ("my-header", "foo"), ("gone", "x")] {
        headers.append(name(header), value(text));
    }
    headers.insert(HOST, value("store.example"));
    edit.apply(&mut headers);
    let lines = |header: &str| headers.get_all(header).iter().filter_map(|line| line.to_str().ok()).collect::<Vec<_>>().join(",");
    assert_eq!(lines("replaced"), "new");
    assert_eq!(lines("my-header"), "foo,bar,baz");
    assert_eq!(lines("gone"), "");
    assert_eq!(lines("host"), "store.example", "Host is the authority, which the caller rewrites");
    assert_eq!(authority_of(&edit), Some(&value("other.example")));
}

#[test]
fn a_redirect_that_leads_to_itself_is_known_as_one() {
    let headers = HeaderMap::new();
    let head = RequestHead { method: &Method::GET, path: "/x", query: Some("y=1"), authority: Some("store:8080"), headers: &headers };
    let port = NonZeroU16::new(8080).expect("not zero");
    let to_itself = |redirect: &Redirect| {
        let location = location(redirect, &head, Scheme::Http, port, &under("/")).expect("a Location");
        leads_to_itself(&location, &head, Scheme::Http, port, &under("/"))
    };
    assert!(to_itself(&Redirect { hostname: None, ..redirect() }), "D-14");
    assert!(to_itself(&Redirect { hostname: Some("store".to_owned()), ..redirect() }));
    assert!(!to_itself(&Redirect { hostname: Some("cart".to_owned()), ..redirect() }));
    assert!(!to_itself(&Redirect { hostname: None, path: Some(PathModifier::Full("/y".to_owned())), ..redirect() }));
    assert!(!to_itself(&Redirect { hostname: None, scheme: Some(Scheme::Https), ..redirect() }));
}
