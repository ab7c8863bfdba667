//! CORS: preflight requests never reach a backend, actual ones always do (HTTPRouteCORS, GEP-1767; H-17).

use http::Method;
use lab::client::{Answer, Ask};
use tests::{Bed, who, yaml};

use super::replay::{filtered, prefix, rule};
use super::store::{STORE, bed, filtered_backend, own_answer, with};

const APP: &str = "https://app.example";

/// Name and value of a field.
type Pair<'p> = (&'p str, &'p str);

fn cors(fields: &str) -> String {
    format!("{{type: CORS, cors: {{{fields}}}}}")
}

fn cart() -> [String; 1] {
    [yaml::import("cart", "")]
}

/// `cart` behind rules with one CORS filter each.
fn cors_bed() -> Bed {
    let listed = "allowOrigins: [\"https://app.example\", \"http://port.example:8080\", \"https://*.shop.example\"], allowMethods: [GET, \
                  OPTIONS], allowHeaders: [x-one, X-Two], exposeHeaders: [x-three, x-four], maxAge: 60";
    let any = "allowOrigins: [\"*\"], allowMethods: [\"*\"], allowHeaders: [\"*\"], exposeHeaders: [\"*\"]";
    let rules = [
        filtered("/listed", &cors(listed), &cart()),
        filtered("/any", &cors(any), &cart()),
        filtered("/credentials", &cors(&format!("{listed}, allowCredentials: true")), &cart()),
        filtered("/both", &cors(&format!("{any}, allowCredentials: true")), &cart()),
        filtered("/default", &cors("allowOrigins: [\"https://app.example\"]"), &cart()),
        rule(&[&prefix("/backend", "")], &[], &[filtered_backend("cart", &[&cors(listed)])]),
        rule(&[&prefix("/plain", "")], &[], &cart()),
    ];
    bed(&rules, vec![("east/cart.yaml", yaml::exported("cart", "default", 1))])
}

/// Fields of an answer whose names begin with `access-control-`, without that and in the order of their names, and their values.
fn told(answer: &Answer) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("access-control-")?.to_owned(), value.to_str().ok()?.to_lowercase())))
        .collect();
    fields.sort();
    fields
}

fn pairs(fields: &[Pair<'_>]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn preflight(bed: &Bed, path: &str, origin: &str, asked: &[Pair<'_>]) -> Answer {
    let ask = Ask { method: Method::OPTIONS, ..Ask::get(STORE, &format!("{path}/x?id=preflight")) }.with("origin", origin);
    let ask = asked.iter().fold(ask, |ask, (name, value)| ask.with(&format!("access-control-request-{name}"), value));
    bed.ask(&bed.client().expect("a client"), STORE, &ask).expect("an answer")
}

#[test]
fn a_preflight_request_is_answered_and_never_forwarded() {
    let bed = cors_bed();
    let listed = |origin| {
        vec![
            ("allow-headers", "x-one, x-two"),
            ("allow-methods", "get, options"),
            ("allow-origin", origin),
            ("expose-headers", "x-three, x-four"),
            ("max-age", "60"),
        ]
    };
    let with_credentials = |origin| [vec![("allow-credentials", "true")], listed(origin)].concat();
    let get = &[("method", "GET")][..];
    let put = &[("method", "PUT"), ("headers", "x-asked, x-more")][..];
    let cases: Vec<(&str, &str, &[Pair<'_>], Vec<Pair<'_>>)> = vec![
        ("/listed", APP, get, listed(APP)),
        // What was asked is the browser's to compare with what is allowed.
        ("/listed", APP, put, listed(APP)),
        ("/listed", "https://app.example:443", get, listed("https://app.example:443")),
        ("/listed", "http://port.example:8080", get, listed("http://port.example:8080")),
        ("/listed", "https://a.b.shop.example", get, listed("https://a.b.shop.example")),
        ("/backend", APP, get, listed(APP)),
        ("/credentials", APP, get, with_credentials(APP)),
        (
            "/any",
            APP,
            put,
            vec![("allow-headers", "*"), ("allow-methods", "*"), ("allow-origin", "*"), ("expose-headers", "*"), ("max-age", "5")],
        ),
        (
            "/both",
            APP,
            put,
            vec![
                ("allow-credentials", "true"),
                ("allow-headers", "x-asked, x-more"),
                ("allow-methods", "put"),
                ("allow-origin", APP),
                ("max-age", "5"),
            ],
        ),
        ("/both", APP, get, vec![("allow-credentials", "true"), ("allow-methods", "get"), ("allow-origin", APP), ("max-age", "5")]),
        ("/default", APP, get, vec![("allow-methods", "get"), ("allow-origin", APP), ("max-age", "5")]),
        ("/default", APP, put, vec![("allow-origin", APP), ("max-age", "5")]),
        // Not allowed.
        ("/listed", "http://app.example", get, vec![]),
        ("/listed", "https://app.example:8443", get, vec![]),
        ("/listed", "https://app.example.evil.example", get, vec![]),
        ("/listed", "https://shop.example", get, vec![]),
        ("/listed", "https://evilshop.example", get, vec![]),
        ("/listed", "http://port.example", get, vec![]),
        ("/listed", "null", get, vec![]),
        ("/credentials", "https://other.example", get, vec![]),
    ];
    for (path, origin, asked, expected) in cases {
        let answer = preflight(&bed, path, origin, asked);
        assert_eq!(own_answer(&answer), (204, Some("preflight")), "{path} {origin} {asked:?}");
        assert_eq!(told(&answer), pairs(&expected), "{path} {origin} {asked:?}");
        let varies = answer.header("vary").is_some_and(|vary| vary.eq_ignore_ascii_case("origin"));
        assert!(varies || expected.is_empty() || path == "/any", "a cache has to know: {path} {origin} {answer:?}");
    }
    assert_eq!(bed.seen("east/default/cart-0", "preflight", 0).expect("a count")["count"], 0, "none was forwarded");
}

#[test]
fn options_alone_is_no_preflight_and_without_the_filter_nothing_is() {
    let bed = cors_bed();
    let client = bed.client().expect("a client");
    let options = |path: &str| Ask { method: Method::OPTIONS, ..Ask::get(STORE, path) };
    for ask in [
        options("/listed"),
        options("/listed").with("access-control-request-method", "GET"),
        options("/plain").with("access-control-request-method", "GET").with("origin", APP),
        Ask { method: Method::POST, ..options("/plain") }.with("access-control-request-method", "GET").with("origin", APP),
    ] {
        let answer = bed.ask(&client, STORE, &ask).expect("an answer");
        assert_eq!((who(&answer).as_str(), told(&answer)), ("east/cart", vec![]), "{ask:?}");
    }
    let answer = bed.ask(&client, STORE, &options("/listed").with("origin", APP)).expect("an answer");
    assert_eq!(who(&answer), "east/cart", "it asks for no method");
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP), "an actual request");
}

#[test]
fn an_actual_request_is_forwarded_whatever_its_origin() {
    let bed = cors_bed();
    let client = bed.client().expect("a client");
    let exposed = ("expose-headers", "x-three, x-four");
    let cases: Vec<(&str, &str, Option<Pair<'_>>, Vec<Pair<'_>>)> = vec![
        ("/listed", APP, None, vec![("allow-origin", APP), exposed]),
        ("/backend", APP, None, vec![("allow-origin", APP), exposed]),
        ("/credentials", APP, None, vec![("allow-credentials", "true"), ("allow-origin", APP), exposed]),
        ("/credentials", APP, Some(("cookie", "a=1")), vec![("allow-credentials", "true"), ("allow-origin", APP), exposed]),
        ("/any", APP, None, vec![("allow-origin", "*"), ("expose-headers", "*")]),
        ("/both", APP, Some(("authorization", "Basic x")), vec![("allow-credentials", "true"), ("allow-origin", APP)]),
        ("/default", APP, None, vec![("allow-origin", APP)]),
        ("/listed", "https://other.example", None, vec![]),
        ("/credentials", "https://other.example", Some(("cookie", "a=1")), vec![]),
        // Credentials that are not allowed.
        ("/listed", APP, Some(("cookie", "a=1")), vec![]),
        ("/any", APP, Some(("authorization", "Basic x")), vec![]),
    ];
    for (path, origin, credentials, expected) in cases {
        for method in [Method::GET, Method::PUT] {
            let ask = Ask { method: method.clone(), ..Ask::get(STORE, path) }.with("origin", origin);
            let ask = credentials.iter().fold(ask, |ask, (name, value)| ask.with(name, value));
            let answer = bed.ask(&client, STORE, &ask).expect("an answer");
            assert_eq!(who(&answer), "east/cart", "{method} {path} {origin}");
            assert_eq!(told(&answer), pairs(&expected), "{method} {path} {origin} {credentials:?}");
            let seen = answer.seen();
            let has_origin = seen["headers"].as_array().is_some_and(|headers| headers.iter().any(|pair| pair[0] == "origin"));
            assert!(has_origin, "the backend sees the origin: {seen}");
        }
    }
}

#[test]
fn the_filters_words_replace_those_of_the_backend() {
    let bed = cors_bed();
    let client = bed.client().expect("a client");
    let said = |path: &str, said: &str| {
        let ask = Ask::get(STORE, path).with("origin", APP).with("x-set-header", said);
        let answer = bed.ask(&client, STORE, &ask).expect("an answer");
        assert_eq!(who(&answer), "east/cart", "{path}");
        answer
    };
    let answer = said("/default", "access-control-allow-origin:*");
    assert_eq!(told(&answer), pairs(&[("allow-origin", APP)]));
    let answer = said("/listed", "access-control-expose-headers:x-secret");
    assert_eq!(told(&answer), pairs(&[("allow-origin", APP), ("expose-headers", "x-three, x-four")]));
    let answer = said("/default", "access-control-expose-headers:x-secret");
    assert_eq!(told(&answer), pairs(&[("allow-origin", APP)]), "the filter exposes nothing");
    let answer = said("/default", "access-control-allow-credentials:true");
    assert_eq!(told(&answer), pairs(&[("allow-origin", APP)]), "omitted entirely without allowCredentials");
    let ask = Ask::get(STORE, "/default").with("origin", "https://other.example").with("x-set-header", "access-control-allow-origin:*");
    let answer = bed.ask(&client, STORE, &ask).expect("an answer");
    assert_eq!((who(&answer).as_str(), told(&answer)), ("east/cart", vec![]), "a backend cannot allow what the filter does not");
    // What a backend says to caches stays.
    let answer = said("/default", "vary:accept-encoding");
    let vary: Vec<&str> = answer.headers.get_all("vary").iter().filter_map(|value| value.to_str().ok()).collect();
    let vary = vary.join(", ").to_lowercase();
    assert!(vary.contains("accept-encoding") && vary.contains("origin"), "{vary}");
    let answer = said("/plain", "access-control-allow-origin:*");
    assert_eq!(told(&answer), pairs(&[("allow-origin", "*")]), "without the filter they are the backend's");
}

#[test]
fn errors_of_the_sidecar_s_own_can_be_read_too() {
    let filter = cors("allowOrigins: [\"https://app.example\"]");
    let rules = [
        filtered("/empty", &filter, &[yaml::import("empty", "")]),
        filtered("/missing", &filter, &[yaml::import("missing", "")]),
        with(&filtered("/slow", &filter, &cart()), "timeouts: {request: 300ms}"),
        rule(&[&prefix("/backend", "")], &[], &[filtered_backend("empty", &[&filter])]),
    ];
    let app = |name, replicas| yaml::exported(name, "default", replicas);
    let bed = bed(&rules, vec![("east/apps.yaml", yaml::all(&[app("cart", 1), app("empty", 0)]))]);
    let client = bed.client().expect("a client");
    for (target, expected) in [
        ("/empty", (503, Some("no_endpoint"))),
        ("/missing", (500, Some("invalid_backend"))),
        ("/slow?delay_ms=5000", (504, Some("request_timeout"))),
        ("/backend", (503, Some("no_endpoint"))),
    ] {
        for (origin, told_to_it) in [(APP, &[("allow-origin", APP)][..]), ("https://other.example", &[])] {
            let answer = bed.ask(&client, STORE, &Ask::get(STORE, target).with("origin", origin)).expect("an answer");
            assert_eq!((own_answer(&answer), told(&answer)), (expected, pairs(told_to_it)), "{target} {origin}");
        }
    }
}
