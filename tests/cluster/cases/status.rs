//! Route status beside others.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::bed::{Bed, EAST, WEST, eventually};

fn parents(bed: &Bed, cluster: &str, route: &str) -> anyhow::Result<Vec<Value>> {
    let route = bed.get(cluster, &["-n", "shop", "httproute", route])?;
    Ok(route["status"]["parents"].as_array().cloned().unwrap_or_default())
}

fn controllers(parents: &[Value]) -> Vec<&str> {
    parents.iter().filter_map(|parent| parent["controllerName"].as_str()).collect()
}

/// Another controller's entry stays as and where it is; ours follows the route and goes with its parentRef.
pub(crate) fn beside_another_claimant(bed: &Bed) -> anyhow::Result<()> {
    let reference = |name: &str| json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": name});
    let route = |references: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "claimed", "namespace": "shop"},
            "spec": {"parentRefs": references, "rules": [{"backendRefs": [reference("nobody")]}]},
        })
    };
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"});
    bed.kubectl(EAST, &["-n", "shop", "delete", "httproute", "claimed", "--ignore-not-found"])?;
    bed.apply(EAST, &route(json!([gateway, reference("cart")])).to_string())?;
    let ours = eventually("our entry", || {
        let parents = parents(bed, EAST, "claimed")?;
        ensure!(controllers(&parents) == ["isthmus.dev/mesh"], "{parents:?}");
        Ok(parents[0].clone())
    })?;
    ensure!(ours["conditions"][1]["reason"] == "BackendNotFound", "{ours}");
    eventually("an event says what to mend", || {
        let events = bed.get(EAST, &["-n", "shop", "events.events.k8s.io", "--field-selector", "reason=BackendNotFound"])?;
        let mut events = events["items"].as_array().into_iter().flatten();
        ensure!(events.any(|event| event["regarding"]["name"] == "claimed"), "no event of the route");
        Ok(())
    })?;
    // The other one writes before ours and puts a condition of its own into ours.
    let foreign = json!({
        "controllerName": "example.org/edge", "parentRef": gateway,
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
    let mut marked = ours.clone();
    if let Some(conditions) = marked["conditions"].as_array_mut() {
        conditions.insert(
            0,
            json!({
                "type": "example.org/Seen", "status": "True", "reason": "Seen", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }),
        );
    }
    let status = json!({"status": {"parents": [foreign, marked]}}).to_string();
    bed.kubectl(EAST, &["-n", "shop", "patch", "httproute", "claimed", "--subresource=status", "--type=merge", "-p", &status])?;
    // A change of the route makes us write.
    bed.apply(EAST, &route(json!([gateway, reference("cart"), reference("store")])).to_string())?;
    let parents_now = eventually("both entries of ours, with all that is said in them", || {
        let parents = parents(bed, EAST, "claimed")?;
        // Accepted, ResolvedRefs, and some time later Live, after which nothing is written by itself.
        let is_all_said = |entry: &Value| {
            let conditions = entry["conditions"].as_array().into_iter().flatten();
            conditions.filter_map(|condition| condition["observedGeneration"].as_i64()).eq([2, 2, 2])
        };
        ensure!(parents.len() == 3 && parents[1..].iter().all(is_all_said), "{parents:?}");
        Ok(parents)
    })?;
    ensure!(parents_now[0] == foreign, "{parents_now:?}");
    claimed_twice(bed, &parents_now)?;
    ensure!(parents_now[1]["conditions"][0]["type"] == "example.org/Seen", "{parents_now:?}");
    let since = |parent: &Value, kind: &str| {
        let mut conditions = parent["conditions"].as_array().into_iter().flatten();
        conditions.find(|condition| condition["type"] == kind).map(|condition| condition["lastTransitionTime"].clone())
    };
    ensure!(since(&parents_now[1], "Accepted") == since(&ours, "Accepted"), "{parents_now:?}");
    bed.apply(EAST, &route(json!([gateway])).to_string())?;
    eventually("ours are gone, the other one stays", || {
        let parents = parents(bed, EAST, "claimed")?;
        ensure!(parents == [foreign.clone()], "{parents:?}");
        Ok(())
    })?;
    bed.kubectl(EAST, &["-n", "shop", "delete", "httproute", "claimed"])?;
    Ok(())
}

/// Another mesh claims a parent that is ours as well: both entries stay, and `isthmus check` warns.
fn claimed_twice(bed: &Bed, parents_now: &[Value]) -> anyhow::Result<()> {
    let mut other = parents_now[1].clone();
    other["controllerName"] = json!("example.org/mesh");
    let write = |entries: &[&Value]| {
        let status = json!({"status": {"parents": entries}}).to_string();
        bed.kubectl(EAST, &["-n", "shop", "patch", "httproute", "claimed", "--subresource=status", "--type=merge", "-p", &status])
    };
    let before: Vec<&Value> = parents_now.iter().collect();
    write(&[&before[..], &[&other]].concat())?;
    let (fine, said) = bed.check(EAST)?;
    let after = parents(bed, EAST, "claimed")?;
    write(&before)?;
    ensure!(after.len() == 4 && after[3] == other && after[..3] == *parents_now, "{after:?}");
    ensure!(fine && said.contains("WARNING  routes: parents that others claim too: HTTPRoute shop/claimed by example.org/mesh"), "{said}");
    ensure!(said.contains("leave Services to the other one with --parents service-import"), "{said}");
    Ok(())
}

/// West was installed with `controller.parents=service-import`: a route on a Service is another mesh's.
pub(crate) fn service_imports_alone(bed: &Bed) -> anyhow::Result<()> {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "both", "namespace": "shop"},
        "spec": {
            "parentRefs": [
                {"group": "", "kind": "Service", "name": "store", "port": 80},
                {"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "store"},
            ],
            "rules": [{"backendRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart"}]}],
        },
    });
    bed.apply(WEST, &route.to_string())?;
    let parents = eventually("the ServiceImport's entry", || {
        let parents = parents(bed, WEST, "both")?;
        ensure!(!parents.is_empty(), "none yet");
        Ok(parents)
    })?;
    ensure!(parents.len() == 1 && parents[0]["parentRef"]["kind"] == "ServiceImport", "{parents:?}");
    bed.kubectl(WEST, &["-n", "shop", "delete", "httproute", "both"])?;
    Ok(())
}
