//! Attachment, resolution, endpoints and status, by the digest's rules; objects are written as a user writes them.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::manifest;
use crate::model::{Addresses, BackendFaultReason};

const STORE: &str = "
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: store, namespace: shop}
spec:
  type: ClusterSetIP
  ips: [10.201.0.1, 'fd00:2:1::1']
  ports: [{name: http, port: 80}, {name: admin, port: 8080}]
";
const CART: &str = "
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: {name: cart, namespace: shop}
spec: {type: ClusterSetIP, ips: [10.201.0.2], ports: [{port: 8080}]}
";
const CART_EAST: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: cart-east
  namespace: shop
  labels: {multicluster.kubernetes.io/service-name: cart, multicluster.kubernetes.io/source-cluster: east}
addressType: IPv4
ports: [{port: 3000}]
endpoints:
- {addresses: [10.2.0.1], conditions: {ready: true}}
- {addresses: [10.2.0.2], conditions: {ready: false}}
";

fn route(name: &str, namespace: &str, spec: &str) -> String {
    let mut text =
        format!("\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n");
    for line in spec.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

const PARENT: &str = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: store}";
const TO_CART: &str = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart}";

fn gamma() -> String {
    route("store", "shop", &format!("parentRefs: [{PARENT}]\nrules:\n- matches: [{{path: {{value: /cart}}}}]\n  backendRefs: [{TO_CART}]"))
}

fn objects(texts: &[&str]) -> Vec<Object> {
    let text = texts.join("\n---\n");
    let documents = manifest::parse(&text).expect("YAML");
    documents.iter().map(|document| Object::decode(&document.value).expect("decodes").expect("a kind that is read")).collect()
}

fn world_with(settings: Settings, texts: &[&str]) -> World {
    let mut world = World::new(settings);
    for object in objects(texts) {
        world.apply(object);
    }
    world
}

fn world(texts: &[&str]) -> World {
    world_with(Settings { cluster: "west".to_owned(), ..Settings::default() }, texts)
}

fn port(text: &str) -> ServicePort {
    text.parse().expect("KIND/NAMESPACE/NAME/PORT")
}

fn frontend(world: &World, id: &str, client: &str) -> Option<Frontend> {
    world.frontend(&FrontendId(port(id)), client)
}

fn vips(world: &World, client: &str) -> Vec<String> {
    world.vips(client).iter().map(|vip| format!("{} {}", vip.address(), vip.frontend)).collect()
}

/// `Accepted=True/Accepted ResolvedRefs=False/InvalidKind` of the route `shop/store`'s first parent.
fn status(world: &World) -> String {
    let key = ObjectKey { kind: ObjectKind::Route(RouteKind::Http), namespace: "shop".to_owned(), name: "store".to_owned() };
    let parents = world.status(&key).expect("the route");
    let said = |condition: &crate::status::Condition| format!("{}={}/{}", condition.kind, condition.status, condition.reason);
    parents.first().map(|parent| parent.conditions.iter().map(said).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

/// Targets of the first rule for clients in `shop` on port 80.
fn targets(world: &World) -> Vec<String> {
    let frontend = frontend(world, "ServiceImport/shop/store/80", "shop").expect("an active route");
    frontend.routes[0].rules[0]
        .backends
        .iter()
        .map(|backend| match &backend.target {
            BackendTarget::Backend(id) => id.to_string(),
            BackendTarget::Invalid(fault) => fault.reason.as_str().to_owned(),
        })
        .collect()
}

#[test]
fn the_example_of_the_gep_attaches_to_every_ip_and_port() {
    let world = world(&[STORE, CART, CART_EAST, &gamma()]);
    assert_eq!(
        vips(&world, "anywhere"),
        [
            "10.201.0.1:80 ServiceImport/shop/store/80",
            "10.201.0.1:8080 ServiceImport/shop/store/8080",
            "[fd00:2:1::1]:80 ServiceImport/shop/store/80",
            "[fd00:2:1::1]:8080 ServiceImport/shop/store/8080",
        ]
    );
    assert_eq!(targets(&world), ["ServiceImport/shop/cart/8080"], "D-7: the only port, since 80 is none of cart's");
    assert_eq!(status(&world), "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs");
}

#[test]
fn without_a_route_there_is_nothing_to_intercept() {
    let world = world(&[STORE, CART]);
    assert!(vips(&world, "shop").is_empty());
    assert_eq!(frontend(&world, "ServiceImport/shop/store/80", "shop"), None);
}

#[test]
fn port_and_section_name_narrow_a_parent() {
    for (narrowed, attached) in [
        ("port: 80", vec![80]),
        ("sectionName: admin", vec![8080]),
        ("port: 80, sectionName: http", vec![80]),
        ("port: 80, sectionName: admin", vec![]),
    ] {
        let spec = format!("parentRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, {narrowed}}}]");
        let world = world(&[STORE, &route("store", "shop", &spec)]);
        let ports: Vec<u16> = world.vips("shop").iter().filter(|vip| vip.ip.is_ipv4()).map(|vip| vip.address().port()).collect();
        assert_eq!(ports, attached, "{narrowed}");
    }
}

#[test]
fn a_consumer_route_replaces_producer_routes_for_its_own_namespace_and_port() {
    let consumer = route(
        "consumer",
        "buyers",
        "parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, namespace: shop, port: 80}]",
    );
    let world = world(&[STORE, CART, &gamma(), &consumer]);
    let names = |port: u16, client: &str| {
        let frontend = frontend(&world, &format!("ServiceImport/shop/store/{port}"), client).expect("active");
        frontend.routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(80, "buyers"), ["consumer"]);
    assert_eq!(names(8080, "buyers"), ["store"], "D-5: judged for each port");
    assert_eq!(names(80, "others"), ["store"], "M-16: a consumer route reaches no other namespace");
    assert_eq!(names(80, "shop"), ["store"]);
}

#[test]
fn several_routes_merge_oldest_first_then_by_name() {
    let spec = format!("parentRefs: [{PARENT}]");
    let old = route("z", "shop", &spec).replace("name: z,", "name: z, creationTimestamp: '1969-12-31T00:00:00Z',");
    let world = world(&[STORE, &route("b", "shop", &spec), &route("a", "shop", &spec), &old]);
    let frontend = frontend(&world, "ServiceImport/shop/store/80", "shop").expect("active");
    assert_eq!(frontend.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["z", "a", "b"]);
}

#[test]
fn a_foreign_backend_needs_a_grant_unless_it_is_waived() {
    let foreign = route(
        "store",
        "shop",
        &format!(
            "parentRefs: [{PARENT}]\nrules:\n- backendRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: pay, namespace: bank}}]"
        ),
    );
    let pay = CART.replace("name: cart, namespace: shop", "name: pay, namespace: bank");
    let grant = |to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: bank}}\nspec:\n  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}}]\n  to: [{to}]"
        )
    };
    let all = grant("{group: multicluster.x-k8s.io, kind: ServiceImport}");
    let other = grant("{group: multicluster.x-k8s.io, kind: ServiceImport, name: other}");
    assert_eq!(targets(&world(&[STORE, &pay, &foreign])), ["RefNotPermitted"]);
    assert_eq!(targets(&world(&[STORE, &pay, &foreign, &other])), ["RefNotPermitted"]);
    assert_eq!(targets(&world(&[STORE, &pay, &foreign, &all])), ["ServiceImport/bank/pay/8080"]);
    let any = Settings { cross_namespace_backends: CrossNamespaceBackends::Any, ..Settings::default() };
    assert_eq!(targets(&world_with(any, &[STORE, &pay, &foreign])), ["ServiceImport/bank/pay/8080"]);
}

#[test]
fn a_consumer_route_may_lead_back_to_its_parents_namespace() {
    let consumer = route(
        "c",
        "buyers",
        "parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, namespace: shop}]\nrules:\n- backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, namespace: shop}]",
    );
    let world = world(&[STORE, CART, &consumer]);
    let frontend = frontend(&world, "ServiceImport/shop/store/80", "buyers").expect("active");
    assert!(matches!(frontend.routes[0].rules[0].backends[0].target, BackendTarget::Backend(_)), "D-4, GEP-1294 MeshConsumerRoute");
}

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

#[test]
fn services_are_left_to_another_mesh_where_asked_for() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: store, namespace: shop}\nspec: {clusterIP: 10.101.0.1, ports: [{port: 80}]}";
    let attached = route("store", "shop", "parentRefs: [{group: '', kind: Service, name: store}]");
    assert_eq!(vips(&world(&[service, &attached]), "shop"), ["10.101.0.1:80 Service/shop/store/80"]);
    let alone = Settings { parents: Parents::ServiceImport, ..Settings::default() };
    let world = world_with(alone, &[service, &attached]);
    assert!(vips(&world, "shop").is_empty());
    assert_eq!(status(&world), "");
}

fn endpoints_of(world: &World, id: &str) -> Vec<String> {
    match world.backend(&BackendId(port(id))).expect("the backend").addresses {
        Addresses::Endpoints(endpoints) => endpoints.iter().map(|endpoint| format!("{} {}", endpoint.cluster, endpoint.address)).collect(),
        Addresses::Vips(vips) => vips.iter().map(|vip| format!("vip {vip}")).collect(),
    }
}

#[test]
fn an_import_has_the_ready_endpoints_of_every_cluster_and_no_others() {
    let west =
        CART_EAST.replace("cart-east", "cart-west").replace("source-cluster: east", "source-cluster: west").replace("10.2.0.", "10.1.0.");
    let local = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: l, namespace: shop, labels: {kubernetes.io/service-name: cart}}\naddressType: IPv4\nports: [{port: 3000}]\nendpoints: [{addresses: [10.1.9.9]}]";
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {clusterIP: 10.101.0.2, ports: [{port: 8080}]}";
    let world = world(&[CART, CART_EAST, &west, local, service]);
    assert_eq!(endpoints_of(&world, "ServiceImport/shop/cart/8080"), ["east 10.2.0.1:3000", "west 10.1.0.1:3000"]);
    assert_eq!(endpoints_of(&world, "Service/shop/cart/8080"), ["west 10.1.9.9:3000"]);
}

#[test]
fn endpoints_that_drain_are_the_last_resort() {
    let slice = |conditions: [&str; 2]| CART_EAST.replace("{ready: true}", conditions[0]).replace("{ready: false}", conditions[1]);
    let draining = "{ready: false, serving: true, terminating: true}";
    let both = world(&[CART, &slice([draining, "{ready: true}"])]);
    assert_eq!(endpoints_of(&both, "ServiceImport/shop/cart/8080"), ["east 10.2.0.2:3000"]);
    let one = world(&[CART, &slice([draining, "{ready: false}"])]);
    assert_eq!(endpoints_of(&one, "ServiceImport/shop/cart/8080"), ["east 10.2.0.1:3000"]);
}

#[test]
fn without_slices_the_vip_of_the_platform_is_dialled() {
    assert_eq!(endpoints_of(&world(&[CART]), "ServiceImport/shop/cart/8080"), ["vip 10.201.0.2:8080"]);
    let present = format!("{CART}status: {{endpointSliceObjects: Present}}\n");
    assert!(endpoints_of(&world(&[&present]), "ServiceImport/shop/cart/8080").is_empty());
    let absent = format!("{CART}status: {{endpointSliceObjects: Absent}}\n");
    assert_eq!(endpoints_of(&world(&[&absent, CART_EAST]), "ServiceImport/shop/cart/8080"), ["vip 10.201.0.2:8080"]);
}

#[test]
fn a_missing_import_never_falls_back_to_its_namesake() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {clusterIP: 10.101.0.2, ports: [{port: 80}]}";
    let world = world(&[STORE, service, &gamma()]);
    assert_eq!(targets(&world), [BackendFaultReason::BackendNotFound.as_str()]);
}

#[test]
fn deleting_says_what_is_touched_and_leaves_nothing() {
    let mut world = world(&[STORE, CART, &gamma()]);
    let touched = world.delete(&ObjectKey { kind: ObjectKind::ServiceImport, namespace: "shop".to_owned(), name: "cart".to_owned() });
    assert!(touched.frontends.contains(&port("ServiceImport/shop/store/80").service), "its route leads nowhere now");
    assert!(touched.backends.contains(&port("ServiceImport/shop/cart/80").service));
    assert_eq!(touched.statuses.len(), 1);
    assert_eq!(status(&world), "Accepted=true/Accepted ResolvedRefs=false/BackendNotFound");
}

/// Everything that the world answers, for comparison.
fn answers(world: &World) -> String {
    let mut text = String::new();
    for client in ["shop", "buyers"] {
        let _ = writeln!(text, "{:?}", world.vips(client));
        for vip in world.vips(client) {
            let _ = writeln!(text, "{:?}", world.frontend(&vip.frontend, client));
        }
    }
    for id in ["ServiceImport/shop/cart/8080", "ServiceImport/shop/store/80"] {
        let _ = writeln!(text, "{:?}", world.backend(&BackendId(port(id))));
    }
    for key in world.with_status() {
        let _ = writeln!(text, "{:?}", world.status(&key));
    }
    text
}

proptest! {
    /// Any order of arrival, with any objects coming twice or going and coming back, ends in the same answers.
    #[test]
    fn arrival_order_never_matters(order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(), again in proptest::collection::vec(0..5usize, 0..6)) {
        let consumer = route("c", "buyers", "parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, namespace: shop, port: 80}]");
        let all = objects(&[STORE, CART, CART_EAST, &gamma(), &consumer]);
        let settled = world(&[STORE, CART, CART_EAST, &gamma(), &consumer]);
        let mut shuffled = World::new(Settings { cluster: "west".to_owned(), ..Settings::default() });
        for index in &order {
            shuffled.apply(all[*index].clone());
        }
        for index in &again {
            shuffled.delete(&all[*index].key());
            shuffled.apply(all[*index].clone());
        }
        prop_assert_eq!(answers(&shuffled), answers(&settled));
    }
}

/// D-8: an MCS implementation may give the import's VIP to a Service of its own; routes on either are one group.
#[test]
fn routes_on_a_service_derived_from_an_import_are_merged_into_its_own() {
    let derived = "
apiVersion: v1
kind: Service
metadata:
  name: derived-store
  namespace: shop
  ownerReferences: [{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, name: store}]
spec: {clusterIP: 10.201.0.1, ports: [{name: http, port: 80}]}
";
    let on_service = route(
        "on-service",
        "shop",
        &format!("parentRefs: [{{group: '', kind: Service, name: derived-store}}]\nrules: [{{backendRefs: [{TO_CART}]}}]"),
    );
    let names = |world: &World| -> Vec<String> {
        let frontend = frontend(world, "ServiceImport/shop/store/80", "shop");
        frontend.iter().flat_map(|frontend| &frontend.routes).map(|route| route.name.clone()).collect()
    };
    let mut both = world(&[STORE, CART, derived, &gamma()]);
    assert_eq!(names(&both), ["store"]);
    let [object]: [Object; 1] = objects(&[&on_service]).try_into().expect("one");
    let touched = both.apply(object);
    assert!(touched.frontends.contains(&port("ServiceImport/shop/store/80").service), "{touched:?}");
    assert_eq!(names(&both), ["on-service", "store"]);
    assert!(vips(&both, "shop").contains(&"10.201.0.1:80 ServiceImport/shop/store/80".to_owned()), "the import owns the address");

    let foreign = derived.replace("10.201.0.1", "10.99.0.1");
    assert_eq!(names(&world(&[STORE, CART, &foreign, &gamma(), &on_service])), ["store"], "only where they share an address");
    let unrelated = derived.replace("name: store}", "name: other}");
    assert_eq!(names(&world(&[STORE, CART, &unrelated, &gamma(), &on_service])), ["store"]);
}
