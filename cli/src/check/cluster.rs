//! What the cluster itself has to have: version, kinds, VIPs, packets that reach a pod's own rules, a clock.

use controller::kubernetes::discovery::FOLLOWED;
use controller::kubernetes::has_native_sidecars;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::DynamicObject;
use routing::api::ObjectKind;
use routing::model::RouteKind;

use super::{Cluster, Findings};
use crate::kubernetes::list;

/// Certificates and tokens are worth nothing when clocks differ by more.
const CLOCK_DIFFERENCE_MAX_S: i64 = 60;

/// Whether there is an API server, and how its clock stands to ours.
pub(super) async fn version(cluster: &Cluster, findings: &mut Findings) -> bool {
    let version = match cluster.client.apiserver_version().await {
        Ok(version) => version,
        Err(error) => {
            findings.fail("api server", format!("does not answer: {error}"), "see that the kubeconfig's context is the one you mean");
            return false;
        }
    };
    match has_native_sidecars(&cluster.client).await {
        Ok(true) => findings.ok("api server", version.git_version),
        Ok(false) => findings.warn(
            "api server",
            format!("{} is before 1.29: no native sidecars", version.git_version),
            "interception is by ranges, and Jobs do not end by themselves; update the cluster for exact interception",
        ),
        Err(error) => findings.unknown("api server", &error),
    }
    clock(cluster, findings).await;
    true
}

async fn clock(cluster: &Cluster, findings: &mut Findings) {
    let asked = async {
        let request = http::Request::get("/version").body(Vec::new().into()).map_err(|error| error.to_string())?;
        let response = cluster.client.send(request).await.map_err(|error| error.to_string())?;
        let date = response.headers().get("date").and_then(|date| date.to_str().ok()).ok_or("its answer has no date")?;
        let there = rfc2822::parse(date).map_err(|error| error.to_string())?.timestamp();
        Ok::<_, String>(Timestamp::now().as_second() - there.as_second())
    };
    match asked.await {
        Ok(difference) if difference.abs() <= CLOCK_DIFFERENCE_MAX_S => {
            findings.ok("clock", format!("{difference} s from the API server's"))
        }
        Ok(difference) => findings.warn(
            "clock",
            format!("{difference} s from the API server's"),
            "let both follow a time server: certificates and tokens of a wrong time are refused",
        ),
        Err(error) => findings.unknown("clock", &error),
    }
}

/// Which versions of the kinds are served.
pub(super) async fn kinds(cluster: &Cluster, findings: &mut Findings) {
    let groups = match cluster.client.list_api_groups().await {
        Ok(groups) => groups.groups,
        Err(error) => return findings.unknown("kinds", &error),
    };
    for followed in FOLLOWED.iter().filter(|followed| !followed.group.is_empty()) {
        let name = format!("{}.{}", followed.plural, followed.group);
        let versions = groups.iter().filter(|group| group.name == followed.group).flat_map(|group| &group.versions);
        let versions: Vec<&str> = versions.map(|version| version.version.as_str()).collect();
        let mut served = None;
        for version in followed.versions.iter().filter(|version| versions.contains(version)) {
            let list = cluster.client.list_api_group_resources(&format!("{}/{version}", followed.group)).await;
            if list.is_ok_and(|list| list.resources.iter().any(|resource| resource.name == followed.plural)) {
                served = Some(*version);
                break;
            }
        }
        match (served, followed.kind) {
            (Some(version), _) => findings.ok("kinds", format!("{name} {version}")),
            (None, ObjectKind::ServiceImport) => findings.fail(
                "kinds",
                format!("{name} is not served ({})", followed.versions.join(" or ")),
                "install an MCS provider: it brings the CRDs of the MCS API",
            ),
            (None, ObjectKind::Route(RouteKind::Http)) => findings.fail(
                "kinds",
                format!("{name} is not served ({})", followed.versions.join(" or ")),
                "install the CRDs of the Gateway API, v1.2 or later",
            ),
            (None, _) => findings.warn(
                "kinds",
                format!("{name} is not served ({})", followed.versions.join(" or ")),
                "nothing to do unless you want it; then install the CRDs of the Gateway API's experimental channel",
            ),
        }
    }
}

/// A ServiceImport without a VIP has nothing that could be dialled.
pub(super) async fn clusterset_ips(cluster: &Cluster, findings: &mut Findings) {
    let imports = match list(&cluster.client, ObjectKind::ServiceImport).await {
        Ok(imports) => imports,
        Err(error) => return findings.unknown("vips", &error),
    };
    let has_no_vip = |import: &&DynamicObject| {
        let spec = &import.data["spec"];
        spec["type"] != "Headless" && spec["ips"].as_array().is_none_or(Vec::is_empty)
    };
    let without: Vec<String> = imports.iter().filter(has_no_vip).map(full_name).collect();
    if without.is_empty() {
        findings.ok("vips", format!("each of {} ServiceImports has its ClusterSetIP", imports.len()));
    } else {
        findings.warn(
            "vips",
            format!("no ClusterSetIP yet: {}", without.join(", ")),
            "see what the MCS provider says; routes on them wait",
        );
    }
}

/// `namespace/name`.
pub(super) fn full_name(object: &DynamicObject) -> String {
    let metadata = &object.metadata;
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// Cilium may translate a VIP when a socket connects, before any rule of the pod is asked.
pub(super) async fn socket_load_balancing(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "socket load balancing";
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
    let data = match maps.get_opt("cilium-config").await {
        Ok(Some(map)) => map.data.unwrap_or_default(),
        Ok(None) => return findings.ok(CHECK, "none: there is no Cilium here"),
        Err(error) => return findings.unknown(CHECK, &error),
    };
    let is = |name: &str| data.get(name).is_some_and(|value| value == "true");
    if (is("bpf-lb-sock") || is("kube-proxy-replacement")) && !is("bpf-lb-sock-hostns-only") {
        findings.fail(
            CHECK,
            "Cilium translates VIPs inside every pod's sockets: no sidecar ever sees them",
            "set socketLB.hostNamespaceOnly=true in Cilium's Helm values (bpf-lb-sock-hostns-only) and restart its agents",
        );
    } else {
        findings.ok(CHECK, "Cilium leaves pods' sockets alone");
    }
}
