//! Which of the kinds that we follow the API server serves, and in which version; asked again when CRDs change.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use routing::api::{GATEWAY_GROUP, GATEWAY_GROUP_EXPERIMENTAL, MCS_GROUP, ObjectKind};
use routing::model::RouteKind;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{CALL_TIMEOUT, in_time};
use crate::source::Loaded;

/// Asked again after this time in any case: the watch on CRDs may not be permitted.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A CRD that has just changed is served a moment later.
const SETTLE: Duration = Duration::from_millis(500);
/// And an API server that does not answer is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A kind that is followed.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    /// What it is read as.
    pub kind: ObjectKind,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource name.
    pub plural: &'static str,
    /// The first that is served is taken.
    pub versions: &'static [&'static str],
}

const fn followed(kind: ObjectKind, group: &'static str, plural: &'static str, versions: &'static [&'static str]) -> Followed {
    Followed { kind, group, plural, versions }
}

/// All of them.
pub const FOLLOWED: [Followed; 11] = [
    followed(ObjectKind::Route(RouteKind::Http), GATEWAY_GROUP, "httproutes", &["v1"]),
    followed(ObjectKind::Route(RouteKind::Grpc), GATEWAY_GROUP, "grpcroutes", &["v1"]),
    followed(ObjectKind::Route(RouteKind::Tls), GATEWAY_GROUP, "tlsroutes", &["v1", "v1alpha3", "v1alpha2"]),
    followed(ObjectKind::Route(RouteKind::Tcp), GATEWAY_GROUP, "tcproutes", &["v1", "v1alpha2"]),
    followed(ObjectKind::ReferenceGrant, GATEWAY_GROUP, "referencegrants", &["v1", "v1beta1"]),
    followed(ObjectKind::BackendTlsPolicy, GATEWAY_GROUP, "backendtlspolicies", &["v1", "v1alpha3"]),
    followed(ObjectKind::BackendTrafficPolicy, GATEWAY_GROUP_EXPERIMENTAL, "xbackendtrafficpolicies", &["v1alpha1"]),
    followed(ObjectKind::ServiceImport, MCS_GROUP, "serviceimports", &["v1beta1", "v1alpha1"]),
    followed(ObjectKind::Service, "", "services", &["v1"]),
    followed(ObjectKind::EndpointSlice, "discovery.k8s.io", "endpointslices", &["v1"]),
    followed(ObjectKind::ConfigMap, "", "configmaps", &["v1"]),
];

/// XMesh, whose status says that the mesh is here (GEP-3949). It decides nothing, so that nothing waits for it.
pub const MESH: (&str, &str, &str) = (GATEWAY_GROUP_EXPERIMENTAL, "v1alpha1", "xmeshes");

/// Plural to what is served of it. Absent: nothing.
pub(super) type Served = BTreeMap<&'static str, ApiResource>;

/// Asks which kinds are served.
pub(super) struct Discovery {
    client: Client,
    loaded: Arc<Mutex<Loaded>>,
    served: watch::Sender<Option<Served>>,
}

impl Discovery {
    pub(super) fn new(client: Client, loaded: Arc<Mutex<Loaded>>) -> Self {
        Self { client, loaded, served: watch::Sender::new(None) }
    }

    /// What is served; none before the first answer.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Served>> {
        self.served.subscribe()
    }

    /// Asks, and asks again, without end.
    pub(super) async fn run(&self) {
        let crds: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(self.client.clone());
        let mut changes = pin!(watcher(crds, watcher::Config::default()).default_backoff());
        loop {
            let wait = match self.ask().await {
                Ok(served) => {
                    self.publish(served);
                    AGAIN_AFTER
                }
                Err(error) => {
                    warn!(error = format!("{error:#}"), "which kinds are served cannot be found out");
                    RETRY_AFTER
                }
            };
            let woken = tokio::time::timeout(wait, async {
                // What the watch itself lists at its start is no change; asking once more does no harm.
                while let Some(Err(_)) = changes.next().await {}
            });
            if woken.await.is_ok() {
                tokio::time::sleep(SETTLE).await;
                // What has changed together is asked for once.
                while changes.next().now_or_never().is_some() {}
            }
        }
    }

    async fn ask(&self) -> anyhow::Result<Served> {
        let mut resources: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut names: BTreeSet<String> = BTreeSet::from(["v1".to_owned()]);
        for group in self.client.list_api_groups().await?.groups {
            names.extend(group.versions.into_iter().map(|version| version.group_version).filter(|name| is_of_interest(name)));
        }
        for name in names {
            let list = match name.as_str() {
                "v1" => self.client.list_core_api_resources("v1").await?,
                name => self.client.list_api_group_resources(name).await?,
            };
            resources.insert(name, list.resources.into_iter().map(|resource| (resource.name, resource.kind)).collect());
        }
        let wanted = FOLLOWED.iter().map(|followed| (followed.group, followed.versions, followed.plural));
        let mesh = (MESH.0, std::slice::from_ref(&MESH.1), MESH.2);
        let served = wanted.chain([mesh]).filter_map(|(group, versions, plural)| {
            versions.iter().find_map(|version| {
                let kind = resources.get(&api_version(group, version))?.get(plural)?;
                let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
                Some((plural, resource))
            })
        });
        let served: Served = served.collect();
        for followed in FOLLOWED.iter().filter(|followed| !served.contains_key(followed.plural)) {
            for version in followed.versions {
                anyhow::ensure!(!self.can_be_listed(followed, version).await?, "{} are served and not named", followed.plural);
            }
        }
        Ok(served)
    }

    /// An API server that has just started may leave out kinds that it serves; what counts is whether they can be listed.
    async fn can_be_listed(&self, followed: &Followed, version: &str) -> kube::Result<bool> {
        let kind = GroupVersionKind::gvk(followed.group, version, followed.kind.as_str());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::from_gvk_with_plural(&kind, followed.plural));
        match in_time(CALL_TIMEOUT, api.list_metadata(&ListParams::default().limit(1))).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn publish(&self, served: Served) {
        let missing: BTreeSet<&'static str> =
            FOLLOWED.iter().map(|followed| followed.plural).filter(|plural| !served.contains_key(plural)).collect();
        let before = std::mem::replace(&mut self.loaded.lock().missing, missing.clone());
        for plural in missing.difference(&before) {
            warn!(kind = plural, "is not served by this cluster; it is looked for again");
        }
        for plural in before.difference(&missing) {
            info!(kind = plural, "is served now");
        }
        self.served.send_if_modified(|current| current.replace(served.clone()).as_ref() != Some(&served));
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn is_of_interest(group_version: &str) -> bool {
    let of = |group: &str, versions: &[&str]| versions.iter().any(|version| api_version(group, version) == group_version);
    of(MESH.0, &[MESH.1]) || FOLLOWED.iter().any(|followed| of(followed.group, followed.versions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_that_is_followed_can_be_read() {
        for followed in FOLLOWED {
            for version in followed.versions {
                let read = ObjectKind::of(&api_version(followed.group, version), followed.kind.as_str());
                assert_eq!(read, Some(followed.kind), "{} {version}", followed.plural);
            }
        }
    }
}
