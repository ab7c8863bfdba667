//! Which routes are in force for whom: ports and sections, producer and consumer, merging (T-5, T-6, T-7).

use lab::lab::Options;
use tests::{Bed, who, yaml};

const STORE: &str = "store.default.svc.clusterset.local";

fn bed(more: Vec<(&str, String)>) -> Bed {
    let mut files = super::gamma::files();
    files.retain(|(name, _)| *name != "west/route.yaml");
    files.extend(more);
    Bed::start(&files, Options::default()).expect("a lab")
}

fn answered(bed: &Bed, to: &str, target: &str) -> String {
    let who = who(&bed.get(to, target).expect("an answer"));
    who.split_once('/').map_or(who.clone(), |(_, name)| name.to_owned())
}

#[test]
fn a_route_on_one_port_leaves_the_others_alone() {
    let mut bed = bed(Vec::new());
    let (http, alt) = (format!("{STORE}:80"), format!("{STORE}:8081"));
    for (parent, on_http, on_alt) in [
        ("port: 80", "cart", "store"),
        ("port: 8081", "store", "cart"),
        ("sectionName: alt", "store", "cart"),
        ("port: 8081, sectionName: alt", "store", "cart"),
        ("port: 80, sectionName: alt", "store", "store"),
        ("port: 9999", "store", "store"),
        ("sectionName: none", "store", "store"),
    ] {
        let route = yaml::route("store", "", &[yaml::import("store", parent)], &[yaml::to_import("/", "cart")]);
        bed.apply("west/route.yaml", &route).expect("in force");
        assert_eq!((answered(&bed, &http, "/").as_str(), answered(&bed, &alt, "/").as_str()), (on_http, on_alt), "{parent} (M-11, M-12)");
        let status = bed.route_status("west", "default", "store").expect("a status");
        let accepted = &status["status"]["parents"][0]["conditions"][0];
        let (value, reason) = if on_http == on_alt { ("False", "NoMatchingParent") } else { ("True", "Accepted") };
        assert_eq!((accepted["status"].as_str(), accepted["reason"].as_str()), (Some(value), Some(reason)), "{parent}: {status}");
    }
}

#[test]
fn a_producer_route_is_for_all_a_consumer_route_for_its_own_namespace() {
    let producer = yaml::route("producer", "", &[yaml::import("store", "")], &[yaml::to_import("/cart", "cart")]);
    let mut bed = bed(vec![
        ("west/other.yaml", yaml::all(&[yaml::client("other"), yaml::exported("mine", "other", 1)])),
        ("west/producer.yaml", producer),
    ]);
    let home = bed.pod("west/default/client").expect("a pod");
    let other = bed.pod("west/other/client").expect("a pod");
    let ask = |bed: &Bed, pod, target| who(&bed.get_from(pod, STORE, target).expect("an answer"));
    assert!(ask(&bed, &home, "/cart").ends_with("/cart"));
    assert!(ask(&bed, &other, "/cart").ends_with("/cart"), "a producer route is for clients of every namespace (M-15)");

    let parent = yaml::import("store", "namespace: default");
    let consumer = yaml::route("consumer", "namespace: other", &[parent], &[yaml::to_import("/mine", "mine")]);
    bed.apply("west/consumer.yaml", &consumer).expect("in force");
    assert_eq!(ask(&bed, &other, "/mine"), "west/mine", "its own (M-16)");
    assert_eq!(ask(&bed, &other, "/cart"), "404", "the consumer set replaces the producer set wholly (M-19)");
    assert!(ask(&bed, &home, "/cart").ends_with("/cart"), "other namespaces are not touched");
    assert_eq!(ask(&bed, &home, "/mine"), "404");

    bed.delete("west/consumer.yaml").expect("in force");
    assert!(ask(&bed, &other, "/cart").ends_with("/cart"), "and back");
}

#[test]
fn routes_of_one_frontend_are_merged_and_the_older_one_wins() {
    let route = |name: &str, created: &str, backend: &str, more: &[String]| {
        let rules: Vec<String> = [yaml::to_import("/same", backend)].into_iter().chain(more.iter().cloned()).collect();
        yaml::route(name, &format!("creationTimestamp: \"{created}\""), &[yaml::import("store", "")], &rules)
    };
    let only_b = [yaml::to_import("/only-b", "cart")];
    let mut bed = bed(vec![
        ("west/a.yaml", route("a", "2026-01-02T00:00:00Z", "store", &[])),
        ("west/b.yaml", route("b", "2026-01-01T00:00:00Z", "cart", &only_b)),
    ]);
    assert_eq!(answered(&bed, STORE, "/same"), "cart", "b is older (H-2)");
    assert_eq!(answered(&bed, STORE, "/only-b"), "cart", "merged (M-20)");
    bed.apply("west/b.yaml", &route("b", "2026-01-02T00:00:00Z", "cart", &only_b)).expect("in force");
    assert_eq!(answered(&bed, STORE, "/same"), "store", "the same second: by namespace and name");
    bed.delete("west/a.yaml").expect("in force");
    assert_eq!(answered(&bed, STORE, "/same"), "cart", "the winner is gone, the other one active");
}
