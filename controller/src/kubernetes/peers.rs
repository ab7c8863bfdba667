//! The other replicas of this controller: what their sidecars say is asked of them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::{CALL_TIMEOUT, in_time};

/// Another replica that does not answer within this time is asked again later.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// Where they are found.
#[derive(Clone)]
pub struct Peers {
    /// The API server.
    pub client: Client,
    /// Namespace of all replicas.
    pub namespace: String,
    /// Our own pod.
    pub pod: String,
    /// The Service of all replicas.
    pub service: String,
    /// Where replicas answer each other.
    pub admin_port: u16,
}

impl Peers {
    /// What each of them answers, those that are ending included: their sidecars are still there.
    ///
    /// # Errors
    /// The API server cannot be asked who they are; inside, why one of them cannot be asked.
    pub async fn ask<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<anyhow::Result<T>>> {
        let http = reqwest::Client::builder().timeout(PEER_TIMEOUT).no_proxy().build()?;
        let ask = |peer: SocketAddr| {
            let http = &http;
            async move {
                let answer = http.get(format!("http://{peer}{path}")).send().await.with_context(|| peer.to_string())?;
                answer.error_for_status()?.json().await.with_context(|| peer.to_string())
            }
        };
        Ok(join_all(self.addresses().await?.into_iter().map(ask)).await)
    }

    async fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={}", self.service));
        let slices = in_time(CALL_TIMEOUT, slices.list(&of_service)).await?;
        let mut peers = Vec::new();
        for endpoint in slices.items.into_iter().flat_map(|slice| slice.endpoints).flatten() {
            let is_other = endpoint.target_ref.as_ref().is_none_or(|target| target.name.as_ref() != Some(&self.pod));
            let serves = endpoint.conditions.as_ref().and_then(|conditions| conditions.serving.or(conditions.ready)).unwrap_or(true);
            if is_other && serves {
                peers.extend(endpoint.addresses.first().and_then(|address| Some(SocketAddr::new(address.parse().ok()?, self.admin_port))));
            }
        }
        peers.sort_unstable();
        peers.dedup();
        Ok(peers)
    }
}
