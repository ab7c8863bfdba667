//! The rights in the manifests are those that the controller uses: none is missing, none is more.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use controller::kubernetes::access::needed;
use serde_json::Value;

/// Group, resource, verb, name, whether in the own namespace alone.
type Right = (String, String, String, Option<String>, bool);

fn strings(value: &Value) -> Vec<String> {
    value.as_array().map_or_else(Vec::new, |list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn granted() -> BTreeSet<Right> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/kustomize/isthmus.yaml");
    let text = std::fs::read_to_string(path).expect("the manifests");
    let mut rights = BTreeSet::new();
    for object in routing::manifest::parse(&text).expect("YAML").into_iter().map(|document| document.value) {
        let own_namespace = match object["kind"].as_str() {
            Some("ClusterRole") => false,
            Some("Role") => true,
            _ => continue,
        };
        for rule in object["rules"].as_array().expect("rules") {
            let names = strings(&rule["resourceNames"]);
            let names: Vec<Option<String>> = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
            for group in strings(&rule["apiGroups"]) {
                for resource in strings(&rule["resources"]) {
                    for verb in strings(&rule["verbs"]) {
                        for name in &names {
                            rights.insert((group.clone(), resource.clone(), verb.clone(), name.clone(), own_namespace));
                        }
                    }
                }
            }
        }
    }
    rights
}

#[test]
fn the_manifests_grant_what_is_used_and_nothing_else() {
    let used: BTreeSet<Right> = needed("isthmus-injector")
        .into_iter()
        .map(|access| {
            let name = access.name.map(str::to_owned);
            (access.group.to_owned(), access.resource, access.verb.to_owned(), name, access.own_namespace)
        })
        .collect();
    let granted = granted();
    assert_eq!(used.difference(&granted).collect::<Vec<_>>(), Vec::<&Right>::new(), "not granted");
    assert_eq!(granted.difference(&used).collect::<Vec<_>>(), Vec::<&Right>::new(), "not used");
}
