//! ClusterSetIPs that come late, change, go and come back, and Services that share them (T-16, T-17, D-8, D-10, D-27). Every address is also
//! the ClusterIP of a Service, so that it is seen what an address that has no routes leads to.

use lab::lab::{Intercept, Options};

use super::*;

const ONE: &str = "10.102.200.1";
const TWO: &str = "10.102.200.2";

/// Services `one` and `two` at the two addresses, backends `blue` and `green`, and a route from `front`, which is not there.
fn bed(intercept: Intercept) -> Bed {
    let fixed = |name: &str, ip: &str| {
        let pods = yaml::deployment(name, "default", 1, "[{containerPort: 8080}]");
        yaml::all(&[pods, yaml::service(name, "default", "[{name: http, port: 80, targetPort: 8080}]", &format!("clusterIP: {ip}"))])
    };
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/platform.yaml", yaml::all(&[fixed("one", ONE), fixed("two", TWO)])),
        ("west/backends.yaml", yaml::all(&[yaml::exported("blue", "default", 1), yaml::exported("green", "default", 1)])),
        ("west/route.yaml", yaml::route("front", "", &[yaml::import("front", "")], &[yaml::to_import("/", "blue")])),
        // The ranges of Intercept::Cidr are those of clusters by number; west is the second.
        ("east/none.yaml", "{}".to_owned()),
    ];
    Bed::start(&files, Options { intercept, ..Options::default() }).expect("a lab")
}

/// Who answers at both addresses.
fn both(bed: &Bed) -> [String; 2] {
    [ONE, TWO].map(|ip| answered(bed, &format!("{ip}:80"), "/"))
}

/// Whether the route is accepted; if not, it has no parent, for a reason in which these words are.
fn is_accepted(bed: &Bed, words: &str) {
    let (status, reason, message) = condition(bed, "front", "Accepted");
    let expected = if words.is_empty() { ("True", "Accepted") } else { ("False", "NoMatchingParent") };
    assert_eq!((status.as_str(), reason.as_str()), expected, "{message}");
    assert!(message.contains(words), "{message}");
}

#[test]
fn interception_and_status_follow_every_change_of_the_vip() {
    for intercept in [Intercept::Exact, Intercept::Cidr] {
        let mut bed = bed(intercept);
        let headless = import("front", &[], "", "").replace("type: ClusterSetIP", "type: Headless");
        let stale = import("front", &[ONE], "", "").replace("type: ClusterSetIP", "type: Headless");
        let (passes, routed) = (["west/one", "west/two"], "west/blue");
        is_accepted(&bed, "does not exist");
        assert_eq!(both(&bed), passes);
        for (text, words, expected) in [
            (import("front", &[], "", ""), "no ClusterSetIP", passes),
            (import("front", &[ONE], "", ""), "", [routed, passes[1]]),
            (import("front", &[TWO], "", ""), "", [passes[0], routed]),
            (import("front", &[ONE, TWO], "", ""), "", [routed, routed]),
            (import("front", &["nonsense", TWO], "", ""), "", [passes[0], routed]),
            (import("front", &[], "", ""), "no ClusterSetIP", passes),
            (import("front", &[ONE], "", ""), "", [routed, passes[1]]),
            ("{}".to_owned(), "does not exist", passes),
            (import("front", &[TWO], "", ""), "", [passes[0], routed]),
            (headless, "headless", passes),
            (import("front", &[TWO], "", ""), "", [passes[0], routed]),
            (stale, "headless", passes),
            (import("front", &[ONE], "", ""), "", [routed, passes[1]]),
        ] {
            bed.apply("west/import.yaml", &text).expect("in force");
            assert_eq!(both(&bed), expected, "{intercept:?} {text}");
            is_accepted(&bed, words);
        }
    }
}

/// `derived-x` at the first address, with the pods of `one`; `owner` is further metadata.
fn derived(owner: &str) -> String {
    let service = yaml::service("derived-x", "default", "[{name: http, port: 80, targetPort: 8080}]", &format!("clusterIP: {ONE}"));
    service.replace("name: derived-x, ", &format!("name: derived-x{owner}, ")).replace("app: derived-x", "app: one")
}

const OWNER: &str = ", ownerReferences: [{apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceImport, name: front, uid: \"1\"}]";

#[test]
fn routes_of_a_derived_service_and_of_its_import_are_one_group() {
    let mut bed = bed(Intercept::Exact);
    let parent = "{group: \"\", kind: Service, name: derived-x}".to_owned();
    let of_service = yaml::route("derived", "", &[parent], &[yaml::to_import("/derived", "blue"), yaml::to_import("/same", "blue")]);
    let of_import =
        yaml::route("front", "", &[yaml::import("front", "")], &[yaml::to_import("/import", "green"), yaml::to_import("/same/x", "green")]);
    // One Service an address: the platform's of before gives way.
    bed.apply("west/platform.yaml", &yaml::deployment("one", "default", 1, "[{containerPort: 8080}]")).expect("in force");
    bed.apply("west/derived.yaml", &derived(OWNER)).expect("in force");
    bed.apply("west/import.yaml", &import("front", &[ONE], "", "")).expect("in force");
    bed.apply("west/route.yaml", &of_import).expect("in force");
    bed.apply("west/more.yaml", &of_service).expect("in force");
    let at = |bed: &Bed, target: &str| answered(bed, &format!("{ONE}:80"), target);
    let all = |bed: &Bed| ["/derived", "/import", "/same", "/same/x", "/none"].map(|target| at(bed, target));
    let none = "404 no_route";
    assert_eq!(all(&bed), ["west/blue", "west/green", "west/blue", "west/green", none], "merged (D-8)");
    for route in ["derived", "front"] {
        assert_eq!(condition(&bed, route, "Accepted").0, "True", "{route}");
    }
    bed.delete("west/route.yaml").expect("in force");
    assert_eq!(all(&bed), ["west/blue", none, "west/blue", "west/blue", none], "its routes alone keep the address");
    bed.apply("west/route.yaml", &of_import).expect("in force");
    bed.delete("west/more.yaml").expect("in force");
    assert_eq!(all(&bed), [none, "west/green", none, "west/green", none]);
    bed.apply("west/more.yaml", &of_service).expect("in force");
    bed.apply("west/derived.yaml", &derived("")).expect("in force");
    assert_eq!(all(&bed), [none, "west/green", none, "west/green", none], "an unrelated Service: the address is the import's");
    bed.delete("west/import.yaml").expect("in force");
    assert_eq!(all(&bed), ["west/blue", none, "west/blue", "west/blue", none], "and the Service's once that is gone");
}
