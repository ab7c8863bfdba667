//! Who is told what: everything that differs, and nothing else.

use std::collections::BTreeMap;

use super::*;
use crate::live::lives;
use crate::registry::{Held, Node, Progress, Registry, Unacknowledged};

const NAMESPACES: [&str; 3] = ["shop", "buyers", "others"];

fn object(text: &str) -> Object {
    let value = serde_saphyr::from_str(text).expect("YAML");
    Object::decode(&value).expect("decodes").expect("a kind that is read")
}

fn import(name: &str, ip: &str) -> Object {
    object(&format!(
        "{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {{name: {name}, namespace: shop}}, spec: {{type: \
         ClusterSetIP, ips: [{ip}], ports: [{{port: 80}}]}}}}"
    ))
}

fn slice(name: &str, address: &str) -> Object {
    object(&format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {{name: {name}, namespace: shop, labels: \
         {{multicluster.kubernetes.io/service-name: {name}}}}}, ports: [{{port: 8080}}], endpoints: [{{addresses: [{address}]}}]}}"
    ))
}

fn route(namespace: &str, parent: &str, path: &str) -> Object {
    route_to("cart", namespace, parent, path)
}

fn route_to(backend: &str, namespace: &str, parent: &str, path: &str) -> Object {
    object(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {parent}, namespace: {namespace}}}, spec: {{parentRefs: \
         [{{group: multicluster.x-k8s.io, kind: ServiceImport, namespace: shop, name: {parent}}}], rules: [{{matches: [{{path: {{value: \
         {path}}}}}], backendRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, namespace: shop, name: {backend}}}]}}]}}}}"
    ))
}

fn with(objects: &[Object]) -> Arc<Index> {
    let index = Arc::new(Index::new(Settings::default()));
    objects.iter().for_each(|object| index.apply(object.clone()));
    index.flush();
    index
}

fn change(index: &Index, object: Object) {
    index.apply(object);
    index.flush();
}

fn told(member: &Member) -> Vec<String> {
    let names = member.inbox().take();
    member.inbox().done();
    names.into_iter().map(|(kind, name)| format!("{} {name}", kind.label())).collect()
}

/// Follows everything.
fn member(index: &Arc<Index>, namespace: &str) -> Member {
    let member = index.join(namespace);
    Kind::ALL.into_iter().for_each(|kind| member.follow_all(kind));
    member
}

fn seen(member: &Member) -> BTreeMap<(Kind, String), String> {
    member.look(|view| {
        let all = Kind::ALL.into_iter().flat_map(|kind| view.all(kind).map(move |resource| (kind, resource)));
        all.map(|(kind, resource)| ((kind, resource.name.clone()), resource.version.clone())).collect()
    })
}

#[test]
fn a_consumer_route_concerns_its_own_namespace_alone() {
    let index = with(&[import("store", "10.0.0.1"), import("cart", "10.0.0.2"), route("shop", "store", "/a")]);
    let members = NAMESPACES.map(|namespace| member(&index, namespace));
    change(&index, route("buyers", "store", "/b"));
    let frontend = ["frontend ServiceImport/shop/store/80".to_owned()];
    assert_eq!(members.each_ref().map(told), [vec![], frontend.to_vec(), vec![]]);
    change(&index, route("shop", "store", "/c"));
    assert_eq!(members.each_ref().map(told), [frontend.to_vec(), vec![], frontend.to_vec()], "buyers have a route of their own");
}

#[test]
fn endpoints_concern_those_that_follow_the_backend() {
    let index = with(&[import("store", "10.0.0.1"), import("cart", "10.0.0.2"), route("shop", "store", "/a")]);
    let [mut follows, mut other] = [index.join("shop"), index.join("shop")];
    follows.follow([(Kind::Backend, "ServiceImport/shop/cart/80".to_owned())].into(), &Names::new());
    other.follow([(Kind::Backend, "ServiceImport/shop/store/80".to_owned())].into(), &Names::new());
    change(&index, slice("cart", "10.1.0.1"));
    assert_eq!(told(&follows), ["backend ServiceImport/shop/cart/80"]);
    assert!(told(&other).is_empty());
    change(&index, slice("cart", "10.1.0.1"));
    assert!(told(&follows).is_empty(), "what is equal to before wakes nobody");
    follows.follow(Names::new(), &[(Kind::Backend, "ServiceImport/shop/cart/80".to_owned())].into());
    change(&index, slice("cart", "10.1.0.2"));
    assert!(told(&follows).is_empty(), "it follows no more");
}

fn backends(member: &Member) -> Vec<String> {
    seen(member).into_keys().filter(|(kind, _)| *kind == Kind::Backend).map(|(_, name)| name).collect()
}

#[test]
fn a_namespace_sees_the_backends_that_its_own_view_of_the_routes_refers_to() {
    let imports = ["store", "cart", "pay"].into_iter().zip(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let mut objects: Vec<Object> = imports.map(|(name, ip)| import(name, ip)).collect();
    let index = with(&objects);
    let members = NAMESPACES.map(|namespace| member(&index, namespace));
    assert_eq!(members.each_ref().map(backends), [const { Vec::<String>::new() }; 3], "no route refers to any");
    let name = |backend: &str| vec![format!("ServiceImport/shop/{backend}/80")];
    objects.extend([route_to("cart", "shop", "store", "/"), route_to("pay", "buyers", "store", "/")]);
    objects.iter().for_each(|object| index.apply(object.clone()));
    index.flush();
    assert_eq!(members.each_ref().map(backends), [name("cart"), name("pay"), name("cart")]);
    let pay = (Kind::Backend, name("pay").remove(0));
    assert!(members[2].look(|view| view.get(pay.0, &pay.1).is_none() && view.is_withheld(pay.0, &pay.1)), "asked by name too");
    let absent = "ServiceImport/shop/absent/80";
    assert!(members[2].look(|view| view.is_withheld(Kind::Backend, absent)), "what does not exist looks the same");
    members.iter().for_each(|member| drop(told(member)));
    change(&index, slice("pay", "10.1.0.1"));
    let concerned = format!("backend {}", pay.1);
    assert_eq!(members.each_ref().map(told), [vec![], vec![concerned.clone()], vec![]], "its endpoints are nobody else's concern");
    index.delete(&route("buyers", "store", "/").key());
    index.flush();
    assert_eq!(members.each_ref().map(backends), [const { "cart" }; 3].map(name));
    assert!(told(&members[1]).contains(&concerned));
}

#[test]
fn who_is_busy_or_has_something_to_read_is_not_settled() {
    let index = with(&[import("store", "10.0.0.1"), import("cart", "10.0.0.2")]);
    let member = member(&index, "shop");
    assert!(member.inbox().is_empty());
    change(&index, route("shop", "store", "/a"));
    assert!(!member.inbox().is_empty());
    member.inbox().take();
    assert!(!member.inbox().is_empty(), "it has not answered yet");
    member.inbox().done();
    assert!(member.inbox().is_empty());
}

/// Whatever comes and goes: what is shown is what an index of the present objects alone shows, and whoever follows everything is told of every
/// name that differs.
#[test]
fn what_is_kept_up_to_date_is_what_would_be_made_anew() {
    let mut pool = Vec::new();
    for (number, name) in ["store", "cart", "pay"].into_iter().enumerate() {
        // Two claim the same address; and each changes its own.
        pool.extend([import(name, "10.0.0.1"), import(name, &format!("10.0.1.{number}"))]);
        pool.extend([slice(name, "10.1.0.1"), slice(name, &format!("10.1.1.{number}"))]);
        for namespace in ["shop", "buyers"] {
            pool.extend(["/a", "/b"].map(|path| route(namespace, name, path)));
            pool.push(route_to("pay", namespace, name, "/a"));
        }
    }
    let index = with(&[]);
    let members = NAMESPACES.map(|namespace| member(&index, namespace));
    let mut present: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    let mut before = members.each_ref().map(seen);
    let mut random = 1_u64;
    for step in 0..2000 {
        // A linear congruence (Knuth): the same every time.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chosen = usize::try_from(random >> 33).expect("31 bits");
        let object = pool[chosen % pool.len()].clone();
        if (random >> 20).is_multiple_of(3) {
            index.delete(&object.key());
            present.remove(&object.key());
        } else {
            index.apply(object.clone());
            present.insert(object.key(), object);
        }
        index.flush();
        let fresh = with(&present.values().cloned().collect::<Vec<_>>());
        for (member, before) in members.iter().zip(&mut before) {
            let now = seen(member);
            assert_eq!(now, seen(&self::member(&fresh, &member.namespace)), "step {step}, {}", member.namespace);
            let names: BTreeSet<&(Kind, String)> = before.keys().chain(now.keys()).collect();
            let differing: Names = names.into_iter().filter(|name| before.get(*name) != now.get(*name)).cloned().collect();
            assert_eq!(member.inbox().take(), differing, "step {step}, {}", member.namespace);
            *before = now;
        }
    }
}

#[test]
fn a_route_is_live_where_its_frontend_and_its_address_are_acknowledged() {
    let index = with(&[import("store", "10.0.0.1"), import("cart", "10.0.0.2"), route("shop", "store", "/")]);
    let registry = Arc::<Registry>::default();
    let joined = [("shop", "a"), ("shop", "b"), ("others", "c")].map(|(namespace, pod)| {
        let member = member(&index, namespace);
        told(&member);
        let node = Node { namespace: namespace.to_owned(), pod: pod.to_owned(), ..Node::default() };
        let entry = registry.add(node, Arc::clone(member.inbox()));
        (member, entry)
    });
    let all = |kind| joined[0].0.look(|view| view.all(kind).cloned().collect::<Vec<_>>());
    let frontend = all(Kind::Frontend).remove(0);
    let vip = all(Kind::Vip).remove(0);
    let told_now = Unacknowledged { told: std::time::Instant::now(), is_refused: false };
    let held = |version: &str, is_acknowledged: bool| Held {
        resource: Arc::new(Resource::new(frontend.name.clone(), version.to_owned(), None)),
        unacknowledged: (!is_acknowledged).then_some(told_now),
    };
    let say = |number: usize, frontends: &[Held], vips: &[Arc<Resource>]| {
        let vips = [(told_now, vips.into())].into();
        let progress = Progress { frontends: frontends.into(), vips_unacknowledged: vips, is_returning: true, ..Progress::default() };
        joined[number].1.progress(progress);
    };
    let seen = || {
        let live = lives(&index, &registry.sidecars()).remove(&route("shop", "store", "/").key()).expect("attached");
        (live.live, live.sidecars, live.lagging.iter().map(|lagging| lagging.pod.clone()).collect::<Vec<_>>())
    };
    assert_eq!(seen(), (0, 0, vec![]), "nobody has asked for it");
    say(0, &[held(&frontend.version, true)], &[]);
    assert_eq!(seen(), (1, 1, vec![]));
    say(1, &[held(&frontend.version, false)], &[]);
    assert_eq!(seen(), (1, 2, vec!["b".to_owned()]), "told, not acknowledged");
    say(1, &[held("an older one", true)], &[]);
    assert_eq!(seen(), (1, 2, vec!["b".to_owned()]), "what it acknowledged is older");
    say(1, &[held(&frontend.version, true)], &[]);
    say(2, &[], &[vip]);
    assert_eq!(seen(), (2, 3, vec!["c".to_owned()]), "its connections would pass by");
    say(2, &[], &[]);
    assert_eq!(seen(), (2, 2, vec![]), "it asks for the frontend when it is dialled");
    // A consumer's own routes take the place of the producer's (GEP-1294): the producer's concern it no more.
    say(2, &[held(&frontend.version, true)], &[]);
    assert_eq!(seen(), (3, 3, vec![]));
    change(&index, route("others", "store", "/mine"));
    assert_eq!(seen(), (2, 2, vec![]));
}
