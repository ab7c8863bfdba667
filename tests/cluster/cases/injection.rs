//! Who is injected, who is not, who is refused and how it is said.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, EAST};

fn pod(name: &str, namespace: &str, metadata: Value, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [{"name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sleep", "infinity"]}]},
    });
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(namespace);
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// What the API server would make of a pod: names of its init containers.
fn admitted(bed: &Bed, pod: &Value) -> anyhow::Result<Vec<String>> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), pod.to_string())?;
    let path = file.path().to_str().context("a path")?.to_owned();
    let made = bed.kubectl(EAST, &["create", "--dry-run=server", "-o", "json", "-f", &path])?;
    let made: Value = serde_json::from_str(&made)?;
    let containers = made["spec"]["initContainers"].as_array().into_iter().flatten();
    Ok(containers.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect())
}

/// The pod's word counts more than the namespace's, and the host's network is nobody's to intercept.
pub(crate) fn who_is_left_alone(bed: &Bed) -> anyhow::Result<()> {
    let note = |value: &str| json!({"annotations": {"isthmus.dev/inject": value}});
    for (pod, injected) in [
        (pod("a", "shop", json!({}), json!({})), true),
        (pod("b", "shop", note("false"), json!({})), false),
        (pod("c", "shop", json!({}), json!({"hostNetwork": true})), false),
        (pod("d", "default", json!({}), json!({})), false),
        (pod("e", "default", note("true"), json!({})), true),
        (pod("f", "default", json!({"labels": {"isthmus.dev/inject": "true"}}), json!({})), true),
        (pod("g", "kube-system", note("true"), json!({})), false),
    ] {
        let containers = admitted(bed, &pod)?;
        let expected: &[&str] = if injected { &["isthmus-init", "isthmus-sidecar"] } else { &[] };
        ensure!(containers == expected, "{}: {containers:?}", pod["metadata"]);
    }
    Ok(())
}

/// A mistake is refused with its place and value; a namespace whose Pod Security level forbids NET_ADMIN is warned of.
pub(crate) fn mistakes_are_named(bed: &Bed) -> anyhow::Result<()> {
    let refused = |pod: &Value| match admitted(bed, pod) {
        Ok(containers) => anyhow::bail!("it was admitted: {containers:?}"),
        Err(error) => Ok(format!("{error:#}")),
    };
    let said = refused(&pod("a", "shop", json!({}), json!({"securityContext": {"runAsUser": 2102}})))?;
    ensure!(said.contains("spec.securityContext.runAsUser: 2102 is the uid of the Isthmus sidecar"), "{said}");
    let said = refused(&pod("b", "shop", json!({"annotations": {"isthmus.dev/fail": "maybe"}}), json!({})))?;
    ensure!(said.contains(r#"annotation isthmus.dev/fail: "maybe" is not one of closed, open"#), "{said}");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "hardened", "labels": {"isthmus.dev/injection": "enabled", "pod-security.kubernetes.io/enforce": "baseline"},
    }});
    bed.apply(EAST, &namespace.to_string())?;
    let said = refused(&pod("c", "hardened", json!({}), json!({})))?;
    bed.kubectl(EAST, &["delete", "namespace", "hardened", "--wait=false"])?;
    ensure!(said.contains("NET_ADMIN") && said.contains("Isthmus sidecar are rejected there"), "{said}");
    Ok(())
}

/// Interception by ranges, where a pod asks for it: the ranges are the cluster's own.
pub(crate) fn by_ranges(bed: &Bed) -> anyhow::Result<()> {
    let ranges =
        pod("ranges", "shop", json!({"annotations": {"isthmus.dev/interception": "ranges"}}), json!({"terminationGracePeriodSeconds": 1}));
    bed.apply(EAST, &ranges.to_string())?;
    bed.kubectl(EAST, &["-n", "shop", "wait", "--for=condition=Ready", "pod/ranges", "--timeout=60s"])?;
    let url = "http://store.shop.svc.clusterset.local";
    let answers =
        bed.shell("ranges", &format!("curl -s {url}/cart; curl -s -o /dev/null -w '%{{http_code}}' {url}/; curl -s http://cart"))?;
    bed.kubectl(EAST, &["-n", "shop", "delete", "pod", "ranges", "--wait=false"])?;
    ensure!(answers.matches("Hostname=cart-").count() == 2 && answers.contains("404"), "{answers}");
    Ok(())
}
