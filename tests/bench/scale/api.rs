//! As much of an API server as a controller needs that lists and watches: objects in memory, changes as they come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::objects::{Mesh, Object};

/// Group and version, kinds and their plurals.
const SERVED: [(&str, &[(&str, &str)]); 4] = [
    ("v1", &[("Service", "services"), ("ConfigMap", "configmaps")]),
    ("gateway.networking.k8s.io/v1", &[("HTTPRoute", "httproutes")]),
    ("multicluster.x-k8s.io/v1beta1", &[("ServiceImport", "serviceimports")]),
    ("discovery.k8s.io/v1", &[("EndpointSlice", "endpointslices")]),
];
/// Changes that a watch may be behind.
const CHANGES_MAX: usize = 65_536;

#[derive(Debug)]
struct Objects {
    version: u64,
    by_plural: BTreeMap<String, BTreeMap<String, Value>>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    objects: Arc<Mutex<Objects>>,
    changes: broadcast::Sender<(String, Arc<str>)>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    watch: String,
}

impl Server {
    /// Serves, and writes the kubeconfig that leads here.
    pub(crate) async fn start(mesh: &Mesh, folder: &Path) -> anyhow::Result<(Self, PathBuf)> {
        let objects = Objects { version: 1, by_plural: BTreeMap::new() };
        let server = Self { objects: Arc::new(Mutex::new(objects)), changes: broadcast::Sender::new(CHANGES_MAX) };
        mesh.all().for_each(|object| server.put(object));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", listener.local_addr()?)}}],
            "users": [{"name": "bench", "user": {}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        let path = folder.join("kubeconfig");
        std::fs::write(&path, kubeconfig.to_string())?;
        let router = Router::new().fallback(answer).with_state(server.clone());
        // Ends with the bench.
        // A real one does not hold events back until the last ones are acknowledged either; where this cannot be had they come later, no more.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok((server, path))
    }

    /// Adds or replaces an object.
    pub(crate) fn put(&self, (plural, mut object): Object) {
        let objects = &mut *self.objects.lock();
        objects.version += 1;
        object["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        let name = format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
        let all = objects.by_plural.entry(plural.to_owned()).or_default();
        let kind = if all.contains_key(&name) { "MODIFIED" } else { "ADDED" };
        // What it is comes first, as an API server writes it: who reads it need not keep the object until then.
        let change = format!("{{\"type\":{},\"object\":{object}}}\n", json!(kind));
        all.insert(name, object);
        // Nobody watches yet, at first.
        let _ = self.changes.send((plural.to_owned(), change.into()));
    }

    fn list(&self, plural: &str) -> Value {
        let objects = self.objects.lock();
        let items: Vec<&Value> = objects.by_plural.get(plural).into_iter().flat_map(BTreeMap::values).collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": objects.version.to_string()}, "items": items})
    }

    fn watch(&self, plural: String) -> Response {
        let changes = BroadcastStream::new(self.changes.subscribe());
        let lines = changes.filter_map(move |change| {
            // One that lags loses its stream, and lists again.
            let line = match change {
                Ok((of, line)) => (of == plural).then(|| Ok(line.as_bytes().to_vec())),
                Err(error) => Some(Err(error)),
            };
            std::future::ready(line)
        });
        Response::new(Body::from_stream(lines))
    }
}

async fn answer(State(server): State<Server>, Query(asked): Query<Asked>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let resources = SERVED.iter().find(|(version, _)| path == format!("/apis/{version}") || path == format!("/api/{version}"));
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_list = last == "customresourcedefinitions" || SERVED.iter().any(|(_, kinds)| kinds.iter().any(|(_, plural)| *plural == last));
    match (request.method(), path.as_str()) {
        (_, "/version") => Json(json!({
            "major": "1", "minor": "37", "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "",
            "compiler": "", "platform": "",
        }))
        .into_response(),
        (_, "/apis") => {
            let groups = SERVED.iter().filter_map(|(version, _)| {
                let (group, number) = version.split_once('/')?;
                let version = json!({"groupVersion": version, "version": number});
                Some(json!({"name": group, "versions": [version], "preferredVersion": version}))
            });
            Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()})).into_response()
        }
        _ if let Some((version, kinds)) = resources => {
            let resources = kinds.iter().map(
                |(kind, plural)| json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["list", "watch"]}),
            );
            let resources: Vec<Value> = resources.collect();
            Json(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})).into_response()
        }
        (&Method::GET, _) if is_list && asked.watch == "true" => server.watch(last.to_owned()),
        (&Method::GET, _) if is_list => Json(server.list(last)).into_response(),
        // A secret that is made is not kept: nobody reads it again.
        (&Method::POST, _) if last == "secrets" => (StatusCode::CREATED, request.into_body()).into_response(),
        _ => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": format!("{path} is not here"),
                "reason": "NotFound", "code": 404,
            });
            (StatusCode::NOT_FOUND, Json(status)).into_response()
        }
    }
}
