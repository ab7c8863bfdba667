//! Where backendRefs lead (H-23, D-4, D-7, D-19).

use super::*;
use crate::model::BackendFaultReason;

fn to(backend: &str) -> String {
    route("store", "shop", &format!("parentRefs: [{PARENT}]\nrules:\n- backendRefs: [{backend}]"))
}

#[test]
fn a_foreign_backend_needs_a_grant_unless_it_is_waived() {
    let foreign = to("{group: multicluster.x-k8s.io, kind: ServiceImport, name: pay, namespace: bank}");
    let pay = CART.replace("name: cart, namespace: shop", "name: pay, namespace: bank");
    assert_eq!(targets(&world(&[STORE, &pay, &foreign])), ["RefNotPermitted"]);
    let any = Settings { cross_namespace_backends: CrossNamespaceBackends::Any, ..Settings::default() };
    assert_eq!(targets(&world_with(any, &[STORE, &pay, &foreign])), ["ServiceImport/bank/pay/8080"]);
}

/// D-4: who refers, and to what, must both be said; a grant speaks for its own namespace.
#[test]
fn a_grant_is_for_a_kind_and_namespace_of_route_and_a_kind_and_name_of_backend() {
    let pay = CART.replace("name: cart, namespace: shop", "name: pay, namespace: bank");
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: bank}\nspec: {clusterIP: 10.101.0.3, ports: [{port: 8080}]}";
    let import = "{group: multicluster.x-k8s.io, kind: ServiceImport, name: pay, namespace: bank}";
    let (good_from, good_to) =
        ("{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}", "{group: multicluster.x-k8s.io, kind: ServiceImport}");
    let to_service = "{group: '', kind: Service, name: pay, namespace: bank, port: 8080}";
    let permitted = |place: &str, from: &str, granted: &str, backend: &str| {
        let grant = format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: {place}}}\nspec:\n  from: [{from}]\n  to: [{granted}]"
        );
        targets(&world(&[STORE, &pay, service, &to(backend), &grant])) != ["RefNotPermitted"]
    };
    assert!(permitted("bank", good_from, good_to, import));
    assert!(permitted(
        "bank",
        &format!("{}, {good_from}", good_from.replace("HTTP", "TCP")),
        &format!("{{group: '', kind: Service}}, {good_to}"),
        import
    ));
    assert!(permitted("bank", good_from, &good_to.replace('}', ", name: pay}"), import));
    assert!(permitted("bank", good_from, &good_to.replace('}', ", name: ''}"), import));
    assert!(permitted("bank", good_from, "{group: '', kind: Service}", to_service));
    assert!(!permitted("shop", good_from, good_to, import), "a grant of another namespace");
    for from in [good_from.replace("HTTP", "GRPC"), good_from.replace("shop", "buyers"), good_from.replace("gateway.networking", "example")]
    {
        assert!(!permitted("bank", &from, good_to, import), "{from}");
    }
    for granted in
        ["{group: '', kind: ServiceImport}", "{group: multicluster.x-k8s.io, kind: Service}", &good_to.replace('}', ", name: other}")]
    {
        assert!(!permitted("bank", good_from, granted, import), "{granted}");
    }
    assert!(!permitted("bank", good_from, good_to, to_service), "an import is no Service");
}

/// H-24, D-7: the port that is written; for an import the dialled one, else its only one.
#[test]
fn a_backend_port_is_written_or_derived() {
    let two = CART.replace("[{port: 8080}]", "[{name: a, port: 80}, {name: b, port: 8080}, {name: u, port: 81, protocol: UDP}]");
    let neither = two.replace("port: 80}", "port: 82}");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: 80}]}";
    let with_port = |number: &str| TO_CART.replace("name: cart", &format!("name: cart, port: {number}"));
    for (cart, backend, expected) in [
        (CART, with_port("8080"), "ServiceImport/shop/cart/8080"),
        (&two, with_port("8080"), "ServiceImport/shop/cart/8080"),
        (&two, with_port("81"), "BackendNotFound"),
        (&two, TO_CART.to_owned(), "ServiceImport/shop/cart/80"),
        (CART, TO_CART.to_owned(), "ServiceImport/shop/cart/8080"),
        (&neither, TO_CART.to_owned(), "BackendNotFound"),
        (CART, "{name: s, port: 80}".to_owned(), "Service/shop/s/80"),
        (CART, "{group: core, kind: Service, name: s, port: 80}".to_owned(), "Service/shop/s/80"),
        (CART, "{name: s, port: 81}".to_owned(), "BackendNotFound"),
        (CART, "{name: s}".to_owned(), "BackendNotFound"),
        (CART, "{kind: ServiceImport, name: cart}".to_owned(), "InvalidKind"),
    ] {
        assert_eq!(targets(&world(&[STORE, cart, service, &to(&backend)])), [expected], "{backend} in {cart}");
    }
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

#[test]
fn a_missing_import_never_falls_back_to_its_namesake() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {clusterIP: 10.101.0.2, ports: [{port: 80}]}";
    let world = world(&[STORE, service, &gamma()]);
    assert_eq!(targets(&world), [BackendFaultReason::BackendNotFound.as_str()]);
}
