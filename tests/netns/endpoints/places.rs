//! Endpoints by where they are: internalTrafficPolicy and trafficDistribution, on Services and on what is imported (D-17).

use std::collections::BTreeSet;

use lab::lab::Options;

use super::*;

/// Services over the same pods, each with another policy.
const POLICIES: [(&str, &str); 4] = [
    ("local", "internalTrafficPolicy: Local"),
    ("zone", "trafficDistribution: PreferSameZone"),
    ("node", "trafficDistribution: PreferSameNode"),
    ("all", ""),
];

fn place(node: &str, zone: &str) -> String {
    format!("annotations: {{isthmus.dev/lab-node: {node}, isthmus.dev/lab-zone: {zone}}}")
}

/// Two pods at a place, behind all of the Services.
fn spots(name: &str, node: &str, zone: &str) -> String {
    let pods = yaml::deployment(name, "default", 1, "[{containerPort: 8080}]");
    pods.replace(&format!("labels: {{app: {name}}}"), &format!("labels: {{app: spot}}, {}", place(node, zone)))
}

fn services() -> String {
    let service = |name: &str, policy: &str| {
        let service = yaml::service(name, "default", "[{port: 80, targetPort: 8080}]", policy);
        yaml::all(&[service.replace(&format!("app: {name}"), "app: spot"), yaml::export(name, "default")])
    };
    yaml::all(&POLICIES.map(|(name, policy)| service(name, policy)))
}

fn client(node: &str, zone: &str) -> String {
    yaml::client("default").replace("labels:", &format!("{}, labels:", place(node, zone)))
}

#[test]
fn policies_and_preferences_choose_by_place() {
    let rules = POLICIES.map(|(name, _)| {
        let to = |prefix: &str, backend: String| {
            format!("{{matches: [{{path: {{type: PathPrefix, value: /{prefix}/{name}}}}}], backendRefs: [{backend}]}}")
        };
        [to("import", yaml::import(name, "port: 80")), to("service", format!("{{name: {name}, port: 80}}"))]
    });
    let files = [
        ("west/client.yaml", client("node-a", "zone-a")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/spots.yaml", yaml::all(&[spots("near", "node-a", "zone-a"), spots("next", "node-b", "zone-a"), services()])),
        // A node of the same name in another cluster is another node.
        ("east/spots.yaml", yaml::all(&[spots("far", "node-a", "zone-b"), spots("farther", "node-c", "zone-c"), services()])),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], rules.as_flattened())),
    ];
    let mut bed = Bed::start(&files, Options::default()).expect("a lab");
    let everyone = "east/far east/farther west/near west/next";
    let of_west = "west/near west/next";
    // Where the client is; who answers for each policy, of an import and of a Service.
    for (node, zone, imported, own) in [
        ("node-a", "zone-a", ["west/near", of_west, "west/near", everyone], ["west/near", of_west, "west/near", of_west]),
        ("node-b", "zone-b", ["west/next", "east/far", "west/next", everyone], ["west/next", of_west, "west/next", of_west]),
        ("node-c", "zone-c", ["503", "east/farther", "east/farther", everyone], ["503", of_west, of_west, of_west]),
        ("node-d", "zone-d", ["503", everyone, everyone, everyone], ["503", of_west, of_west, of_west]),
    ] {
        bed.apply("west/client.yaml", &client(node, zone)).expect("in force");
        for (prefix, expected) in [("import", imported), ("service", own)] {
            for ((name, _), expected) in POLICIES.iter().zip(expected) {
                let shares = bed.shares(80, STORE, &format!("/{prefix}/{name}")).expect("answers");
                let names: BTreeSet<&str> = shares.keys().map(String::as_str).collect();
                assert_eq!(names, expected.split(' ').collect(), "{prefix} {name} at {node} in {zone}: {shares:?}");
            }
        }
    }
    bed.apply("west/client.yaml", &yaml::client("default")).expect("in force");
    let shares = bed.shares(80, STORE, "/import/local").expect("answers");
    assert_eq!(shares.len(), 4, "without a known place Local is ignored, and that is said: {shares:?}");
    let client = bed.client().expect("a client");
    assert!(bed.logs(&client).expect("logs").contains("internalTrafficPolicy Local is ignored"));
}
