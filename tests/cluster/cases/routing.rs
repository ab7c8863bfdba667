//! The main job, from a running pod, from an init container and from a Job.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::bed::{Bed, EAST, WEST, eventually};

const STORE: &str = "http://store.shop.svc.clusterset.local";

/// Names of the pods of an app.
fn pods(bed: &Bed, cluster: &str, app: &str) -> anyhow::Result<BTreeSet<String>> {
    let list = bed.get(cluster, &["-n", "shop", "pods", "-l", &format!("app={app}")])?;
    let names = list["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// `/cart` reaches pods of both clusters, `/` is 404, the status is as the GEP has it.
pub(crate) fn main_job(bed: &Bed) -> anyhow::Result<()> {
    bed.kubectl(EAST, &["delete", "--ignore-not-found", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    eventually("without a route it is store that answers", || {
        let answer = bed.shell("client", &format!("curl -s {STORE}/cart"))?;
        ensure!(answer.contains("Hostname=store-"), "{answer}");
        Ok(())
    })?;
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    let cart = [pods(bed, EAST, "cart")?, pods(bed, WEST, "cart")?];
    for (pods, cluster) in cart.iter().zip([EAST, WEST]) {
        eventually(&format!("the route is in force, with endpoints of {cluster}"), || {
            let answer = bed.shell("client", &format!("curl -s {STORE}/cart"))?;
            ensure!(answer.lines().filter_map(|line| line.strip_prefix("Hostname=")).any(|host| pods.contains(host)), "{answer}");
            Ok(())
        })?;
    }
    // That one cluster of two with equal shares is missed by 60 requests has odds of 2^-59.
    let answers = bed.shell("client", &format!("for i in $(seq 60); do curl -s '{STORE}/cart/items?x=1'; done"))?;
    let hosts: BTreeSet<String> = answers.lines().filter_map(|line| line.strip_prefix("Hostname=")).map(str::to_owned).collect();
    for (pods, cluster) in cart.iter().zip([EAST, WEST]) {
        ensure!(hosts.iter().any(|host| pods.contains(host)), "no pod of {cluster} answered: {hosts:?}");
    }
    ensure!(hosts.iter().all(|host| cart.iter().any(|pods| pods.contains(host))), "somebody else answered: {hosts:?}");
    for line in ["Host=store.shop.svc.clusterset.local", "URL=/cart/items?x=1"] {
        ensure!(answers.lines().filter(|there| *there == line).count() == 60, "{line}: {answers}");
    }
    for path in ["/", "/cartoon", "/Cart"] {
        let status = bed.shell("client", &format!("curl -s -o /dev/null -w '%{{http_code}}' {STORE}{path}"))?;
        ensure!(status == "404", "{path}: {status}");
    }
    let local = bed.shell("client", "curl -s http://store.shop.svc.cluster.local/cart")?;
    ensure!(local.contains("Hostname=store-"), "the Service of that name is another frontend: {local}");
    let route = eventually("the status is written", || {
        let route = bed.get(EAST, &["-n", "shop", "httproute", "store"])?;
        ensure!(!route["status"]["parents"].is_null(), "{route}");
        Ok(route)
    })?;
    let parents = &route["status"]["parents"];
    let conditions: Vec<Value> = parents[0]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| json!([c["type"], c["status"], c["reason"], c["observedGeneration"]]))
        .collect();
    ensure!(parents.as_array().map(Vec::len) == Some(1), "{parents}");
    ensure!(parents[0]["parentRef"] == route["spec"]["parentRefs"][0], "{parents}");
    ensure!(parents[0]["controllerName"] == "isthmus.dev/mesh", "{parents}");
    // Where it is live is said as soon as it is known.
    let conditions: Vec<Value> = conditions.into_iter().filter(|condition| condition[0] != "isthmus.dev/Live").collect();
    ensure!(conditions == [json!(["Accepted", "True", "Accepted", 1]), json!(["ResolvedRefs", "True", "ResolvedRefs", 1])], "{parents}");
    Ok(())
}

/// A user's own init container comes after the sidecar, so that what it dials is routed.
pub(crate) fn an_init_container_is_routed(bed: &Bed) -> anyhow::Result<()> {
    let command = format!("curl -s {STORE}/cart > /out/first && curl -s -o /dev/null -w '%{{http_code}}' {STORE}/ > /out/second");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "early", "namespace": "shop"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "initContainers": [{
                "name": "ask", "image": "curlimages/curl:8.11.1", "command": ["sh", "-c", command], "volumeMounts": [{"name": "out", "mountPath": "/out"}],
            }],
            "containers": [{
                "name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sleep", "infinity"], "volumeMounts": [{"name": "out", "mountPath": "/out"}],
            }],
            "volumes": [{"name": "out", "emptyDir": {}}],
        },
    });
    bed.apply(EAST, &pod.to_string())?;
    bed.kubectl(EAST, &["-n", "shop", "wait", "--for=condition=Ready", "pod/early", "--timeout=60s"])?;
    let answers = bed.shell("early", "cat /out/first /out/second")?;
    bed.kubectl(EAST, &["-n", "shop", "delete", "pod", "early", "--wait=false"])?;
    ensure!(answers.contains("Hostname=cart-") && answers.ends_with("404"), "{answers}");
    Ok(())
}

/// A Job ends although its sidecar does not end by itself.
pub(crate) fn a_job_ends(bed: &Bed) -> anyhow::Result<()> {
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": "shop"},
        "spec": {"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sh", "-c", format!("curl -sf {STORE}/cart | grep Hostname=cart-")]}],
        }}},
    });
    bed.apply(EAST, &job.to_string())?;
    bed.kubectl(EAST, &["-n", "shop", "wait", "--for=condition=Complete", "job/once", "--timeout=60s"])?;
    let pods = bed.get(EAST, &["-n", "shop", "pods", "-l", "job-name=once"])?;
    let pod = &pods["items"][0];
    ensure!(pod["status"]["phase"] == "Succeeded", "{}", pod["status"]);
    ensure!(pod["spec"]["initContainers"].as_array().map_or(0, Vec::len) == 2, "it was injected");
    bed.kubectl(EAST, &["-n", "shop", "delete", "job", "once", "--wait=false"])?;
    Ok(())
}

/// The sidecar's image brings the authorities that `wellKnownCACertificates: System` means: a policy that trusts them can be met.
pub(crate) fn the_image_has_the_systems_authorities(bed: &Bed) -> anyhow::Result<()> {
    let policy = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "metadata": {"name": "system", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart"}],
            "validation": {"hostname": "cart.example.com", "wellKnownCACertificates": "System"},
        },
    });
    bed.apply(EAST, &policy.to_string())?;
    let refused = eventually("the policy is in force", || {
        let head = bed.shell("client", &format!("curl -s -o /dev/null -D - {STORE}/cart"))?;
        ensure!(head.contains("x-isthmus-reason: tls_"), "{head}");
        Ok(head)
    });
    bed.kubectl(EAST, &["-n", "shop", "delete", "backendtlspolicy", "system"])?;
    let refused = refused?;
    ensure!(refused.contains("tls_failed"), "these endpoints speak no TLS, and that is all that is wrong: {refused}");
    eventually("the policy is gone", || {
        let answer = bed.shell("client", &format!("curl -s {STORE}/cart"))?;
        ensure!(answer.contains("Hostname=cart-"), "{answer}");
        Ok(())
    })
}
