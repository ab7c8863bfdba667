//! What happens to the API server while the controllers follow it: kinds that go and come, an older version, an API server that is away.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use http::Version;
use lab::client::{Ask, Connection};
use serde_json::{Value, json};

use crate::bed::{AFTER_FAILURES, Bed, EAST, WEST, eventually, eventually_within, output, text};
use crate::cases::measures::network_of;

/// A gauge of a controller; its address is reached without the API server.
fn gauge(controller: IpAddr, name: &str) -> anyhow::Result<u64> {
    let address = SocketAddr::new(controller, 15011);
    let metrics = output(Command::new("curl").args(["-sf", "--max-time", "5", &format!("http://{address}/metrics")]))?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("isthmus_controller_{name} ")));
    line.context("no such gauge")?.trim().parse().context("a number")
}

fn every_controller_says(bed: &Bed, cluster: &str, name: &str, expected: u64) -> anyhow::Result<()> {
    eventually_within(AFTER_FAILURES, &format!("{name} is {expected}"), || {
        for (pod, address) in bed.controllers(cluster)? {
            let said = gauge(address, name)?;
            ensure!(said == expected, "{pod}: {name} is {said}");
        }
        Ok(())
    })
}

/// The CRD as it can be created again: without what the API server adds.
fn definition(bed: &Bed, cluster: &str, name: &str) -> anyhow::Result<Value> {
    let mut crd = bed.get(cluster, &["crd", name])?;
    let (annotations, labels) = (crd["metadata"]["annotations"].take(), crd["metadata"]["labels"].take());
    crd["metadata"] = json!({"name": name, "annotations": annotations, "labels": labels});
    crd["status"] = Value::Null;
    Ok(crd)
}

fn parents(bed: &Bed, cluster: &str, kind: &str, name: &str) -> anyhow::Result<Vec<Value>> {
    let route = bed.get(cluster, &["-n", "shop", kind, name])?;
    Ok(route["status"]["parents"].as_array().cloned().unwrap_or_default())
}

fn is_accepted(parents: &[Value]) -> bool {
    let conditions = parents.first().and_then(|parent| parent["conditions"].as_array());
    conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition["type"] == "Accepted" && condition["status"] == "True"))
}

fn route(kind: &str, name: &str, parent: &str, backend: &str) -> Value {
    let version = if kind == "TCPRoute" { "v1alpha2" } else { "v1" };
    let import = |name: &str| json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": name});
    let mut backend = import(backend);
    backend["port"] = json!(80);
    json!({
        "apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind, "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [import(parent)], "rules": [{"backendRefs": [backend]}]},
    })
}

/// A kind's CRD is deleted and created again while the controllers run: said, and followed again without a restart.
pub(crate) fn a_kind_goes_and_comes(bed: &Bed) -> anyhow::Result<()> {
    const CRD: &str = "tcproutes.gateway.networking.k8s.io";
    let before = bed.controllers(WEST)?;
    let crd = definition(bed, WEST, CRD)?;
    let tcp = || route("TCPRoute", "by-port", "cart", "store").to_string();
    bed.apply(WEST, &tcp())?;
    eventually("the TCPRoute is accepted", || {
        let parents = parents(bed, WEST, "tcproute", "by-port")?;
        ensure!(is_accepted(&parents), "{parents:?}");
        Ok(())
    })?;
    bed.kubectl(WEST, &["delete", "crd", CRD])?;
    every_controller_says(bed, WEST, "source_kinds_missing", 1)?;
    let (fine, said) = bed.check(WEST)?;
    ensure!(fine && said.contains(&format!("WARNING  kinds: {CRD} is not served")), "{said}");
    bed.apply(WEST, &crd.to_string())?;
    every_controller_says(bed, WEST, "source_kinds_missing", 0)?;
    eventually("the TCPRoute can be made", || bed.apply(WEST, &tcp()))?;
    eventually("it is accepted again", || {
        let parents = parents(bed, WEST, "tcproute", "by-port")?;
        ensure!(is_accepted(&parents), "{parents:?}");
        Ok(())
    })?;
    bed.kubectl(WEST, &["-n", "shop", "delete", "tcproute", "by-port"])?;
    ensure!(bed.controllers(WEST)? == before, "a controller was restarted");
    Ok(())
}

/// Where ServiceImport is served as v1alpha1 alone, that is what is followed.
pub(crate) fn an_older_version_is_followed(bed: &Bed) -> anyhow::Result<()> {
    const CRD: &str = "serviceimports.multicluster.x-k8s.io";
    let crd = bed.get(WEST, &["crd", CRD])?;
    let versions = crd["spec"]["versions"].as_array().context("versions")?;
    let newer = versions.iter().position(|version| version["name"] == "v1beta1").context("v1beta1")?;
    let serve = |served: bool| {
        let patch = json!([{"op": "replace", "path": format!("/spec/versions/{newer}/served"), "value": served}]);
        bed.kubectl(WEST, &["patch", "crd", CRD, "--type=json", "-p", &patch.to_string()])
    };
    let checked = |version: &str| {
        eventually(&format!("{version} is what is found"), || {
            let (fine, said) = bed.check(WEST)?;
            ensure!(fine && said.contains(&format!("kinds: {CRD} {version}")), "{said}");
            Ok(())
        })
    };
    serve(false)?;
    let followed = (|| {
        checked("v1alpha1")?;
        // Made now, it can be known by the older version alone.
        let import = json!({
            "apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImport", "metadata": {"name": "older", "namespace": "shop"},
            "spec": {"type": "ClusterSetIP", "ips": ["10.250.0.2"], "ports": [{"port": 80}]},
        });
        bed.apply(WEST, &import.to_string())?;
        bed.apply(WEST, &route("HTTPRoute", "older", "older", "store").to_string())?;
        eventually("a route on it is accepted", || {
            let parents = parents(bed, WEST, "httproute", "older")?;
            ensure!(is_accepted(&parents) && parents[0]["conditions"][1]["reason"] == "ResolvedRefs", "{parents:?}");
            Ok(())
        })?;
        every_controller_says(bed, WEST, "source_kinds_failing", 0)
    })();
    serve(true)?;
    followed?;
    checked("v1beta1")?;
    bed.kubectl(WEST, &["-n", "shop", "delete", "httproute/older", "serviceimport/older"])?;
    Ok(())
}

/// While the API server is away the last state stays in force, and a metric says so.
pub(crate) fn the_api_server_is_away(bed: &Bed) -> anyhow::Result<()> {
    let import = bed.get(EAST, &["-n", "shop", "serviceimport", "store"])?;
    let vip = SocketAddr::new(text(&import["spec"]["ips"][0])?.parse()?, 80);
    let network = network_of(bed, "client")?;
    let controllers = bed.controllers(EAST)?;
    let failing = |expected: fn(u64) -> bool, what: &str| {
        eventually_within(AFTER_FAILURES, what, || {
            for (pod, address) in &controllers {
                let said = gauge(*address, "source_kinds_failing")?;
                ensure!(expected(said), "{pod}: {said} kinds are failing");
            }
            Ok(())
        })
    };
    failing(|kinds| kinds == 0, "nothing is failing at first")?;
    bed.kill_api_server(EAST)?;
    let away = failing(|kinds| kinds > 0, "the metric says that it is away").and_then(|()| asked(network, vip));
    bed.restart_api_server(EAST)?;
    let answers = away?;
    ensure!(answers == [(200, true), (404, false)], "{answers:?}");
    failing(|kinds| kinds == 0, "the metric says that it is back")
}

/// Status, and whether it is cart that answers: `/cart` and `/`.
fn asked(network: PathBuf, vip: SocketAddr) -> anyhow::Result<Vec<(u16, bool)>> {
    init::netns::within(Some(&network), move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut answers = Vec::new();
            for path in ["/cart", "/"] {
                let mut connection = Connection::open(vip, Version::HTTP_11).await?;
                let answer = connection.ask(&Ask::get("store.shop.svc.clusterset.local", path)).await?;
                answers.push((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).contains("cart-")));
            }
            Ok(answers)
        })
    })
}
