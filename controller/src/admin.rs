//! What operators and tests ask: is it alive, is it ready, who is connected, has everyone got the newest state?

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use routing::graph::{Loads, svg};
use routing::world::Settings;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::debug;

use crate::index::Index;
use crate::kubernetes::peers::Peers;
use crate::live::{RouteLive, list, lives};
use crate::load::Reports;
use crate::registry::Registry;
use crate::source::Loaded;
use crate::webhook::Counts;

/// `/await` waits this long if it is not told how long.
const AWAIT_DEFAULT: Duration = Duration::from_secs(5);
/// And never longer than this.
const AWAIT_MAX: Duration = Duration::from_secs(60);

/// What was asked of other replicas for a picture serves all who look at it within this time.
const LOADS_KEPT: Duration = Duration::from_secs(1);

/// What the answers are made of.
#[derive(Clone)]
pub struct Admin {
    /// The objects.
    pub index: Arc<Index>,
    /// The sidecars.
    pub registry: Arc<Registry>,
    /// The source.
    pub loaded: Arc<Mutex<Loaded>>,
    /// What the webhook did.
    pub counts: Arc<Counts>,
    /// What sidecars tell of requests.
    pub reports: Arc<Reports>,
    /// The other replicas.
    pub peers: Arc<OnceLock<Peers>>,
    /// What was last known of requests: when, what, and whether a replica could not be asked.
    pub kept: Arc<tokio::sync::Mutex<Option<(Instant, Loads, bool)>>>,
}

#[derive(Deserialize)]
struct Awaited {
    digest: Option<String>,
    #[serde(default)]
    sidecars: usize,
    timeout_ms: Option<u64>,
}

/// The routes of the admin port.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/sidecars", get(sidecars))
        .route("/live", get(live))
        .route("/graph", get(graph))
        .route("/load", get(load))
        .route("/version", get(|| async { Json(json!({"version": env!("CARGO_PKG_VERSION")})) }))
        .route("/await", get(settled))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.loaded.lock().complete {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the source has not been read yet\n")
    }
}

async fn metrics(State(admin): State<Admin>) -> Result<impl IntoResponse, StatusCode> {
    let text = admin.metrics().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, proto::OPENMETRICS)], text))
}

/// One sample of every metric of a controller in Prometheus' text format, for documentation and for tests.
///
/// # Errors
/// Never: text takes everything in.
pub fn sample_metrics() -> Result<String, std::fmt::Error> {
    let index = Arc::new(Index::new(Settings::default()));
    let admin = Admin {
        index,
        registry: Arc::default(),
        loaded: Arc::default(),
        counts: Arc::default(),
        reports: Arc::default(),
        peers: Arc::default(),
        kept: Arc::default(),
    };
    admin.metrics()
}

impl Admin {
    fn metrics(&self) -> Result<String, std::fmt::Error> {
        let mut registry = prometheus_client::registry::Registry::with_prefix("isthmus_controller");
        let loaded = self.loaded.lock().clone();
        let sidecars = self.registry.sidecars();
        let synced = sidecars.iter().filter(|sidecar| sidecar.progress.acknowledged).count();
        let rejecting = sidecars.iter().filter(|sidecar| !sidecar.progress.rejected.is_empty()).count();
        let lives = lives(&self.index, &sidecars);
        let lagging = lives.values().filter(|live| !live.is_everywhere()).count();
        for (name, help, value) in [
            ("leader", "1: this replica writes statuses", usize::from(loaded.leads)),
            ("routes", "Routes that are attached to a parent", lives.len()),
            ("routes_lagging", "Attached routes that a sidecar of this replica has not acknowledged", lagging),
            ("objects", "Objects in force", loaded.objects),
            ("source_problems", "Files and objects of the source that cannot be read", loaded.problems),
            (
                "source_kinds_failing",
                "Kinds that cannot be followed at the moment: what is known of them stays in force",
                loaded.failing.len(),
            ),
            ("source_kinds_missing", "Kinds that the API server does not serve", loaded.missing.len()),
            ("disputed_addresses", "Addresses that unrelated Services or ServiceImports claim", self.index.disputes().len()),
            ("sidecars", "Connected sidecars", sidecars.len()),
            ("sidecars_acknowledged", "Connected sidecars that acknowledged everything they were sent", synced),
            ("sidecars_rejecting", "Connected sidecars that rejected a resource", rejecting),
        ] {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        }
        for (name, help, counter) in [
            ("pods_injected", "Pods that were given a sidecar", &self.counts.injected),
            ("pods_skipped", "Pods that the webhook left as they are", &self.counts.skipped),
            ("pods_refused", "Pods that the webhook refused", &self.counts.refused),
        ] {
            let counted: Counter = Counter::default();
            counted.inc_by(counter.load(Ordering::Relaxed));
            registry.register(name, help, counted);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

async fn sidecars(State(admin): State<Admin>) -> Json<Value> {
    let list = admin.registry.sidecars().into_iter().map(|sidecar| {
        json!({
            "namespace": sidecar.node.namespace, "pod": sidecar.node.pod, "cluster": sidecar.node.cluster, "node": sidecar.node.node,
            "version": sidecar.node.version, "connected_s": sidecar.since.elapsed().as_secs(), "is_current": sidecar.is_current(),
            "progress": sidecar.progress,
        })
    });
    Json(list.collect())
}

/// What leads where, as a page that shows itself: no script, nothing from elsewhere. `namespace` chooses whose frontends.
async fn graph(State(admin): State<Admin>, Query(drawn): Query<Drawn>) -> Html<String> {
    let (loads, unheard) = admin.loads().await;
    let picture = svg(&admin.index.graph(drawn.namespace.as_deref()).with(&loads));
    let unheard = if unheard { "<p>Not all replicas of the controller could be asked: rates are too low.</p>\n" } else { "" };
    Html(format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Isthmus</title></head><body>\n{unheard}{picture}</body></html>\n"
    ))
}

impl Admin {
    /// What the sidecars of all replicas have told; and whether some of these could not be asked. Asked once within [`LOADS_KEPT`], however many
    /// look at the picture.
    async fn loads(&self) -> (Loads, bool) {
        let mut kept = self.kept.lock().await;
        if let Some((_, loads, unheard)) = kept.as_ref().filter(|(at, ..)| at.elapsed() < LOADS_KEPT) {
            return (loads.clone(), *unheard);
        }
        let answers = match self.peers.get() {
            Some(peers) => peers.ask::<Loads>("/load").await.unwrap_or_else(|error| vec![Err(error)]),
            None => Vec::new(),
        };
        let (mut heard, mut unheard) = (vec![self.reports.loads()], false);
        for answer in answers {
            match answer {
                Ok(loads) => heard.push(loads),
                Err(error) => {
                    debug!(error = format!("{error:#}"), "another replica cannot be asked");
                    unheard = true;
                }
            }
        }
        let loads = Loads::together(heard);
        *kept = Some((Instant::now(), loads.clone(), unheard));
        (loads, unheard)
    }
}

#[derive(Deserialize)]
struct Drawn {
    namespace: Option<String>,
}

/// How far routes have come among the sidecars of this replica.
async fn live(State(admin): State<Admin>) -> Json<Vec<RouteLive>> {
    Json(list(lives(&admin.index, &admin.registry.sidecars())))
}

/// What the sidecars of this replica have told of requests.
async fn load(State(admin): State<Admin>) -> Json<Loads> {
    Json(admin.reports.loads())
}

/// Answers as soon as the source has the digest and every sidecar obeys it; 504 with the reason if that takes too long.
async fn settled(State(admin): State<Admin>, Query(awaited): Query<Awaited>) -> (StatusCode, Json<Value>) {
    let timeout = awaited.timeout_ms.map_or(AWAIT_DEFAULT, Duration::from_millis).min(AWAIT_MAX);
    let end = Instant::now() + timeout;
    let mut changes = admin.registry.changes();
    loop {
        changes.borrow_and_update();
        let Some(reason) = admin.unsettled(&awaited) else { return (StatusCode::OK, Json(json!({"settled": true}))) };
        let woken = tokio::time::timeout_at(end.into(), changes.changed()).await;
        if !matches!(woken, Ok(Ok(()))) {
            return (StatusCode::GATEWAY_TIMEOUT, Json(json!({"settled": false, "reason": reason})));
        }
    }
}

impl Admin {
    /// What is still to come.
    fn unsettled(&self, awaited: &Awaited) -> Option<String> {
        let loaded = self.loaded.lock().clone();
        if !loaded.complete {
            return Some("the source has not been read yet".to_owned());
        }
        if awaited.digest.is_some() && awaited.digest != loaded.digest {
            return Some(format!("the source has digest {}", loaded.digest.unwrap_or_default()));
        }
        let sidecars = self.registry.sidecars();
        if sidecars.len() < awaited.sidecars {
            return Some(format!("{} sidecars are connected", sidecars.len()));
        }
        let behind = sidecars.iter().find(|sidecar| !sidecar.is_current());
        behind.map(|sidecar| format!("{}/{} has not acknowledged yet", sidecar.node.namespace, sidecar.node.pod))
    }
}
