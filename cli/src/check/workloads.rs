//! What runs on the mesh: namespaces that want it, pods that do not have it, routes that others claim too.

use std::collections::BTreeMap;

use controller::inject::{NAMESPACE_LABEL, STATUS_ANNOTATION, pod_security_warning, skipped, without_effect};
use controller::kubernetes::discovery::FOLLOWED;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use routing::status::CONTROLLER_NAME;
use serde_json::Value;

use super::cluster::full_name;
use super::{Cluster, Findings};
use crate::kubernetes::list;

/// More are counted and not named.
const NAMED_MAX: usize = 50;
/// Pods asked for at once.
const PODS_PAGE: u32 = 500;

/// Every pod of a namespace that asks for sidecars has one, of this version, or says itself that it wants none.
pub(super) async fn namespaces(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "injection";
    let enabled = ListParams::default().labels(&format!("{NAMESPACE_LABEL}=enabled"));
    let namespaces = match Api::<Namespace>::all(cluster.client.clone()).list(&enabled).await {
        Ok(namespaces) => namespaces.items,
        Err(error) => return findings.unknown(CHECK, &error),
    };
    let enabled: BTreeMap<String, BTreeMap<String, String>> =
        namespaces.iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect();
    for (name, labels) in &enabled {
        if let Some(warning) = pod_security_warning(name, labels) {
            findings.fail(
                "pod security",
                warning,
                format!("kubectl label namespace {name} --overwrite pod-security.kubernetes.io/enforce=privileged"),
            );
        }
    }
    let (mut injected, mut without, mut old, mut vain) = (0, Vec::new(), Vec::new(), Vec::new());
    let mut pages = ListParams::default().limit(PODS_PAGE);
    loop {
        let page = match Api::<Pod>::all(cluster.client.clone()).list(&pages).await {
            Ok(page) => page,
            Err(error) => return findings.unknown(CHECK, &error),
        };
        for pod in page.items.iter().filter(|pod| wants_sidecar(cluster, pod, &enabled)) {
            let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
            let version = version(pod);
            let said = serde_json::to_value(pod).map(|pod| without_effect(&pod)).unwrap_or_default();
            vain.extend(version.is_some().then(|| said.first().map(|said| format!("{name} ({said})"))).flatten());
            match version {
                None => without.push(name),
                Some(version) if version != env!("CARGO_PKG_VERSION") => old.push(format!("{name} ({version})")),
                Some(_) => injected += 1,
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => pages = pages.continue_token(&token),
            None => break,
        }
    }
    if without.is_empty() {
        findings.ok(CHECK, format!("{injected} pods have their sidecar; {} namespaces ask for it", enabled.len()));
    } else {
        let message = format!("pods without a sidecar, to which no route applies: {}", named(&without));
        findings.fail(CHECK, message, "make them anew: kubectl -n NAMESPACE rollout restart deployment NAME");
    }
    if !old.is_empty() {
        findings.warn(CHECK, format!("sidecars of another version: {}", named(&old)), "make these pods anew when it suits you");
    }
    if !vain.is_empty() {
        findings.warn(CHECK, format!("what is said in vain: {}", named(&vain)), "docs/install.md, Injection, has all that can be said");
    }
}

fn named(list: &[String]) -> String {
    let rest = list.len().saturating_sub(NAMED_MAX);
    let named = list.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if rest == 0 { named } else { format!("{named} and {rest} more") }
}

/// One that runs and, by its own word or its namespace's, should have been given a sidecar.
fn wants_sidecar(cluster: &Cluster, pod: &Pod, enabled: &BTreeMap<String, BTreeMap<String, String>>) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let namespace = pod.namespace().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") || pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    // The webhook is never asked there.
    if namespace == "kube-system" || namespace == cluster.namespace {
        return false;
    }
    let labels = enabled.get(&namespace).cloned().unwrap_or_default();
    serde_json::to_value(pod).is_ok_and(|pod| matches!(skipped(&pod, &labels), Ok(None)))
}

/// What injection noted on a pod.
fn version(pod: &Pod) -> Option<String> {
    let note: Value = serde_json::from_str(pod.annotations().get(STATUS_ANNOTATION)?).ok()?;
    Some(note["version"].as_str()?.to_owned())
}

/// Routes whose parents somebody else claims as well.
pub(super) async fn routes(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "routes";
    let (mut ours, mut shared, mut wrong) = (0, Vec::new(), Vec::new());
    for kind in FOLLOWED.iter().map(|followed| followed.kind).filter(|kind| kind.has_status()) {
        let objects = match list(&cluster.client, kind).await {
            Ok(objects) => objects,
            Err(error) => {
                findings.unknown(CHECK, &error);
                continue;
            }
        };
        for object in objects {
            let name = format!("{} {}", kind.as_str(), full_name(&object));
            // Of a route its parents, of a policy its ancestors.
            let status = &object.data["status"];
            let entries = status["parents"].as_array().or(status["ancestors"].as_array()).map_or(&[][..], Vec::as_slice);
            let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER_NAME;
            for entry in entries.iter().filter(is_ours) {
                ours += 1;
                let claims =
                    |other: &&Value| !is_ours(other) && other.get("parentRef").is_some() && other["parentRef"] == entry["parentRef"];
                let others = entries.iter().filter(claims);
                shared.extend(others.map(|other| format!("{name} by {}", other["controllerName"].as_str().unwrap_or_default())));
                wrong.extend(complaints(entry).map(|why| format!("{name} ({why})")));
            }
        }
    }
    if shared.is_empty() {
        findings.ok(CHECK, format!("{ours} parents of routes are ours, none is claimed by anybody else"));
    } else {
        findings.warn(
            CHECK,
            format!("parents that others claim too: {}", named(&shared)),
            "both meshes would obey them; leave Services to the other one with --parents service-import, or remove one",
        );
    }
    if !wrong.is_empty() {
        wrong.dedup();
        let message = format!("with something to mend: {}", named(&wrong));
        findings.warn(CHECK, message, "kubectl describe says what, in conditions and events");
    }
}

/// Conditions of an entry that say that something is wrong, as `type: reason`.
fn complaints(entry: &Value) -> impl Iterator<Item = String> {
    let conditions = entry["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    conditions.iter().filter_map(move |condition| {
        let kind = text(condition, "type");
        let bad = match kind.as_str() {
            "Accepted" | "ResolvedRefs" => "False",
            "PartiallyInvalid" | "Conflicted" => "True",
            _ => return None,
        };
        (condition["status"] == bad).then(|| format!("{kind}: {}", text(condition, "reason")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_user_has_to_mend_is_named() {
        let entry = json!({"conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted"},
            {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound"},
            {"type": "PartiallyInvalid", "status": "True", "reason": "UnsupportedValue"},
            {"type": "example.org/Else", "status": "False", "reason": "No"},
        ]});
        assert_eq!(complaints(&entry).collect::<Vec<_>>(), ["ResolvedRefs: BackendNotFound", "PartiallyInvalid: UnsupportedValue"]);
        assert_eq!(complaints(&json!({})).count(), 0);
    }
}
