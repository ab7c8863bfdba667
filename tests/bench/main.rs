//! What a sidecar costs, side by side with its peers on one machine: `make bench`.
//!
//! The figure that is compared is CPU time of the proxy a request, from the kernel's scheduler statistics: it is the steadiest there is on a
//! machine that does other things too. Everything is up at once; targets take turns within a round, in an order that is drawn anew, and ratios are
//! taken inside a round. Method and figures: `docs/performance.md`.

mod measure;
mod peers;
mod report;
mod scale;
mod scenario;
mod stage;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use lab::lab::Intercept;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::peers::Peer;
use crate::report::{Report, Sample};
use crate::scenario::{SCENARIOS, Scenario};
use crate::stage::Stage;

#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the data path beside its peers
    Run(Run),
    /// Measure the config path in a mesh of a size
    Scale(scale::Scale),
    /// What the bench itself runs in its namespaces
    #[command(flatten)]
    Tool(tools::Tool),
}

#[derive(Args, Debug)]
struct Run {
    /// Rounds in which every target has its turn in every scenario
    #[arg(long, default_value = "5")]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value = "3")]
    seconds: u64,
    /// Which scenarios; all if none is given
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Which targets; all if none is given
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Seconds of a turn in which system calls are counted, once all rounds are over; 0: they are not
    #[arg(long, default_value = "1")]
    traced_seconds: u64,
    /// Times that each program is started, for the time to its first answer
    #[arg(long, default_value = "5")]
    starts: usize,
    /// Intercept whole ranges of VIPs and not only those with routes: a port without a route goes through the sidecar then
    #[arg(long)]
    ranges: bool,
    /// Folder with what `prepare` made; reports go there too
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Seed of the order; drawn if not given
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // All programs have it from here.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    match Config::parse().command {
        Command::Run(run) => measure_all(&run),
        Command::Scale(scale) => scale::run(&scale),
        Command::Tool(tool) => tool.run(),
    }
}

/// Before anything is measured pools fill and frequencies settle.
const WARM_UP: Duration = Duration::from_secs(1);

fn measure_all(run: &Run) -> anyhow::Result<()> {
    let scenarios = chosen(&run.scenarios, &SCENARIOS, |scenario| scenario.name)?;
    let mut stage = Stage::build(&run.folder, if run.ranges { Intercept::Cidr } else { Intercept::Exact })?;
    let peers = Peer::all(&stage)?;
    let peers = chosen(&run.targets, &peers, |peer| peer.name)?;
    let mut report = Report::new(run.rounds, run.seconds);
    for peer in &peers {
        for _ in 0..run.starts {
            report.started(peer.name, stage.start_again(peer)?);
        }
    }
    for peer in &peers {
        stage.begin(peer)?;
        report.idle(peer.name, stage.memory(peer)?);
    }
    for peer in &peers {
        stage.turn_to(peer)?;
        stage.check(peer)?;
    }
    let seed = run.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut order = SmallRng::seed_from_u64(seed);
    for round in 0..run.rounds {
        for scenario in &scenarios {
            let mut turns: Vec<&Peer> = peers.iter().filter(|peer| peer.takes(scenario)).collect();
            turns.shuffle(&mut order);
            for peer in turns {
                stage.turn_to(peer)?;
                if round == 0 {
                    stage.load(peer, scenario, WARM_UP)?;
                }
                let figures = stage.load(peer, scenario, Duration::from_secs(run.seconds))?;
                println!("{round} {:<12} {:<12} {figures}", scenario.name, peer.name);
                report.add(Sample { scenario: scenario.name.to_owned(), target: peer.name.to_owned(), round, figures });
            }
        }
    }
    trace(run, &stage, &scenarios, &peers, &mut report)?;
    report.write(&run.folder)?;
    print!("{}", report.text());
    stage.finish()
}

/// Counts system calls. Who is traced is slower, so nothing else is measured any more.
fn trace(run: &Run, stage: &Stage, scenarios: &[Scenario], peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    if run.traced_seconds == 0 {
        return Ok(());
    }
    for scenario in scenarios {
        for peer in peers.iter().filter(|peer| peer.takes(scenario)) {
            stage.turn_to(peer)?;
            if let Some(calls) = stage.system_calls(peer, scenario, Duration::from_secs(run.traced_seconds))? {
                println!("system calls {:<12} {:<12} {:.1}", scenario.name, peer.name, calls.values().sum::<f64>());
                report.called(scenario.name, peer.name, calls);
            }
        }
    }
    Ok(())
}

/// Those that were named, in their own order; all if none was.
fn chosen<T: Clone>(names: &[String], all: &[T], name_of: impl Fn(&T) -> &'static str) -> anyhow::Result<Vec<T>> {
    let known: BTreeMap<&str, &T> = all.iter().map(|one| (name_of(one), one)).collect();
    let unknown: Vec<&String> = names.iter().filter(|name| !known.contains_key(name.as_str())).collect();
    ensure!(unknown.is_empty(), "no such name: {unknown:?}; there are {:?}", all.iter().map(&name_of).collect::<Vec<_>>());
    Ok(all.iter().filter(|one| names.is_empty() || names.iter().any(|name| name == name_of(one))).cloned().collect())
}
