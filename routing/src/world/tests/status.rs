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

fn key(kind: RouteKind, name: &str) -> ObjectKey {
    ObjectKey { kind: ObjectKind::Route(kind), namespace: "shop".to_owned(), name: name.to_owned() }
}

/// Conditions of a route's first parent: `Accepted=true/Accepted ...`.
fn status_of(world: &World, kind: RouteKind, name: &str) -> String {
    let entry = world.status(&key(kind, name)).expect("the route").remove(0);
    entry
        .conditions
        .iter()
        .map(|condition| format!("{}={}/{}", condition.kind, condition.status, condition.reason))
        .collect::<Vec<_>>()
        .join(" ")
}

fn message_of(world: &World, kind: RouteKind, name: &str, condition: &str) -> String {
    let entry = world.status(&key(kind, name)).expect("the route").remove(0);
    entry.conditions.into_iter().find(|other| other.kind == condition).expect("the condition").message
}

fn of_kind(kind: &str, name: &str, spec: &str) -> String {
    route(name, "shop", spec).replace("kind: HTTPRoute", &format!("kind: {kind}"))
}

const GOOD: &str = "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs";
const CONFLICTED: &str = "Accepted=false/Conflicted ResolvedRefs=true/ResolvedRefs";

/// M-21: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute, whatever their age; D-26: a loser is in force once the winner is gone.
#[test]
fn the_highest_kind_is_in_force_and_the_others_conflict() {
    let spec = format!("parentRefs: [{PARENT}]\nhostnames: [store.example]\nrules: [{{backendRefs: [{TO_CART}]}}]");
    let kinds =
        [("TCPRoute", RouteKind::Tcp), ("TLSRoute", RouteKind::Tls), ("HTTPRoute", RouteKind::Http), ("GRPCRoute", RouteKind::Grpc)];
    let mut world = world(&[STORE, CART]);
    for (index, (name, kind)) in kinds.iter().enumerate() {
        let young = of_kind(name, "r", &spec).replace("{name: r,", &format!("{{name: r, creationTimestamp: '202{index}-01-01T00:00:00Z',"));
        for object in objects(&[&young]) {
            world.apply(object);
        }
        assert_eq!(status_of(&world, *kind, "r"), GOOD, "{name}");
        assert_eq!(frontend(&world, "ServiceImport/shop/store/80", "shop").expect("active").kind, *kind);
        for (lower, lower_kind) in &kinds[..index] {
            assert_eq!(status_of(&world, *lower_kind, "r"), CONFLICTED, "{lower} under {name}");
        }
    }
    assert_eq!(message_of(&world, RouteKind::Http, "r", "Accepted"), "A route of a higher kind is in force on ports 80, 8080");
    for (index, (_, kind)) in kinds.iter().enumerate().rev().take(3) {
        world.delete(&key(*kind, "r"));
        let (next, next_kind) = kinds[index - 1];
        assert_eq!(status_of(&world, next_kind, "r"), GOOD, "{next}");
        assert_eq!(frontend(&world, "ServiceImport/shop/store/80", "shop").expect("active").kind, next_kind);
    }
}

#[test]
fn a_conflict_on_some_ports_leaves_the_others() {
    let parent = PARENT.replace("name: store", "name: store, port: 8080");
    let grpc = of_kind("GRPCRoute", "calls", &format!("parentRefs: [{parent}]\nrules: [{{}}]"));
    let world = world(&[STORE, CART, &gamma(), &grpc]);
    assert_eq!(status(&world), GOOD);
    let expected = "The route is attached to port 80, not to port 8080: a route of a higher kind is in force there";
    assert_eq!(message_of(&world, RouteKind::Http, "store", "Accepted"), expected);
    assert_eq!(frontend(&world, "ServiceImport/shop/store/80", "shop").expect("active").kind, RouteKind::Http);
    assert_eq!(frontend(&world, "ServiceImport/shop/store/8080", "shop").expect("active").kind, RouteKind::Grpc);
}

/// D-5: conflicts are judged inside a group; a consumer route is in force for its own namespace whatever producers there are.
#[test]
fn producer_and_consumer_routes_never_conflict() {
    let parent = PARENT.replace("name: store", "name: store, namespace: shop");
    let consumer = route("c", "buyers", &format!("parentRefs: [{parent}]"));
    let grpc = of_kind("GRPCRoute", "calls", &format!("parentRefs: [{PARENT}]\nrules: [{{}}]"));
    let world = world(&[STORE, &grpc, &consumer]);
    let key = ObjectKey { namespace: "buyers".to_owned(), ..key(RouteKind::Http, "c") };
    assert!(world.status(&key).expect("the route")[0].conditions[0].status);
    assert_eq!(frontend(&world, "ServiceImport/shop/store/80", "buyers").expect("active").kind, RouteKind::Http);
    assert_eq!(frontend(&world, "ServiceImport/shop/store/80", "shop").expect("active").kind, RouteKind::Grpc);
}

/// A route of a higher kind that is not in force itself keeps nobody from being so.
#[test]
fn a_route_that_is_not_accepted_conflicts_with_none() {
    let bad =
        of_kind("GRPCRoute", "calls", &format!("parentRefs: [{PARENT}]\nrules: [{{matches: [{{method: {{type: Glob, method: x}}}}]}}]"));
    let world = world(&[STORE, CART, &gamma(), &bad]);
    assert_eq!(status_of(&world, RouteKind::Grpc, "calls"), "Accepted=false/UnsupportedValue ResolvedRefs=true/ResolvedRefs");
    assert_eq!(status(&world), GOOD);
}

#[test]
fn a_tls_route_needs_host_names() {
    let spec = |names: &str| {
        of_kind("TLSRoute", "t", &format!("parentRefs: [{PARENT}]\nhostnames: {names}\nrules: [{{backendRefs: [{TO_CART}]}}]"))
    };
    let unsupported = "Accepted=false/UnsupportedValue ResolvedRefs=true/ResolvedRefs";
    for (names, expected) in [
        ("[store.example, '*.store.example']", GOOD),
        ("[]", unsupported),
        ("['10.0.0.1']", unsupported),
        ("['*']", unsupported),
        ("[store.example, UPPER.example]", unsupported),
    ] {
        let world = world(&[STORE, CART, &spec(names)]);
        assert_eq!(status_of(&world, RouteKind::Tls, "t"), expected, "{names}");
        assert_eq!(frontend(&world, "ServiceImport/shop/store/80", "shop").is_some(), expected == GOOD, "{names}");
    }
    let none = spec("[]").replace("  hostnames: []\n", "");
    assert_eq!(message_of(&world(&[STORE, CART, &none]), RouteKind::Tls, "t", "Accepted"), "spec.hostnames: a TLSRoute names at least one");
}

/// L-2: "oldest wins, all Accepted=True".
#[test]
fn of_several_tcp_routes_the_oldest_comes_first_and_all_are_accepted() {
    let spec = format!("parentRefs: [{PARENT}]\nrules: [{{backendRefs: [{TO_CART}]}}]");
    let young = of_kind("TCPRoute", "a", &spec).replace("{name: a,", "{name: a, creationTimestamp: '2026-01-02T00:00:00Z',");
    let old = of_kind("TCPRoute", "b", &spec).replace("{name: b,", "{name: b, creationTimestamp: '2026-01-01T00:00:00Z',");
    let mut world = world(&[STORE, CART, &young, &old]);
    let first = |world: &World| frontend(world, "ServiceImport/shop/store/80", "shop").expect("active").routes[0].name.clone();
    assert_eq!([status_of(&world, RouteKind::Tcp, "a"), status_of(&world, RouteKind::Tcp, "b")], [GOOD, GOOD]);
    assert_eq!(first(&world), "b");
    world.delete(&key(RouteKind::Tcp, "b"));
    assert_eq!(first(&world), "a");
}

#[test]
fn a_tcp_route_has_one_rule_with_backends() {
    for (rules, expected) in [
        (format!("[{{backendRefs: [{TO_CART}]}}]"), GOOD),
        ("[]".to_owned(), "Accepted=false/UnsupportedValue ResolvedRefs=true/ResolvedRefs"),
        ("[{}]".to_owned(), "Accepted=false/UnsupportedValue ResolvedRefs=true/ResolvedRefs"),
        (
            format!("[{{backendRefs: [{TO_CART}]}}, {{backendRefs: [{TO_CART}]}}]"),
            "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs PartiallyInvalid=true/UnsupportedValue",
        ),
    ] {
        let world = world(&[STORE, CART, &of_kind("TCPRoute", "t", &format!("parentRefs: [{PARENT}]\nrules: {rules}"))]);
        assert_eq!(status_of(&world, RouteKind::Tcp, "t"), expected, "{rules}");
    }
}

/// H-16, H-18: the route stays in force; what its filters refer to counts as its backends do.
#[test]
fn what_filters_refer_to_is_resolved_too() {
    let mirror = |to: &str| format!("{{type: RequestMirror, requestMirror: {{backendRef: {to}}}}}");
    let auth = |to: &str| format!("{{type: ExternalAuth, externalAuth: {{protocol: GRPC, grpc: {{}}, backendRef: {to}}}}}");
    let missing = TO_CART.replace("cart", "none");
    let foreign = TO_CART.replace("cart", "pay, namespace: bank");
    for (filter, expected) in [
        (mirror(TO_CART), GOOD),
        (auth(TO_CART), GOOD),
        (mirror(&missing), "Accepted=true/Accepted ResolvedRefs=false/BackendNotFound"),
        (auth(&missing), "Accepted=true/Accepted ResolvedRefs=false/BackendNotFound"),
        (mirror(&foreign), "Accepted=true/Accepted ResolvedRefs=false/RefNotPermitted"),
        (mirror("{group: example.org, kind: Bucket, name: b}"), "Accepted=true/Accepted ResolvedRefs=false/InvalidKind"),
    ] {
        let of_rule = format!("{{filters: [{filter}], backendRefs: [{TO_CART}]}}");
        let backend = TO_CART.trim_end_matches('}');
        let of_backend = format!("{{backendRefs: [{backend}, filters: [{filter}]}}]}}");
        for rule in [of_rule, of_backend] {
            let world = world(&[STORE, CART, &route("store", "shop", &format!("parentRefs: [{PARENT}]\nrules: [{rule}]"))]);
            assert_eq!(status(&world), expected, "{rule}");
            assert!(frontend(&world, "ServiceImport/shop/store/80", "shop").is_some(), "{rule}");
        }
    }
}

/// GEP-1619: "the route MUST be rejected"; of several rules only the one that asks for it (H-29, D-16, S-6).
#[test]
fn session_persistence_excludes_session_affinity() {
    let affine = CART.replace("ips:", "sessionAffinity: ClientIP, ips:");
    let asks = format!("{{sessionPersistence: {{sessionName: s}}, backendRefs: [{TO_CART}]}}");
    let rules = |rules: &str| route("store", "shop", &format!("parentRefs: [{PARENT}]\nrules: [{rules}]"));
    assert_eq!(status(&world(&[STORE, CART, &rules(&asks)])), GOOD);
    let alone = world(&[STORE, &affine, &rules(&asks)]);
    assert_eq!(status(&alone), "Accepted=false/UnsupportedValue ResolvedRefs=true/ResolvedRefs");
    assert!(vips(&alone, "shop").is_empty());
    let partly = world(&[STORE, &affine, &rules(&format!("{{}}, {asks}"))]);
    assert_eq!(status(&partly), "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs PartiallyInvalid=true/UnsupportedValue");
    assert_eq!(
        message_of(&partly, RouteKind::Http, "store", "PartiallyInvalid"),
        "Dropped Rule: spec.rules[1].sessionPersistence: cannot be had together with session affinity ClientIP of ServiceImport/shop/cart"
    );
    let indexes = |world: &World| {
        let frontend = frontend(world, "ServiceImport/shop/store/80", "shop").expect("active");
        frontend.routes[0].rules.iter().map(|rule| rule.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(&partly), [0]);
    let without = asks.replace("sessionPersistence: {sessionName: s}, ", "");
    assert_eq!(status(&world(&[STORE, &affine, &rules(&without)])), GOOD, "affinity alone is no fault");
}

/// GEP-1911: what a port speaks must be what the route can speak (H-30).
#[test]
fn an_app_protocol_that_the_route_cannot_speak_is_unsupported() {
    let policy = "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls, namespace: shop}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart}]
  validation: {hostname: cart.example, wellKnownCACertificates: System}
";
    let bad = "Accepted=true/Accepted ResolvedRefs=false/UnsupportedProtocol";
    let spec = format!("parentRefs: [{PARENT}]\nhostnames: [store.example]\nrules: [{{backendRefs: [{TO_CART}]}}]");
    for (kind, name, protocol, plain, secured) in [
        (RouteKind::Http, "HTTPRoute", "kubernetes.io/wss", bad, GOOD),
        (RouteKind::Http, "HTTPRoute", "kubernetes.io/ws", GOOD, GOOD),
        (RouteKind::Http, "HTTPRoute", "kubernetes.io/h2c", GOOD, GOOD),
        (RouteKind::Http, "HTTPRoute", "example.org/other", GOOD, GOOD),
        (RouteKind::Grpc, "GRPCRoute", "kubernetes.io/wss", bad, bad),
        (RouteKind::Grpc, "GRPCRoute", "kubernetes.io/ws", bad, bad),
        (RouteKind::Grpc, "GRPCRoute", "kubernetes.io/h2c", GOOD, GOOD),
        (RouteKind::Tls, "TLSRoute", "kubernetes.io/wss", GOOD, GOOD),
        (RouteKind::Tcp, "TCPRoute", "kubernetes.io/wss", GOOD, GOOD),
    ] {
        let cart = CART.replace("{port: 8080}", &format!("{{port: 8080, appProtocol: {protocol}}}"));
        let route = of_kind(name, "r", &spec);
        assert_eq!(status_of(&world(&[STORE, &cart, &route]), kind, "r"), plain, "{name} {protocol}");
        assert_eq!(status_of(&world(&[STORE, &cart, &route, policy]), kind, "r"), secured, "{name} {protocol} with TLS");
    }
}

/// S-2, D-28, M-23: one entry each, in their order; those of Gateways are not ours.
#[test]
fn every_parent_has_an_entry_of_its_own() {
    let named = PARENT.replace("name: store", "name: store, sectionName: http");
    let missing = PARENT.replace("store", "none");
    let world = world(&[STORE, &route("store", "shop", &format!("parentRefs: [{named}, {{name: gateway}}, {missing}, {PARENT}]"))]);
    let entries = world.status(&key(RouteKind::Http, "store")).expect("the route");
    let said: Vec<String> = entries
        .iter()
        .map(|entry| format!("{} {} {}", entry.reference["name"], entry.reference["sectionName"], entry.conditions[0].reason))
        .collect();
    assert_eq!(said, ["\"store\" \"http\" Accepted", "\"none\" null NoMatchingParent", "\"store\" null Accepted"]);
}

#[test]
fn why_a_parent_does_not_match_is_said() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: 80}]}";
    let external = service.replace("spec: {", "spec: {type: ExternalName, ");
    let headless = service.replace("spec: {", "spec: {clusterIP: None, ");
    let to_service = "{group: '', kind: Service, name: s}";
    let narrowed = |more: &str| PARENT.replace("name: store", &format!("name: store, {more}"));
    for (objects, parent, expected) in [
        (vec![], PARENT.to_owned(), "ServiceImport/shop/store does not exist"),
        (vec![STORE.replace("[10.201.0.1, 'fd00:2:1::1']", "[]")], PARENT.to_owned(), "ServiceImport/shop/store has no ClusterSetIP yet"),
        (
            vec![STORE.replace("ClusterSetIP", "Headless")],
            PARENT.to_owned(),
            "ServiceImport/shop/store is headless; only a virtual IP can be a parent",
        ),
        (vec![STORE.to_owned()], narrowed("port: 81"), "ServiceImport/shop/store has no TCP port 81"),
        (vec![STORE.to_owned()], narrowed("sectionName: x"), "ServiceImport/shop/store has no TCP port named \"x\""),
        (vec![STORE.to_owned()], narrowed("port: 80, sectionName: admin"), "ServiceImport/shop/store has no TCP port 80 named \"admin\""),
        (vec![service.to_owned()], to_service.to_owned(), "Service/shop/s has no ClusterIP yet"),
        (vec![external], to_service.to_owned(), "Service/shop/s is of type ExternalName; only a virtual IP can be a parent"),
        (vec![headless], to_service.to_owned(), "Service/shop/s is headless; only a virtual IP can be a parent"),
    ] {
        let mut texts: Vec<&str> = objects.iter().map(String::as_str).collect();
        let route = route("store", "shop", &format!("parentRefs: [{parent}]"));
        texts.push(&route);
        let world = world(&texts);
        assert_eq!(status_of(&world, RouteKind::Http, "store"), "Accepted=false/NoMatchingParent ResolvedRefs=true/ResolvedRefs");
        assert_eq!(message_of(&world, RouteKind::Http, "store", "Accepted"), expected);
    }
}

/// S-5: one reason, of the first problem in rule and backend order; the message lists all. Endpoints that are not ready change nothing (S-8).
#[test]
fn all_unresolved_references_are_listed_and_the_first_gives_the_reason() {
    let spec = format!(
        "parentRefs: [{PARENT}]\nrules:\n- backendRefs: [{TO_CART}, {{group: example.org, kind: Bucket, name: b}}]\n- backendRefs: [{{name: s}}]"
    );
    let unready = CART_EAST.replace("{ready: true}", "{ready: false}");
    let world = world(&[STORE, CART, &unready, &route("store", "shop", &spec)]);
    assert_eq!(status(&world), "Accepted=true/Accepted ResolvedRefs=false/InvalidKind");
    let expected = "InvalidKind: example.org/Bucket is no kind of backend; BackendNotFound: Service/shop/s does not exist";
    assert_eq!(message_of(&world, RouteKind::Http, "store", "ResolvedRefs"), expected);
    assert_eq!(status(&super::world(&[STORE, CART, &unready, &gamma()])), GOOD);
}

/// S-4.
#[test]
fn conditions_speak_of_the_generation_that_was_read() {
    let route = gamma().replace("{name: store,", "{name: store, generation: 7,");
    let world = world(&[STORE, CART, &route]);
    let entry = world.status(&key(RouteKind::Http, "store")).expect("the route").remove(0);
    assert!(entry.conditions.iter().all(|condition| condition.observed_generation == 7));
}
