//! The client against responses in any order: what is live is whole, what is acknowledged is in force, what is bad is rejected alone.

use std::num::NonZeroU16;

use proptest::prelude::*;
use routing::model::{
    Addresses, AppProtocol, BackendTarget, Endpoint, PathMatch, Route, RouteKind, RouteMatch, Rule, ServiceKind, ServicePort, ServiceRef,
    Timeouts, TrafficPolicy, WeightedBackend,
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
    let rule = Rule {
        index: 0,
        name: None,
        matches: vec![everything],
        filters: Vec::new(),
        backends: backends.iter().map(target).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        persistence: None,
    };
    let route = Route {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        created_s: 0,
        generation: 1,
        hostnames: Vec::new(),
        rules: vec![rule],
    };
    let frontend = Frontend { id: FrontendId(service(name)), kind: RouteKind::Http, routes: vec![route] };
    resource(&frontend.id.to_string(), type_url::FRONTEND, &wire::Frontend::from(&frontend))
}

fn backend(name: &str, last: u8) -> Resource {
    let address = SocketAddr::from(([10, 1, 0, last], 8080));
    let endpoint = Endpoint { cluster: "west".to_owned(), address, zone: None, node: None, for_zones: Vec::new() };
    let backend = Backend {
        id: BackendId(service(name)),
        protocol: AppProtocol::Infer,
        affinity: None,
        policy: TrafficPolicy::default(),
        tls: None,
        retry_budget: None,
        persistence: None,
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

/// A controller: what there is, and what the client has been told of it.
#[derive(Default)]
struct Server {
    resources: BTreeMap<String, Resource>,
    told: BTreeMap<String, Option<String>>,
    names: BTreeSet<String>,
    nonce: usize,
}

impl Server {
    /// Changes what there is.
    fn put(&mut self, resources: Vec<Resource>) {
        self.resources.extend(resources.into_iter().map(|resource| (key(&resource), resource)));
    }

    fn hear(&mut self, requests: &[DeltaDiscoveryRequest]) {
        for request in requests {
            let name = |name: &String| format!("{} {name}", request.type_url);
            for gone in request.resource_names_unsubscribe.iter().map(name) {
                self.names.remove(&gone);
                self.told.remove(&gone);
            }
            self.names.extend(request.resource_names_subscribe.iter().map(name));
        }
    }

    /// What the client does not know yet of what it follows.
    fn pending(&self) -> Vec<String> {
        let follows = |key: &&String| key.starts_with(type_url::VIP) || self.names.contains(*key);
        let all = self.resources.keys().chain(&self.names).filter(follows).collect::<BTreeSet<_>>();
        let version = |key: &String| self.resources.get(key).map(|resource| resource.version.clone());
        all.into_iter().filter(|key| self.told.get(*key) != Some(&version(key))).cloned().collect()
    }

    /// Tells one thing.
    fn tell(&mut self, key: &str) -> DeltaDiscoveryResponse {
        self.nonce += 1;
        let resource = self.resources.get(key).cloned();
        self.told.insert(key.to_owned(), resource.as_ref().map(|resource| resource.version.clone()));
        let (type_url, name) = key.split_once(' ').expect("type and name");
        match resource {
            Some(resource) => response(self.nonce, vec![resource], &[]),
            None => removal(self.nonce, type_url, &[name]),
        }
    }
}

fn key(resource: &Resource) -> String {
    format!("{} {}", resource.resource.as_ref().map_or("", |any| any.type_url.as_str()), resource.name)
}

proptest! {
    /// Whatever the order in which things change and are told: a frontend is live only with all its backends, what is acknowledged is live, and
    /// in the end everything is.
    #[test]
    fn make_before_break_in_any_order(choices in proptest::collection::vec((any::<bool>(), 0_usize..8), 0..40)) {
        let mut changes = vec![
            vec![frontend("store", &["a", "b"]), backend("a", 1), backend("b", 2), vip(1, "store")],
            vec![frontend("store", &["b", "c"]), backend("c", 3)],
            vec![backend("b", 9), frontend("other", &["c", "d"]), backend("d", 4), vip(2, "other")],
            vec![vip(1, "other"), frontend("store", &["a", "d"])],
        ]
        .into_iter();
        let (mut client, mut server) = (Client::new(Location::default()), Server::default());
        let mut choices = choices.into_iter();
        loop {
            let pending = server.pending();
            let (is_change, which) = choices.next().unwrap_or((pending.is_empty(), 0));
            if is_change || pending.is_empty() {
                let Some(change) = changes.next() else {
                    if pending.is_empty() { break }
                    continue;
                };
                server.put(change);
                continue;
            }
            client.response(server.tell(&pending[which % pending.len()]));
            let step = client.step(Confirms::Nobody);
            for (name, endpoints) in live(&client) {
                prop_assert_eq!(endpoints.len(), 2, "{} is whole", name);
            }
            if answered(&step).iter().any(|(kind, _, _)| kind == "Frontend" || kind == "Vip") {
                prop_assert!(client.frontends_are_live());
            }
            for vip in client.snapshot.vips.values().filter(|_| answered(&step).iter().any(|(kind, _, _)| kind == "Vip")) {
                prop_assert!(client.snapshot.frontends.contains_key(vip), "{vip} is acknowledged");
            }
            server.hear(&step.requests);
        }
        prop_assert_eq!(client.snapshot.vips.len(), 2);
        prop_assert!(client.snapshot.vips.values().all(|id| *id == FrontendId(service("other"))));
        let addresses = |text: [&str; 2]| text.map(|address| address.parse::<SocketAddr>().expect("an address")).to_vec();
        prop_assert_eq!(live(&client), [("ServiceImport/shop/other/80".to_owned(), addresses(["10.1.0.3:8080", "10.1.0.4:8080"]))]);
    }
}

#[test]
fn what_is_said_about_names_that_were_let_go_is_about_the_past() {
    let mut client = Client::new(Location::default());
    client.response(response(0, vec![vip(1, "store")], &[]));
    client.step(Confirms::Nobody);
    client.response(response(1, vec![frontend("store", &["a"])], &[]));
    client.step(Confirms::Nobody);
    client.response(response(2, vec![backend("a", 1)], &[]));
    client.step(Confirms::Nobody);
    // The controller removes all of it at once, in three responses; the first one makes the client let the rest go.
    client.response(removal(3, type_url::VIP, &["10.0.0.1:80"]));
    client.step(Confirms::Nobody);
    client.response(removal(4, type_url::FRONTEND, &["ServiceImport/shop/store/80"]));
    client.response(removal(5, type_url::BACKEND, &["ServiceImport/shop/a/80"]));
    client.step(Confirms::Nobody);
    // And comes again: nothing is in force before everything is here.
    client.response(response(6, vec![vip(1, "store")], &[]));
    assert_eq!(answered(&client.step(Confirms::Nobody)), []);
    client.response(response(7, vec![frontend("store", &["a"])], &[]));
    assert_eq!(answered(&client.step(Confirms::Nobody)), [] as [(String, String, Option<String>); 0]);
    client.response(response(8, vec![backend("a", 1)], &[]));
    assert_eq!(answered(&client.step(Confirms::Nobody)).len(), 3);
}

#[test]
fn a_vip_that_is_taken_over_stays_until_the_new_routes_are_whole() {
    let mut client = Client::new(Location::default());
    client.response(response(0, vec![vip(1, "store")], &[]));
    client.step(Confirms::Nobody);
    client.response(response(1, vec![frontend("store", &[])], &[]));
    client.step(Confirms::Nobody);
    client.response(response(2, vec![vip(1, "other")], &[]));
    assert_eq!(client.step(Confirms::Nobody).intercept.map(|wish| wish.vips.len()), Some(1));
    client.response(response(3, vec![frontend("other", &["a"])], &[]));
    assert_eq!(client.step(Confirms::Nobody).intercept.map(|wish| wish.vips.len()), Some(1), "also while its backends are on their way");
    client.response(response(4, vec![backend("a", 1)], &[]));
    client.step(Confirms::Nobody);
    assert_eq!(live(&client).len(), 1);
}

#[test]
fn frontends_that_are_here_stay_when_the_index_outgrows_the_maximum() {
    let mut client = Client::new(Location::default());
    client.response(response(0, vec![vip(200, "store")], &[]));
    client.step(Confirms::Nobody);
    client.response(response(1, vec![frontend("store", &[])], &[]));
    client.step(Confirms::Nobody);
    let many = (0..=FRONTENDS_EAGER_MAX).map(|number| vip(u8::try_from(number).expect("few"), &format!("s{number}")));
    client.response(response(2, many.collect(), &[]));
    let step = client.step(Confirms::Nobody);
    assert!(step.requests.iter().all(|request| request.resource_names_unsubscribe.is_empty()), "{:?}", step.requests);
    assert_eq!(live(&client).len(), 1);
    client.release(1);
    client.step(Confirms::Nobody);
    assert_eq!(live(&client).len(), 0, "until it is idle for too long");
}

#[test]
fn an_old_form_stays_until_the_new_one_is_whole() {
    let mut client = Client::new(Location::default());
    client.response(response(0, vec![vip(1, "store")], &[]));
    client.step(Confirms::Nobody);
    client.response(response(1, vec![frontend("store", &["a"])], &[]));
    client.step(Confirms::Nobody);
    client.response(response(2, vec![backend("a", 1)], &[]));
    let step = client.step(Confirms::Nobody);
    assert!(step.is_ready && step.snapshot.is_some());
    client.response(response(3, vec![frontend("store", &["b"])], &[]));
    client.step(Confirms::Nobody);
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
    let mut client = Client::new(Location::default());
    client.response(response(0, vec![vip(1, "store"), vip(2, "other")], &[]));
    client.step(Confirms::Nobody);
    client.response(response(1, vec![frontend("store", &["a"]), frontend("other", &["a"])], &[]));
    client.step(Confirms::Nobody);
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
    let mut client = Client::new(Location::default());
    let mut resource = vip(1, "store");
    resource.name = "10.0.0.9:80".to_owned();
    client.response(response(0, vec![resource], &[]));
    let step = client.step(Confirms::Nobody);
    assert!(answered(&step)[0].2.as_deref().is_some_and(|complaint| complaint.contains("10.0.0.1:80")), "{step:?}");
}

#[test]
fn vips_are_acknowledged_when_interception_confirms_this_very_set() {
    let mut client = Client::new(Location::default());
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
    client.step(Confirms::Watch);
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
    let mut client = Client::new(Location::default());
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
    let vips = Arc::clone(&client.snapshot.vips);
    client.response(response(2, vec![frontend("s7", &["b"])], &[]));
    client.step(Confirms::Nobody);
    client.response(response(3, vec![backend("b", 1)], &[]));
    assert!(
        client.step(Confirms::Nobody).snapshot.is_some_and(|snapshot| Arc::ptr_eq(&snapshot.vips, &vips)),
        "VIPs have nothing to do with it"
    );
    client.response(response(4, vec![vip(250, "s7"), vip(251, "s251")], &[]));
    client.response(removal(5, type_url::VIP, &["10.0.0.9:80"]));
    let step = client.step(Confirms::Nobody);
    let (now, wished) = (&client.snapshot.vips, step.intercept.expect("something to intercept"));
    assert_eq!(now.len(), FRONTENDS_EAGER_MAX + 2);
    assert_eq!(now.get(&SocketAddr::from(([10, 0, 0, 250], 80))), Some(&FrontendId(service("s7"))));
    assert!(!now.contains_key(&SocketAddr::from(([10, 0, 0, 9], 80))) && wished.vips.iter().all(|address| now.contains_key(address)));
    client.snapshot.frontends.values().for_each(|frontend| frontend.touch(200));
    client.release(150);
    assert!(client.step(Confirms::Nobody).requests.is_empty(), "used since");
    client.release(300);
    let step = client.step(Confirms::Nobody);
    let let_go: Vec<&String> = step.requests.iter().flat_map(|request| &request.resource_names_unsubscribe).collect();
    assert_eq!(let_go, ["ServiceImport/shop/b/80", "ServiceImport/shop/s7/80"], "idle for too long");
}
