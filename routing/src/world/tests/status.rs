//! What is written to the status of routes (S-1 to S-8).

use super::*;

/// The matrix of S-8: object(s), route, what is written, what the first backend is.
#[test]
fn status_follows_the_matrix() {
    let rule = |backend: &str| route("store", "shop", &format!("parentRefs: [{PARENT}]\nrules:\n- backendRefs: [{backend}]"));
    let parent = |parent: &str| route("store", "shop", &format!("parentRefs: [{parent}]"));
    let good = "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs";
    let lost = "Accepted=false/NoMatchingParent ResolvedRefs=true/ResolvedRefs";
    let external = "apiVersion: v1\nkind: Service\nmetadata: {name: ext, namespace: shop}\nspec: {type: ExternalName, externalName: example.org, ports: [{port: 80}]}";
    let wss = CART.replace("{port: 8080}", "{port: 8080, appProtocol: kubernetes.io/wss}");
    let rules = |rules: &str| route("store", "shop", &format!("parentRefs: [{PARENT}]\nrules: {rules}"));
    let cases: Vec<(&str, Vec<String>, &str)> = vec![
        ("all good", vec![STORE.into(), CART.into(), gamma()], good),
        ("missing", vec![gamma(), CART.into()], lost),
        ("headless", vec![STORE.replace("ClusterSetIP", "Headless"), CART.into(), gamma()], lost),
        ("no ip yet", vec![STORE.replace("[10.201.0.1, 'fd00:2:1::1']", "[]"), CART.into(), gamma()], lost),
        ("no such port", vec![STORE.into(), parent("{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 81}")], lost),
        ("no ports", vec![STORE.replace("[{name: http, port: 80}, {name: admin, port: 8080}]", "[]"), CART.into(), gamma()], lost),
        (
            "every rule bad",
            vec![STORE.into(), rules("[{matches: [{path: {type: Glob}}]}]")],
            "Accepted=false/UnsupportedValue ResolvedRefs=true/ResolvedRefs",
        ),
        (
            "some rules bad",
            vec![STORE.into(), rules("[{matches: [{path: {type: RegularExpression, value: '('}}]}, {}]")],
            "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs PartiallyInvalid=true/UnsupportedValue",
        ),
        (
            "filters that exclude each other",
            vec![STORE.into(), rules("[{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}]")],
            "Accepted=false/IncompatibleFilters ResolvedRefs=true/ResolvedRefs",
        ),
        ("backend missing", vec![STORE.into(), gamma()], "Accepted=true/Accepted ResolvedRefs=false/BackendNotFound"),
        (
            "backend port missing",
            vec![STORE.into(), CART.into(), rule("{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 81}")],
            "Accepted=true/Accepted ResolvedRefs=false/BackendNotFound",
        ),
        (
            "backend kind unknown",
            vec![STORE.into(), rule("{group: example.org, kind: Bucket, name: b}")],
            "Accepted=true/Accepted ResolvedRefs=false/InvalidKind",
        ),
        (
            "ExternalName",
            vec![STORE.into(), external.into(), rule("{name: ext, port: 80}")],
            "Accepted=true/Accepted ResolvedRefs=false/InvalidKind",
        ),
        ("TLS needed", vec![STORE.into(), wss, gamma()], "Accepted=true/Accepted ResolvedRefs=false/UnsupportedProtocol"),
        ("no backendRefs", vec![STORE.into(), parent(PARENT)], good),
        ("another kind of parent", vec![parent("{name: gateway}")], ""),
    ];
    for (situation, texts, expected) in cases {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(status(&world(&texts)), expected, "{situation}");
    }
}

#[test]
fn status_repeats_the_parent_ref_and_says_what_was_dropped() {
    let spec = format!("parentRefs: [{PARENT}]\nrules: [{{}}, {{matches: [{{method: get}}]}}]");
    let world = world(&[STORE, &route("store", "shop", &spec)]);
    let key = world.with_status().next().expect("one route");
    let parent = world.status(&key).expect("its status").remove(0);
    assert_eq!(parent.reference, serde_json::json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "store"}));
    assert_eq!(parent.conditions[2].message, "Dropped Rule: spec.rules[1].matches[0].method: \"get\" is no method of the API");
    assert!(parent.conditions.iter().all(|condition| condition.observed_generation == 1), "S-4");
}
