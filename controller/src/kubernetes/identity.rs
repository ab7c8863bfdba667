//! Who a sidecar is: its pod's service-account token, made for us alone, reviewed by the API server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tracing::warn;

use super::in_time;

/// The audience that a sidecar's token is made for: no other server's tokens are taken, and no other server takes these.
pub const AUDIENCE: &str = "isthmus.dev/controller";
/// Reviews at once, when all sidecars come back together.
const REVIEWS_MAX: usize = 32;
/// A review, or a look at a node, takes no longer: the sidecar tries again.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// A node's zone is asked for again after this time.
const ZONE_AGE_MAX: Duration = Duration::from_secs(600);
/// Nodes remembered; beyond it all are forgotten and asked for again.
const ZONES_MAX: usize = 16_384;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What a token says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Namespace of its service account, hence of the pod.
    pub namespace: String,
    /// The pod it is bound to.
    pub pod: String,
    /// That pod's node, if the API server says so.
    pub node: Option<String>,
}

/// Reviews tokens and finds the zones of nodes.
#[derive(Clone)]
pub struct Reviewer {
    client: Client,
    reviews: Arc<Semaphore>,
    zones: Arc<Mutex<BTreeMap<String, (Instant, String)>>>,
}

impl Reviewer {
    /// A reviewer that asks this API server.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, reviews: Arc::new(Semaphore::new(REVIEWS_MAX)), zones: Arc::default() }
    }

    /// Who sends a request.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a token that is good for us and bound to a pod; `UNAVAILABLE` if that cannot be found out now.
    pub async fn identify(&self, metadata: &MetadataMap) -> Result<Identity, Status> {
        let token = metadata.get("authorization").and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Status::unauthenticated("authorization: a service-account token is missing"))?;
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let _turn = self.reviews.acquire().await.map_err(|_| Status::unavailable("the controller ends"))?;
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let reviewed = in_time(REVIEW_TIMEOUT, reviews.create(&PostParams::default(), &review)).await;
        let status =
            reviewed.map_err(|error| Status::unavailable(format!("the token cannot be reviewed: {error}")))?.status.unwrap_or_default();
        let is_for_us = status.audiences.as_ref().is_some_and(|audiences| audiences.iter().any(|audience| audience == AUDIENCE));
        if status.authenticated != Some(true) || !is_for_us {
            let why = status.error.unwrap_or_else(|| format!("it is not made for {AUDIENCE}"));
            return Err(Status::unauthenticated(format!("authorization: the token is not accepted: {why}")));
        }
        identity(status.user.unwrap_or_default())
    }

    /// The zone of a node; empty if it has none or cannot be found out.
    pub async fn zone(&self, node: &str) -> String {
        if let Some((since, zone)) = self.zones.lock().get(node)
            && since.elapsed() < ZONE_AGE_MAX
        {
            return zone.clone();
        }
        let zone = match in_time(REVIEW_TIMEOUT, Api::<Node>::all(self.client.clone()).get_metadata(node)).await {
            Ok(node) => node.metadata.labels.unwrap_or_default().remove(ZONE_LABEL).unwrap_or_default(),
            Err(error) => {
                warn!(node, %error, "its zone cannot be found out");
                return String::new();
            }
        };
        let zones = &mut *self.zones.lock();
        if zones.len() >= ZONES_MAX {
            zones.clear();
        }
        zones.insert(node.to_owned(), (Instant::now(), zone.clone()));
        zone
    }
}

fn identity(user: UserInfo) -> Result<Identity, Status> {
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let (namespace, _) = account.ok_or_else(|| Status::unauthenticated(format!("authorization: {name:?} is no service account")))?;
    let mut extra = user.extra.unwrap_or_default();
    let mut only = |key: &str| extra.remove(&format!("authentication.kubernetes.io/{key}")).and_then(|values| values.into_iter().next());
    let pod = only("pod-name").ok_or_else(|| Status::unauthenticated("authorization: the token is bound to no pod"))?;
    Ok(Identity { namespace: namespace.to_owned(), pod, node: only("node-name") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, extra: &[(&str, &str)]) -> UserInfo {
        let extra = extra.iter().map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![(*value).to_owned()])).collect();
        UserInfo { username: Some(name.to_owned()), extra: Some(extra), ..UserInfo::default() }
    }

    #[test]
    fn a_token_of_a_pod_says_namespace_pod_and_node() {
        let known = identity(user("system:serviceaccount:shop:default", &[("pod-name", "web-1"), ("node-name", "n1")])).expect("a pod");
        assert_eq!(known, Identity { namespace: "shop".to_owned(), pod: "web-1".to_owned(), node: Some("n1".to_owned()) });
    }

    #[test]
    fn who_is_no_pod_is_refused() {
        for (name, extra) in [("alice", &[("pod-name", "web-1")][..]), ("system:serviceaccount:shop:default", &[])] {
            let status = identity(user(name, extra)).expect_err("no pod");
            assert_eq!(status.code(), tonic::Code::Unauthenticated, "{name}");
        }
    }
}
