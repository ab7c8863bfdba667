//! ExternalAuth (H-18; GEP-1494): a test plays the authorization service, in a pod of the other cluster.

mod grpc;
mod http;

use std::collections::BTreeMap;
use std::net::TcpListener;

use ::http::Method;
use lab::client::{Answer, Ask};
use lab::lab::Options;
use tests::{Bed, yaml};

const STORE: &str = "store.default.svc.clusterset.local";

/// A rule under a prefix whose requests are authorized before `store` gets them.
fn rule(prefix: &str, auth: &str) -> String {
    format!(
        "{{matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}], filters: [{{type: ExternalAuth, externalAuth: {auth}}}], backendRefs: \
         [{}]}}",
        yaml::import("store", "port: 80")
    )
}

/// The filter; `more` is what belongs to the protocol, and further fields.
fn filter(protocol: &str, service: &str, more: &str) -> String {
    format!("{{protocol: {protocol}, backendRef: {}, {more}}}", yaml::import(service, "port: 9000"))
}

/// `store` with these rules, and a pod in which a test's own authorization service takes connections.
fn bed(rules: &[String]) -> (Bed, TcpListener) {
    let service = |name: &str, replicas| {
        let ports = yaml::service(name, "default", "[{port: 9000}]", "");
        yaml::all(&[yaml::deployment(name, "default", replicas, "[]"), ports, yaml::export(name, "default")])
    };
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("east/auth.yaml", yaml::all(&[service("auth", 1), service("nobody", 0), service("gone", 1)])),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], rules)),
    ];
    let bed = Bed::start(&files, Options::default()).expect("a lab");
    let pod = bed.pod("east/default/auth-0").expect("a pod");
    let listener = bed.namespace(&pod).expect("its namespace").run(|| Ok(TcpListener::bind("[::]:9000")?)).expect("a listener");
    (bed, listener)
}

fn ask(bed: &Bed, ask: &Ask) -> Answer {
    bed.ask(&bed.client().expect("a client"), STORE, ask).expect("an answer")
}

fn post(target: &str, body: &str) -> Ask {
    Ask { method: Method::POST, body: body.to_owned().into(), ..Ask::get(STORE, target) }
}

/// Header fields as the backend saw them, values of one name joined.
fn seen_headers(answer: &Answer) -> BTreeMap<String, String> {
    assert_eq!((answer.status.as_u16(), answer.reason()), (200, None), "{answer:?}");
    let pairs: Vec<(String, String)> = serde_json::from_value(answer.seen()["headers"].clone()).expect("pairs");
    joined(pairs)
}

fn joined(pairs: Vec<(String, String)>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        all.entry(name).and_modify(|values| *values = format!("{values},{value}")).or_insert(value);
    }
    all
}

fn is_own(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status.as_u16(), answer.reason(), answer.served_by()), (status, Some(reason), None), "{answer:?}");
}
