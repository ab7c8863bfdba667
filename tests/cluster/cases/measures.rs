//! What injection costs a pod's start, and how long a route's change takes to be in force. Figures are printed, none is asserted.
//!
//! `PODS` and `CHANGES` say how many; few if they are not set.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Version;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use lab::client::{Ask, Connection};
use serde_json::{Value, json};

use crate::bed::{Bed, EAST, SOON};

fn count(variable: &str, few: usize) -> anyhow::Result<usize> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(few),
    }
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index of a short list")]
    let index = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted[index]
}

fn summary(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!(
        "median {:.0} ms (p10 {:.0}, p90 {:.0}, p99 {:.0})",
        percentile(&values, 0.5),
        percentile(&values, 0.1),
        percentile(&values, 0.9),
        percentile(&values, 0.99)
    )
}

/// Pods one after another, with and without a sidecar by turns.
pub(crate) fn readiness(bed: &Bed) -> anyhow::Result<()> {
    let pods = count("PODS", 3)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut stages: Vec<Vec<f64>> = vec![Vec::new(); STAGES.len()];
    for index in 0..pods {
        without.push(start(bed, &format!("plain-{index}"), false)?.0);
        let (ready, times) = start(bed, &format!("meshed-{index}"), true)?;
        with.push(ready);
        for (stage, time) in stages.iter_mut().zip(times) {
            stage.push(time);
        }
    }
    println!("  ready, without a sidecar: {}", summary(without));
    println!("  ready, with one:          {}", summary(with));
    for ((name, _), times) in STAGES.iter().zip(stages) {
        println!("    {name}: {}", summary(times));
    }
    Ok(())
}

/// What is said, by which container: the first line that has it.
const STAGES: [(&str, (&str, &str)); 5] = [
    ("isthmus-init runs", ("isthmus-init", "watches")),
    ("isthmus-sidecar runs", ("isthmus-sidecar", "serves")),
    ("controller answers", ("isthmus-sidecar", "connected")),
    ("first state in force", ("isthmus-sidecar", "ready")),
    ("application runs", ("curl", "started")),
];

/// Milliseconds from a pod's making to its readiness and to each stage.
fn start(bed: &Bed, name: &str, inject: bool) -> anyhow::Result<(f64, Vec<f64>)> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "annotations": {"isthmus.dev/inject": inject.to_string()}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "curl", "image": "curlimages/curl:8.11.1", "command": ["sh", "-c", "echo started; exec sleep infinity"]},
        ]},
    });
    let made = jiff::Timestamp::now();
    let began = Instant::now();
    bed.apply(EAST, &pod.to_string())?;
    bed.kubectl(EAST, &["-n", "shop", "wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"])?;
    let ready = began.elapsed().as_secs_f64() * 1e3;
    let mut stages = Vec::new();
    for (stage, (container, said)) in STAGES.iter().filter(|_| inject) {
        let log = bed.kubectl(EAST, &["-n", "shop", "logs", "--timestamps", name, "-c", container])?;
        let line = log.lines().find(|line| line.contains(said)).with_context(|| format!("{stage}: {log}"))?;
        let at = jiff::Timestamp::from_str(line.split(' ').next().unwrap_or_default())?;
        stages.push(at.duration_since(made).as_secs_f64() * 1e3);
    }
    bed.kubectl(EAST, &["-n", "shop", "delete", "pod", name, "--wait=true"])?;
    Ok((ready, stages))
}

/// From the moment before a change is sent to the API server to the first answer that obeys it, asked from a pod without pause.
pub(crate) fn propagation(bed: &Bed) -> anyhow::Result<()> {
    let changes = count("CHANGES", 20)?;
    let import = bed.get(EAST, &["-n", "shop", "serviceimport", "store"])?;
    let vip = format!("{}:80", import["spec"]["ips"][0].as_str().context("a VIP")?).parse()?;
    let network = network_of(bed, "client")?;
    let (sender, seen) = mpsc::channel::<(u64, Instant)>();
    let asker = std::thread::spawn(move || {
        init::netns::within(Some(&network), move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut connection = Connection::open(vip, Version::HTTP_11).await?;
                let mut last = 0;
                loop {
                    let answer = connection.ask(&Ask::get("store.shop.svc.clusterset.local", "/cart")).await?;
                    let change = answer.header("x-change").and_then(|value| value.parse().ok()).unwrap_or_default();
                    if change != last && sender.send((change, Instant::now())).is_err() {
                        return Ok(());
                    }
                    last = change;
                    // The pace of the requests and not a wait: two cores are shared with everything that is measured.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let times = runtime.block_on(change_again_and_again(bed, changes, &seen));
    // With its receiver the asker ends.
    drop(seen);
    let mut times = times?;
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    println!("  {changes} changes: {}", summary(times.clone()));
    times.sort_by(f64::total_cmp);
    println!("  p50 {:.1} ms, p99 {:.1} ms, largest {:.1} ms", percentile(&times, 0.5), percentile(&times, 0.99), percentile(&times, 1.0));
    if asker.is_finished() {
        asker.join().map_err(|_| anyhow::anyhow!("the asker panicked"))??;
    }
    Ok(())
}

async fn change_again_and_again(bed: &Bed, changes: usize, seen: &mpsc::Receiver<(u64, Instant)>) -> anyhow::Result<Vec<f64>> {
    let config = Kubeconfig::read_from(bed.kubeconfig(EAST))?;
    let client = Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
    let routes: Api<DynamicObject> = Api::namespaced_with(client, "shop", &resource);
    let rules = |change: usize| -> Value {
        json!({"spec": {"rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/cart"}}],
            "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-change", "value": change.to_string()}]}}],
            "backendRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart"}],
        }]}})
    };
    let mut times = Vec::new();
    for change in 1..=changes {
        let began = Instant::now();
        routes.patch("store", &PatchParams::default(), &Patch::Merge(rules(change))).await?;
        let at = loop {
            let (number, at) = seen.recv_timeout(SOON).with_context(|| format!("change {change} is not seen"))?;
            if number == change as u64 {
                break at;
            }
        };
        times.push(at.duration_since(began).as_secs_f64() * 1e3);
    }
    ensure!(times.len() == changes, "{} of {changes}", times.len());
    Ok(times)
}

/// The network namespace of a pod of shop in east: that of any of its processes.
pub(crate) fn network_of(bed: &Bed, pod: &str) -> anyhow::Result<PathBuf> {
    let pod = bed.get(EAST, &["-n", "shop", "pod", pod])?;
    let group = format!("pod{}", pod["metadata"]["uid"].as_str().context("a uid")?);
    for process in fs::read_dir("/proc")?.filter_map(Result::ok) {
        // Processes end while we look.
        if fs::read_to_string(process.path().join("cgroup")).is_ok_and(|groups| groups.contains(&group)) {
            return Ok(process.path().join("ns/net"));
        }
    }
    anyhow::bail!("no process of {group}")
}
