//! The queries of a dashboard.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// A query of a panel, variables filled in.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// Title of the panel.
    pub(crate) title: String,
    /// The query.
    pub(crate) text: String,
}

/// What Grafana would fill in when everything is chosen.
const VARIABLES: [(&str, &str); 5] =
    [("$__rate_interval", "10s"), ("$namespace", ".*"), ("$frontend", ".*"), ("$pod", ".*"), ("$__range", "10m")];

/// All of a dashboard.
pub(crate) fn queries(path: &Path) -> anyhow::Result<Vec<Query>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let dashboard: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let panels = dashboard["panels"].as_array().map(Vec::as_slice).unwrap_or_default();
    let targets = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        targets.iter().map(|target| (panel["title"].as_str().unwrap_or_default(), target["expr"].as_str().unwrap_or_default()))
    });
    let filled = |text: &str| VARIABLES.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
    Ok(targets.map(|(title, text)| Query { title: title.to_owned(), text: filled(text) }).collect())
}

/// The metrics of ours that a query names; what recording rules make is none.
pub(crate) fn metrics_of(text: &str) -> Vec<String> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    let words = text.split(|character: char| !is_name(character));
    words
        .filter(|word| (word.starts_with("isthmus_sidecar_") || word.starts_with("isthmus_controller_")) && !word.contains(':'))
        .map(str::to_owned)
        .collect()
}
