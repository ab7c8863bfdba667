//! The mutating admission webhook: gives pods their sidecar when they are made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use kube::{Api, Client};
use serde_json::Value;
use tracing::{debug, info, warn};

use crate::inject::{Outcome, Settings, inject, pod_security_warning};

/// The API server's own maximum of a request is 3 MiB; a review has the object and room for the old one.
const REVIEW_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What became of pods.
#[derive(Debug, Default)]
pub struct Counts {
    /// Pods that were given a sidecar.
    pub injected: AtomicU64,
    /// Pods that were left as they are.
    pub skipped: AtomicU64,
    /// Pods that were refused.
    pub refused: AtomicU64,
}

/// The webhook.
pub struct Webhook {
    /// For the labels of namespaces.
    pub client: Client,
    /// What is injected.
    pub settings: Settings,
    /// What became of pods.
    pub counts: Arc<Counts>,
}

/// Its routes.
pub fn router(webhook: Webhook) -> Router {
    Router::new().route("/inject", post(review)).layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX)).with_state(Arc::new(webhook))
}

async fn review(
    State(webhook): State<Arc<Webhook>>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
) -> Result<Json<AdmissionReview<DynamicObject>>, (StatusCode, String)> {
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| (StatusCode::BAD_REQUEST, "the review has no request\n".to_owned()))?;
    let response = webhook.answer(&request).await;
    Ok(Json(response.into_review()))
}

impl Webhook {
    async fn answer(&self, request: &AdmissionRequest<DynamicObject>) -> AdmissionResponse {
        let allowed = AdmissionResponse::from(request);
        let namespace = request.namespace.clone().unwrap_or_default();
        let Some(pod) = request.object.as_ref().and_then(|pod| serde_json::to_value(pod).ok()) else { return allowed };
        // Pods of a controller have no name yet.
        let name = pod["metadata"]["name"].as_str().or(pod["metadata"]["generateName"].as_str()).unwrap_or_default().to_owned();
        let labels = self.labels(&namespace).await;
        match inject(&pod, &labels, &self.settings) {
            Ok(Outcome::Injected(after)) => {
                self.counts.injected.fetch_add(1, Ordering::Relaxed);
                info!(namespace, pod = name, "injected");
                let mut response = patched(allowed, &pod, &after);
                response.warnings = pod_security_warning(&namespace, &labels).map(|warning| vec![warning]);
                response
            }
            Ok(Outcome::Skipped(why)) => {
                self.counts.skipped.fetch_add(1, Ordering::Relaxed);
                debug!(namespace, pod = name, %why, "not injected");
                allowed
            }
            Err(refused) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                warn!(namespace, pod = name, %refused, "refused");
                allowed.deny(format!("Isthmus: {refused}"))
            }
        }
    }

    /// The webhook is asked only for namespaces and pods that want it: without an answer the pod's own word counts, or the namespace's
    /// label, by which the API server has chosen it.
    async fn labels(&self, namespace: &str) -> BTreeMap<String, String> {
        match Api::<Namespace>::all(self.client.clone()).get_metadata(namespace).await {
            Ok(namespace) => namespace.metadata.labels.unwrap_or_default(),
            Err(error) => {
                warn!(namespace, %error, "its labels cannot be read");
                BTreeMap::from([(crate::inject::NAMESPACE_LABEL.to_owned(), "enabled".to_owned())])
            }
        }
    }
}

fn patched(response: AdmissionResponse, before: &Value, after: &Value) -> AdmissionResponse {
    match response.clone().with_patch(json_patch::diff(before, after)) {
        Ok(patched) => patched,
        // A pod without a sidecar is better than none.
        Err(error) => {
            warn!(%error, "the patch cannot be written");
            response
        }
    }
}
