//! Which rule a request meets.

use tests::who;

use super::Expected::From;
use super::{MESH, NOT_FOUND, Parent, Replay, get, prefix, rule};

const V1: super::Expected<'_> = From("echo-v1");
const V2: super::Expected<'_> = From("echo-v2");

#[test]
fn mesh_basic() {
    let replay = Replay::start(|_| String::new());
    for parent in Parent::BOTH {
        let host = parent.host("echo");
        let answer = replay.bed.get_from(&replay.client, &host, "/").expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.reason()), (200, None), "{parent:?}");
    }
    assert!(replay.bed.access_log(&replay.client).expect("a log").is_empty(), "without a route nothing is even intercepted");
}

#[test]
fn mesh_traffic_split() {
    let exact = |path: &str| format!("{{path: {{type: Exact, value: {path}}}}}");
    let replay = Replay::start(|parent| {
        let rules = ["v1", "v2"]
            .map(|version| rule(&[&exact(&format!("/{version}"))], &[], &[parent.backend(&format!("echo-{version}"), "port: 80")]));
        parent.route("mesh-split", &parent.reference("echo", ""), &rules)
    });
    for parent in Parent::BOTH {
        for (target, expected) in [("/v1", V1), ("/v2", V2), ("/v1?x=1", V1), ("/", NOT_FOUND), ("/v1/", NOT_FOUND), ("/V1", NOT_FOUND)] {
            replay.check(parent, "echo", get(target), &expected);
            replay.check(parent, "echo:8080", get(target), &expected);
        }
    }
}

#[test]
fn mesh_http_route_simple_same_namespace() {
    let replay = Replay::start(|parent| {
        let rules = [rule(&[], &[], &[parent.backend("echo-v1", "port: 8080")])];
        parent.route("gateway-conformance-mesh-test", &parent.reference("echo", "port: 80"), &rules)
    });
    for parent in Parent::BOTH {
        for target in ["/", "/any/path?x"] {
            replay.check(parent, "echo", get(target), &V1);
        }
        let other_port = format!("{}:8080", parent.host("echo"));
        let goes_to_v2 = || who(&replay.bed.get_from(&replay.client, &other_port, "/").expect("an answer")).ends_with("/echo-v2");
        assert!((0..50).any(|_| goes_to_v2()), "another port has no route: {parent:?}");
    }
}

#[test]
fn mesh_http_route_matching() {
    let version = |value: &str| format!("{{headers: [{{name: version, value: {value}}}]}}");
    let replay = Replay::start(|parent| {
        let rules = [("/", "one", "echo-v1"), ("/v2", "two", "echo-v2")]
            .map(|(path, value, backend)| rule(&[&prefix(path, ""), &version(value)], &[], &[parent.backend(backend, "port: 8080")]));
        parent.route("mesh-matching", &parent.reference("echo", "port: 80"), &rules)
    });
    for parent in Parent::BOTH {
        for (target, header, expected) in [
            ("/", None, V1),
            ("/example", None, V1),
            ("/", Some("one"), V1),
            ("/v2", None, V2),
            ("/v2/", None, V2),
            ("/v2/example", None, V2),
            ("/", Some("two"), V2),
            ("/v2example", None, V1),
            ("/foo/v2/example", None, V1),
            // Beyond upstream: the longer prefix comes before more headers, a value is compared with its case.
            ("/v2", Some("one"), V2),
            ("/", Some("Two"), V1),
        ] {
            let ask = header.map_or(get(target), |value| get(target).with("Version", value));
            replay.check(parent, "echo", ask, &expected);
        }
    }
}

#[test]
fn mesh_http_route_query_param_matching() {
    let animal = |name: &str| format!("queryParams: [{{name: animal, value: {name}}}]");
    let version = |value: &str| format!("headers: [{{name: version, value: {value}}}]");
    let alone = |name: &str| format!("{{{}}}", animal(name));
    let replay = Replay::start(|parent| {
        let rules = [
            (vec![alone("whale")], "echo-v1"),
            (vec![alone("dolphin")], "echo-v2"),
            (vec![prefix("/path1", &animal("whale"))], "echo-v1"),
            (vec![format!("{{{}, {}}}", version("one"), animal("whale"))], "echo-v2"),
            (vec![prefix("/path3", &animal("shark")), prefix("/path4", &format!("{}, {}", version("three"), animal("kraken")))], "echo-v1"),
            (vec![prefix("/path5", "")], "echo-v1"),
            (vec![alone("hydra")], "echo-v2"),
        ];
        let rules = rules.map(|(matches, backend)| {
            let matches: Vec<&str> = matches.iter().map(String::as_str).collect();
            rule(&matches, &[], &[parent.backend(backend, "port: 8080")])
        });
        parent.route("mesh-query-param-matching", &parent.reference("echo", "port: 80"), &rules)
    });
    for parent in Parent::BOTH {
        for (target, header, expected) in [
            ("/?animal=whale", None, V1),
            ("/?animal=dolphin", None, V2),
            ("/?animal=whale&otherparam=irrelevant", None, V1),
            ("/?animal=dolphin&color=yellow", None, V2),
            ("/?color=blue", None, NOT_FOUND),
            ("/?animal=dog", None, NOT_FOUND),
            ("/?animal=whaledolphin", None, NOT_FOUND),
            ("/?ANIMAL=whale", None, NOT_FOUND),
            ("/?animal=Whale", None, NOT_FOUND),
            ("/", None, NOT_FOUND),
            ("/path1?animal=whale", None, V1),
            ("/?animal=whale", Some("one"), V2),
            ("/path3?animal=shark", None, V1),
            ("/path4?animal=kraken", Some("three"), V1),
            ("/?animal=shark", None, NOT_FOUND),
            ("/path4?animal=kraken", None, NOT_FOUND),
            ("/?animal=kraken", Some("three"), NOT_FOUND),
            ("/path5?animal=hydra", None, V1),
            ("/?animal=hydra", None, V2),
            // Beyond upstream: the first of several values counts, and names and values are decoded.
            ("/?animal=dolphin&animal=whale", None, V2),
            ("/?anim%61l=wh%61le", None, V1),
        ] {
            let ask = header.map_or(get(target), |value| get(target).with("Version", value));
            replay.check(parent, "echo", ask, &expected);
        }
    }
}

#[test]
fn mesh_http_route_named_rule() {
    let replay = Replay::start(|parent| {
        let named = rule(&[&prefix("/named", "")], &[], &[parent.backend("echo-v1", "port: 8080")]);
        let rules = [
            named.replacen('{', "{name: named-rule, ", 1),
            rule(&[&prefix("/unnamed", "")], &[], &[parent.backend("echo-v2", "port: 8080")]),
        ];
        parent.route("mesh-http-named-rules", &parent.reference("echo", "port: 80"), &rules)
    });
    for parent in Parent::BOTH {
        for (target, expected) in [("/named", V1), ("/unnamed", V2), ("/", NOT_FOUND)] {
            replay.check(parent, "echo", get(target), &expected);
        }
        let route = format!("{MESH}/{}", parent.name("mesh-http-named-rules"));
        let metrics = replay.bed.sidecar_admin(&replay.client, "/metrics").expect("metrics");
        let counted = format!("route=\"{route}\",rule=\"named-rule\"");
        assert!(metrics.contains(&counted), "the name is told: {metrics}");
    }
}
