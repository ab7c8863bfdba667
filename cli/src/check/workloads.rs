//! What runs on the mesh: namespaces that want it, pods that do not have it, routes that others claim too.

use std::collections::BTreeMap;

use controller::inject::{NAMESPACE_LABEL, STATUS_ANNOTATION, pod_security_warning};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use routing::status::CONTROLLER_NAME;
use serde_json::Value;

use super::cluster::{ROUTES, full_name};
use super::{Cluster, Findings};

/// More are counted and not named.
const NAMED_MAX: usize = 50;

/// Every pod of a namespace that asks for sidecars has one, of this version, or says itself that it wants none.
pub(super) async fn namespaces(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "injection";
    let enabled = ListParams::default().labels(&format!("{NAMESPACE_LABEL}=enabled"));
    let namespaces = match Api::<Namespace>::all(cluster.client.clone()).list(&enabled).await {
        Ok(namespaces) => namespaces.items,
        Err(error) => return findings.unknown(CHECK, &error),
    };
    let (mut injected, mut without, mut old) = (0, Vec::new(), Vec::new());
    for namespace in &namespaces {
        let name = namespace.name_any();
        let labels: BTreeMap<String, String> = namespace.labels().clone();
        if let Some(warning) = pod_security_warning(&name, &labels) {
            findings.fail(
                "pod security",
                warning,
                format!("kubectl label namespace {name} --overwrite pod-security.kubernetes.io/enforce=privileged"),
            );
        }
        let pods = match Api::<Pod>::namespaced(cluster.client.clone(), &name).list(&ListParams::default()).await {
            Ok(pods) => pods.items,
            Err(error) => return findings.unknown(CHECK, &error),
        };
        for pod in pods.iter().filter(|pod| wants_sidecar(pod)) {
            match version(pod) {
                None => without.push(format!("{name}/{}", pod.name_any())),
                Some(version) if version != env!("CARGO_PKG_VERSION") => old.push(format!("{name}/{} ({version})", pod.name_any())),
                Some(_) => injected += 1,
            }
        }
    }
    if without.is_empty() {
        findings.ok(CHECK, format!("{injected} pods in {} namespaces have their sidecar", namespaces.len()));
    } else {
        let message = format!("pods without a sidecar, to which no route applies: {}", named(&without));
        findings.fail(CHECK, message, "make them anew: kubectl -n NAMESPACE rollout restart deployment NAME");
    }
    if !old.is_empty() {
        findings.warn(CHECK, format!("sidecars of another version: {}", named(&old)), "make these pods anew when it suits you");
    }
}

fn named(list: &[String]) -> String {
    let rest = list.len().saturating_sub(NAMED_MAX);
    let named = list.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if rest == 0 { named } else { format!("{named} and {rest} more") }
}

/// One that runs, has said nothing against it and is not in the host's network.
fn wants_sidecar(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let spec = pod.spec.as_ref();
    let says_no = |map: &BTreeMap<String, String>| map.get(controller::inject::POD_ANNOTATION).is_some_and(|value| value == "false");
    !matches!(phase, "Succeeded" | "Failed")
        && pod.metadata.deletion_timestamp.is_none()
        && spec.is_some_and(|spec| spec.host_network != Some(true))
        && !says_no(pod.annotations())
        && !says_no(pod.labels())
}

/// What injection noted on a pod.
fn version(pod: &Pod) -> Option<String> {
    let note: Value = serde_json::from_str(pod.annotations().get(STATUS_ANNOTATION)?).ok()?;
    Some(note["version"].as_str()?.to_owned())
}

/// Routes whose parents somebody else claims as well.
pub(super) async fn routes(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "routes";
    let (mut ours, mut shared, mut refused) = (0, Vec::new(), Vec::new());
    for kind in ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(ROUTES, "v1", kind));
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        // A kind that is not served has been said already.
        let Ok(routes) = api.list(&ListParams::default()).await else { continue };
        for route in routes.items {
            let name = format!("{kind} {}", full_name(&route));
            let parents = route.data["status"]["parents"].as_array().map_or(&[][..], Vec::as_slice);
            let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER_NAME;
            for entry in parents.iter().filter(is_ours) {
                ours += 1;
                let others = parents.iter().filter(|other| !is_ours(other) && other["parentRef"] == entry["parentRef"]);
                shared.extend(others.map(|other| format!("{name} by {}", other["controllerName"].as_str().unwrap_or_default())));
                refused.extend(refusal(entry).map(|why| format!("{name} ({why})")));
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
    if !refused.is_empty() {
        findings.warn(CHECK, format!("not accepted: {}", named(&refused)), "kubectl describe says why, in conditions and events");
    }
}

fn refusal(entry: &Value) -> Option<String> {
    let conditions = entry["conditions"].as_array()?;
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted" && condition["status"] == "False")?;
    Some(accepted["reason"].as_str().unwrap_or_default().to_owned())
}
