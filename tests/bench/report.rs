//! What was measured: as a table, as JSON, as a picture.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use plotters::prelude::*;
use serde::Serialize;

use crate::scenario::SCENARIOS;

/// Of one turn.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// CPU time of the proxy for one unit, microseconds.
    pub(crate) proxy_us: f64,
    /// And of the backend.
    pub(crate) backend_us: f64,
    /// And of the whole machine: proxy, client, backend, kernel, and whatever else ran.
    pub(crate) machine_us: f64,
    /// Cores of the machine that were busy.
    pub(crate) busy: f64,
    /// Units a second.
    pub(crate) per_second: f64,
    pub(crate) errors: u64,
    /// p50, p90, p99, p99.9.
    pub(crate) latency_us: Option<[f64; 4]>,
    /// While many connections were open.
    pub(crate) rss_kib: Option<u64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.1} us {:>10.0}/s, {:.2} cores busy, {} errors", self.proxy_us, self.per_second, self.busy, self.errors)?;
        if let Some([p50, p90, p99, p999]) = self.latency_us {
            write!(f, ", p50 {p50:.0} p90 {p90:.0} p99 {p99:.0} p99.9 {p999:.0} us")?;
        }
        if let Some(rss) = self.rss_kib {
            write!(f, ", {rss} KiB")?;
        }
        Ok(())
    }
}

/// A turn.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) scenario: String,
    pub(crate) target: String,
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// How often each system call is made for one unit, by its name.
pub(crate) type PerUnit = BTreeMap<String, f64>;

/// All of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rounds: usize,
    seconds: u64,
    samples: Vec<Sample>,
    /// KiB, when nothing was asked yet.
    idle_kib: BTreeMap<String, u64>,
    /// Milliseconds from exec to the first answer.
    start_ms: BTreeMap<String, Vec<f64>>,
    /// By scenario and target.
    system_calls: BTreeMap<String, BTreeMap<String, PerUnit>>,
}

/// What latencies are compared to.
const DIRECT: &str = "direct";
/// Against whom ratios are given.
const AGAINST: [&str; 3] = ["envoy", "nginx", "copy"];

/// A system call that is a smaller part of all is not named.
const NAMED_FROM: f64 = 0.01;

/// Median and quartiles.
fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values.get((values.len() * part / 4).min(values.len().checked_sub(1)?)).copied();
    Some([at(1)?, at(2)?, at(3)?])
}

impl Report {
    pub(crate) fn new(rounds: usize, seconds: u64) -> Self {
        Self { rounds, seconds, ..Self::default() }
    }

    pub(crate) fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(crate) fn idle(&mut self, target: &str, kib: u64) {
        self.idle_kib.insert(target.to_owned(), kib);
    }

    pub(crate) fn started(&mut self, target: &str, took: Option<Duration>) {
        if let Some(took) = took {
            println!("{target} answers after {:.1} ms", took.as_secs_f64() * 1e3);
            self.start_ms.entry(target.to_owned()).or_default().push(took.as_secs_f64() * 1e3);
        }
    }

    pub(crate) fn called(&mut self, scenario: &str, target: &str, calls: PerUnit) {
        self.system_calls.entry(scenario.to_owned()).or_default().insert(target.to_owned(), calls);
    }

    fn of<'r>(&'r self, scenario: &'r str, target: &'r str) -> impl Iterator<Item = &'r Sample> {
        self.samples.iter().filter(move |sample| sample.scenario == scenario && sample.target == target)
    }

    fn targets(&self, scenario: &str) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let of = self.samples.iter().filter(|sample| sample.scenario == scenario).map(|sample| sample.target.as_str());
        let mut targets: Vec<&str> = of.filter(|target| seen.insert(*target)).collect();
        targets.sort_by_key(|target| [DIRECT, "dnat", "isthmus"].iter().position(|first| first == target).unwrap_or(usize::MAX));
        targets
    }

    /// Figures of a target, and another's in the same round.
    fn pairs<'r>(&'r self, scenario: &'r str, target: &'r str, other: &'r str) -> impl Iterator<Item = (&'r Figures, &'r Figures)> {
        let in_round = move |round| self.of(scenario, other).find(|sample| sample.round == round);
        self.of(scenario, target).filter_map(move |sample| Some((&sample.figures, &in_round(sample.round)?.figures)))
    }

    /// CPU time against another's in the same round.
    fn ratio(&self, scenario: &str, target: &str, other: &str) -> Option<[f64; 3]> {
        let ratios = self.pairs(scenario, target, other).map(|(own, others)| own.proxy_us / others.proxy_us);
        quartiles(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// What one of the latencies has more than where there is no proxy in the same round, microseconds.
    fn added(&self, scenario: &str, target: &str, latency: usize) -> Option<f64> {
        let pairs = self.pairs(scenario, target, DIRECT);
        let more = pairs.filter_map(|(own, direct)| Some(own.latency_us?[latency] - direct.latency_us?[latency]));
        Some(quartiles(more.collect())?[1])
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} rounds of {} s; CPU time of the proxy in us a unit: median [quartiles]\n", self.rounds, self.seconds);
        for scenario in &SCENARIOS {
            let targets = self.targets(scenario.name);
            if targets.is_empty() {
                continue;
            }
            text += &format!("\n{} (a {})\n", scenario.name, scenario.unit);
            for target in targets {
                let of =
                    |figure: fn(&Figures) -> f64| quartiles(self.of(scenario.name, target).map(|sample| figure(&sample.figures)).collect());
                let (Some([low, middle, high]), Some([_, rate, _])) = (of(|figures| figures.proxy_us), of(|figures| figures.per_second))
                else {
                    continue;
                };
                text += &format!("  {target:<8} {middle:>9.1} [{low:.1} {high:.1}]  {rate:>9.1}/s");
                for other in AGAINST.iter().filter(|other| **other != target) {
                    if let Some([low, middle, high]) = self.ratio(scenario.name, target, other) {
                        text += &format!("  {middle:.2} [{low:.2} {high:.2}] of {other}");
                    }
                }
                let latencies = |index: usize| {
                    let of = self.of(scenario.name, target).filter_map(|sample| Some(sample.figures.latency_us?[index]));
                    quartiles(of.collect())
                };
                for (name, index) in [("p50", 0), ("p90", 1), ("p99", 2), ("p99.9", 3)] {
                    if let Some([low, middle, _]) = latencies(index) {
                        text += &format!("  {name} {middle:.0} [{low:.0}] us");
                    }
                    if let Some(added) = self.added(scenario.name, target, index).filter(|_| target != DIRECT) {
                        text += &format!(" ({added:+.0})");
                    }
                }
                let rss = quartiles(self.of(scenario.name, target).filter_map(|sample| Some(kib(sample.figures.rss_kib?))).collect());
                if let Some([_, rss, _]) = rss.filter(|[_, rss, _]| *rss > 0.0) {
                    text += &format!("  {:.1} MiB", rss / 1024.0);
                }
                let errors: u64 = self.of(scenario.name, target).map(|sample| sample.figures.errors).sum();
                if errors > 0 {
                    text += &format!("  {errors} errors");
                }
                text.push('\n');
            }
        }
        text += "\nidle\n";
        for (target, idle) in self.idle_kib.iter().filter(|(_, idle)| **idle > 0) {
            text += &format!("  {target:<8} {:>9.1} MiB\n", kib(*idle) / 1024.0);
        }
        text += "\nexec to first answer\n";
        for (target, times) in &self.start_ms {
            if let Some([low, middle, high]) = quartiles(times.clone()) {
                text += &format!("  {target:<8} {middle:>9.1} ms [{low:.1} {high:.1}]\n");
            }
        }
        text + &self.text_of_calls()
    }

    fn text_of_calls(&self) -> String {
        if self.system_calls.is_empty() {
            return String::new();
        }
        let mut text = "\nsystem calls a unit, counted in turns of their own\n".to_owned();
        for scenario in &SCENARIOS {
            let Some(of) = self.system_calls.get(scenario.name) else { continue };
            text += &format!("\n{} (a {})\n", scenario.name, scenario.unit);
            for target in self.targets(scenario.name) {
                let Some(calls) = of.get(target) else { continue };
                let total: f64 = calls.values().sum();
                let mut named: Vec<(&String, &f64)> = calls.iter().filter(|(_, number)| **number >= total * NAMED_FROM).collect();
                named.sort_by(|(_, one), (_, other)| other.total_cmp(one));
                let named: Vec<String> = named.into_iter().map(|(name, number)| format!("{name} {number:.2}")).collect();
                text += &format!("  {target:<8} {total:>9.2}  {}\n", named.join(", "));
            }
        }
        text
    }

    /// All three forms.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::write(folder.join("report.txt"), self.text())?;
        fs::write(folder.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        self.plot(&folder.join("report.svg")).context("report.svg")?;
        println!("{}", folder.join("report.{txt,json,svg}").display());
        Ok(())
    }

    /// CPU time of each scenario as a part of Envoy's.
    fn plot(&self, path: &Path) -> anyhow::Result<()> {
        const WIDTH: u32 = 1100;
        const ROW: u32 = 18;
        let mut rows: Vec<(String, f64, RGBColor)> = Vec::new();
        for scenario in &SCENARIOS {
            for target in self.targets(scenario.name) {
                if let Some([_, ratio, _]) = self.ratio(scenario.name, target, AGAINST[0]).filter(|[_, ratio, _]| *ratio > 0.0) {
                    let colour = if target == "isthmus" { RGBColor(0, 110, 90) } else { RGBColor(170, 175, 180) };
                    rows.push((format!("{} {target}", scenario.name), ratio, colour));
                }
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        rows.reverse();
        let count = rows.len();
        let height = ROW * u32::try_from(count)? + 80;
        let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let most = rows.iter().map(|(_, ratio, _)| *ratio).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(&area)
            .caption("CPU time of the proxy, as a part of Envoy's in the same round", ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(170)
            .build_cartesian_2d(0.0..most * 1.05, (0..count).into_segmented())?;
        let label = |at: &SegmentValue<usize>| match at {
            SegmentValue::CenterOf(index) => rows.get(*index).map(|(name, ..)| name.clone()).unwrap_or_default(),
            SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
        };
        chart.configure_mesh().disable_y_mesh().y_labels(count).y_label_formatter(&label).draw()?;
        chart.draw_series(rows.iter().enumerate().map(|(index, (_, ratio, colour))| {
            let mut bar = Rectangle::new([(0.0, SegmentValue::Exact(index)), (*ratio, SegmentValue::Exact(index + 1))], colour.filled());
            bar.set_margin(2, 2, 0, 0);
            bar
        }))?;
        area.present()?;
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn kib(number: u64) -> f64 {
    number as f64
}
