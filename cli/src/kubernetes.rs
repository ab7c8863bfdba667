//! The cluster that a kubeconfig names.

use anyhow::Context;
use controller::kubernetes::discovery::FOLLOWED;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::config::KubeConfigOptions;
use kube::core::{GroupVersionKind, TypeMeta};
use kube::{Api, Client, Config};
use routing::api::ObjectKind;

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
