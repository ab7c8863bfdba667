//! What the sidecar costs: CPU time a request, and memory. `make cost`.
//!
//! CPU time is the sidecar's own, all its threads, from the kernel's scheduler statistics; it says little about latency and is steady where wall
//! time is not. Everything runs on this machine, so compare only within one run.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Version;
use lab::client::{Ask, Connection};
use lab::lab::{Intercept, Options};
use tests::{Bed, collector, yaml};

const STORE: &str = "store.default.svc.clusterset.local";
const ROUNDS: usize = 5;
const REQUESTS: usize = 20_000;
const IDLE_CONNECTIONS: usize = 256;

fn main() -> anyhow::Result<()> {
    println!("bytes passed through, for comparison");
    pass_through()?;
    println!("everything that observes, beside nothing of it");
    observed()?;
    for without_access_log in [true, false] {
        println!("{}", if without_access_log { "without an access log" } else { "with an access log" });
        measure(Options { without_access_log, ..Options::default() })?;
    }
    Ok(())
}

/// The same requests to a VIP without a route: what the kernel's part and copying cost.
fn pass_through() -> anyhow::Result<()> {
    let files = [("west/client.yaml", yaml::client("default")), ("west/apps.yaml", yaml::exported("store", "default", 1))];
    let bed = Bed::start(&files, Options { intercept: Intercept::Cidr, without_access_log: true, ..Options::default() })?;
    rounds(&bed, &[Version::HTTP_11])
}

/// A mesh in which everything observes, and one in which nothing does, in turn: access log, spans to a collector, somebody who listens at `/tap`, and a
/// look at `/metrics` every second.
fn observed() -> anyhow::Result<()> {
    let off = store(Options { without_access_log: true, ..Options::default() })?;
    let on = store(Options { sidecar_arguments: vec![format!("--otlp-endpoint={}", collector::ENDPOINT)], ..Options::default() })?;
    let client = on.client()?;
    let batches = collector::start(&on, &client)?;
    // What is exported is taken in, so that nothing piles up; ends with the program.
    std::thread::spawn(move || batches.into_iter().for_each(drop));
    on.namespace(&client)?.spawn("observers", || {
        let observed = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| runtime.block_on(observe()));
        eprintln!("observers: {observed:?}");
    })?;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for connections in [1, 32] {
            let mut ratios = Vec::new();
            for round in 0..=ROUNDS {
                let [off, on] = [&off, &on].map(|bed| run(bed, bed.sidecar_pid(&bed.client()?)?, version, connections, REQUESTS));
                // The first one warms up.
                if round > 0 {
                    ratios.push(on? / off?);
                }
            }
            ratios.sort_by(f64::total_cmp);
            let [least, .., most] = ratios[..] else { continue };
            println!(
                "  {version:?}, {connections:2} connections: {:.2} times (median of {ROUNDS} pairs; {least:.2} to {most:.2})",
                ratios[ROUNDS / 2]
            );
        }
    }
    Ok(())
}

/// Listens and looks until the program ends.
async fn observe() -> anyhow::Result<()> {
    let admin = |path: &str| format!("http://127.0.0.1:15000{path}");
    let mut tap = reqwest::get(admin("/tap")).await?;
    let mut scrape = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            line = tap.chunk() => ensure!(line?.is_some(), "the tap ended"),
            _ = scrape.tick() => drop(reqwest::get(admin("/metrics")).await?.bytes().await?),
        }
    }
}

fn store(options: Options) -> anyhow::Result<Bed> {
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/apps.yaml", yaml::all(&[yaml::exported("store", "default", 1), yaml::exported("cart", "default", 1)])),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], &[yaml::to_import("/cart", "cart")])),
    ];
    Bed::start(&files, options)
}

fn measure(options: Options) -> anyhow::Result<()> {
    let bed = store(options)?;
    let pid = bed.sidecar_pid(&bed.client()?)?;
    println!("  RSS idle: {} KiB", rss_kib(pid)?);
    rounds(&bed, &[Version::HTTP_11, Version::HTTP_2])?;
    let address = bed.address(&bed.client()?, STORE)?;
    bed.namespace(&bed.client()?)?.block_on(|| async {
        let mut kept = Vec::new();
        for _ in 0..IDLE_CONNECTIONS {
            let mut connection = Connection::open(address, Version::HTTP_11).await?;
            connection.ask(&Ask::get(STORE, "/cart")).await?;
            kept.push(connection);
        }
        println!("  RSS with {IDLE_CONNECTIONS} connections: {} KiB", rss_kib(pid)?);
        Ok(())
    })
}

fn rounds(bed: &Bed, versions: &[Version]) -> anyhow::Result<()> {
    let pid = bed.sidecar_pid(&bed.client()?)?;
    for version in versions.iter().copied() {
        for connections in [1, 32] {
            run(bed, pid, version, connections, REQUESTS / 10)?;
            let mut costs = Vec::new();
            for _ in 0..ROUNDS {
                costs.push(run(bed, pid, version, connections, REQUESTS)?);
            }
            costs.sort_by(f64::total_cmp);
            let [least, .., most] = costs[..] else { continue };
            println!(
                "  {version:?}, {connections:2} connections: {:.1} us of CPU a request (median of {ROUNDS} rounds of {REQUESTS}; {least:.1} to \
                 {most:.1})",
                costs[ROUNDS / 2]
            );
        }
    }
    Ok(())
}

/// Microseconds of CPU time a request.
fn run(bed: &Bed, pid: u32, version: Version, connections: usize, requests: usize) -> anyhow::Result<f64> {
    let client = bed.client()?;
    let address = bed.address(&client, STORE)?;
    let began = Instant::now();
    let before = cpu_ns(pid)?;
    bed.namespace(&client)?.block_on(|| async {
        let mut flows = tokio::task::JoinSet::new();
        for _ in 0..connections {
            flows.spawn(async move {
                let mut connection = Connection::open(address, version).await?;
                let ask = Ask::get(STORE, "/cart");
                for _ in 0..requests / connections {
                    let answer = connection.ask(&ask).await?;
                    ensure!(answer.status == 200, "{answer:?}");
                }
                anyhow::Ok(())
            });
        }
        while let Some(flow) = flows.join_next().await {
            flow??;
        }
        Ok(())
    })?;
    let done = requests / connections * connections;
    let spent = cpu_ns(pid)? - before;
    eprintln!("{version:?} {connections}: {:.0} requests/s", f64_of(done) / began.elapsed().as_secs_f64());
    Ok(f64_of(usize::try_from(spent)?) / 1e3 / f64_of(done))
}

fn f64_of(number: usize) -> f64 {
    u32::try_from(number / 1000).map_or(f64::MAX, f64::from) * 1e3 + u32::try_from(number % 1000).map_or(0.0, f64::from)
}

/// Nanoseconds that all threads have run.
fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
    }
    Ok(total)
}

fn rss_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    line.split_whitespace().next().context("VmRSS")?.parse().context("VmRSS")
}
