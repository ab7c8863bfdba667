//! What is found in objects, and what is not.

use super::*;
use crate::api::Object;
use crate::world::Settings;

const STORE: &str = "{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {name: store, namespace: shop}, spec: {type: \
                     ClusterSetIP, ips: [10.0.0.1], ports: [{port: 80}]}}";
const SLICE: &str = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {name: store, namespace: shop, labels: \
                     {multicluster.kubernetes.io/service-name: store}}, ports: [{port: 8080}], endpoints: [{addresses: [10.1.0.1]}]}";
const IMPORT: &str = "group: multicluster.x-k8s.io, kind: ServiceImport";

fn route(name: &str, created: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}, namespace: shop, creationTimestamp: \
         \"{created}\"}}, spec: {{parentRefs: [{{{IMPORT}, name: store}}], rules: [{rules}]}}}}"
    )
}

fn found(objects: &[String]) -> Vec<String> {
    let mut world = World::new(Settings::default());
    for text in objects {
        let value = serde_saphyr::from_str(text).expect("YAML");
        world.apply(Object::decode(&value).expect("decodes").expect("a kind that is read"));
    }
    let one =
        |finding: Finding| format!("{:?} {} {} {}", finding.severity, finding.code, finding.name, finding.field).trim_end().to_owned();
    lint(&world).into_iter().map(one).collect()
}

fn of_rules(rules: &str) -> Vec<String> {
    found(&[STORE.to_owned(), SLICE.to_owned(), route("a", "2026-01-01T00:00:00Z", rules)])
}

fn to_store(matches: &str) -> String {
    format!("{{matches: [{matches}], backendRefs: [{{{IMPORT}, name: store, port: 80}}]}}")
}

#[test]
fn what_is_well_has_no_finding() {
    let specific = to_store("{path: {value: /a}, headers: [{name: x, value: '1'}]}");
    assert!(of_rules(&[to_store("{path: {value: /a}}"), specific, to_store("{path: {type: Exact, value: /a}}")].join(", ")).is_empty());
}

#[test]
fn a_rule_that_never_wins_is_shadowed() {
    let prefix = |path: &str| to_store(&format!("{{path: {{value: {path}}}}}"));
    assert_eq!(of_rules(&[prefix("/a"), prefix("/a")].join(", ")), ["Warning Shadowed a spec.rules[1]"]);
    let twice = to_store("{path: {value: /a}}, {path: {value: /b}}");
    assert_eq!(of_rules(&[prefix("/a"), twice.clone()].join(", ")), [""; 0], "one of its matches does win");
    assert_eq!(of_rules(&[prefix("/a"), prefix("/b"), twice].join(", ")), ["Warning Shadowed a spec.rules[2]"]);
    let pattern = to_store("{path: {type: RegularExpression, value: '/a|/b'}}");
    assert_eq!(of_rules(&[pattern.clone(), pattern].join(", ")), ["Warning Shadowed a spec.rules[1]"]);
    let [old, new] =
        [("old", "2025-01-01T00:00:00Z"), ("new", "2026-01-01T00:00:00Z")].map(|(name, created)| route(name, created, &prefix("/a")));
    assert_eq!(found(&[STORE.to_owned(), SLICE.to_owned(), new, old]), ["Warning Shadowed new spec.rules[0]"]);
}

#[test]
fn a_redirect_to_itself_is_a_loop() {
    let redirect = |path: &str, to: &str| {
        format!("{{matches: [{{path: {{type: Exact, value: {path}}}}}], filters: [{{type: RequestRedirect, requestRedirect: {{{to}}}}}]}}")
    };
    assert_eq!(of_rules(&redirect("/a", "statusCode: 301")), ["Error RedirectLoop a spec.rules[0]"]);
    assert_eq!(of_rules(&redirect("/a", "scheme: https")), [""; 0]);
    assert_eq!(of_rules(&redirect("/a", "path: {type: ReplaceFullPath, replaceFullPath: /b}")), [""; 0]);
    assert_eq!(of_rules(&redirect("/a", "path: {type: ReplaceFullPath, replaceFullPath: /a}")), ["Error RedirectLoop a spec.rules[0]"]);
}

#[test]
fn what_leads_nowhere_and_what_is_refused_is_named() {
    let missing = format!("{{backendRefs: [{{{IMPORT}, name: missing, port: 80}}]}}");
    assert_eq!(of_rules(&missing), ["Error BackendNotFound a"]);
    assert_eq!(found(&[route("a", "2026-01-01T00:00:00Z", &to_store("{}"))]), ["Error BackendNotFound a", "Error NoMatchingParent a"]);
    let empty = SLICE.replace("[{addresses: [10.1.0.1]}]", "[]");
    let routed = route("a", "2026-01-01T00:00:00Z", &to_store("{}"));
    assert_eq!(found(&[STORE.to_owned(), empty, routed.clone()]), ["Warning NoEndpoint a spec.rules[0]"]);
    assert_eq!(found(&[STORE.to_owned(), routed]), [""; 0], "without any slices nothing is said of endpoints");
    let claimed = STORE.replace("name: store", "name: other");
    assert_eq!(found(&[STORE.to_owned(), SLICE.to_owned(), claimed]), ["Warning DisputedAddress store"]);
}
