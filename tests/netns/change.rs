//! What changes while traffic flows: routes, weights, endpoints, pods, VIPs, controllers, sidecars.

use std::collections::BTreeSet;
use std::time::Instant;

use http::Version;
use lab::client::{Ask, Connection};
use lab::lab::{Existing, Fail, Intercept, Options};
use nix::sys::signal::Signal;
use tests::load::{Load, Outcome};
use tests::{Bed, who, yaml};

use super::bytes::PATIENCE;

const STORE: &str = "store.default.svc.clusterset.local";
const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

fn route_to(weights: &[(&str, u32)]) -> String {
    let backends: Vec<String> = weights.iter().map(|(name, weight)| yaml::import(name, &format!("port: 80, weight: {weight}"))).collect();
    yaml::route("store", "", &[yaml::import("store", "")], &[format!("{{backendRefs: [{}]}}", backends.join(", "))])
}

fn bed(options: Options, route: Option<String>) -> Bed {
    let mut files = vec![
        ("west/client.yaml", yaml::client("default")),
        ("west/apps.yaml", yaml::all(&["store", "blue", "green"].map(|name| yaml::exported(name, "default", 2)))),
        ("east/apps.yaml", yaml::app("idle", "default", 1)),
    ];
    files.extend(route.map(|route| ("west/route.yaml", route)));
    Bed::start(&files, options).expect("a lab")
}

/// All of them succeeded; who answered.
fn answered(outcomes: &[Outcome]) -> BTreeSet<String> {
    let answers = outcomes.iter().map(|outcome| outcome.as_ref().unwrap_or_else(|error| panic!("{error}")));
    answers
        .map(|answer| {
            assert_eq!(answer.status, 200, "{answer:?}");
            who(answer)
        })
        .collect()
}

/// Lets what was in flight come in, then gives who answers now.
fn from_now_on(load: &Load, count: usize) -> BTreeSet<String> {
    load.wait_for_more(5).expect("traffic");
    answered(&load.so_far());
    load.wait_for_more(count).expect("traffic");
    answered(&load.so_far())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn no_request_fails_and_each_follows_the_newest_state() {
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let mut bed = bed(Options { intercept, ..Options::default() }, Some(route_to(&[("blue", 1)])));
        let client = bed.client().expect("a client");
        let load = Load::start(&bed, &client, STORE, "/").expect("traffic");
        assert_eq!(from_now_on(&load, 10), set(&["west/blue"]));

        bed.apply("west/route.yaml", &route_to(&[("blue", 0), ("green", 1)])).expect("in force");
        assert_eq!(from_now_on(&load, 10), set(&["west/green"]), "a weight changed");

        let green = yaml::exported("green", "default", 2);
        bed.apply("east/apps.yaml", &green).expect("in force");
        assert_eq!(from_now_on(&load, 60), set(&["west/green", "east/green"]), "endpoints came in the other cluster");

        for cluster in ["west", "east"] {
            bed.restart(&format!("{cluster}/default/green")).expect("in force");
            assert_eq!(from_now_on(&load, 40), set(&["west/green", "east/green"]), "every pod was replaced");
        }

        bed.delete("west/route.yaml").expect("in force");
        assert_eq!(from_now_on(&load, 10), set(&["west/store"]), "the route is gone: what was dialled gets the requests");

        bed.apply("west/route.yaml", &route_to(&[("blue", 1)])).expect("in force");
        assert_eq!(from_now_on(&load, 10), set(&["west/blue"]), "and back, on the same connections");
        answered(&load.finish().expect("the rest"));
    }
}

#[test]
fn no_request_fails_when_http2_backends_restart() {
    let green = || {
        let ports = "[{port: 80, targetPort: 8080, appProtocol: kubernetes.io/h2c}]";
        let pods = yaml::deployment("green", "default", 2, "[{containerPort: 8080}]");
        yaml::all(&[pods, yaml::service("green", "default", ports, ""), yaml::export("green", "default")])
    };
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/apps.yaml", yaml::all(&[yaml::exported("store", "default", 1), green()])),
        ("east/apps.yaml", green()),
        ("west/route.yaml", route_to(&[("green", 1)])),
    ];
    let mut bed = Bed::start(&files, Options::default()).expect("a lab");
    let load = Load::start(&bed, &bed.client().expect("a client"), STORE, "/").expect("traffic");
    for cluster in ["west", "east", "west"] {
        bed.restart(&format!("{cluster}/default/green")).expect("in force");
        assert_eq!(from_now_on(&load, 40), set(&["west/green", "east/green"]));
    }
    answered(&load.finish().expect("the rest"));
}

/// Asks twice on one connection, with a change in between; gives who answered first and what became of the second. If the change `ends`
/// connections, soon but not before it is in force, the second goes on until that has happened or no more can be waited for.
fn around(bed: &mut Bed, version: Version, ends: bool, change: impl FnOnce(&mut Bed)) -> (String, anyhow::Result<String>) {
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let (first_done, wait_first) = std::sync::mpsc::channel();
    let (go_on, wait_go) = std::sync::mpsc::channel();
    let (second_done, wait_second) = std::sync::mpsc::channel();
    let asking = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let ask = Ask::get(STORE, "/");
        let mut connection = runtime.block_on(Connection::open(address, version)).expect("a connection");
        let first = runtime.block_on(connection.ask(&ask)).map(|answer| who(&answer));
        first_done.send(first).expect("someone waits");
        wait_go.recv().expect("a word");
        let until = Instant::now() + PATIENCE;
        let second = loop {
            let second = runtime.block_on(connection.ask(&ask)).map(|answer| who(&answer));
            if !(ends && second.is_ok() && Instant::now() < until) {
                break second;
            }
        };
        second_done.send(second).expect("someone waits");
    };
    let thread = bed.namespace(&client).expect("its namespace").spawn("asks", asking).expect("a thread");
    let first = wait_first.recv().expect("an answer").expect("an answer");
    change(bed);
    go_on.send(()).expect("someone waits");
    let second = wait_second.recv().expect("an outcome");
    thread.join().expect("the thread");
    (first, second)
}

#[test]
fn a_connection_older_than_its_route_stays_as_it_is() {
    for (intercept, version) in
        [Intercept::Exact, Intercept::Cidr].into_iter().flat_map(|intercept| BOTH.map(|version| (intercept, version)))
    {
        let mut bed = bed(Options { intercept, ..Options::default() }, None);
        let (before, after) = around(&mut bed, version, false, |bed| {
            bed.apply("west/route.yaml", &route_to(&[("blue", 1)])).expect("in force");
            if intercept == Intercept::Cidr {
                let client = bed.client().expect("a client");
                let config = bed.sidecar_admin(&client, "/config").expect("config");
                let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
                let older = config["pass_through_older_than_routes"].as_array().expect("a list");
                assert_eq!(older.len(), 1, "it is listed: {config}");
            }
        });
        assert_eq!((before.as_str(), after.expect("an answer").as_str()), ("west/store", "west/store"), "{intercept:?} {version:?}");
        assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/blue", "a new connection obeys");
    }
}

#[test]
fn a_connection_older_than_its_route_is_ended_where_that_was_asked_for() {
    let reset = Options { existing: Existing::Reset, ..Options::default() };
    let drain = Options { intercept: Intercept::Cidr, sidecar_arguments: vec!["--passthrough-drain-s=0".to_owned()], ..Options::default() };
    for (options, version) in [reset, drain].into_iter().flat_map(|options| BOTH.map(|version| (options.clone(), version))) {
        let mut bed = bed(options, None);
        let (before, after) =
            around(&mut bed, version, true, |bed| bed.apply("west/route.yaml", &route_to(&[("blue", 1)])).expect("in force"));
        assert_eq!(before, "west/store");
        after.expect_err("the connection is ended, so that the client reconnects");
        assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/blue", "and obeys");
    }
}

#[test]
fn a_reused_vip_never_re_routes_an_old_connection() {
    let fixed = |name: &str| {
        yaml::export(name, "default").replace("metadata: {", "metadata: {annotations: {isthmus.dev/lab-clusterset-ips: 10.201.77.7}, ")
    };
    let route = |name: &str, backend: &str| yaml::route(name, "", &[yaml::import(name, "")], &[yaml::to_import("/", backend)]);
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/apps.yaml", yaml::all(&[yaml::app("store", "default", 1), yaml::app("other", "default", 1)])),
        ("west/backends.yaml", yaml::all(&[yaml::exported("blue", "default", 1), yaml::exported("green", "default", 1)])),
        ("west/export.yaml", fixed("store")),
        ("west/route.yaml", route("store", "blue")),
    ];
    for version in BOTH {
        let mut bed = Bed::start(&files, Options::default()).expect("a lab");
        let (before, after) = around(&mut bed, version, false, |bed| {
            std::fs::write(bed.source().join("west/route.yaml"), route("other", "green")).expect("written");
            bed.apply("west/export.yaml", &fixed("other")).expect("in force");
        });
        assert_eq!((before.as_str(), after.expect("an answer").as_str()), ("west/blue", "west/blue"), "{version:?} (D-10)");
        assert_eq!(who(&bed.get("10.201.77.7:80", "/").expect("an answer")), "west/green", "a new connection is the other's");
    }
}

#[test]
fn without_a_controller_traffic_goes_on_and_changes_flow_again_later() {
    let mut bed = bed(Options::default(), Some(route_to(&[("blue", 1)])));
    let client = bed.client().expect("a client");
    let load = Load::start(&bed, &client, STORE, "/").expect("traffic");
    bed.kill_controller("west").expect("killed");
    assert_eq!(from_now_on(&load, 20), set(&["west/blue"]));
    bed.apply("west/route.yaml", &route_to(&[("green", 1)])).expect("written; nobody is there to obey it");
    assert_eq!(from_now_on(&load, 10), set(&["west/blue"]), "the last state stays in force");
    bed.start_controller("west").expect("in force");
    assert_eq!(from_now_on(&load, 20), set(&["west/green"]), "changes flow again");
    answered(&load.finish().expect("the rest"));
}

#[test]
fn before_the_first_state_traffic_passes_through() {
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let mut bed = bed(Options { intercept, without_controllers: true, ..Options::default() }, Some(route_to(&[("blue", 1)])));
        let client = bed.client().expect("a client");
        assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/store", "as without a mesh (D-30)");
        assert!(bed.sidecar_admin(&client, "/readyz").expect("an answer").contains("not in force"), "and it is not ready");
        bed.start_controller("west").expect("in force");
        assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/blue");
    }
}

#[test]
fn a_dead_sidecar_refuses_or_lets_by_as_it_was_told() {
    let mut bed = bed(Options::default(), Some(route_to(&[("blue", 1)])));
    let client = bed.client().expect("a client");
    bed.end_sidecar(&client, Signal::SIGKILL).expect("killed");
    let error = bed.get(STORE, "/").expect_err("refused").chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(error.contains("refused"), "at once, without a hang: {error}");
    bed.start_sidecar(&client).expect("ready again");
    assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/blue");
}

#[test]
fn a_dead_sidecar_lets_by_once_the_elements_time_is_over() {
    let mut bed = bed(Options { fail: Fail::Open, ..Options::default() }, Some(route_to(&[("blue", 1)])));
    let client = bed.client().expect("a client");
    assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/blue");
    // Longer than the elements live, so that it is seen that a living sidecar renews them.
    let end = Instant::now() + init::watch::OPEN_AFTER * 2;
    while Instant::now() < end {
        assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/blue");
    }
    bed.end_sidecar(&client, Signal::SIGKILL).expect("killed");
    let end = Instant::now() + std::time::Duration::from_secs(20);
    let answer = loop {
        match bed.get(STORE, "/") {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < end, "still: {error:#}"),
        }
    };
    assert_eq!(who(&answer), "west/store", "the platform's way");
    bed.start_sidecar(&client).expect("ready again");
    assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/blue");
}

#[test]
fn a_sidecar_that_is_told_to_end_serves_what_it_has() {
    let mut bed =
        bed(Options { sidecar_arguments: vec!["--drain-grace-s=10".to_owned()], ..Options::default() }, Some(route_to(&[("blue", 1)])));
    for version in BOTH {
        let client = bed.client().expect("a client");
        let address = bed.address(&client, STORE).expect("a VIP");
        let (sent, wait_sent) = std::sync::mpsc::channel();
        let (answer, wait_answer) = std::sync::mpsc::channel();
        let asking = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
            let mut connection = runtime.block_on(Connection::open(address, version)).expect("a connection");
            runtime.block_on(connection.ask(&Ask::get(STORE, "/"))).expect("a first answer");
            sent.send(()).expect("someone waits");
            answer.send(runtime.block_on(connection.ask(&Ask::get(STORE, "/?delay_ms=500")))).expect("someone waits");
        };
        let thread = bed.namespace(&client).expect("its namespace").spawn("asks", asking).expect("a thread");
        wait_sent.recv().expect("sent");
        bed.signal_sidecar(&client, Signal::SIGTERM).expect("told");
        assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "west/blue", "it still accepts while the application winds down");
        let answer = wait_answer.recv().expect("an outcome").expect("an answer");
        assert_eq!(who(&answer), "west/blue", "{version:?}");
        thread.join().expect("the thread");
        // Its connections are gone, so it ends by itself.
        bed.end_sidecar(&client, Signal::SIGTERM).expect("ended");
        assert!(bed.logs(&client).expect("logs").contains("ends"));
        bed.start_sidecar(&client).expect("ready again");
    }
}

#[test]
fn a_pod_can_leave_the_mesh_and_come_back() {
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let mut bed = bed(Options { intercept, ..Options::default() }, Some(route_to(&[("blue", 1)])));
        let client = bed.client().expect("a client");
        for _ in 0..2 {
            assert_eq!(who(&bed.get_from(&client, STORE, "/").expect("an answer")), "west/blue");
            bed.apply("west/client.yaml", &yaml::client("default").replace("enabled", "disabled")).expect("in force");
            assert_eq!(who(&bed.get_from(&client, STORE, "/").expect("an answer")), "west/store", "as without a mesh");
            bed.apply("west/client.yaml", &yaml::client("default")).expect("in force");
        }
    }
}
