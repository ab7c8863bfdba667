//! Manifests, as short as they can be.

use std::fmt::Write as _;

/// Documents of one file.
#[must_use]
pub fn all(documents: &[String]) -> String {
    documents.join("\n---\n")
}

/// A pod `client` with a sidecar.
#[must_use]
pub fn client(namespace: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: client, namespace: {namespace}, labels: {{isthmus.dev/inject: enabled}}}}, \
         spec: {{containers: [{{name: client}}]}}}}"
    )
}

/// A Deployment whose pods serve HTTP on 8080, and its Service on port 80.
#[must_use]
pub fn app(name: &str, namespace: &str, replicas: usize) -> String {
    all(&[deployment(name, namespace, replicas, "[{containerPort: 8080}]"), service(name, namespace, "[{port: 80, targetPort: 8080}]", "")])
}

/// The same, exported to the ClusterSet.
#[must_use]
pub fn exported(name: &str, namespace: &str, replicas: usize) -> String {
    all(&[app(name, namespace, replicas), export(name, namespace)])
}

/// A Deployment with container ports.
#[must_use]
pub fn deployment(name: &str, namespace: &str, replicas: usize, ports: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{replicas: {replicas}, \
         template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: server, ports: {ports}}}]}}}}}}}}"
    )
}

/// A Service with ports, for the Deployment of the same name; `more` is further fields of its spec.
#[must_use]
pub fn service(name: &str, namespace: &str, ports: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{selector: {{app: {name}}}, ports: \
         {ports}{comma}{more}}}}}"
    )
}

/// A ServiceExport.
#[must_use]
pub fn export(name: &str, namespace: &str) -> String {
    format!("{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {{name: {name}, namespace: {namespace}}}}}")
}

/// A reference to a ServiceImport; `more` is further fields.
#[must_use]
pub fn import(name: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!("{{group: multicluster.x-k8s.io, kind: ServiceImport, name: {name}{comma}{more}}}")
}

/// An HTTPRoute; `metadata` is further fields beside the name, `parents` and `rules` are lists of items.
#[must_use]
pub fn route(name: &str, metadata: &str, parents: &[String], rules: &[String]) -> String {
    let comma = if metadata.is_empty() { "" } else { ", " };
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}{comma}{metadata}}}\nspec:\n  parentRefs: [{}]\n  \
         rules:\n",
        parents.join(", ")
    );
    for rule in rules {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  - {rule}");
    }
    text
}

/// A rule: everything under a prefix goes to one ServiceImport.
#[must_use]
pub fn to_import(prefix: &str, name: &str) -> String {
    format!("{{matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}], backendRefs: [{}]}}", import(name, ""))
}
