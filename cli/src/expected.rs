//! What an example says that its client sees: `expected.yaml` beside the clusters' folders.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

/// One request and what becomes of it. What is not said may be anything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// `CLUSTER/NAMESPACE/NAME` of the pod that asks.
    pub(crate) from: Option<String>,
    /// `HOST:PORT`, or `HOST` for port 80.
    pub(crate) to: String,
    /// `METHOD TARGET`.
    pub(crate) request: String,
    /// Header fields, `NAME: VALUE`.
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    /// Status of the answer.
    pub(crate) status: Option<u16>,
    /// How often it is asked; once where nothing is said.
    #[serde(default = "once")]
    pub(crate) times: usize,
    /// Beginnings of the names `CLUSTER/NAMESPACE/POD` that may have answered; asked more than once, each of them has to have.
    #[serde(default)]
    pub(crate) served_by: Vec<String>,
    /// `NAMESPACE/NAME` of the route that decided.
    pub(crate) route: Option<String>,
    /// Its rule, by name or position.
    pub(crate) rule: Option<String>,
    /// Why a sidecar answered itself.
    pub(crate) reason: Option<String>,
}

fn once() -> usize {
    1
}

/// Reads the file if it is there.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Option<Vec<Case>>> {
    let path = folder.join("expected.yaml");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let documents = routing::manifest::parse(&text).with_context(|| path.display().to_string())?;
    let Some(document) = documents.into_iter().next() else { bail!("{}: empty", path.display()) };
    Vec::<Case>::deserialize(document.value).map(Some).with_context(|| path.display().to_string())
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) served_by: Vec<String>,
    pub(crate) route: String,
    pub(crate) rule: String,
    pub(crate) reason: Option<String>,
}

impl Case {
    /// How `seen` differs from what is expected; empty if it does not.
    pub(crate) fn differences(&self, seen: &Seen) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, expected: Option<String>, got: String| {
            if let Some(expected) = expected
                && expected != got
            {
                found.push(format!("{what} {got:?} instead of {expected:?}"));
            }
        };
        compare("status", self.status.map(|status| status.to_string()), seen.status.to_string());
        compare("route", self.route.clone(), seen.route.clone());
        compare("rule", self.rule.clone(), seen.rule.clone());
        compare("reason", self.reason.clone(), seen.reason.clone().unwrap_or_default());
        let nobody = ["a sidecar".to_owned()];
        let served_by = if seen.served_by.is_empty() { &nobody[..] } else { &seen.served_by };
        let is_expected = |name: &String| self.served_by.iter().any(|expected| name.starts_with(expected.as_str()));
        if !self.served_by.is_empty()
            && let Some(name) = served_by.iter().find(|name| !is_expected(name))
        {
            found.push(format!("served by {name} instead of {}", self.served_by.join(" or ")));
        }
        if self.times > 1 {
            let missing = self.served_by.iter().filter(|expected| !served_by.iter().any(|name| name.starts_with(expected.as_str())));
            found.extend(missing.map(|name| format!("never served by {name}")));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_compared_and_nothing_else() {
        let case = Case { status: Some(200), served_by: vec!["west/default/cart".to_owned()], ..Case::default() };
        let seen = Seen { status: 200, served_by: vec!["west/default/cart-0".to_owned()], route: "x/y".to_owned(), ..Seen::default() };
        assert!(case.differences(&seen).is_empty());
        assert_eq!(case.differences(&Seen { status: 404, served_by: Vec::new(), ..seen }).len(), 2);
    }
}
