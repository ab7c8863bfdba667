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

#[test]
fn without_slices_the_vip_of_the_platform_is_dialled() {
    assert_eq!(endpoints_of(&world(&[CART]), "ServiceImport/shop/cart/8080"), ["vip 10.201.0.2:8080"]);
    let present = format!("{CART}status: {{endpointSliceObjects: Present}}\n");
    assert!(endpoints_of(&world(&[&present]), "ServiceImport/shop/cart/8080").is_empty());
    let absent = format!("{CART}status: {{endpointSliceObjects: Absent}}\n");
    assert_eq!(endpoints_of(&world(&[&absent, CART_EAST]), "ServiceImport/shop/cart/8080"), ["vip 10.201.0.2:8080"]);
}
