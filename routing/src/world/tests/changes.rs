//! Objects come and go in any order, and everything that changes is said.

use proptest::prelude::*;

use super::*;

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
