//! What the controller may do on the API server: all that it uses and nothing else. The manifests grant it, `isthmus check` asks for it.

use super::MANAGER;
use super::certificates::SECRET;
use super::discovery::{FOLLOWED, MESH};

/// One verb on one resource.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Access {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, with its subresource after a slash.
    pub resource: String,
    /// Verb.
    pub verb: &'static str,
    /// Only this object; none: all of them.
    pub name: Option<&'static str>,
    /// Only in the controller's own namespace.
    pub own_namespace: bool,
}

fn access(group: &'static str, resource: impl Into<String>, verb: &'static str) -> Access {
    Access { group, resource: resource.into(), verb, name: None, own_namespace: false }
}

/// All of it; `webhook` is the name of the MutatingWebhookConfiguration.
#[must_use]
pub fn needed(webhook: &'static str) -> Vec<Access> {
    let (mesh_group, _, mesh) = MESH;
    let followed = FOLLOWED.iter().map(|followed| (followed.group, followed.plural, followed.kind.has_status()));
    let mut all = Vec::new();
    for (group, plural, has_status) in followed.chain([(mesh_group, mesh, true)]) {
        all.extend(["list", "watch"].map(|verb| access(group, plural, verb)));
        if has_status {
            all.push(access(group, format!("{plural}/status"), "patch"));
        }
    }
    all.extend(["list", "watch"].map(|verb| access("apiextensions.k8s.io", "customresourcedefinitions", verb)));
    all.extend([
        access("networking.k8s.io", "servicecidrs", "list"),
        access("", "namespaces", "get"),
        access("", "nodes", "get"),
        access("events.k8s.io", "events", "create"),
        access("events.k8s.io", "events", "patch"),
        access("authentication.k8s.io", "tokenreviews", "create"),
    ]);
    let named = |group, resource: &str, verb, name| Access { name: Some(name), ..access(group, resource, verb) };
    let webhooks = "mutatingwebhookconfigurations";
    all.extend(["get", "patch"].map(|verb| named("admissionregistration.k8s.io", webhooks, verb, webhook)));
    let own = |access: Access| Access { own_namespace: true, ..access };
    all.extend(["get", "patch"].map(|verb| own(named("coordination.k8s.io", "leases", verb, MANAGER))));
    all.push(own(named("", "secrets", "get", SECRET)));
    all.extend([access("coordination.k8s.io", "leases", "create"), access("", "secrets", "create")].map(own));
    all
}
