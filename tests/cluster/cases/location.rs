//! Where a sidecar is, it knows from the cluster: its node from its token, its zone from the node's label.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, EAST, WEST, eventually, text};

/// A VIP that nobody else has.
const VIP: &str = "10.250.0.1";
/// Halves are missed by 60 requests with odds of 2^-59.
const REQUESTS: usize = 60;

/// internalTrafficPolicy Local and trafficDistribution of a ServiceImport (KEP-1645 and EndpointSlice hints), with slices of both clusters.
pub(crate) fn nodes_and_zones(bed: &Bed) -> anyhow::Result<()> {
    let (here, there) = (an_address_of(bed, EAST)?, an_address_of(bed, WEST)?);
    let slice = |cluster: &str, address: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("near-{cluster}"), "namespace": "shop", "labels": {
                "multicluster.kubernetes.io/service-name": "near", "multicluster.kubernetes.io/source-cluster": cluster,
            }},
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": [address], "nodeName": format!("node-{cluster}"), "zone": format!("{cluster}-1"), "conditions": {"ready": true}}],
        })
    };
    let import = |field: &str, value: &str| {
        let mut import = json!({
            "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport", "metadata": {"name": "near", "namespace": "shop"},
            "spec": {"type": "ClusterSetIP", "ips": [VIP], "ports": [{"name": "http", "port": 80}]},
        });
        import["spec"][field] = json!(value);
        import
    };
    let reference = json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "near"});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "near", "namespace": "shop"},
        "spec": {"parentRefs": [reference], "rules": [{"backendRefs": [reference]}]},
    });
    for object in [slice(EAST, &here.1), slice(WEST, &there.1), route] {
        bed.apply(EAST, &object.to_string())?;
    }
    let both = [here.0.as_str(), there.0.as_str()];
    for (field, value, expected) in [
        ("internalTrafficPolicy", "Cluster", &both[..]),
        ("internalTrafficPolicy", "Local", &both[..1]),
        ("trafficDistribution", "PreferSameZone", &both[..1]),
        ("trafficDistribution", "PreferSameNode", &both[..1]),
        ("internalTrafficPolicy", "Cluster", &both[..]),
    ] {
        bed.kubectl(EAST, &["-n", "shop", "delete", "serviceimport", "near", "--ignore-not-found"])?;
        bed.apply(EAST, &import(field, value).to_string())?;
        eventually(&format!("{field} {value}"), || {
            let counted = format!("for i in $(seq {REQUESTS}); do curl -s -m 5 http://{VIP}/; done | grep Hostname= | sort | uniq -c");
            let answers = bed.shell("client", &counted)?;
            let hosts = hosts(&answers)?;
            let named: Vec<&str> = hosts.keys().map(String::as_str).collect();
            let (mut named, mut expected) = (named, expected.to_vec());
            named.sort_unstable();
            expected.sort_unstable();
            ensure!(named == expected && hosts.values().sum::<usize>() == REQUESTS, "{answers}");
            Ok(())
        })?;
    }
    bed.kubectl(
        EAST,
        &["-n", "shop", "delete", "httproute/near", "serviceimport/near", "endpointslice/near-east", "endpointslice/near-west"],
    )?;
    Ok(())
}

/// Name and address of a pod of store.
fn an_address_of(bed: &Bed, cluster: &str) -> anyhow::Result<(String, String)> {
    let pods = bed.get(cluster, &["-n", "shop", "pods", "-l", "app=store"])?;
    let running = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let pod = pods["items"].as_array().into_iter().flatten().find(running).context("a pod of store")?;
    Ok((text(&pod["metadata"]["name"])?, text(&pod["status"]["podIP"])?))
}

/// What `uniq -c` counted.
fn hosts(counted: &str) -> anyhow::Result<BTreeMap<String, usize>> {
    let lines = counted.lines().map(|line| {
        let (count, host) = line.trim().split_once(' ').context("a count and a host")?;
        Ok((host.trim_start_matches("Hostname=").to_owned(), count.parse()?))
    });
    lines.collect()
}
