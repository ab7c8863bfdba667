//! What metrics there are, read from one sample of each.

use std::collections::BTreeSet;

/// A metric.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Metric {
    /// As it is asked for; of a histogram without its suffixes.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The names of its labels.
    pub labels: BTreeSet<String>,
    /// What it means.
    pub help: String,
}

impl Metric {
    /// The names that a query may use.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", self.name)).into(),
            _ => vec![self.name.clone()],
        }
    }
}

/// All metrics of a text in Prometheus' format.
#[must_use]
pub fn metrics(text: &str) -> Vec<Metric> {
    let mut found: Vec<Metric> = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                found.push(Metric {
                    name: name.to_owned(),
                    kind: String::new(),
                    labels: BTreeSet::new(),
                    help: help.trim_end_matches('.').to_owned(),
                });
            }
            (Some("#"), Some("TYPE"), Some(_), Some(kind)) => {
                if let Some(metric) = found.last_mut() {
                    kind.clone_into(&mut metric.kind);
                    if kind == "counter" {
                        metric.name += "_total";
                    }
                }
            }
            _ => {
                if let (Some(metric), Some(labels)) = (found.last_mut().filter(|_| !line.starts_with('#')), labels(line)) {
                    metric.labels.extend(labels.filter(|label| *label != "le").map(str::to_owned));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    // A family that had no sample is told by the one that has.
    let told = found.clone();
    let is_told_with_labels = |metric: &Metric| told.iter().any(|other| other.name == metric.name && !other.labels.is_empty());
    found.retain(|metric| !metric.kind.is_empty() && (!metric.labels.is_empty() || !is_told_with_labels(metric)));
    found
}

/// The names of the labels of a sample.
fn labels(line: &str) -> Option<impl Iterator<Item = &str>> {
    let (_, labels) = line.split_once('{')?;
    let labels = labels.rsplit_once('}')?.0;
    Some(labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)))
}

/// All metrics of sidecars and controllers as a page of the documentation.
#[must_use]
pub fn page(sidecar: &[Metric], controller: &[Metric]) -> String {
    let row = |metric: &Metric| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |\n", metric.name, metric.kind, labels.join(", "), metric.help)
    };
    let table = |metrics: &[Metric]| {
        format!("| metric | kind | labels | meaning |\n|---|---|---|---|\n{}", metrics.iter().map(row).collect::<String>())
    };
    format!(
        "# Metrics\n\nMade from the programs themselves. A unit is the end of a name: `_seconds`, `_bytes`. Labels have values from objects and from the \
         programs alone, never\nfrom a path or a Host, and a metric has at most 2,000 series: what would be one more is counted under `overflow`.\n[Dashboards \
         and alerts](../manifests/observability/README.md) are ready to use.\n\n## Sidecar\n\nAt `/metrics` of port 15020 of a pod.\n\n{}\n## Controller\n\nAt \
         `/metrics` of port 15011 of each replica, which speaks for the sidecars that it serves.\n\n{}",
        table(sidecar),
        table(controller)
    )
}
