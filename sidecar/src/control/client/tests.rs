//! The client against responses in any order: what is live is whole, what is acknowledged is in force, what is bad is rejected alone.

use std::num::NonZeroU16;

use proptest::prelude::*;
use routing::model::{
    Addresses, AppProtocol, BackendTarget, Endpoint, PathMatch, Route, RouteKind, RouteMatch, Rule, ServiceKind, ServicePort, ServiceRef,
    WeightedBackend,
};

use super::*;

fn service(name: &str) -> ServicePort {
    let service = ServiceRef { kind: ServiceKind::ServiceImport, namespace: "shop".to_owned(), name: name.to_owned() };
    ServicePort { service, port: NonZeroU16::new(80).expect("a port") }
}

fn resource(name: &str, type_url: &str, message: &impl Message) -> Resource {
    let any = prost_types::Any { type_url: type_url.to_owned(), value: message.encode_to_vec() };
    Resource { name: name.to_owned(), version: proto::version(message), resource: Some(any) }
}

fn vip(number: u8, frontend: &str) -> Resource {
    let vip = Vip { ip: [10, 0, 0, number].into(), frontend: FrontendId(service(frontend)) };
    resource(&vip.address().to_string(), type_url::VIP, &wire::Vip::from(&vip))
}

fn frontend(name: &str, backends: &[&str]) -> Resource {
    let target =
        |backend: &&str| WeightedBackend { weight: 1, target: BackendTarget::Backend(BackendId(service(backend))), filters: Vec::new() };
    let everything = RouteMatch { path: PathMatch::Prefix("/".to_owned()), method: None, headers: Vec::new(), query: Vec::new() };
    let rule =
        Rule { index: 0, name: None, matches: vec![everything], filters: Vec::new(), backends: backends.iter().map(target).collect() };
    let route = Route { namespace: "shop".to_owned(), name: name.to_owned(), created_s: 0, generation: 1, rules: vec![rule] };
    let frontend = Frontend { id: FrontendId(service(name)), kind: RouteKind::Http, routes: vec![route] };
    resource(&frontend.id.to_string(), type_url::FRONTEND, &wire::Frontend::from(&frontend))
}

fn backend(name: &str, last: u8) -> Resource {
    let address = SocketAddr::from(([10, 1, 0, last], 8080));
    let endpoint = Endpoint { cluster: "west".to_owned(), address, zone: None, node: None };
    let backend = Backend {
        id: BackendId(service(name)),
        protocol: AppProtocol::Infer,
        affinity: None,
        addresses: Addresses::Endpoints(vec![endpoint]),
    };
    resource(&backend.id.to_string(), type_url::BACKEND, &wire::Backend::from(&backend))
}

fn response(nonce: usize, resources: Vec<Resource>, removed: &[String]) -> DeltaDiscoveryResponse {
    let type_url = resources.first().and_then(|resource| resource.resource.as_ref()).map(|any| any.type_url.clone());
    DeltaDiscoveryResponse {
        type_url: type_url.unwrap_or_default(),
        nonce: nonce.to_string(),
        resources,
        removed_resources: removed.to_vec(),
        ..Default::default()
    }
}

fn removal(nonce: usize, type_url: &str, names: &[&str]) -> DeltaDiscoveryResponse {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    DeltaDiscoveryResponse { type_url: type_url.to_owned(), ..response(nonce, Vec::new(), &names) }
}

/// The answers among requests: type and nonce, and the complaint if there is one.
fn answered(step: &Step) -> Vec<(String, String, Option<String>)> {
    let answers = step.requests.iter().filter(|request| !request.response_nonce.is_empty());
    let parts = |request: &DeltaDiscoveryRequest| {
        let complaint = request.error_detail.as_ref().map(|error| error.message.clone());
        (request.type_url.rsplit('.').next().unwrap_or_default().to_owned(), request.response_nonce.clone(), complaint)
    };
    answers.map(parts).collect()
}

/// What each live frontend leads to.
fn live(client: &Client) -> Vec<(String, Vec<SocketAddr>)> {
    let frontends = client.snapshot.frontends.values().map(|frontend| {
        let backends = frontend.rules.iter().flatten().flat_map(|rule| rule.backends.iter().flatten());
        (frontend.name.to_string(), backends.flat_map(|backend| backend.v4.iter().map(|endpoint| endpoint.address)).collect())
    });
    let mut all: Vec<_> = frontends.collect();
    all.sort();
    all
}

proptest! {
    /// Whatever the order: a frontend is live only with all its backends, and is acknowledged only when it is live.
    #[test]
    fn make_before_break_in_any_order(order in Just(vec![0_usize, 1, 2, 3, 4]).prop_shuffle()) {
        let messages = [
            response(0, vec![vip(1, "store")], &[]),
            response(1, vec![frontend("store", &["a", "b"])], &[]),
            response(2, vec![backend("a", 1)], &[]),
            response(3, vec![backend("b", 2)], &[]),
            response(4, vec![frontend("store", &["b", "c"])], &[]),
        ];
        let mut client = Client::default();
        let mut seen = Vec::new();
        for index in order.iter().copied() {
            client.response(messages[index].clone());
            seen.push(index);
            let step = client.step(Confirms::Nobody);
            for (_, endpoints) in live(&client) {
                prop_assert_eq!(endpoints.len(), 2, "whole after {:?}", seen);
            }
            let is_answered = |nonce: &str| answered(&step).iter().any(|(_, answered, _)| answered == nonce);
            let newest = seen.iter().rev().find(|index| [1, 4].contains(*index));
            if let Some(newest) = newest.filter(|newest| is_answered(&newest.to_string())) {
                let is_live = client.frontends_are_live();
                prop_assert!(is_live, "{newest} is acknowledged and not live after {seen:?}");
            }
        }
        // The last backend, whatever came before: now the newest frontend is live.
        client.response(response(5, vec![backend("a", 1), backend("b", 2), backend("c", 3)], &[]));
        client.step(Confirms::Nobody);
        prop_assert!(client.frontends_are_live());
        prop_assert_eq!(live(&client).len(), 1);
    }
}

#[test]
fn an_old_form_stays_until_the_new_one_is_whole() {
    let mut client = Client::default();
    client.response(response(0, vec![vip(1, "store")], &[]));
    client.step(Confirms::Nobody);
    client.response(response(1, vec![frontend("store", &["a"])], &[]));
    client.response(response(2, vec![backend("a", 1)], &[]));
    let step = client.step(Confirms::Nobody);
    assert!(step.is_ready && step.snapshot.is_some());
    client.response(response(3, vec![frontend("store", &["b"])], &[]));
    client.response(response(4, vec![backend("a", 9)], &[]));
    let step = client.step(Confirms::Nobody);
    assert_eq!(live(&client)[0].1, ["10.1.0.9:8080".parse().expect("an address")], "the old routes, the newest endpoints");
    assert_eq!(answered(&step), [("Backend".to_owned(), "4".to_owned(), None)], "the frontend is not in force yet");
    client.response(removal(5, type_url::BACKEND, &["ServiceImport/shop/b/80"]));
    let step = client.step(Confirms::Nobody);
    assert!(answered(&step).contains(&("Frontend".to_owned(), "3".to_owned(), None)), "a backend that does not exist keeps nobody waiting");
    assert_eq!(live(&client)[0].1, [] as [SocketAddr; 0], "it has no endpoints");
}

#[test]
fn what_does_not_convert_is_rejected_alone_and_its_last_good_form_stays() {
    let mut client = Client::default();
    client.response(response(0, vec![vip(1, "store"), vip(2, "other")], &[]));
    client.step(Confirms::Nobody);
    client.response(response(1, vec![frontend("store", &["a"]), frontend("other", &["a"])], &[]));
    client.response(response(2, vec![backend("a", 1)], &[]));
    client.step(Confirms::Nobody);
    let mut bad = frontend("store", &["a"]);
    bad.version = "bad".to_owned();
    bad.resource = Some(prost_types::Any { type_url: type_url::FRONTEND.to_owned(), value: vec![0xff] });
    client.response(response(3, vec![bad, frontend("other", &["a", "a"])], &[]));
    let step = client.step(Confirms::Nobody);
    let complaint = answered(&step).into_iter().find_map(|(_, nonce, complaint)| (nonce == "3").then_some(complaint)).flatten();
    assert!(complaint.is_some_and(|complaint| complaint.starts_with("ServiceImport/shop/store/80: ")));
    assert_eq!(live(&client).iter().map(|(_, endpoints)| endpoints.len()).collect::<Vec<_>>(), [2, 1], "other's new form, store's old one");

    // It is said again on a new stream, whose versions are those that are held.
    let requests = client.connected();
    let held = &requests[1].initial_resource_versions["ServiceImport/shop/store/80"];
    assert_ne!(held, "bad");
    client.response(response(4, vec![frontend("store", &["a"])], &[]));
    let step = client.step(Confirms::Nobody);
    assert!(answered(&step).contains(&("Frontend".to_owned(), "4".to_owned(), None)), "good again");
}

#[test]
fn a_name_that_is_not_the_content_s_is_rejected() {
    let mut client = Client::default();
    let mut resource = vip(1, "store");
    resource.name = "10.0.0.9:80".to_owned();
    client.response(response(0, vec![resource], &[]));
    let step = client.step(Confirms::Nobody);
    assert!(answered(&step)[0].2.as_deref().is_some_and(|complaint| complaint.contains("10.0.0.1:80")), "{step:?}");
}

#[test]
fn vips_are_acknowledged_when_interception_confirms_this_very_set() {
    let mut client = Client::default();
    client.response(response(0, vec![vip(1, "store")], &[]));
    let step = client.step(Confirms::Watch);
    assert!(step.intercept.is_none(), "not before the first whole state");
    client.response(response(1, vec![frontend("store", &[])], &[]));
    let step = client.step(Confirms::Watch);
    let first = step.intercept.expect("something to intercept");
    assert!(!step.is_ready && first.vips.len() == 1);

    // Before that is confirmed the VIP goes and comes again: the confirmation of the first wish is about something else.
    client.response(removal(2, type_url::VIP, &["10.0.0.1:80"]));
    let step = client.step(Confirms::Watch);
    assert!(step.intercept.is_some_and(|wish| wish.vips.is_empty()));
    client.response(response(3, vec![vip(1, "store")], &[]));
    client.response(response(4, vec![frontend("store", &[])], &[]));
    let third = client.step(Confirms::Watch).intercept.expect("something to intercept");
    client.intercepted(first.version);
    assert!(!client.step(Confirms::Watch).is_ready);
    client.intercepted(third.version);
    let step = client.step(Confirms::Watch);
    assert!(step.is_ready && answered(&step).iter().any(|(kind, nonce, _)| (kind.as_str(), nonce.as_str()) == ("Vip", "3")), "{step:?}");
}

#[test]
fn above_a_maximum_only_what_is_dialled_is_subscribed_to() {
    let mut client = Client::default();
    let name = |number: usize| format!("s{number}");
    let vips = (0..=FRONTENDS_EAGER_MAX).map(|number| vip(u8::try_from(number).expect("few"), &name(number)));
    client.response(response(0, vips.collect(), &[]));
    let step = client.step(Confirms::Nobody);
    assert!(step.requests.iter().all(|request| request.type_url != type_url::FRONTEND), "{:?}", step.requests);
    assert_eq!(step.intercept.map(|wish| wish.vips.len()), Some(FRONTENDS_EAGER_MAX + 1), "all of them are intercepted");
    client.demand(FrontendId(service("s7")), 100);
    let step = client.step(Confirms::Nobody);
    assert_eq!(step.requests[0].resource_names_subscribe, ["ServiceImport/shop/s7/80"]);
    client.response(response(1, vec![frontend("s7", &[])], &[]));
    client.step(Confirms::Nobody);
    assert_eq!(client.snapshot.frontends.len(), 1);
    client.snapshot.frontends.values().for_each(|frontend| frontend.touch(200));
    client.release(150);
    assert!(client.step(Confirms::Nobody).requests.is_empty(), "used since");
    client.release(300);
    let step = client.step(Confirms::Nobody);
    assert_eq!(step.requests[0].resource_names_unsubscribe, ["ServiceImport/shop/s7/80"], "idle for too long");
}
