//! Which rule a request meets: what the tests for meshes do not have.

use http::Method;
use lab::client::Ask;
use tests::yaml;

use super::Expected::{From, Own};
use super::gateway::{Gateway, INFRA, backend, parent, route};
use super::{Expected, NOT_FOUND, get, prefix, rule};

const V1: Expected<'_> = From("infra-backend-v1");
const V2: Expected<'_> = From("infra-backend-v2");
const V3: Expected<'_> = From("infra-backend-v3");

fn exact(path: &str) -> String {
    format!("{{path: {{type: Exact, value: {path}}}}}")
}

/// Fields of a match.
fn header(name: &str, value: &str) -> String {
    format!("{{name: {name}, value: {value}}}")
}

fn to(matches: &[&str], version: &str) -> String {
    rule(matches, &[], &[backend(&format!("infra-backend-{version}"), "")])
}

#[test]
fn http_route_exact_path_matching() {
    let gateway = Gateway::with("exact-matching", &[to(&[&exact("/one")], "v1"), to(&[&exact("/two")], "v2")]);
    for (target, expected) in [
        ("/one", V1),
        ("/two", V2),
        ("/one?x=1", V1),
        ("/", NOT_FOUND),
        ("/one/example", NOT_FOUND),
        ("/two/", NOT_FOUND),
        ("/Two", NOT_FOUND),
        ("/tw%6f", NOT_FOUND),
    ] {
        gateway.check(get(target), &expected);
    }
}

#[test]
fn http_route_header_matching() {
    let of = |headers: &[String]| format!("{{headers: [{}]}}", headers.join(", "));
    let rules = [
        to(&[&of(&[header("version", "one")])], "v1"),
        to(&[&of(&[header("version", "two")])], "v2"),
        to(&[&of(&[header("version", "two"), header("color", "orange")])], "v1"),
        to(&[&of(&[header("color", "blue")]), &of(&[header("color", "green")])], "v1"),
        to(&[&of(&[header("color", "red")]), &of(&[header("color", "yellow")])], "v2"),
    ];
    let gateway = Gateway::with("header-matching", &rules);
    let cases: [(&[(&str, &str)], Expected); 13] = [
        (&[("Version", "one")], V1),
        (&[("Version", "two")], V2),
        (&[("Version", "two"), ("Color", "orange")], V1),
        (&[("Color", "blue")], V1),
        (&[("Color", "green")], V1),
        (&[("Color", "red")], V2),
        (&[("Color", "yellow")], V2),
        (&[], NOT_FOUND),
        (&[("Color", "purple")], NOT_FOUND),
        (&[("Color", "orange")], NOT_FOUND),
        (&[("Some-Other-Header", "one")], NOT_FOUND),
        (&[("Version", "One")], NOT_FOUND),
        (&[("Version", "onetwo")], NOT_FOUND),
    ];
    for (headers, expected) in cases {
        gateway.check(headers.iter().fold(get("/"), |ask, (name, value)| ask.with(name, value)), &expected);
    }
}

#[test]
fn http_route_path_match_order() {
    // Not in the order in which they count.
    let rules = [
        to(&[&prefix("/match", "")], "v3"),
        to(&[&prefix("/match/prefix/", "")], "v1"),
        to(&[&prefix("/match/prefix/one", "")], "v2"),
        to(&[&exact("/match")], "v1"),
        to(&[&exact("/match/exact")], "v2"),
        to(&[&exact("/match/exact/one")], "v3"),
    ];
    let gateway = Gateway::with("path-matching-order", &rules);
    for (target, expected) in [
        ("/match/exact/one", V3),
        ("/match/exact", V2),
        ("/match", V1),
        ("/match/prefix/one/any", V2),
        ("/match/prefix/any", V1),
        ("/match/prefix", V1),
        ("/match/prefix/oneself", V1),
        ("/match/any", V3),
        ("/matchless", NOT_FOUND),
    ] {
        gateway.check(get(target), &expected);
    }
}

#[test]
fn http_route_method_matching() {
    let version = |value: &str| format!("headers: [{}]", header("version", value));
    let rules = [
        to(&["{method: POST}"], "v1"),
        to(&["{method: GET}"], "v2"),
        to(&[&prefix("/path1", "method: GET")], "v1"),
        to(&[&format!("{{{}, method: PUT}}", version("one"))], "v2"),
        to(&[&prefix("/path2", &format!("{}, method: POST", version("two")))], "v1"),
        to(&[&prefix("/path3", "method: PATCH"), &prefix("/path4", &format!("{}, method: DELETE", version("three")))], "v1"),
        to(&[&prefix("/path5", "")], "v1"),
        to(&[&format!("{{method: PATCH, {}}}", version("four"))], "v2"),
    ];
    let gateway = Gateway::with("method-matching", &rules);
    for (method, target, version, expected) in [
        (Method::POST, "/", None, V1),
        (Method::GET, "/", None, V2),
        (Method::GET, "/path1", None, V1),
        (Method::PUT, "/", Some("one"), V2),
        (Method::POST, "/path2", Some("two"), V1),
        (Method::PATCH, "/path3", None, V1),
        (Method::DELETE, "/path4", Some("three"), V1),
        (Method::PUT, "/", None, NOT_FOUND),
        (Method::DELETE, "/path4", None, NOT_FOUND),
        (Method::PATCH, "/path5", Some("four"), V1),
        (Method::PATCH, "/", Some("four"), V2),
        (Method::OPTIONS, "/", None, NOT_FOUND),
    ] {
        let ask = Ask { method, ..get(target) };
        gateway.check(version.map_or(ask.clone(), |value| ask.with("version", value)), &expected);
    }
    gateway.check(Ask { method: Method::HEAD, ..get("/") }, &Own(404, "no_route"));
}

#[test]
fn http_route_matching_across_routes() {
    let version = |value: &str| format!("{{headers: [{}]}}", header("version", value));
    let part = |name: &str, hostnames: &str, path: &str, value: &str, backend: &str| {
        let rules = [to(&[&prefix(path, ""), &version(value)], backend)];
        route(name, &rules).replace("spec:\n", &format!("spec:\n  hostnames: [{hostnames}]\n"))
    };
    let gateway = Gateway::start(yaml::all(&[
        part("matching-part1", "example.com, example.net", "/", "one", "v1"),
        part("matching-part2", "example.com", "/v2", "two", "v2"),
    ]));
    // A Gateway would send the last two to the first backend: a mesh ignores hostnames (M-22).
    for (host, target, header, expected) in [
        ("example.com", "/", None, V1),
        ("example.com", "/example", None, V1),
        ("example.net", "/example", None, V1),
        ("example.com", "/example", Some("one"), V1),
        ("example.com", "/v2", None, V2),
        ("example.com", "/v2/example", None, V2),
        ("example.com", "/", Some("two"), V2),
        ("never.example.org", "/", None, V1),
        ("example.net", "/v2", None, V2),
        ("example.net", "/", Some("two"), V2),
    ] {
        let ask = Ask::get(host, target);
        gateway.check(header.map_or(ask.clone(), |value| ask.with("version", value)), &expected);
    }
}

#[test]
fn http_route_listener_port_matching() {
    let at = |more: &str, version: &str| {
        let metadata = format!("namespace: {INFRA}");
        yaml::route(&format!("backend-{version}"), &metadata, &[parent(more)], &[to(&[], version)])
    };
    let three = [at("port: 80", "v1"), at("sectionName: http-alt", "v2"), at("port: 443, sectionName: other", "v3")];
    let gateway = Gateway::start(yaml::all(&three));
    for (port, expected) in [(80, V1), (8080, V2), (443, V3)] {
        gateway.check_at(port, get("/"), &expected);
    }
}

#[test]
fn http_route_invalid_parent_refs() {
    // InvalidParentRefNotMatchingListenerPort, ...SectionName, and ...SectionNameNotMatchingPort.
    for (name, more) in [
        ("not-matching-port", "port: 81"),
        ("not-matching-section-name", "sectionName: not-a-port"),
        ("section-name-not-matching-port", "port: 8080, sectionName: http"),
    ] {
        let parents = [parent(more)];
        let gateway = Gateway::start(yaml::route(name, &format!("namespace: {INFRA}"), &parents, &[to(&[], "v1")]));
        assert_eq!(gateway.status(name, "Accepted"), ("False".to_owned(), "NoMatchingParent".to_owned()), "{more}");
    }
}

#[test]
fn http_route_observed_generation_bump() {
    let generation = |number: u32, version: &str| {
        route("observed-generation-bump", &[to(&[], version)]).replace("metadata: {", &format!("metadata: {{generation: {number}, "))
    };
    let mut gateway = Gateway::start(generation(1, "v1"));
    for (number, version) in [(1, "v1"), (2, "v2")] {
        gateway.bed.apply("west/own.yaml", &generation(number, version)).expect("in force");
        let status = gateway.bed.route_status("west", INFRA, "observed-generation-bump").expect("a status");
        let conditions = status["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
        let all = conditions.iter().all(|condition| condition["observedGeneration"].as_u64() == Some(number.into()));
        assert!(!conditions.is_empty() && all, "{status}");
        gateway.check(get("/"), &From(&format!("infra-backend-{version}")));
    }
}
