//! Where the requests of a backend go (C-10, C-11, D-3, D-15, D-18).

use super::*;
use crate::model::Addresses;

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

/// D-18: absent `ready` is true, absent `serving` is as `ready`; what terminates and does not serve is gone.
#[test]
fn an_endpoint_is_usable_by_its_conditions() {
    for (conditions, is_usable) in [
        ("{}", true),
        ("{ready: true}", true),
        ("{ready: true, terminating: true}", true),
        ("{ready: false}", false),
        ("{ready: false, serving: true}", false),
        ("{ready: false, serving: true, terminating: false}", false),
        ("{ready: false, terminating: true}", false),
        ("{ready: false, serving: false, terminating: true}", false),
        ("{ready: false, serving: true, terminating: true}", true),
    ] {
        let slice = CART_EAST.replace("{ready: true}", conditions);
        let endpoints = endpoints_of(&world(&[CART, &slice]), "ServiceImport/shop/cart/8080");
        assert_eq!(endpoints.len(), usize::from(is_usable), "{conditions}");
    }
}

/// C-11, D-15: by name and TCP; a single pair of which one side is unnamed belongs together.
#[test]
fn a_port_of_a_slice_is_found_by_its_name() {
    for (ports, slice_ports, expected) in [
        ("[{port: 8080}]", "[{port: 3000}]", Some(3000)),
        ("[{port: 8080}]", "[{name: '', port: 3000}]", Some(3000)),
        ("[{port: 8080}]", "[{name: web, port: 3000}]", Some(3000)),
        ("[{name: web, port: 8080}]", "[{port: 3000}]", Some(3000)),
        ("[{name: web, port: 8080}]", "[{name: other, port: 3000}]", None),
        ("[{name: web, port: 8080}]", "[{name: other, port: 3000}, {name: web, port: 3001}]", Some(3001)),
        ("[{name: web, port: 8080}]", "[{name: web, port: 3000, protocol: UDP}, {name: web, port: 3001, protocol: TCP}]", Some(3001)),
        ("[{name: web, port: 8080}, {name: x, port: 80}]", "[{port: 3000}]", None),
        ("[{port: 8080}]", "[{name: a, port: 3000}, {name: b, port: 3001}]", None),
        ("[{port: 8080}]", "[]", None),
        ("[{port: 8080}]", "[{port: 0}]", None),
        ("[{port: 8080}]", "[{port: 65536}]", None),
        ("[{port: 8080}]", "[{}]", None),
    ] {
        let (cart, slice) = (CART.replace("[{port: 8080}]", ports), CART_EAST.replace("[{port: 3000}]", slice_ports));
        let endpoints = endpoints_of(&world(&[&cart, &slice]), "ServiceImport/shop/cart/8080");
        assert_eq!(
            endpoints,
            expected.map(|port| format!("east 10.2.0.1:{port}")).into_iter().collect::<Vec<_>>(),
            "{ports} {slice_ports}"
        );
    }
}

#[test]
fn an_address_in_several_slices_is_one_endpoint() {
    let again = CART_EAST.replace("name: cart-east", "name: cart-east-2");
    assert_eq!(endpoints_of(&world(&[CART, CART_EAST, &again]), "ServiceImport/shop/cart/8080"), ["east 10.2.0.1:3000"]);
}

/// D-13: a headless import has no VIP to fall back to.
#[test]
fn a_headless_import_has_the_endpoints_of_its_slices_or_none() {
    let headless = CART.replace("ClusterSetIP", "Headless");
    assert_eq!(endpoints_of(&world(&[&headless, CART_EAST]), "ServiceImport/shop/cart/8080"), ["east 10.2.0.1:3000"]);
    assert!(endpoints_of(&world(&[&headless]), "ServiceImport/shop/cart/8080").is_empty());
    let absent = format!("{headless}status: {{endpointSliceObjects: Absent}}\n");
    assert!(endpoints_of(&world(&[&absent]), "ServiceImport/shop/cart/8080").is_empty());
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
fn an_affinity_lasts_a_day_at_most() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {clusterIP: 10.101.0.3, ports: [{port: 80}], \
        sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 99999999999}}}";
    let backend = world(&[service]).backend(&BackendId(port("Service/shop/web/80"))).expect("a backend");
    assert_eq!(backend.affinity, Some(std::time::Duration::from_secs(86_400)));
}
