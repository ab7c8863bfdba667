//! The mutating admission webhook: gives pods their sidecar when they are made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

use crate::inject::{NAMESPACE_LABEL, Outcome, Settings, inject, pod_security_warning};
use crate::kubernetes::in_time;

/// The API server's own maximum of a request is 3 MiB; a review has the object and room for the old one.
const REVIEW_BYTES_MAX: usize = 8 * 1024 * 1024;

/// For a namespace's labels; the API server waits 5 s for the whole answer.
const LABELS_TIMEOUT: Duration = Duration::from_secs(2);

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

/// Its routes: one for namespaces that ask for sidecars, one for pods that do so themselves.
pub fn router(webhook: Webhook) -> Router {
    let asked_by = |chosen: Chosen| post(move |webhook, body| review(webhook, body, chosen));
    Router::new()
        .route("/inject", asked_by(Chosen::Namespace))
        .route("/inject/pod", asked_by(Chosen::Pod))
        .layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX))
        .with_state(Arc::new(webhook))
}

/// By what the API server has chosen the webhook.
#[derive(Clone, Copy, Debug)]
enum Chosen {
    /// The namespace's label.
    Namespace,
    /// The pod's own word.
    Pod,
}

async fn review(
    State(webhook): State<Arc<Webhook>>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
    chosen: Chosen,
) -> Result<Json<AdmissionReview<DynamicObject>>, (StatusCode, String)> {
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_| (StatusCode::BAD_REQUEST, "the review has no request\n".to_owned()))?;
    let response = webhook.answer(&request, chosen).await;
    Ok(Json(response.into_review()))
}

impl Webhook {
    async fn answer(&self, request: &AdmissionRequest<DynamicObject>, chosen: Chosen) -> AdmissionResponse {
        let allowed = AdmissionResponse::from(request);
        let namespace = request.namespace.clone().unwrap_or_default();
        let Some(pod) = request.object.as_ref().and_then(|pod| serde_json::to_value(pod).ok()) else { return allowed };
        // Pods of a controller have no name yet.
        let name = pod["metadata"]["name"].as_str().or(pod["metadata"]["generateName"].as_str()).unwrap_or_default().to_owned();
        let labels = self.labels(&namespace, chosen).await;
        match inject(&pod, &labels, &self.settings) {
            Ok(Outcome::Injected { pod: after, warnings }) => {
                self.counts.injected.fetch_add(1, Ordering::Relaxed);
                info!(namespace, pod = name, "injected");
                // Whoever makes a pod is told, and that is often a controller.
                warnings.iter().for_each(|warning| warn!(namespace, pod = name, warning, "injected"));
                let mut response = patched(allowed, &pod, &after);
                let warnings: Vec<String> = pod_security_warning(&namespace, &labels)
                    .into_iter()
                    .chain(warnings.iter().map(|warning| format!("Isthmus: {warning}")))
                    .collect();
                response.warnings = (!warnings.is_empty()).then_some(warnings);
                response
            }
            Ok(Outcome::Skipped(why)) => {
                self.counts.skipped.fetch_add(1, Ordering::Relaxed);
                debug!(namespace, pod = name, %why, "not injected");
                let mut response = allowed;
                response.warnings = why.is_missed().then(|| vec![format!("Isthmus: no sidecar: {why}")]);
                response
            }
            Err(refused) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                warn!(namespace, pod = name, %refused, "refused");
                allowed.deny(format!("Isthmus: {refused}"))
            }
        }
    }

    /// Without an answer in time it counts by what the API server has chosen the webhook: the namespace's label, or the pod's own word.
    async fn labels(&self, namespace: &str, chosen: Chosen) -> BTreeMap<String, String> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        match in_time(LABELS_TIMEOUT, namespaces.get_metadata(namespace)).await {
            Ok(namespace) => namespace.metadata.labels.unwrap_or_default(),
            Err(error) => {
                warn!(namespace, %error, "its labels cannot be read");
                match chosen {
                    Chosen::Namespace => BTreeMap::from([(NAMESPACE_LABEL.to_owned(), "enabled".to_owned())]),
                    Chosen::Pod => BTreeMap::new(),
                }
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
