//! What may fail while pods are made and requests are on their way.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::bed::{AFTER_FAILURES, Bed, EAST, eventually, eventually_within};

const URL: &str = "http://store.shop.svc.clusterset.local/cart";
const CROWD: usize = 20;

/// While 20 pods are rolled out: certificates are renewed every few seconds, the leader is lost, every controller is killed, the API server
/// is restarted. No request fails, no pod hangs; at the end a pod is injected and obeys, or `isthmus check` names it.
pub(crate) fn a_rollout_under_faults(bed: &Bed) -> anyhow::Result<()> {
    bed.set_value(EAST, "controller.extraArgs={--certificate-lifetime-s=15}")?;
    bed.apply(EAST, &load().to_string())?;
    bed.apply(EAST, &crowd().to_string())?;
    bed.kubectl(EAST, &["-n", "shop", "wait", "--for=condition=Ready", "pod/load", "--timeout=60s"])?;
    bed.kubectl(EAST, &["-n", "shop", "rollout", "status", "deployment/crowd", "--timeout=180s"])?;

    let stage = |what: &str, began: Instant| println!("  {what} after {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    bed.kubectl(EAST, &["-n", "shop", "rollout", "restart", "deployment/crowd"])?;
    let leader = eventually("a leader", || leader(bed))?;
    bed.kubectl(EAST, &["-n", "isthmus-system", "delete", "pod", &leader, "--grace-period=0", "--force"])?;
    let another = eventually("another leader", || {
        let holder = self::leader(bed)?;
        ensure!(holder != leader, "{holder} leads");
        Ok(holder)
    })?;
    stage("another leader", began);
    bed.kubectl(
        EAST,
        &["-n", "isthmus-system", "delete", "pod", "-l", "app.kubernetes.io/name=isthmus-controller", "--grace-period=0", "--force"],
    )?;
    bed.restart_api_server(EAST)?;
    stage("the API server is back", began);
    eventually_within(AFTER_FAILURES, "the rollout ends", || {
        bed.kubectl(EAST, &["-n", "shop", "rollout", "status", "deployment/crowd", "--timeout=60s"])
    })?;
    stage("the rollout has ended", began);
    bed.kubectl(EAST, &["-n", "isthmus-system", "rollout", "status", "deployment/isthmus-controller", "--timeout=60s"])?;
    stage("the controllers are ready", began);

    let without = pods_without_sidecar(bed)?;
    let (_, check) = bed.check(EAST)?;
    let named: BTreeSet<String> = without.iter().filter(|pod| check.contains(pod.as_str())).cloned().collect();
    ensure!(named == without, "without a sidecar: {without:?}; isthmus check: {check}");
    eventually("every injected pod obeys its route", || everyone_obeys(bed, &without))?;
    let answers = bed.kubectl(EAST, &["-n", "shop", "logs", "load", "-c", "curl"])?;
    let failed: Vec<&str> = answers.lines().filter(|line| *line != "200").collect();
    let requests = answers.lines().count();
    println!("  {requests} requests, {} pods without a sidecar, leader {leader} then {another}", without.len());
    ensure!(requests > 100 && failed.is_empty(), "{} of {requests} requests failed: {failed:?}", failed.len());
    bed.kubectl(EAST, &["-n", "shop", "delete", "pod/load", "deployment/crowd", "--wait=false"])?;
    bed.set_value(EAST, "controller.extraArgs=null")?;
    Ok(())
}

fn leader(bed: &Bed) -> anyhow::Result<String> {
    let lease = bed.get(EAST, &["-n", "isthmus-system", "lease", "isthmus-controller"])?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    ensure!(!holder.is_empty(), "nobody leads");
    Ok(holder.to_owned())
}

fn load() -> Value {
    let ask = format!("while true; do curl -s -m 10 -o /dev/null -w '%{{http_code}}\\n' {URL} || echo failed; done");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load", "namespace": "shop"},
        "spec": {
            "activeDeadlineSeconds": 600, "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sh", "-c", ask], "resources": {"limits": {"cpu": "100m"}}}],
        },
    })
}

fn crowd() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "crowd", "namespace": "shop"},
        "spec": {
            "replicas": CROWD, "selector": {"matchLabels": {"app": "crowd"}},
            "template": {
                "metadata": {"labels": {"app": "crowd"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sleep", "infinity"]}],
                },
            },
        },
    })
}

/// Those that run and are not on their way out.
fn crowd_pods(bed: &Bed) -> anyhow::Result<Vec<Value>> {
    let pods = bed.get(EAST, &["-n", "shop", "pods", "-l", "app=crowd"])?;
    let staying = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    Ok(pods["items"].as_array().into_iter().flatten().filter(staying).cloned().collect())
}

fn pods_without_sidecar(bed: &Bed) -> anyhow::Result<BTreeSet<String>> {
    let pods = crowd_pods(bed)?;
    ensure!(pods.len() == CROWD, "{} pods", pods.len());
    let without = pods.iter().filter(|pod| pod["spec"]["initContainers"].as_array().is_none_or(Vec::is_empty));
    Ok(without.filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned).collect())
}

fn everyone_obeys(bed: &Bed, without: &BTreeSet<String>) -> anyhow::Result<()> {
    for pod in crowd_pods(bed)? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if !without.contains(name) {
            let answer = bed.shell(name, &format!("curl -s {URL}"))?;
            ensure!(answer.contains("Hostname=cart-"), "{name}: {answer}");
        }
    }
    Ok(())
}
