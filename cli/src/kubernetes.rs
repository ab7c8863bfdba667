//! The cluster that a kubeconfig names.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser as _;
use controller::kubernetes::MANAGER;
use controller::kubernetes::discovery::FOLLOWED;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::client::ClientBuilder;
use kube::config::KubeConfigOptions;
use kube::core::{GroupVersionKind, TypeMeta};
use kube::{Api, Client, Config, ResourceExt as _};
use routing::api::ObjectKind;
use routing::world::Settings;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::timeout::TimeoutLayer;
use tower::util::MapRequestLayer;

use crate::progress;

/// The sidecar's container.
pub(crate) const SIDECAR: &str = "isthmus-sidecar";
/// Where a sidecar tells its own state, inside the pod.
pub(crate) const SIDECAR_ADMIN_PORT: u16 = 15000;
/// Where a controller tells what it knows.
const CONTROLLER_ADMIN_PORT: u16 = 15011;
/// More than anybody can read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A pod that does not answer within this time is not waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An API server that has not begun to answer a request within this time is not waited for.
const API_TIMEOUT: Duration = Duration::from_secs(60);

/// A client of its API server; without a context of the current one, or of the pod's own.
pub(crate) async fn client(context: Option<&String>) -> anyhow::Result<Client> {
    let options = KubeConfigOptions { context: context.cloned(), ..KubeConfigOptions::default() };
    let config = match context {
        Some(_) => Config::from_kubeconfig(&options).await.context("--context")?,
        None => Config::infer().await.context("neither a kubeconfig nor a service account")?,
    };
    // Ends with the runtime of the one call that it is for.
    tokio::spawn(progress::show());
    let layers = (TimeoutLayer::new(API_TIMEOUT), MapRequestLayer::new(progress::asks));
    Ok(ClientBuilder::try_from(config)?.with_layer(&layers).build())
}

/// All objects of a kind, in the first version that is served; none if it is not served at all.
pub(crate) async fn list(client: &Client, kind: ObjectKind) -> kube::Result<Vec<DynamicObject>> {
    let Some(followed) = FOLLOWED.iter().find(|followed| followed.kind == kind) else { return Ok(Vec::new()) };
    for version in followed.versions {
        let kind = GroupVersionKind::gvk(followed.group, version, kind.as_str());
        let resource = ApiResource::from_gvk_with_plural(&kind, followed.plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        match api.list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            listed => {
                // The items of a list do not say what they are.
                let types = TypeMeta { api_version: resource.api_version, kind: resource.kind };
                return listed
                    .map(|list| list.items.into_iter().map(|item| DynamicObject { types: Some(types.clone()), ..item }).collect());
            }
        }
    }
    Ok(Vec::new())
}

/// What a port inside a pod answers, by a port forward.
pub(crate) async fn get_json(pods: &Api<Pod>, pod: &str, port: u16, path: &str) -> anyhow::Result<Value> {
    let answered = async {
        let body = Limited::new(get(pods, pod, port, path).await?, ANSWER_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed)?;
        anyhow::Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    let place = || format!("port {port} inside pod {pod}");
    tokio::time::timeout(ANSWER_TIMEOUT, answered).await.with_context(place)?.with_context(place)
}

/// The same line by line, each for as long as the last one was wanted.
pub(crate) async fn get_lines<F: Future<Output = bool>>(
    pods: &Api<Pod>,
    pod: &str,
    port: u16,
    path: &str,
    each: impl Fn(&str) -> F,
) -> anyhow::Result<()> {
    let place = || format!("port {port} inside pod {pod}");
    let mut body = tokio::time::timeout(ANSWER_TIMEOUT, get(pods, pod, port, path)).await.with_context(place)?.with_context(place)?;
    let mut begun = Vec::new();
    while let Some(frame) = body.frame().await {
        begun.extend_from_slice(frame.with_context(place)?.data_ref().map_or(&[][..], |data| data));
        ensure!(begun.len() <= ANSWER_BYTES_MAX, "{}: a line without an end", place());
        while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = begun.drain(..=end).collect();
            if !each(&String::from_utf8_lossy(&line)).await {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The body of a good answer.
async fn get(pods: &Api<Pod>, pod: &str, port: u16, path: &str) -> anyhow::Result<Incoming> {
    let mut forwarded = pods.portforward(pod, &[port]).await?;
    let stream = forwarded.take_stream(port).context("no stream")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the runtime of the one call that it is for.
    tokio::spawn(async move {
        let _forwarded = forwarded;
        connection.await
    });
    let request = Request::get(path).header("host", "localhost").header("connection", "close").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(status != StatusCode::NOT_FOUND, "{path} is not known there: another version");
    if !status.is_success() {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed)?;
        bail!("{path}: {status}: {}", String::from_utf8_lossy(&body.to_bytes()).trim_end());
    }
    Ok(response.into_body())
}

pub(crate) fn has_running_sidecar(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    is_running(pod) && containers.into_iter().any(|container| container.name == SIDECAR)
}

/// What every running replica of the controller answers, and which could not be asked.
pub(crate) async fn ask_controllers<T: DeserializeOwned>(
    client: &Client,
    namespace: &str,
    path: &str,
) -> anyhow::Result<(Vec<(String, T)>, Vec<String>)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let replicas = pods.list(&ListParams::default().labels(&format!("app.kubernetes.io/name={MANAGER}"))).await?.items;
    // Those that are ending still serve sidecars.
    let replicas: Vec<String> = replicas.iter().filter(|pod| runs(pod)).map(Pod::name_any).collect();
    ensure!(!replicas.is_empty(), "no controller runs in namespace {namespace}: --controller-namespace");
    let (mut answers, mut unasked) = (Vec::new(), Vec::new());
    for name in replicas {
        let answer = get_json(&pods, &name, CONTROLLER_ADMIN_PORT, path).await.and_then(|answer| Ok(serde_json::from_value(answer)?));
        match answer {
            Ok(answer) => answers.push((name, answer)),
            Err(error) => unasked.push(format!("{error:#}")),
        }
    }
    Ok((answers, unasked))
}

pub(crate) fn is_running(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && runs(pod)
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// How the controller reads objects: by the arguments of its Deployment.
pub(crate) async fn settings(client: &Client, namespace: &str) -> anyhow::Result<Settings> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployment = deployments.get(MANAGER).await.with_context(|| format!("Deployment {namespace}/{MANAGER}: --controller-namespace"))?;
    let containers = deployment.spec.template.spec.map(|spec| spec.containers).unwrap_or_default();
    let arguments = containers.into_iter().flat_map(|container| container.args.unwrap_or_default());
    let config = controller::config::Config::try_parse_from([MANAGER.to_owned()].into_iter().chain(arguments));
    Ok(config.with_context(|| format!("arguments of Deployment {namespace}/{MANAGER}, perhaps of another version"))?.settings())
}
