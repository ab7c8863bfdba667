//! A real Prometheus with our jobs' names, our rules and the queries of our dashboards, scraping a real sidecar and a real controller in network
//! namespaces, and the controller's page in a real browser: `make observability`.
//!
//! Usage: `observability FOLDER`, where `FOLDER` is what `prepare` made.
//!
//! Invariant: every rule and every query is one that Prometheus takes, names no metric that nobody has, and each panel shows something in a
//! mesh that is used, unless it is listed as one that should show nothing there.

mod dashboards;
mod picture;
mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::lab::Options;
use tests::metrics::{Metric, metrics};
use tests::{Bed, pages, yaml};

use dashboards::{Query, metrics_of, queries};
use prometheus::{Prometheus, Rule};

/// The mesh is used for so long at most until Prometheus has seen it.
const SEEN_MAX: Duration = Duration::from_secs(60);
/// Panels that show nothing in a mesh where all is well but for a missing rule, a missing backend and one that does not answer.
const EMPTY: [&str; 6] = [
    "Copies for mirrors",
    "Redirects of a request to itself",
    "Requests sent again",
    "Requests whose routes had not arrived",
    "Retry budget used up",
    "Ejections",
];

/// Alerts that these raise.
const RAISED: [&str; 4] = ["IsthmusBackendUnreachable", "IsthmusEndpointConnectsFail", "IsthmusFrontendDown", "IsthmusRouteCannotBeObeyed"];

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: observability FOLDER");
        return ExitCode::from(2);
    };
    match run(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("observability: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path) -> anyhow::Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifests = repository.join("manifests/observability");
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/down.yaml", yaml::exported("down", "default", 1)),
        (
            "west/route.yaml",
            yaml::route(
                "store",
                "",
                &[yaml::import("store", "")],
                &[yaml::to_import("/cart", "store"), yaml::to_import("/gone", "gone"), yaml::to_import("/down", "down")],
            ),
        ),
    ];
    let mut bed = Bed::start(&files, Options::default())?;
    let down = bed.pods().find(|pod| pod.to_string().contains("/down-")).cloned().context("a pod of down")?;
    bed.stop_server(&down)?;
    let prometheus = Prometheus::start(folder, &bed, &manifests.join("prometheus-rules.yaml"))?;
    let dashboards: Vec<Query> = ["isthmus-mesh", "isthmus-controller"]
        .iter()
        .map(|name| queries(&manifests.join(format!("grafana/{name}.json"))))
        .collect::<anyhow::Result<Vec<_>>>()?
        .concat();
    ensure!(!dashboards.is_empty(), "the dashboards have no queries");
    let pages = of_pages();
    ensure!(!pages.is_empty(), "the pages have no queries");
    known(&[dashboards.as_slice(), &pages].concat(), &manifests.join("prometheus-rules.yaml"))?;
    for query in &pages {
        prometheus.query(&query.text).with_context(|| format!("{}: {}", query.title, query.text))?;
    }
    shows(&bed, &prometheus, &dashboards)?;
    picture::look(&bed, folder)?;
    let rules = prometheus.rules()?;
    let broken: Vec<String> =
        rules.iter().filter(|rule| rule.health != "ok").map(|rule| format!("{}: {}", rule.name, rule.last_error)).collect();
    ensure!(broken.is_empty() && !rules.is_empty(), "rules that cannot be evaluated: {broken:#?}");
    println!("observability: {} queries of dashboards, {} rules; raised: {:?}", dashboards.len(), rules.len(), raised(&rules));
    Ok(())
}

/// The queries that pages show, named for their pages.
fn of_pages() -> Vec<Query> {
    let blocks = pages::all().into_iter().flat_map(|page| pages::blocks(&page).into_iter().map(move |block| (page.clone(), block)));
    blocks.filter(|(_, block)| block.language == "promql").map(|(title, block)| Query { title, text: block.text }).collect()
}

/// Alerts that are pending or firing.
fn raised(rules: &[Rule]) -> BTreeSet<String> {
    rules.iter().filter(|rule| rule.state == "pending" || rule.state == "firing").map(|rule| rule.name.clone()).collect()
}

/// Every metric that a query or a rule names is one that a sidecar or a controller has.
fn known(dashboards: &[Query], rules: &Path) -> anyhow::Result<()> {
    let all = [metrics(&sidecar::sample_metrics()?), metrics(&controller::admin::sample_metrics()?)].concat();
    let known: BTreeSet<String> = all.iter().flat_map(Metric::names).collect();
    let rules = std::fs::read_to_string(rules)?;
    let named = dashboards.iter().map(|query| query.text.as_str()).chain([rules.as_str()]).flat_map(metrics_of);
    let unknown: BTreeSet<String> = named.filter(|name| !known.contains(name)).collect();
    ensure!(unknown.is_empty(), "metrics that nobody has: {unknown:?}");
    Ok(())
}

/// Uses the mesh until every panel shows what it should.
fn shows(bed: &Bed, prometheus: &Prometheus, dashboards: &[Query]) -> anyhow::Result<()> {
    let end = Instant::now() + SEEN_MAX;
    loop {
        for path in ["/cart", "/cart", "/nothing", "/gone", "/gone", "/gone", "/gone", "/down"] {
            bed.get("store.default.svc.clusterset.local:80", path)?;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for query in dashboards {
            let count = prometheus.query(&query.text).with_context(|| format!("{}: {}", query.title, query.text))?;
            *counts.entry(query.title.as_str()).or_default() += count;
        }
        let raised = raised(&prometheus.rules()?);
        let empty = counts.iter().filter(|(_, count)| **count == 0).map(|(title, _)| *title);
        let surprising: Vec<&str> = empty.filter(|title| !EMPTY.contains(title)).collect();
        let missing: Vec<&&str> = RAISED.iter().filter(|alert| !raised.contains(**alert)).collect();
        if surprising.is_empty() && missing.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "panels that show nothing: {surprising:#?}; alerts that are not raised: {missing:?}");
    }
}
