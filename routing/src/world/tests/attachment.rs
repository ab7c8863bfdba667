//! Which routes are in force where (M-1 to M-21, D-5, D-6, D-8).

use super::*;

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

/// Of an MCS implementation that gives the import's VIP to a Service of its own.
const DERIVED: &str = "
apiVersion: v1
kind: Service
metadata:
  name: derived-store
  namespace: shop
  ownerReferences: [{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, name: store}]
spec: {clusterIP: 10.201.0.1, ports: [{name: http, port: 80}]}
";

/// D-8.
#[test]
fn routes_on_a_service_derived_from_an_import_are_merged_into_its_own() {
    let on_service = route(
        "on-service",
        "shop",
        &format!("parentRefs: [{{group: '', kind: Service, name: derived-store}}]\nrules: [{{backendRefs: [{TO_CART}]}}]"),
    );
    let names = |world: &World| -> Vec<String> {
        let frontend = frontend(world, "ServiceImport/shop/store/80", "shop");
        frontend.iter().flat_map(|frontend| &frontend.routes).map(|route| route.name.clone()).collect()
    };
    let mut both = world(&[STORE, CART, DERIVED, &gamma()]);
    assert_eq!(names(&both), ["store"]);
    let [object]: [Object; 1] = objects(&[&on_service]).try_into().expect("one");
    let touched = both.apply(object);
    assert!(touched.frontends.contains(&port("ServiceImport/shop/store/80").service), "{touched:?}");
    assert_eq!(names(&both), ["on-service", "store"]);
    assert!(vips(&both, "shop").contains(&"10.201.0.1:80 ServiceImport/shop/store/80".to_owned()), "the import owns the address");

    let foreign = DERIVED.replace("10.201.0.1", "10.99.0.1");
    assert_eq!(names(&world(&[STORE, CART, &foreign, &gamma(), &on_service])), ["store"], "only where they share an address");
    let unrelated = DERIVED.replace("name: store}", "name: other}");
    assert_eq!(names(&world(&[STORE, CART, &unrelated, &gamma(), &on_service])), ["store"]);
}

#[test]
fn a_route_on_a_derived_service_conflicts_with_a_higher_kind_on_its_import() {
    let on_service = route("store", "shop", "parentRefs: [{group: '', kind: Service, name: derived-store}]");
    let grpc = route("calls", "shop", &format!("parentRefs: [{PARENT}]\nrules: [{{}}]")).replace("HTTPRoute", "GRPCRoute");
    let accepted = "Accepted=true/Accepted ResolvedRefs=true/ResolvedRefs";
    assert_eq!(status(&world(&[STORE, DERIVED, &on_service])), accepted);
    let both = world(&[STORE, DERIVED, &on_service, &grpc]);
    assert_eq!(frontend(&both, "ServiceImport/shop/store/80", "shop").expect("active").kind, RouteKind::Grpc);
    assert_eq!(status(&both), "Accepted=false/Conflicted ResolvedRefs=true/ResolvedRefs");
    let elsewhere = DERIVED.replace("10.201.0.1", "10.99.0.1");
    assert_eq!(status(&world(&[STORE, &elsewhere, &on_service, &grpc])), accepted, "only where they share an address");
}

/// D-8: the oldest of those that have nothing to do with each other, the import if they are equally old.
#[test]
fn an_address_that_two_claim_belongs_to_the_older_one() {
    let route_on_both = route(
        "both",
        "shop",
        &format!("parentRefs: [{PARENT}, {{group: '', kind: Service, name: other}}]\nrules: [{{backendRefs: [{TO_CART}]}}]"),
    );
    let service = |created: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: other, namespace: shop, creationTimestamp: {created}}}, spec: {{clusterIP: \
             10.201.0.1, ports: [{{port: 80}}]}}}}"
        )
    };
    let owner = |created: &str| {
        let all = vips(
            &world(&[
                &STORE.replace("name: store,", "name: store, creationTimestamp: '2026-01-02T00:00:00Z',"),
                CART,
                &service(created),
                &route_on_both,
            ]),
            "shop",
        );
        all.into_iter().find(|vip| vip.starts_with("10.201.0.1:80 ")).expect("a VIP")
    };
    assert_eq!(owner("'2026-01-01T00:00:00Z'"), "10.201.0.1:80 Service/shop/other/80");
    assert_eq!(owner("'2026-01-02T00:00:00Z'"), "10.201.0.1:80 ServiceImport/shop/store/80");
    assert_eq!(owner("'2026-01-03T00:00:00Z'"), "10.201.0.1:80 ServiceImport/shop/store/80");
    let disputes = |objects: &[&str]| -> Vec<String> {
        world(objects).disputes().iter().map(|(address, owner, other)| format!("{address} {owner} {other}")).collect()
    };
    assert_eq!(disputes(&[STORE, CART, &service("'2026-01-03T00:00:00Z'")]), ["10.201.0.1:80 ServiceImport/shop/store Service/shop/other"]);
    assert_eq!(disputes(&[STORE, CART, DERIVED]), [""; 0], "what was derived claims nothing of its own");
}
