//! XMesh: says that this mesh has accepted it and what it supports (GEP-3949), while this replica leads.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use routing::status::{CONTROLLER_NAME, Condition};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use super::discovery::{MESH, Served};
use super::{CALL_TIMEOUT, in_time};
use crate::status::conditions;

/// What this mesh claims, by the names of the Gateway API's features, sorted as the API wants it.
pub(super) const SUPPORTED_FEATURES: [&str; 17] = [
    "GRPCRoute",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];
/// After an error or a change of the leader.
const PAUSE: Duration = Duration::from_secs(2);

/// Keeps the status of every XMesh of ours, without end.
pub(super) async fn keep_status(client: Client, mut served: watch::Receiver<Option<Served>>, mut leadership: watch::Receiver<bool>) {
    loop {
        if leadership.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        let resource = served.borrow_and_update().as_ref().and_then(|served| served.get(MESH.2).cloned());
        let Some(resource) = resource else {
            if served.changed().await.is_err() {
                return;
            }
            continue;
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let follow = async {
            let mut meshes = pin!(watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects());
            while let Some(mesh) = meshes.next().await {
                match mesh {
                    Ok(mesh) => accept(&api, mesh).await,
                    Err(error) => warn!(%error, "XMesh"),
                }
            }
        };
        tokio::select! {
            () = follow => {}
            _ = leadership.wait_for(|leads| !*leads) => {}
            _ = served.changed() => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn accept(api: &Api<DynamicObject>, mesh: DynamicObject) {
    if mesh.data["spec"]["controllerName"] != CONTROLLER_NAME {
        return;
    }
    let accepted = Condition {
        kind: "Accepted",
        status: true,
        reason: "Accepted",
        message: "The mesh is here".to_owned(),
        observed_generation: mesh.metadata.generation.unwrap_or(1),
    };
    let before = mesh.data["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let features: Vec<Value> = SUPPORTED_FEATURES.iter().map(|name| json!({"name": name})).collect();
    let status = json!({"conditions": conditions(&[accepted], before, Timestamp::now()), "supportedFeatures": features});
    if mesh.data["status"] == status {
        return;
    }
    let patch = json!({"metadata": {"resourceVersion": mesh.metadata.resource_version}, "status": status});
    match in_time(CALL_TIMEOUT, api.patch_status(&mesh.name_any(), &PatchParams::default(), &Patch::Merge(&patch))).await {
        Ok(_) => info!(mesh = mesh.name_any(), "XMesh accepted"),
        // Somebody else's change comes by the watch.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => warn!(%error, mesh = mesh.name_any(), "status of XMesh"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_claimed_is_what_the_conformance_suite_is_run_with() {
        let script = include_str!("../../../tests/conformance/run-upstream");
        let list = script.split_once("features=(").and_then(|(_, rest)| rest.split_once("\n)")).map(|(list, _)| list);
        let lines = list.expect("a list of features").lines().filter(|line| !line.trim_start().starts_with('#'));
        let run: BTreeSet<&str> = lines.flat_map(str::split_whitespace).collect();
        assert_eq!(run, BTreeSet::from(SUPPORTED_FEATURES));
        assert!(SUPPORTED_FEATURES.is_sorted(), "the API wants them sorted");
    }
}
