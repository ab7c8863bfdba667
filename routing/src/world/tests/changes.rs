//! Objects come and go in any order, and everything that changes is said.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

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

/// Everything that the world answers.
#[derive(Debug, PartialEq)]
struct Answers {
    vips: BTreeSet<(&'static str, Vip)>,
    frontends: BTreeMap<(&'static str, FrontendId), Frontend>,
    backends: BTreeMap<BackendId, Backend>,
    disputes: BTreeSet<Dispute>,
    /// Without those that have no entry of ours.
    statuses: BTreeMap<ObjectKey, Vec<EntryStatus>>,
}

/// Of each property.
const CASES: u32 = 800;
const CLIENTS: [&str; 3] = ["shop", "buyers", "others"];
const SERVICES: [&str; 7] = [
    "ServiceImport/shop/store",
    "ServiceImport/shop/cart",
    "ServiceImport/bank/pay",
    "Service/shop/store",
    "Service/shop/cart",
    "Service/shop/derived",
    "Service/bank/pay",
];

impl Answers {
    fn of(world: &World) -> Self {
        let ports: Vec<ServicePort> = SERVICES.iter().flat_map(|name| [80, 8080].map(|number| port(&format!("{name}/{number}")))).collect();
        let frontends = CLIENTS.iter().flat_map(|client| ports.iter().map(move |port| (*client, FrontendId(port.clone()))));
        let statuses = world.with_status().filter_map(|key| Some((key.clone(), world.status(&key)?)));
        Self {
            vips: CLIENTS.iter().flat_map(|client| world.vips(client).into_iter().map(move |vip| (*client, vip))).collect(),
            frontends: frontends.filter_map(|(client, id)| Some(((client, id.clone()), world.frontend(&id, client)?))).collect(),
            backends: ports
                .iter()
                .filter_map(|port| world.backend(&BackendId(port.clone())))
                .map(|backend| (backend.id.clone(), backend))
                .collect(),
            disputes: world.disputes(),
            statuses: statuses.filter(|(_, entries)| !entries.is_empty()).collect(),
        }
    }

    /// What is another in `next`.
    fn changed(&self, next: &Self) -> Touched {
        let vips = self.vips.symmetric_difference(&next.vips).map(|(_, vip)| vip.frontend.0.service.clone());
        let frontends = differences(&self.frontends, &next.frontends).map(|(_, id)| id.0.service.clone());
        Touched {
            frontends: vips.chain(frontends).collect(),
            backends: differences(&self.backends, &next.backends).map(|id| id.0.service.clone()).collect(),
            statuses: differences(&self.statuses, &next.statuses).cloned().collect(),
        }
    }
}

/// Keys whose values differ.
fn differences<'m, K: Ord, V: PartialEq>(a: &'m BTreeMap<K, V>, b: &'m BTreeMap<K, V>) -> impl Iterator<Item = &'m K> {
    let gone = a.keys().filter(|key| !b.contains_key(key));
    let others = b.iter().filter(|(key, value)| a.get(key) != Some(value)).map(|(key, _)| key);
    gone.chain(others)
}

fn settings() -> impl Strategy<Value = Settings> {
    let backends = prop_oneof![3 => Just(CrossNamespaceBackends::Granted), 1 => Just(CrossNamespaceBackends::Any)];
    let parents = prop_oneof![3 => Just(Parents::All), 1 => Just(Parents::ServiceImport)];
    (backends, parents).prop_map(|(cross_namespace_backends, parents)| Settings {
        cluster: "west".to_owned(),
        cross_namespace_backends,
        parents,
        session_affinity: SessionAffinity::default(),
    })
}

fn world_of(settings: Settings, objects: impl IntoIterator<Item = Object>) -> World {
    let mut world = World::new(settings);
    for object in objects {
        world.apply(object);
    }
    world
}

/// The objects that are left if each replaces the one of its key.
fn last_of_each(objects: &[Object]) -> Vec<Object> {
    objects.iter().map(|object| (object.key(), object.clone())).collect::<BTreeMap<_, _>>().into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, rng_seed: RngSeed::Fixed(0), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, changes or goes: every answer that is another afterwards was said to be touched.
    #[test]
    fn what_changes_is_touched(
        settings in settings(),
        before in proptest::collection::vec(pool::object(), 0..40),
        changes in proptest::collection::vec((pool::object(), proptest::bool::weighted(0.4)), 1..10),
    ) {
        let mut world = world_of(settings, before);
        let mut answers = Answers::of(&world);
        for (object, is_gone) in changes {
            let key = object.key();
            let touched = if is_gone { world.delete(&key) } else { world.apply(object) };
            let next = Answers::of(&world);
            let changed = answers.changed(&next);
            prop_assert!(changed.frontends.is_subset(&touched.frontends), "frontends by {}: {:?} and not {:?}", key, changed, touched);
            prop_assert!(changed.backends.is_subset(&touched.backends), "backends by {}: {:?} and not {:?}", key, changed, touched);
            prop_assert!(changed.statuses.is_subset(&touched.statuses), "statuses by {}: {:?} and not {:?}", key, changed, touched);
            answers = next;
        }
    }

    /// Any order of arrival, with objects of every kind coming in another form first or going and coming back, ends in the same answers.
    #[test]
    fn arrival_order_never_matters(
        settings in settings(),
        (objects, order) in proptest::collection::vec(pool::object(), 0..40)
            .prop_map(|objects| last_of_each(&objects))
            .prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle())),
        others in proptest::collection::vec(pool::object(), 0..12),
    ) {
        let settled = world_of(settings.clone(), objects);
        let mut shuffled = world_of(settings, others.iter().cloned());
        for other in &others {
            if !order.iter().any(|object| object.key() == other.key()) {
                shuffled.delete(&other.key());
            }
        }
        for object in order {
            shuffled.apply(object);
        }
        prop_assert_eq!(Answers::of(&shuffled), Answers::of(&settled));
    }
}

#[test]
fn a_policy_without_a_target_of_ours_has_a_status_to_look_at() {
    let mut world = world(&[]);
    for kind in
        ["gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy", "gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy"]
    {
        let text = format!(
            "apiVersion: {kind}\nmetadata: {{name: p}}\nspec: {{targetRefs: [{{group: x, kind: Thing, name: other}}], validation: {{hostname: a}}}}"
        );
        let object = objects(&[&text]).remove(0);
        let key = object.key();
        assert!(world.apply(object).statuses.contains(&key), "{key}");
        assert!(world.delete(&key).statuses.contains(&key), "{key}");
    }
}
