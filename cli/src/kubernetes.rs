//! The cluster that a kubeconfig names.

use std::time::Duration;

use anyhow::Context;
use clap::Parser as _;
use controller::kubernetes::MANAGER;
use controller::kubernetes::discovery::FOLLOWED;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::config::KubeConfigOptions;
use kube::core::{GroupVersionKind, TypeMeta};
use kube::{Api, Client, Config};
use routing::api::ObjectKind;
use routing::world::Settings;
use serde_json::Value;

/// The sidecar's container.
pub(crate) const SIDECAR: &str = "isthmus-sidecar";
/// More than anybody can read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A pod that does not answer within this time is not waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of its API server; without a context of the current one, or of the pod's own.
pub(crate) async fn client(context: Option<&String>) -> anyhow::Result<Client> {
    let options = KubeConfigOptions { context: context.cloned(), ..KubeConfigOptions::default() };
    let config = match context {
        Some(_) => Config::from_kubeconfig(&options).await.context("--context")?,
        None => Config::infer().await.context("neither a kubeconfig nor a service account")?,
    };
    Ok(Client::try_from(config)?)
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
        let mut forwarded = pods.portforward(pod, &[port]).await?;
        let stream = forwarded.take_stream(port).context("no stream")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the runtime of the one call that it is for.
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").header("connection", "close").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed)?;
        anyhow::Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    let place = || format!("port {port} inside pod {pod}");
    tokio::time::timeout(ANSWER_TIMEOUT, answered).await.with_context(place)?.with_context(place)
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
