//! What is written to a route's status, per parent (digest S-1 to S-8).

use serde_json::Value;

use crate::model::BackendFault;
use crate::parse::{Fault, FaultReason};

/// `controllerName` of our entries.
pub const CONTROLLER_NAME: &str = "isthmus.dev/mesh";

/// Kubernetes' maximum of a condition's message, in characters.
const MESSAGE_CHARS_MAX: usize = 32_768;

/// One entry of `status.parents`.
#[derive(Clone, Debug, PartialEq)]
pub struct ParentStatus {
    /// As written in the spec.
    pub parent_ref: Value,
    /// Accepted, ResolvedRefs and, where it holds, PartiallyInvalid.
    pub conditions: Vec<Condition>,
}

/// A condition without its transition time, which depends on what was written before.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// `type`.
    pub kind: &'static str,
    /// `status`.
    pub status: bool,
    /// `reason`.
    pub reason: &'static str,
    /// For the one who reads it.
    pub message: String,
    /// `metadata.generation` it speaks of.
    pub observed_generation: i64,
}

/// What was found out about a route and one of its parents.
pub(crate) struct Findings<'a> {
    pub(crate) generation: i64,
    /// Why it cannot be attached, if it cannot.
    pub(crate) no_parent: Option<String>,
    pub(crate) rules: usize,
    pub(crate) dropped: Vec<&'a Fault>,
    /// In the order of rules and backends.
    pub(crate) backends: Vec<BackendFault>,
}

/// The conditions that follow.
pub(crate) fn conditions(findings: &Findings<'_>) -> Vec<Condition> {
    let condition = |kind, status, reason, message: String| Condition {
        kind,
        status,
        reason,
        message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
        observed_generation: findings.generation,
    };
    let all_dropped = findings.dropped.len() == findings.rules;
    let accepted = match (&findings.no_parent, findings.dropped.first()) {
        (Some(why), _) => condition("Accepted", false, "NoMatchingParent", why.clone()),
        (None, Some(first)) if all_dropped => condition("Accepted", false, first.reason.as_str(), joined(&findings.dropped)),
        (None, _) => condition("Accepted", true, "Accepted", "The route is attached".to_owned()),
    };
    let resolved = match findings.backends.first() {
        Some(first) => {
            condition("ResolvedRefs", false, first.reason.as_str(), joined(&findings.backends.iter().map(said).collect::<Vec<_>>()))
        }
        None => condition("ResolvedRefs", true, "ResolvedRefs", "Every reference leads to a backend".to_owned()),
    };
    let partial = accepted.status && !findings.dropped.is_empty();
    let invalid = partial.then(|| {
        condition("PartiallyInvalid", true, FaultReason::UnsupportedValue.as_str(), format!("Dropped Rule: {}", joined(&findings.dropped)))
    });
    [Some(accepted), Some(resolved), invalid].into_iter().flatten().collect()
}

fn said(fault: &BackendFault) -> String {
    format!("{}: {}", fault.reason.as_str(), fault.message)
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
