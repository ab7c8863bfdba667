//! What operators ask: is it alive, is it ready, what has it done, what is in force?

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use routing::model::Addresses;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

use crate::snapshot::{LiveBackend, LiveFrontend};
use crate::telemetry::{TooMany, Wanted};
use crate::worker::Shared;

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// The data path.
    pub(crate) shared: Arc<Shared>,
    /// Whether the first state is in force.
    pub(crate) ready: watch::Receiver<bool>,
    /// `/startupz` waits until then.
    pub(crate) startup_until: Instant,
}

impl Admin {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// For a kubelet and Prometheus: tells nothing about routes.
pub(crate) fn health(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// For the pod itself.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new().route("/config", get(config)).route("/tap", get(tap)).with_state(admin.clone()).merge(health(admin))
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if *admin.ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the first state is not in force yet\n")
    }
}

/// Answers as soon as the first state is in force. When its time is over, the pod may go without: a controller that is away keeps no
/// application from starting, and its connections pass through until there is a state.
async fn startupz(State(mut admin): State<Admin>) -> &'static str {
    let ready = admin.ready.wait_for(|ready| *ready);
    if tokio::time::timeout_at(admin.startup_until.into(), ready).await.is_ok() {
        return "ok\n";
    }
    if admin.shared.telemetry.started_without_state() {
        warn!("no state in time: the pod starts all the same, and its connections pass through");
    }
    "the first state is not in force yet; connections pass through\n"
}

async fn metrics(State(admin): State<Admin>) -> Result<impl IntoResponse, StatusCode> {
    let shared = &admin.shared;
    let encoded = shared.telemetry.encode(&shared.live.load(), shared.connector.count(), admin.now_ms());
    let text = encoded.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, proto::OPENMETRICS)], text))
}

/// Requests as they end, one JSON line each, for as long as somebody reads them.
async fn tap(State(admin): State<Admin>, Query(wanted): Query<Wanted>) -> Result<impl IntoResponse, (StatusCode, String)> {
    let lines = admin.shared.telemetry.taps.listen(wanted);
    let lines = lines.map_err(|error: TooMany| (StatusCode::TOO_MANY_REQUESTS, format!("{error}\n")))?;
    let lines = futures::stream::unfold(lines, |mut lines| async { Some((Ok::<_, Infallible>(lines.recv().await?), lines)) });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)))
}

/// The live snapshot, and the connections that pass it by because they are older than their routes.
async fn config(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.shared.live.load_full();
    let now_ms = admin.now_ms();
    let mut vips: Vec<_> = snapshot.vips.iter().map(|(address, id)| json!({"address": address, "frontend": id.to_string()})).collect();
    vips.sort_by_key(|vip| vip["address"].to_string());
    let mut frontends: Vec<_> = snapshot.frontends.values().map(|live| frontend(live, now_ms)).collect();
    frontends.sort_by_key(|frontend| frontend["name"].to_string());
    let older = admin.shared.pass_throughs.list(|destination| snapshot.vips.contains_key(&destination));
    Json(json!({
        "ready": *admin.ready.borrow(),
        "vips": vips,
        "frontends": frontends,
        "pass_through_older_than_routes": older,
    }))
}

fn frontend(live: &LiveFrontend, now_ms: u64) -> Value {
    let routes = live.table.frontend().routes.iter().zip(&live.rules).map(|(route, rules)| {
        let rules = route.rules.iter().zip(rules).map(|(rule, live)| {
            let backends = rule.backends.iter().zip(&live.backends).map(|(weighted, backend)| match (&weighted.target, backend) {
                (routing::model::BackendTarget::Invalid(fault), _) => {
                    json!({"weight": weighted.weight, "invalid": fault.message, "reason": format!("{:?}", fault.reason)})
                }
                (routing::model::BackendTarget::Backend(id), None) => json!({"weight": weighted.weight, "name": id.to_string()}),
                (routing::model::BackendTarget::Backend(_), Some(live)) => backend_json(weighted.weight, live, now_ms),
            });
            json!({
                "rule": &*live.rule,
                "matches": rule.matches.iter().map(|matched| format!("{matched:?}")).collect::<Vec<_>>(),
                "filters": rule.filters.iter().map(|filter| format!("{filter:?}")).collect::<Vec<_>>(),
                "backends": backends.collect::<Vec<_>>(),
                "request_timeout_ms": rule.timeouts.request.map(millis),
                "backend_request_timeout_ms": rule.timeouts.backend_request.map(millis),
                "retry": rule.retry.as_ref().map(|retry| format!("{retry:?}")),
                "session_persistence": rule.persistence.as_ref().map(|persistence| format!("{persistence:?}")),
            })
        });
        json!({
            "namespace": route.namespace, "name": route.name, "generation": route.generation,
            "hostnames": route.hostnames.iter().map(|pattern| format!("{pattern:?}")).collect::<Vec<_>>(),
            "rules": rules.collect::<Vec<_>>(),
        })
    });
    let kind = live.table.frontend().kind.as_str();
    json!({"name": &*live.name, "version": live.version, "kind": kind, "routes": routes.collect::<Vec<_>>()})
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn backend_json(weight: u32, live: &LiveBackend, now_ms: u64) -> Value {
    let kind = match live.model.addresses {
        Addresses::Endpoints(_) => "endpoints",
        Addresses::Vips(_) => "vips",
    };
    let addresses = live.v4.iter().chain(&live.v6);
    let addresses: Vec<_> = addresses
        .map(|endpoint| json!({"address": endpoint.address, "cluster": &*endpoint.cluster, "ejected": endpoint.state.is_ejected(now_ms)}))
        .collect();
    let tls = live.tls.as_ref().map(|tls| tls.as_ref().map_or_else(ToString::to_string, |_| "by policy".to_owned()));
    json!({"weight": weight, "name": &*live.name, "protocol": format!("{:?}", live.model.protocol), "tls": tls, kind: addresses})
}
