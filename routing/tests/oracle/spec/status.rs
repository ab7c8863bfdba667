//! What is written to a route's status (S-1 to S-8).

use serde_json::Value;

use super::{attach, items, namespace, text, valid};

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    /// "Copy parentRef VERBATIM from spec" (S-2).
    pub(crate) parent: Value,
    pub(crate) accepted: bool,
    pub(crate) reason: String,
    pub(crate) is_partially_invalid: bool,
    /// Ports that its message must name, since a higher kind has them.
    pub(crate) lost: Vec<i64>,
}

/// "One entry per spec.parentRef we own" (S-2): Services and ServiceImports (M-2).
pub(crate) fn of(objects: &[Value], route: &Value) -> Vec<Said> {
    let is_ours = |parent: &&Value| {
        let is_import = parent["group"] == "multicluster.x-k8s.io" && parent["kind"] == "ServiceImport";
        is_import || ((parent["group"] == "" || parent["group"] == "core") && parent["kind"] == "Service")
    };
    items(&route["spec"]["parentRefs"]).filter(is_ours).map(|parent| entry(objects, route, parent)).collect()
}

fn entry(objects: &[Value], route: &Value, parent: &Value) -> Said {
    let (written, valid) = (valid::written(route).len(), valid::rules(route).len());
    let frontend = objects.iter().find(|object| attach::is(parent, route, object));
    let ports = frontend.map(|frontend| attach::ports(parent, frontend)).unwrap_or_default();
    let rank = |kind: &str| attach::KINDS.iter().position(|other| *other == kind);
    let is_lost = |port: &i64| {
        let is_same = |object: &&Value| frontend.is_some_and(|frontend| *object == frontend || attach::stands_for(frontend, object));
        let kinds = objects.iter().filter(is_same).flat_map(|object| attach::kinds_on(objects, object, *port, namespace(route)));
        kinds.into_iter().any(|kind| rank(kind) < rank(text(&route["kind"])))
    };
    let lost: Vec<i64> = ports.iter().copied().filter(is_lost).collect();
    // The matrix of S-8, from the top.
    let (accepted, reason) = if ports.is_empty() {
        (false, "NoMatchingParent")
    } else if valid == 0 {
        (false, valid::reason(route))
    } else if lost.len() == ports.len() {
        (false, "Conflicted")
    } else {
        (true, "Accepted")
    };
    // "only when some rules valid and some not ... MUST NOT be set if a Route is fully valid, fully invalid, or not accepted" (S-6).
    let is_partially_invalid = accepted && valid < written;
    let lost = if matches!(reason, "Accepted" | "Conflicted") { lost } else { Vec::new() };
    Said { parent: parent.clone(), accepted, reason: reason.to_owned(), is_partially_invalid, lost }
}
