//! Cases that do not pass, each with its reason: `explained.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

/// How a case ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// As its authors want it.
    Passed,
    /// Otherwise, or not at all; with what was wrong.
    NotPassed(String),
}

/// A case that was run.
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
}

impl Case {
    /// From a line of a suite's report.
    pub(crate) fn read(line: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("{line:?}"))?;
        let text = |field: &str| value[field].as_str().with_context(|| format!("no {field:?}: {line}"));
        let verdict = match text("verdict")? {
            "passed" => Verdict::Passed,
            other => Verdict::NotPassed(format!("{other}: {}", text("detail")?)),
        };
        Ok(Self { id: text("case")?.to_owned(), name: text("name")?.to_owned(), verdict })
    }
}

/// What a case means for the run.
pub(crate) enum Outcome {
    /// It passed.
    Passed,
    /// It did not, as is known; with the reason.
    Explained(String),
    /// It did not, or did although that is not expected; with what was wrong.
    Failed(String),
}

/// The reasons, by suite and case; each is used once.
pub(crate) struct Explained {
    reasons: BTreeMap<(String, String), String>,
}

impl Explained {
    /// Reads lines of the form `SUITE CASE REASON`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut reasons = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let parts: Vec<&str> = line.splitn(3, ' ').collect();
            let [suite, case, reason] = parts[..] else { anyhow::bail!("not SUITE CASE REASON: {line:?}") };
            let earlier = reasons.insert((suite.to_owned(), case.to_owned()), reason.to_owned());
            ensure!(earlier.is_none(), "explained twice: {suite} {case}");
        }
        Ok(Self { reasons })
    }

    /// Judges a case.
    pub(crate) fn judge(&mut self, suite: &str, case: &Case) -> Outcome {
        let reason = self.reasons.remove(&(suite.to_owned(), case.id.clone()));
        match (&case.verdict, reason) {
            (Verdict::Passed, None) => Outcome::Passed,
            (Verdict::Passed, Some(reason)) => Outcome::Failed(format!("it passed, but is explained: {reason}")),
            (Verdict::NotPassed(_), Some(reason)) => Outcome::Explained(reason),
            (Verdict::NotPassed(detail), None) => Outcome::Failed(detail.clone()),
        }
    }

    /// Cases of a suite that are explained and were not run.
    pub(crate) fn left(&self, suite: &str) -> Vec<String> {
        self.reasons.keys().filter(|(of, _)| of == suite).map(|(_, case)| case.clone()).collect()
    }
}
