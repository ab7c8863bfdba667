//! What is written to a status: of a route per parent (digest S-1 to S-8), of a policy per target (digest S-9).

use std::num::NonZeroU16;

use serde_json::Value;

use crate::model::BackendFault;
use crate::parse::{Fault, FaultReason};

/// `controllerName` of our entries.
pub const CONTROLLER_NAME: &str = "isthmus.dev/mesh";

/// Kubernetes' maximum of a condition's message, in characters.
const MESSAGE_CHARS_MAX: usize = 32_768;

/// One entry of a route's `status.parents`, or of a policy's `status.ancestors`.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryStatus {
    /// The parentRef as written in the spec; of a policy the target that is concerned.
    pub reference: Value,
    /// Accepted, ResolvedRefs and, where it holds, PartiallyInvalid.
    pub conditions: Vec<Condition>,
}

/// The condition that says whether every sidecar that a route concerns has acknowledged it.
pub const LIVE: &str = "isthmus.dev/Live";

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
pub(crate) struct Findings {
    pub(crate) generation: i64,
    /// Why it cannot be attached, if it cannot.
    pub(crate) no_parent: Option<String>,
    pub(crate) rules: usize,
    pub(crate) dropped: Vec<Fault>,
    /// Ports on which a route of a higher kind is in force.
    pub(crate) lost: Vec<NonZeroU16>,
    /// Ports on which this one is.
    pub(crate) held: Vec<NonZeroU16>,
    /// In the order of rules and backends.
    pub(crate) backends: Vec<BackendFault>,
}

/// The conditions that follow.
pub(crate) fn conditions(findings: &Findings) -> Vec<Condition> {
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
        (None, _) if !findings.lost.is_empty() && findings.held.is_empty() => {
            condition("Accepted", false, "Conflicted", format!("A route of a higher kind is in force on {}", ports(&findings.lost)))
        }
        (None, _) if !findings.lost.is_empty() => {
            let (held, lost) = (ports(&findings.held), ports(&findings.lost));
            let message = format!("The route is attached to {held}, not to {lost}: a route of a higher kind is in force there");
            condition("Accepted", true, "Accepted", message)
        }
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

fn ports(ports: &[NonZeroU16]) -> String {
    let plural = if ports.len() == 1 { "" } else { "s" };
    format!("port{plural} {}", ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// What was found out about a policy and one of its targets.
pub(crate) struct PolicyFindings {
    pub(crate) generation: i64,
    /// Reason and message, if it is not accepted.
    pub(crate) refused: Option<(&'static str, String)>,
    /// Reason and message, if something that it refers to cannot be had; none for a kind that refers to nothing.
    pub(crate) unresolved: Option<Result<(), (&'static str, String)>>,
}

/// The conditions that follow.
pub(crate) fn policy_conditions(findings: &PolicyFindings) -> Vec<Condition> {
    let condition = |kind, status, reason, message: &str| Condition {
        kind,
        status,
        reason,
        message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
        observed_generation: findings.generation,
    };
    let accepted = match &findings.refused {
        Some((reason, message)) => condition("Accepted", false, reason, message),
        None => condition("Accepted", true, "Accepted", "The policy is in force"),
    };
    let resolved = findings.unresolved.as_ref().map(|resolved| match resolved {
        Ok(()) => condition("ResolvedRefs", true, "ResolvedRefs", "Every reference leads to certificates"),
        Err((reason, message)) => condition("ResolvedRefs", false, reason, message),
    });
    [Some(accepted), resolved].into_iter().flatten().collect()
}

fn said(fault: &BackendFault) -> String {
    format!("{}: {}", fault.reason.as_str(), fault.message)
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
