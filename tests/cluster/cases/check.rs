//! What `isthmus check` finds, and that it says what to do.

use anyhow::ensure;
use serde_json::json;

use crate::bed::{Bed, WEST, eventually};

/// Lines of `isthmus check` about one thing, once it says what is expected.
fn says(bed: &Bed, expected: &str) -> anyhow::Result<()> {
    eventually(&format!("isthmus check says {expected:?}"), || {
        let (fine, said) = bed.check(WEST)?;
        ensure!(said.contains(expected), "{said}");
        ensure!(fine != said.contains("FAILED "), "its exit status says whether something failed: {said}");
        Ok(())
    })
}

/// Cilium's socket load balancing passes every sidecar by.
pub(crate) fn socket_load_balancing(bed: &Bed) -> anyhow::Result<()> {
    let cilium = |data| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cilium-config", "namespace": "kube-system"}, "data": data});
    says(bed, "ok       socket load balancing: none")?;
    bed.apply(WEST, &cilium(json!({"kube-proxy-replacement": "true", "bpf-lb-sock": "true"})).to_string())?;
    says(bed, "FAILED   socket load balancing: Cilium translates VIPs")?;
    says(bed, "-> set socketLB.hostNamespaceOnly=true")?;
    bed.apply(WEST, &cilium(json!({"kube-proxy-replacement": "true", "bpf-lb-sock-hostns-only": "true"})).to_string())?;
    says(bed, "ok       socket load balancing: Cilium leaves pods' sockets alone")?;
    bed.kubectl(WEST, &["-n", "kube-system", "delete", "configmap", "cilium-config"])?;
    Ok(())
}

/// A right that is missing is named.
pub(crate) fn missing_rights(bed: &Bed) -> anyhow::Result<()> {
    const ROLE: &str = "clusterrole/isthmus-controller";
    let role = bed.get(WEST, &[ROLE])?;
    let mut without = role.clone();
    for rule in without["rules"].as_array_mut().into_iter().flatten() {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != "tlsroutes");
        }
    }
    let put = |role: &serde_json::Value| {
        let patch = json!({"rules": role["rules"]}).to_string();
        bed.kubectl(WEST, &["patch", ROLE, "--type=merge", "-p", &patch])
    };
    put(&without)?;
    let named = says(bed, "FAILED   rights: the controller may not list tlsroutes, watch tlsroutes");
    put(&role)?;
    named?;
    says(bed, "ok       rights: the controller has all")
}

/// A ServiceImport without a VIP, and a namespace whose pods may not have NET_ADMIN.
pub(crate) fn what_cannot_work(bed: &Bed) -> anyhow::Result<()> {
    let import = json!({
        "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport", "metadata": {"name": "unborn", "namespace": "default"},
        "spec": {"type": "ClusterSetIP", "ports": [{"port": 80}]},
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "hardened", "labels": {"isthmus.dev/injection": "enabled", "pod-security.kubernetes.io/enforce": "restricted"},
    }});
    bed.apply(WEST, &import.to_string())?;
    bed.apply(WEST, &namespace.to_string())?;
    says(bed, "WARNING  vips: no ClusterSetIP yet: default/unborn")?;
    says(bed, "FAILED   pod security: namespace hardened enforces Pod Security level \"restricted\"")?;
    bed.kubectl(WEST, &["-n", "default", "delete", "serviceimport", "unborn"])?;
    bed.kubectl(WEST, &["delete", "namespace", "hardened"])?;
    Ok(())
}
