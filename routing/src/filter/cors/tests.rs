use serde_json::{Value, json};

use super::*;
use crate::api::{Object, Route};
use crate::model::Filter;
use crate::parse::{self, ParsedFilter};

fn cors(written: &Value) -> Cors {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"},
        "spec": {"rules": [{"filters": [{"type": "CORS", "cors": written}]}]},
    });
    let Ok(Some(Object::Route(route))) = Object::decode(&route) else { panic!("a route") };
    filter(&route).unwrap_or_else(|error| panic!("{error}"))
}

fn filter(route: &Route) -> Result<Cors, String> {
    match &parse::rules(route)[0] {
        Ok(rule) => {
            let ParsedFilter::Ready(Filter::Cors(cors)) = &rule.filters[0] else { return Err(format!("{:?}", rule.filters)) };
            Ok(cors.clone())
        }
        Err(fault) => Err(fault.to_string()),
    }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))).collect()
}

fn of<'m>(map: &'m HeaderMap, name: &str) -> Option<&'m str> {
    map.get(name).map(|value| value.to_str().expect("text"))
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    let written = json!({"allowOrigins": ["https://www.foo.com", "http://*.bar.com", "https://*:8443"]});
    let cors = cors(&written);
    for (origin, is_allowed) in [
        ("https://www.foo.com", true),
        ("https://www.foo.com:443", true),
        ("https://WWW.FOO.COM", true),
        ("http://www.foo.com", false),
        ("https://www.foo.com:8080", false),
        ("http://a.bar.com", true),
        ("http://a.b.bar.com", true),
        ("http://bar.com", false),
        ("http://evilbar.com", false),
        ("https://anything.at.all:8443", true),
        ("https://anything.at.all", false),
        ("null", false),
        ("", false),
    ] {
        let answer = cors.actual(&headers(&[("origin", origin)]));
        assert_eq!(of(&answer, "access-control-allow-origin"), is_allowed.then_some(origin), "{origin}");
    }
}

#[test]
fn a_preflight_answer_says_what_is_allowed() {
    let cors = cors(&json!({
        "allowOrigins": ["https://www.foo.com"], "allowMethods": ["GET", "OPTIONS"], "allowHeaders": ["x-one", "x-two"],
        "exposeHeaders": ["x-three"], "maxAge": 60, "allowCredentials": true,
    }));
    let asked = [("origin", "https://www.foo.com"), ("access-control-request-method", "GET")];
    let answer = cors.preflight(&headers(&asked));
    assert_eq!(of(&answer, "access-control-allow-methods"), Some("GET, OPTIONS"));
    assert_eq!(of(&answer, "access-control-allow-headers"), Some("x-one, x-two"));
    assert_eq!(of(&answer, "access-control-max-age"), Some("60"));
    assert_eq!(of(&answer, "access-control-expose-headers"), Some("x-three"), "H-17");
    assert_eq!(of(&answer, "access-control-allow-credentials"), Some("true"));
    assert_eq!(of(&answer, "vary"), Some("Origin"));
    let refused = cors.preflight(&headers(&[("origin", "https://www.other.com"), ("access-control-request-method", "GET")]));
    assert!(refused.is_empty(), "{refused:?}");
    let actual = cors.actual(&headers(&[("origin", "https://www.foo.com")]));
    assert_eq!((of(&actual, "access-control-expose-headers"), of(&actual, "access-control-allow-methods")), (Some("x-three"), None));
}

#[test]
fn with_credentials_a_wildcard_is_never_literal() {
    let wild = json!({"allowOrigins": ["*"], "allowMethods": ["*"], "allowHeaders": ["*"], "exposeHeaders": ["*"]});
    let asked = headers(&[
        ("origin", "https://a.example"),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "x-a, x-b"),
    ]);
    let answer = cors(&wild).preflight(&asked);
    for name in ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"] {
        assert_eq!(of(&answer, name), Some("*"), "{name}");
    }
    assert_eq!((of(&answer, "access-control-max-age"), of(&answer, "access-control-allow-credentials")), (Some("5"), None));
    let mut with_credentials = wild.clone();
    with_credentials["allowCredentials"] = json!(true);
    let answer = cors(&with_credentials).preflight(&asked);
    assert_eq!(of(&answer, "access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(of(&answer, "access-control-allow-methods"), Some("PATCH"));
    assert_eq!(of(&answer, "access-control-allow-headers"), Some("x-a, x-b"));
    let bare = cors(&with_credentials).preflight(&headers(&[("origin", "https://a.example"), ("access-control-request-method", "PATCH")]));
    assert_eq!(of(&bare, "access-control-allow-headers"), None, "nothing was asked for");
}

#[test]
fn credentials_that_are_not_allowed_get_no_headers() {
    let cors = cors(&json!({"allowOrigins": ["*"]}));
    let answer = cors.actual(&headers(&[("origin", "https://a.example"), ("cookie", "a=1")]));
    assert!(answer.is_empty(), "{answer:?}");
}

#[test]
fn what_is_no_origin_or_stands_beside_a_wildcard_drops_the_rule() {
    for written in [
        json!({"allowOrigins": ["*", "https://a.example"]}),
        json!({"allowOrigins": ["a.example"]}),
        json!({"allowOrigins": ["ftp://a.example"]}),
        json!({"allowOrigins": ["https://*a.example"]}),
        json!({"allowOrigins": ["https://a.example:0"]}),
        json!({"allowMethods": ["get"]}),
        json!({"allowHeaders": ["x y"]}),
        json!({"maxAge": 0}),
    ] {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"},
            "spec": {"rules": [{"filters": [{"type": "CORS", "cors": written}]}]},
        });
        let Ok(Some(Object::Route(route))) = Object::decode(&route) else { panic!("a route") };
        let error = filter(&route).expect_err("dropped");
        assert!(error.starts_with("spec.rules[0].filters[0].cors."), "{error}");
    }
}

#[test]
fn everything_is_exposed_even_where_names_stand_beside_the_wildcard() {
    let answer = cors(&json!({"allowOrigins": ["*"], "exposeHeaders": ["x-a", "*"]})).actual(&headers(&[("origin", "https://a.example")]));
    assert_eq!(of(&answer, "access-control-expose-headers"), Some("*"));
}
