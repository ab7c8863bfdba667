//! Where a route is live, as commands and its status say; requests as they end.

use std::fs;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bed::{Bed, EAST, eventually};

const CART: &str = "http://store.shop.svc.clusterset.local/cart";

/// The sidecar of a pod, stopped for as long as this lives.
struct Stopped(Pid);

impl Stopped {
    fn sidecar(pod: &str) -> anyhow::Result<Self> {
        let wanted = [format!("ISTHMUS_POD={pod}"), format!("ISTHMUS_CLUSTER={EAST}")];
        let is_it = |process: &std::path::Path| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            let has = |wanted: &String| environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
            name.trim_end() == "isthmus-sidecar" && wanted.iter().all(has)
        };
        let processes = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
        let found = processes.filter(|process| is_it(process)).filter_map(|process| process.file_name()?.to_str()?.parse().ok()).next();
        let pid = Pid::from_raw(found.with_context(|| format!("no sidecar of {pod} on this machine"))?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // One that is gone has nothing to go on with.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn route(bed: &Bed) -> anyhow::Result<Value> {
    bed.get(EAST, &["-n", "shop", "httproute", "store"])
}

/// The condition, if it speaks of the newest generation.
fn live(route: &Value) -> Option<&Value> {
    let conditions = route["status"]["parents"][0]["conditions"].as_array()?;
    let newest =
        |condition: &&Value| condition["type"] == "isthmus.dev/Live" && condition["observedGeneration"] == route["metadata"]["generation"];
    conditions.iter().find(newest)
}

fn await_live(bed: &Bed, status: &str) -> anyhow::Result<Value> {
    eventually("isthmus.dev/Live speaks of the newest generation", || {
        let route = route(bed)?;
        let condition = live(&route).with_context(|| route["status"].to_string())?;
        ensure!(condition["status"] == status, "{condition}");
        Ok(condition.clone())
    })
}

/// Changes the route in a way that means the same.
fn touch(bed: &Bed, weight: u32) -> anyhow::Result<()> {
    let patch = json!([{"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": weight}]).to_string();
    bed.kubectl(EAST, &["-n", "shop", "patch", "httproute", "store", "--type=json", "-p", &patch])?;
    Ok(())
}

/// A generation is live when everybody has acknowledged it; pods that come and go write nothing; who stays behind is named.
pub(crate) fn everybody_or_who_is_behind(bed: &Bed) -> anyhow::Result<()> {
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    bed.shell("client", &format!("curl -s {CART}"))?;
    let (is_well, said) = bed.isthmus(EAST, &["status", "-n", "shop", "httproute/store", "--watch"])?;
    ensure!(is_well && said.contains("httproute/store"), "{said}");
    await_live(bed, "True")?;

    let version = route(bed)?["metadata"]["resourceVersion"].clone();
    for replicas in ["4", "2"] {
        bed.kubectl(EAST, &["-n", "shop", "scale", "deployment", "cart", &format!("--replicas={replicas}")])?;
        bed.kubectl(EAST, &["-n", "shop", "rollout", "status", "deployment", "cart", "--timeout=60s"])?;
    }
    ensure!(route(bed)?["metadata"]["resourceVersion"] == version, "scaling wrote the route's status: {}", route(bed)?["status"]);

    let stopped = Stopped::sidecar("client")?;
    touch(bed, 2)?;
    let behind = await_live(bed, "False")?;
    ensure!(behind["message"].as_str().is_some_and(|message| message.contains("shop/client")), "{behind}");
    let (is_well, said) = bed.isthmus(EAST, &["status", "-n", "shop", "store"])?;
    ensure!(!is_well && said.contains("shop/client"), "{said}");
    drop(stopped);
    await_live(bed, "True")?;
    let (is_well, said) = bed.isthmus(EAST, &["status", "-n", "shop", "nothing"])?;
    ensure!(!is_well, "a route that is not there: {said}");
    Ok(())
}

/// A request is shown with what was decided; versions are told.
pub(crate) fn requests_are_shown(bed: &Bed) -> anyhow::Result<()> {
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    let tap = ["tap", "shop/client", "--route", "shop/store", "--path", "/cart", "--status", "2xx", "--count", "2", "-o", "json"];
    let (is_well, said) = std::thread::scope(|scope| {
        let tap = scope.spawn(|| bed.isthmus(EAST, &tap));
        while !tap.is_finished() {
            bed.shell("client", &format!("curl -s {CART} http://store.shop.svc.clusterset.local/nothing"))?;
        }
        tap.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let lines: Vec<Value> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| said.clone())?;
    ensure!(is_well && lines.len() == 2, "{said}");
    for line in &lines {
        let is_it = line["pod"] == "shop/client" && line["path"] == "/cart" && line["status"] == 200;
        ensure!(is_it && line["backend"].as_str().is_some_and(|backend| backend.starts_with("ServiceImport/shop/cart/")), "{line}");
    }
    eventually("the picture shows what is requested", || {
        bed.shell("client", &format!("curl -s {CART}"))?;
        let (is_well, said) = bed.isthmus(EAST, &["graph", "-n", "shop", "-o", "json"])?;
        let start = said.find('{').with_context(|| said.clone())?;
        let picture: Value = serde_json::from_str(&said[start..])?;
        let edges = picture["edges"].as_array().context("edges")?;
        let rate = |from: &str, to: &str| {
            let is_it = |edge: &&Value| {
                edge["from"].as_str().is_some_and(|id| id.contains(from)) && edge["to"].as_str().is_some_and(|id| id.contains(to))
            };
            edges.iter().find(is_it).and_then(|edge| edge["rate"]["per_second"].as_f64()).unwrap_or_default()
        };
        let rates =
            [("Frontend ", "Route "), ("shop/store", "Backend ServiceImport/shop/cart/"), ("Backend ServiceImport/shop/cart/", "Cluster ")]
                .map(|(from, to)| rate(from, to));
        ensure!(is_well && rates.iter().all(|rate| *rate > 0.0), "{rates:?}: {said}");
        Ok(())
    })?;
    let (is_well, said) = bed.isthmus(EAST, &["version", "-o", "json"])?;
    let versions: Value = serde_json::from_str(&said)?;
    let ours = env!("CARGO_PKG_VERSION");
    let controllers = versions["controllers"].as_object().context("controllers")?;
    ensure!(is_well && !controllers.is_empty() && controllers.values().all(|version| version == ours), "{said}");
    ensure!(versions["sidecars"][ours].as_u64() > Some(0), "{said}");
    Ok(())
}
