//! Where backendRefs lead (H-23, D-4, D-7, D-19).

use super::*;
use crate::model::BackendFaultReason;

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

#[test]
fn a_missing_import_never_falls_back_to_its_namesake() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {clusterIP: 10.101.0.2, ports: [{port: 80}]}";
    let world = world(&[STORE, service, &gamma()]);
    assert_eq!(targets(&world), [BackendFaultReason::BackendNotFound.as_str()]);
}
