//! Backends in a foreign namespace, with a ReferenceGrant and without (D-4).

use tests::yaml;

use super::Expected::{From, Own};
use super::gateway::{APP, Gateway, INFRA, WEB, backend, route};
use super::{get, prefix, rule};

const INVALID: super::Expected<'_> = Own(500, "invalid_backend");

fn grant(name: &str, namespace: &str, from: &str, to: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {{name: {name}, namespace: {namespace}}}, spec: \
         {{from: [{{{from}}}], to: [{{{to}}}]}}}}"
    )
}

fn from(namespace: &str) -> String {
    format!("group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {namespace}")
}

const TO_WEB: &str = "group: multicluster.x-k8s.io, kind: ServiceImport, name: web-backend";

fn to_web(name: &str) -> String {
    route(name, &[rule(&[], &[], &[backend("web-backend", &format!("namespace: {WEB}"))])])
}

fn refused() -> (String, String) {
    ("False".to_owned(), "RefNotPermitted".to_owned())
}

#[test]
fn http_route_invalid_cross_namespace_backend_ref() {
    let name = "invalid-cross-namespace-backend-ref";
    let gateway = Gateway::start(to_web(name));
    assert_eq!(gateway.status(name, "Accepted"), ("True".to_owned(), "Accepted".to_owned()));
    assert_eq!(gateway.status(name, "ResolvedRefs"), refused());
    gateway.check(get("/"), &INVALID);
}

#[test]
fn http_route_invalid_reference_grant() {
    let name = "invalid-reference-grant";
    let own = from(INFRA);
    let wrong = [
        ("not-in-the-backend-s-namespace", INFRA, own.clone(), TO_WEB.to_owned()),
        ("wrong-from-group", WEB, own.replace("gateway.networking.k8s.io", "wrong.example.com"), TO_WEB.to_owned()),
        ("wrong-from-kind", WEB, own.replace("HTTPRoute", "WrongRoute"), TO_WEB.to_owned()),
        ("wrong-from-namespace", WEB, from(APP), TO_WEB.to_owned()),
        ("wrong-to-group", WEB, own.clone(), TO_WEB.replace("multicluster.x-k8s.io", "wrong.example.com")),
        ("wrong-to-kind", WEB, own.clone(), "group: \"\", kind: Service, name: web-backend".to_owned()),
        ("wrong-to-name", WEB, own, TO_WEB.replace("web-backend", "other-backend")),
    ];
    let grants = wrong.map(|(name, namespace, from, to)| grant(name, namespace, &from, &to));
    let gateway = Gateway::start(yaml::all(&[yaml::all(&grants), to_web(name)]));
    assert_eq!(gateway.status(name, "Accepted"), ("True".to_owned(), "Accepted".to_owned()));
    assert_eq!(gateway.status(name, "ResolvedRefs"), refused());
    gateway.check(get("/"), &INVALID);
}

#[test]
fn http_route_partially_invalid_via_invalid_reference_grant() {
    let name = "invalid-reference-grant-to-one";
    let to_app = |path: &str, version: &str| {
        rule(&[&prefix(path, "")], &[], &[backend(&format!("app-backend-{version}"), &format!("namespace: {APP}"))])
    };
    let only = grant("to-v2", APP, &from(INFRA), &TO_WEB.replace("web-backend", "app-backend-v2"));
    let gateway = Gateway::start(yaml::all(&[only, route(name, &[to_app("/v2", "v2"), to_app("/", "v1")])]));
    assert_eq!(gateway.status(name, "Accepted"), ("True".to_owned(), "Accepted".to_owned()));
    assert_eq!(gateway.status(name, "ResolvedRefs"), refused());
    gateway.check(get("/v2"), &From("app-backend-v2"));
    gateway.check(get("/"), &INVALID);
}

#[test]
fn http_route_reference_grant() {
    let name = "reference-grant";
    let permitted = grant(name, WEB, &from(INFRA), TO_WEB);
    let mut gateway = Gateway::start(to_web(name));
    for all in [permitted.clone(), permitted.replace(", name: web-backend", ""), permitted.replace("/v1beta1", "/v1")] {
        gateway.bed.apply("west/grant.yaml", &all).expect("in force");
        assert_eq!(gateway.status(name, "ResolvedRefs"), ("True".to_owned(), "ResolvedRefs".to_owned()), "{all}");
        gateway.check(get("/"), &From("web-backend"));
        gateway.bed.delete("west/grant.yaml").expect("in force");
        assert_eq!(gateway.status(name, "ResolvedRefs"), refused(), "revoked");
        gateway.check(get("/"), &INVALID);
    }
}
