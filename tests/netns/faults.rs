//! Bad input: what is wrong is named with its file and field, and what is good works.

use lab::lab::Options;
use tests::{Bed, who, yaml};

const STORE: &str = "store.default.svc.clusterset.local";

#[test]
fn malformed_objects_are_named_and_hide_nothing() {
    let bad_import = "{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {name: bad}, spec: {type: ClusterSetIP, ips: \
                      [10.9.9.9], ports: [{port: eighty}]}}";
    let bad_slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: bad, labels: \
                     {multicluster.kubernetes.io/service-name: cart}}, addressType: IPv4, endpoints: 7}";
    let bad_route = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: bad}, spec: {parentRefs: [{group: \
                     multicluster.x-k8s.io, kind: ServiceImport}], rules: []}}";
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/cart.yaml", yaml::exported("cart", "default", 1)),
        ("west/bad-import.yaml", bad_import.to_owned()),
        ("west/bad-slice.yaml", yaml::all(&["{apiVersion: v1, kind: Namespace, metadata: {name: x}}".to_owned(), bad_slice.to_owned()])),
        ("west/bad-route.yaml", bad_route.to_owned()),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], &[yaml::to_import("/cart", "cart")])),
    ];
    let mut bed = Bed::start(&files, Options::default()).expect("a lab");
    assert_eq!(who(&bed.get(STORE, "/cart").expect("an answer")), "west/cart", "the good ones work");
    let log = bed.controller_log("west").expect("a log");
    for (file, field) in [
        ("bad-import.yaml: document 1", "spec.ports[0].port"),
        ("bad-slice.yaml: document 2", "endpoints"),
        ("bad-route.yaml: document 1", "spec.parentRefs[0]"),
    ] {
        assert!(log.lines().any(|line| line.contains(file) && line.contains(field)), "{file} {field}: {log}");
    }

    // A file that is no YAML keeps its last good form, and is named with its line.
    bed.apply("west/route.yaml", "kind: HTTPRoute\nspec: [\n").expect("in force");
    assert_eq!(who(&bed.get(STORE, "/cart").expect("an answer")), "west/cart");
    let log = bed.controller_log("west").expect("a log");
    assert!(log.lines().any(|line| line.contains("route.yaml: no YAML") && line.contains("line")), "{log}");

    // One bad rule is dropped, its neighbours work, and the status says so (S-6).
    let rules = ["{matches: [{path: {type: RegularExpression, value: \"(\"}}]}".to_owned(), yaml::to_import("/cart", "cart")];
    bed.apply("west/route.yaml", &yaml::route("store", "", &[yaml::import("store", "")], &rules)).expect("in force");
    assert_eq!(who(&bed.get(STORE, "/cart").expect("an answer")), "west/cart");
    let status = bed.route_status("west", "default", "store").expect("a status");
    let conditions = status["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let partially = conditions.iter().find(|condition| condition["type"] == "PartiallyInvalid").expect("a condition");
    assert!(partially["message"].as_str().is_some_and(|message| message.starts_with("Dropped Rule")), "{partially}");
}

#[test]
fn a_status_folder_inside_the_source_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("status")).expect("a folder");
    let program = std::env::current_exe().expect("own path").ancestors().nth(2).expect("a folder").join("isthmus-controller");
    let output = std::process::Command::new(program)
        .arg(format!("--source=dir:{}", folder.path().display()))
        .arg(format!("--status-dir={}/status", folder.path().display()))
        .args(["--plaintext", "--cluster=west", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"])
        .output()
        .expect("a program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("status"), "{said}");
}
