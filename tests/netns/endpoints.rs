//! Where the requests of a backend go: EndpointSlices written by hand, VIPs that come and go, places (T-15 to T-17; C-10, C-11, D-3, D-10, D-15
//! to D-18, D-27).

mod places;
mod slices;
mod vips;

use std::fmt::Write as _;

use tests::{Bed, who, yaml};

const STORE: &str = "store.default.svc.clusterset.local";

/// A ServiceImport as an MCS implementation writes it, with one port named `http`; `spec` and `status` are further fields.
fn import(name: &str, ips: &[&str], spec: &str, status: &str) -> String {
    let comma = if spec.is_empty() { "" } else { ", " };
    format!(
        "{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {{name: {name}, namespace: default}}, spec: {{type: \
         ClusterSetIP, ips: [{}], ports: [{{name: http, port: 80, protocol: TCP}}]{comma}{spec}}}, status: {{{status}}}}}",
        ips.join(", ")
    )
}

/// Slices of one Service or import, one after the other.
struct Slices {
    labels: String,
    text: String,
}

impl Slices {
    fn of_service(name: &str) -> Self {
        Self { labels: format!("kubernetes.io/service-name: {name}"), text: String::new() }
    }

    fn of_import(name: &str) -> Self {
        Self { labels: format!("multicluster.kubernetes.io/service-name: {name}"), text: String::new() }
    }

    /// With one more, from a cluster; `ports` and `endpoints` are lists of items.
    fn with(mut self, cluster: &str, ports: &str, endpoints: &[String]) -> Self {
        let number = self.text.matches("---").count();
        // Writing into a String cannot fail.
        let _ = write!(
            self.text,
            "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {{name: by-hand-{number}, namespace: \
             default, labels: {{{}, multicluster.kubernetes.io/source-cluster: {cluster}}}}}, ports: [{ports}], endpoints: [{}]}}\n",
            self.labels,
            endpoints.join(", ")
        );
        self
    }
}

/// An endpoint of a slice: the first pod of a Deployment, `CLUSTER/NAME`.
fn endpoint(bed: &Bed, deployment: &str, conditions: &str) -> String {
    let (cluster, name) = deployment.split_once('/').expect("CLUSTER/NAME");
    let pod = bed.pod(&format!("{cluster}/default/{name}-0")).expect("a pod");
    format!("{{addresses: [{}], conditions: {{{conditions}}}}}", bed.addresses(&pod).expect("addresses")[0])
}

/// A route of `store` that sends everything to one backend.
fn to(backend: &str) -> String {
    yaml::route("store", "", &[yaml::import("store", "")], &[format!("{{backendRefs: [{backend}]}}")])
}

/// Who answers, or why nobody does.
fn answered(bed: &Bed, to: &str, target: &str) -> String {
    let answer = bed.get(to, target).expect("an answer");
    answer.reason().map_or_else(|| who(&answer), |reason| format!("{} {reason}", answer.status.as_u16()))
}

/// Status, reason and message of a condition of a route's first parent.
fn condition(bed: &Bed, route: &str, condition: &str) -> (String, String, String) {
    let route = bed.route_status("west", "default", route).expect("a status");
    let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|found| found["type"] == condition).unwrap_or_default();
    let text = |field: &str| found[field].as_str().map_or_else(|| format!("none: {route}"), str::to_owned);
    (text("status"), text("reason"), text("message"))
}
