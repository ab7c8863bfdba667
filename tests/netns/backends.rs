//! Where requests go and what is answered when they go nowhere: weights, grants, chains, ports, faults (T-8 to T-14).

use lab::lab::Options;
use tests::{Bed, who, yaml};

const STORE: &str = "store.default.svc.clusterset.local";

fn bed_with(options: Options, more: Vec<(&str, String)>) -> Bed {
    let mut files = super::gamma::files();
    files.retain(|(name, _)| *name != "west/route.yaml");
    files.extend(more);
    Bed::start(&files, options).expect("a lab")
}

fn bed(more: Vec<(&str, String)>) -> Bed {
    bed_with(Options::default(), more)
}

fn store_route(rules: &[String]) -> String {
    yaml::route("store", "", &[yaml::import("store", "")], rules)
}

fn to(backends: &[String]) -> String {
    format!("{{backendRefs: [{}]}}", backends.join(", "))
}

fn resolved_refs(bed: &Bed, namespace: &str, name: &str) -> (String, String) {
    let status = bed.route_status("west", namespace, name).expect("a status");
    let conditions = status["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let resolved = conditions.iter().find(|condition| condition["type"] == "ResolvedRefs").cloned().unwrap_or_default();
    let text = |field: &str| resolved[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

#[test]
fn a_service_is_local_an_import_is_everywhere_and_shares_are_weights() {
    let service = "{kind: Service, name: local, port: 80, weight: 90}".to_owned();
    let bed = bed(vec![
        ("west/local.yaml", yaml::app("local", "default", 1)),
        ("east/local.yaml", yaml::app("local", "default", 1)),
        ("west/global.yaml", yaml::exported("global", "default", 1)),
        ("east/global.yaml", yaml::exported("global", "default", 3)),
        ("west/route.yaml", store_route(&[to(&[service, yaml::import("global", "port: 80, weight: 10")])])),
    ]);
    let shares = bed.shares(1000, STORE, "/").expect("answers");
    assert_eq!(shares.get("east/local"), None, "a Service never means another cluster's pods (E1-5): {shares:?}");
    let of = |name: &str| shares.get(name).copied().unwrap_or_default();
    assert!((850..=950).contains(&of("west/local")), "90 of 100, within 5 points (H-20): {shares:?}");
    // A quarter of the import's endpoints are in west: of its hundred, about 25 land there.
    let global = of("west/global") + of("east/global");
    assert!(of("east/global") > of("west/global"), "by endpoints (D-17): {shares:?}");
    assert_eq!(global + of("west/local"), 1000, "{shares:?}");
}

#[test]
fn an_imports_share_follows_the_endpoints_of_each_cluster() {
    let bed = bed(vec![
        ("west/global.yaml", yaml::exported("global", "default", 1)),
        ("east/global.yaml", yaml::exported("global", "default", 3)),
        ("west/route.yaml", store_route(&[to(&[yaml::import("global", "port: 80")])])),
    ]);
    let shares = bed.shares(1000, STORE, "/").expect("answers");
    let west = shares.get("west/global").copied().unwrap_or_default();
    assert!((200..=300).contains(&west), "one of four endpoints: {shares:?}");
}

#[test]
fn a_foreign_namespace_needs_a_grant() {
    let grant = "{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {name: bar, namespace: bar}, spec: {from: \
                 [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: [{group: multicluster.x-k8s.io, kind: \
                 ServiceImport}]}}";
    let files = || {
        vec![
            ("east/bar.yaml", yaml::exported("bar", "bar", 1)),
            ("west/route.yaml", store_route(&[to(&[yaml::import("bar", "namespace: bar")])])),
        ]
    };
    let mut granted = bed([files(), vec![("west/grant.yaml", grant.to_owned())]].concat());
    assert_eq!(who(&granted.get(STORE, "/").expect("an answer")), "east/bar");
    assert_eq!(resolved_refs(&granted, "default", "store"), ("True".to_owned(), "ResolvedRefs".to_owned()));
    granted.delete("west/grant.yaml").expect("in force");
    let answer = granted.get(STORE, "/").expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.reason()), (500, Some("invalid_backend")), "revoked at once (D-4)");
    assert_eq!(resolved_refs(&granted, "default", "store"), ("False".to_owned(), "RefNotPermitted".to_owned()));

    let any = Options { controller_arguments: vec!["--cross-namespace-backends=any".to_owned()], ..Options::default() };
    assert_eq!(who(&bed_with(any, files()).get(STORE, "/").expect("an answer")), "east/bar", "GEP-1294's permissive reading");
}

#[test]
fn routes_never_chain() {
    let add = |name: &str, backend: &str| {
        format!(
            "{{filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{add: [{{name: x-passed, value: {name}}}]}}}}], backendRefs: \
             [{}]}}",
            yaml::import(backend, "")
        )
    };
    let own = |name: &str, backend: &str| yaml::route(name, "", &[yaml::import(name, "")], &[add(name, backend)]);
    // store -> cart and cart -> store: each is one hop.
    let mut bed = bed(vec![("west/store-route.yaml", own("store", "cart")), ("west/cart-route.yaml", own("cart", "store"))]);
    let passed = |bed: &Bed, to: &str| {
        let answer = bed.get(to, "/").expect("an answer");
        let headers = answer.seen()["headers"].as_array().cloned().unwrap_or_default();
        let passed: Vec<String> =
            headers.iter().filter(|header| header[0] == "x-passed").filter_map(|header| header[1].as_str().map(str::to_owned)).collect();
        (who(&answer).split_once('/').map(|(_, name)| name.to_owned()), passed)
    };
    assert_eq!(passed(&bed, STORE), (Some("cart".to_owned()), vec!["store".to_owned()]), "cart's route is not consulted (M-7)");
    let cart = "cart.default.svc.clusterset.local";
    assert_eq!(passed(&bed, cart), (Some("store".to_owned()), vec!["cart".to_owned()]));
    bed.apply("west/store-route.yaml", &own("store", "store")).expect("in force");
    assert_eq!(passed(&bed, STORE), (Some("store".to_owned()), vec!["store".to_owned()]), "its own parent as backend: one hop");
}

#[test]
fn a_port_that_is_not_said_is_derived() {
    let many = "[{name: a, port: 8001, targetPort: 8080}, {name: b, port: 8002, targetPort: 8080}]";
    let app = |name: &str, ports: &str| {
        yaml::all(&[
            yaml::deployment(name, "default", 1, "[{containerPort: 8080}]"),
            yaml::service(name, "default", ports, ""),
            yaml::export(name, "default"),
        ])
    };
    let bed = bed(vec![
        ("west/apps.yaml", yaml::all(&[app("sole", "[{port: 7777, targetPort: 8080}]"), app("many", many)])),
        (
            "west/route.yaml",
            store_route(&[yaml::to_import("/same", "cart"), yaml::to_import("/sole", "sole"), yaml::to_import("/many", "many")]),
        ),
    ]);
    assert!(who(&bed.get(STORE, "/same").expect("an answer")).ends_with("/cart"), "the port that was dialled (D-7)");
    assert_eq!(who(&bed.get(STORE, "/sole").expect("an answer")), "west/sole", "the only one");
    assert_eq!(bed.get(STORE, "/many").expect("an answer").status, 500, "neither");
    assert_eq!(resolved_refs(&bed, "default", "store"), ("False".to_owned(), "BackendNotFound".to_owned()));
}

#[test]
fn what_goes_nowhere_is_answered_for_its_share() {
    let (cart, missing) = (yaml::import("cart", "port: 80"), yaml::import("missing", "port: 80"));
    let zero = |text: &str| text.replace("port: 80", "port: 80, weight: 0");
    let rule = |path: &str, backends: &[String]| format!("{{matches: [{{path: {{value: {path}}}}}], {}", &to(backends)[1..]);
    let bed = bed(vec![
        ("west/empty.yaml", yaml::exported("empty", "default", 0)),
        (
            "west/route.yaml",
            store_route(&[
                rule("/missing", std::slice::from_ref(&missing)),
                rule("/empty", &[yaml::import("empty", "port: 80")]),
                rule("/half", &[cart.clone(), missing.clone()]),
                rule("/harmless", &[cart.clone(), zero(&missing)]),
                rule("/zero", &[zero(&cart)]),
                "{matches: [{path: {value: /none}}]}".to_owned(),
                "{matches: [{path: {value: /list}}], backendRefs: []}".to_owned(),
            ]),
        ),
    ]);
    for (target, status, reason) in [
        ("/missing", 500, "invalid_backend"),
        ("/empty", 503, "no_endpoint"),
        ("/zero", 500, "no_backend"),
        ("/none", 500, "no_backend"),
        ("/list", 500, "no_backend"),
    ] {
        let answer = bed.get(STORE, target).expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.reason()), (status, Some(reason)), "{target} (H-20 to H-22, D-9, M-10)");
    }
    let half = bed.shares(400, STORE, "/half").expect("answers");
    assert!((140..=260).contains(&half.get("500").copied().unwrap_or_default()), "an invalid backend keeps its weight (H-21): {half:?}");
    let harmless = bed.shares(50, STORE, "/harmless").expect("answers");
    assert_eq!(harmless.get("500"), None, "{harmless:?}");
}
