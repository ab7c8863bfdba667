//! Slices: ports, conditions, doubles, and whether they are looked at at all (T-15, T-17, D-3, D-15, D-18).

use std::collections::BTreeSet;

use lab::lab::Options;
use tests::load::Load;

use super::*;

/// Where the platform leads whoever dials it, to `vip`.
const PLATFORM: &str = "10.102.200.1";
const HTTP: &str = "{name: http, protocol: TCP, port: 8080}";

/// `store`, and pods that endpoints can be made of; the one of `other` serves on another port.
fn bed(backend: &str) -> Bed {
    let pods = |name: &str, port: u16| yaml::deployment(name, "default", 1, &format!("[{{containerPort: {port}}}]"));
    let platform = yaml::service("vip", "default", "[{name: http, port: 80, targetPort: 8080}]", &format!("clusterIP: {PLATFORM}"));
    let west = ["a", "b", "c", "vip"].map(|name| pods(name, 8080));
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/pods.yaml", yaml::all(&[west.to_vec(), vec![platform]].concat())),
        ("east/pods.yaml", pods("other", 9090)),
        ("west/route.yaml", to(backend)),
    ];
    Bed::start(&files, Options::default()).expect("a lab")
}

/// Everyone who answers one of so many requests.
fn who_answers(bed: &Bed, times: usize) -> BTreeSet<String> {
    bed.shares(times, STORE, "/").expect("answers").into_keys().collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_cluster_has_its_own_pod_port_and_may_lack_the_port() {
    let mut bed = bed(&yaml::import("cart", "port: 80"));
    let [a, c, other] = ["west/a", "west/c", "east/other"].map(|pod| [endpoint(&bed, pod, "")]);
    let from_two = || {
        let slices = Slices::of_import("cart").with("west", HTTP, &a);
        slices.with("east", "{name: admin, port: 1}, {name: http, port: 9090}", &other)
    };
    let lacking = from_two().with("north", "{name: admin, port: 8080}", &c);
    bed.apply("west/import.yaml", &import("cart", &[], "", "")).expect("in force");
    bed.apply("west/slices.yaml", &lacking.text).expect("in force");
    let shares = bed.shares(400, STORE, "/").expect("answers");
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["east/other", "west/a"], "only who has the port's name (C-11): {shares:?}");
    assert!(shares["west/a"].abs_diff(200) <= 50, "by endpoints: {shares:?}");

    let none = Slices::of_import("cart").with("north", "{name: admin, port: 8080}", &c);
    bed.apply("west/slices.yaml", &none.text).expect("in force");
    assert_eq!(answered(&bed, STORE, "/"), "503 no_endpoint", "as if there were no ready endpoint (D-15)");
    assert_eq!(condition(&bed, "store", "ResolvedRefs").0, "True", "for the import has the port");

    let (udp, unnamed) = ("{name: http, protocol: UDP, port: 8080}", "{port: 8080}");
    for (ports, expected) in [(udp, "503 no_endpoint"), (unnamed, "west/c")] {
        let slices = Slices::of_import("cart").with("north", ports, &c);
        bed.apply("west/slices.yaml", &slices.text).expect("in force");
        assert_eq!(answered(&bed, STORE, "/"), expected, "{ports}");
    }
}

#[test]
fn only_what_is_ready_gets_requests_or_else_what_still_serves() {
    let service = yaml::service("manual", "default", "[{name: http, port: 80}]", "").replace("selector: {app: manual}, ", "");
    let mut bed = bed("{name: manual, port: 80}");
    let of = |bed: &Bed, conditions: [&str; 3]| {
        let pods = ["west/a", "west/b", "west/c"];
        pods.into_iter().zip(conditions).map(|(pod, conditions)| endpoint(bed, pod, conditions)).collect::<Vec<_>>()
    };
    let (ready, unready) = ("ready: true", "ready: false");
    let (draining, ended) = ("ready: false, serving: true, terminating: true", "ready: false, serving: false, terminating: true");
    bed.apply("west/backends.yaml", &yaml::all(&[service, import("manual", &[], "", "")])).expect("in force");
    for kind in ["Service", "ServiceImport"] {
        let backend = if kind == "Service" { "{name: manual, port: 80}".to_owned() } else { yaml::import("manual", "port: 80") };
        bed.apply("west/route.yaml", &to(&backend)).expect("in force");
        for (conditions, expected) in [
            ([ready, unready, draining], &["west/a"][..]),
            (["", unready, ended], &["west/a"]),
            ([draining, unready, ended], &["west/a"]),
            ([draining, draining, unready], &["west/a", "west/b"]),
            ([unready, unready, ended], &["503"]),
            (["serving: false, terminating: true", unready, unready], &["west/a"]),
        ] {
            let slices = if kind == "Service" { Slices::of_service("manual") } else { Slices::of_import("manual") };
            let slices = slices.with("west", HTTP, &of(&bed, conditions));
            bed.apply("west/slices.yaml", &slices.text).expect("in force");
            assert_eq!(who_answers(&bed, 40), names(expected), "{kind}: {conditions:?} (D-18)");
        }
    }
}

#[test]
fn an_address_in_several_slices_counts_once() {
    let mut bed = bed(&yaml::import("cart", "port: 80"));
    let [a, b] = ["west/a", "west/b"].map(|pod| endpoint(&bed, pod, ""));
    let mut slices = Slices::of_import("cart");
    for _ in 0..5 {
        slices = slices.with("west", HTTP, &[a.clone(), a.clone()]);
    }
    let slices = slices.with("east", HTTP, &[b]);
    bed.apply("west/import.yaml", &import("cart", &[], "", "")).expect("in force");
    bed.apply("west/slices.yaml", &slices.text).expect("in force");
    let shares = bed.shares(400, STORE, "/").expect("answers");
    assert!(shares["west/b"].abs_diff(200) <= 50, "{shares:?}");
}

#[test]
fn what_an_import_says_of_slices_decides_whether_they_are_looked_at() {
    let mut bed = bed(&yaml::import("cart", "port: 80"));
    let a = endpoint(&bed, "west/a", "");
    let some = Slices::of_import("cart").with("east", HTTP, &[a]).text;
    let empty = Slices::of_import("cart").with("east", HTTP, &[]).text;
    let none = "{}".to_owned();
    let (present, absent) = ("endpointSliceObjects: Present", "endpointSliceObjects: Absent");
    for (said, slices, expected) in [
        ("", &none, "west/vip"),
        ("", &some, "west/a"),
        ("", &empty, "503 no_endpoint"),
        (absent, &some, "west/vip"),
        (absent, &none, "west/vip"),
        (present, &some, "west/a"),
        (present, &none, "503 no_endpoint"),
        ("endpointSliceObjects: Unheard-Of", &some, "west/a"),
    ] {
        bed.apply("west/import.yaml", &import("cart", &[PLATFORM], "", said)).expect("in force");
        bed.apply("west/slices.yaml", slices).expect("in force");
        assert_eq!(answered(&bed, STORE, "/"), expected, "{said:?} {slices} (D-3)");
    }
    let headless = import("cart", &[PLATFORM], "", absent).replace("type: ClusterSetIP", "type: Headless");
    bed.apply("west/slices.yaml", &none).expect("in force");
    bed.apply("west/import.yaml", &headless).expect("in force");
    assert_eq!(answered(&bed, STORE, "/"), "503 no_endpoint", "no slices and no VIP");
    bed.apply("west/slices.yaml", &some).expect("in force");
    bed.apply("west/import.yaml", &headless.replace(absent, present)).expect("in force");
    assert_eq!(answered(&bed, STORE, "/"), "west/a", "a headless backend has its slices (D-13)");
}

#[test]
fn an_export_without_slices_is_reached_through_its_vip() {
    let absent = yaml::export("cart", "default").replace("name: cart", "name: cart, annotations: {isthmus.dev/lab-slices: absent}");
    let mut bed = bed(&yaml::import("cart", "port: 80"));
    bed.apply("east/cart.yaml", &yaml::all(&[yaml::app("cart", "default", 1), absent])).expect("in force");
    assert_eq!(answered(&bed, STORE, "/"), "east/cart");
    let line = crate::store::log(&bed, 1).remove(0);
    assert!(line["endpoint"].as_str().is_some_and(|endpoint| endpoint.ends_with(":80")), "the VIP's port: {line}");
    // The platform chooses for each connection, so none is kept for long.
    let client = bed.client().expect("a client");
    (0..250).for_each(|_| assert_eq!(answered(&bed, STORE, "/"), "east/cart"));
    let metrics = bed.sidecar_admin(&client, "/metrics").expect("metrics");
    let connects = metrics.lines().find_map(|line| line.strip_prefix("isthmus_sidecar_endpoint_connects_total{result=\"connected\"} "));
    assert!(connects.is_some_and(|count| count.parse::<u32>().is_ok_and(|count| count >= 3)), "{connects:?}");
    bed.apply("east/cart.yaml", &yaml::exported("cart", "default", 1)).expect("in force");
    assert_eq!(answered(&bed, STORE, "/"), "east/cart");
    let line = crate::store::log(&bed, 252).remove(251);
    assert!(line["endpoint"].as_str().is_some_and(|endpoint| endpoint.ends_with(":8080")), "the pod's: {line}");
}

#[test]
fn a_cluster_s_slices_go_and_come_without_a_failed_request() {
    let mut bed = bed(&yaml::import("cart", "port: 80"));
    bed.apply("west/cart.yaml", &yaml::exported("cart", "default", 2)).expect("in force");
    bed.apply("east/cart.yaml", &yaml::exported("cart", "default", 2)).expect("in force");
    let load = Load::start(&bed, &bed.client().expect("a client"), STORE, "/").expect("traffic");
    let from_now_on = || {
        let clusters = || {
            let answers = load.so_far().into_iter().map(|outcome| outcome.expect("an answer"));
            answers
                .map(|answer| {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    who(&answer)
                })
                .collect::<BTreeSet<_>>()
        };
        // What was in flight may still be of before.
        load.wait_for_more(5).expect("traffic");
        clusters();
        load.wait_for_more(60).expect("traffic");
        clusters()
    };
    assert_eq!(from_now_on(), names(&["east/cart", "west/cart"]));
    for cluster in ["east", "west"] {
        let file = format!("{cluster}/cart.yaml");
        bed.delete(&file).expect("in force");
        assert_eq!(from_now_on(), names(&[if cluster == "east" { "west/cart" } else { "east/cart" }]));
        bed.apply(&file, &yaml::exported("cart", "default", 2)).expect("in force");
        assert_eq!(from_now_on(), names(&["east/cart", "west/cart"]));
    }
    for outcome in load.finish().expect("the rest") {
        assert_eq!(outcome.expect("an answer").status, 200);
    }
}
