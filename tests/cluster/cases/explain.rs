//! One command tells why, and the request agrees: three ways to break the main job.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, EAST, WEST, eventually};

const CART: &str = "http://store.shop.svc.clusterset.local/cart";

/// What `isthmus explain` says for the client's pod, and whether it calls it well.
fn explained(bed: &Bed) -> anyhow::Result<(Value, bool)> {
    let (is_well, said) = bed.isthmus(EAST, &["explain", "--from", "shop/client", "-o", "json", &format!("GET {CART}")])?;
    let explanation = serde_json::from_str(&said).with_context(|| said.clone())?;
    Ok((explanation, is_well))
}

/// Waits until it is live, and gives it; the request fares as it says.
fn agreed(bed: &Bed, is_expected: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    eventually("explain tells what is meant, and that it is live", || {
        let (explanation, is_well) = explained(bed)?;
        ensure!(is_expected(&explanation) && explanation["sidecar"]["is_live"] == true, "{explanation:#}");
        let outcome = &explanation["outcome"];
        ensure!(is_well == (outcome["kind"] == "forwarded"), "{outcome}");
        let head = bed.shell("client", &format!("curl -s -o /dev/null -D - {CART}"))?;
        let (status, reason) = (outcome["status"].as_u64().unwrap_or(200), outcome["reason"].as_str());
        ensure!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{outcome}: {head}");
        let told = head.lines().find_map(|line| line.trim_end().strip_prefix("x-isthmus-reason: "));
        ensure!(told == reason, "{outcome}: {head}");
        Ok(explanation)
    })
}

/// Makes the backend of the route's rule another one.
fn point(bed: &Bed, backend: &Value) -> anyhow::Result<()> {
    let patch = json!([{"op": "replace", "path": "/spec/rules/0/backendRefs/0", "value": backend}]).to_string();
    bed.kubectl(EAST, &["-n", "shop", "patch", "httproute", "store", "--type=json", "-p", &patch])?;
    Ok(())
}

fn scale(bed: &Bed, replicas: u8) -> anyhow::Result<()> {
    for cluster in [EAST, WEST] {
        bed.kubectl(cluster, &["-n", "shop", "scale", "deployment", "cart", &format!("--replicas={replicas}")])?;
    }
    Ok(())
}

/// Every sidecar of the namespace is listed, served by a replica, in our version, with the newest state.
pub(crate) fn every_proxy_is_listed(bed: &Bed) -> anyhow::Result<()> {
    eventually("isthmus proxies lists the client", || {
        let (is_well, said) = bed.isthmus(EAST, &["proxies", "-n", "shop", "-o", "json"])?;
        let proxies: Vec<Value> = serde_json::from_str(&said).with_context(|| said.clone())?;
        let client = proxies.iter().find(|proxy| proxy["pod"] == "client").with_context(|| said.clone())?;
        ensure!(is_well && client["state"] == "current" && client["version"] == env!("CARGO_PKG_VERSION"), "{said}");
        ensure!(client["controller"].as_str().is_some_and(|name| name.starts_with("isthmus-controller-")), "{said}");
        Ok(())
    })?;
    let (is_well, said) = bed.isthmus(EAST, &["proxies", "-n", "nowhere"])?;
    ensure!(is_well && said.lines().count() == 1, "there is none: {said}");
    Ok(())
}

/// A wrong port, a missing grant, no ready endpoint.
pub(crate) fn three_ways_to_break_it(bed: &Bed) -> anyhow::Result<()> {
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    let is_well = |explanation: &Value| explanation["outcome"]["kind"] == "forwarded";
    let well = agreed(bed, is_well)?;
    let clusters = well["backends"][0]["destination"]["endpoints"].as_object().map(|clusters| clusters.keys().cloned().collect::<Vec<_>>());
    ensure!(clusters.as_deref() == Some(&[EAST.to_owned(), WEST.to_owned()]), "{well:#}");

    let import = json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart"});
    let with = |name: &str, value: Value| {
        let mut import = import.clone();
        import[name] = value;
        import
    };
    point(bed, &with("port", json!(8081)))?;
    let broken = agreed(bed, |explanation| explanation["outcome"]["reason"] == "invalid_backend")?;
    ensure!(broken["outcome"]["message"].as_str().is_some_and(|message| message.contains("8081")), "it names the port: {broken:#}");

    point(bed, &with("namespace", json!("elsewhere")))?;
    let is_refused =
        |explanation: &Value| explanation["outcome"]["message"].as_str().is_some_and(|message| message.contains("ReferenceGrant"));
    agreed(bed, is_refused)?;

    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    point(bed, &with("port", json!(80)))?;
    scale(bed, 0)?;
    let empty = agreed(bed, |explanation| explanation["outcome"]["reason"] == "no_endpoint");
    scale(bed, 2)?;
    empty?;
    for cluster in [EAST, WEST] {
        bed.kubectl(cluster, &["-n", "shop", "rollout", "status", "deployment", "cart", "--timeout=60s"])?;
    }
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    agreed(bed, is_well)?;
    Ok(())
}
