//! Serves sidecars over delta xDS: a stream each, its state in [`session`], the newest view and never a queue.

pub mod session;

use std::sync::Arc;

use proto::xds::aggregated_discovery_service_server::AggregatedDiscoveryService;
use proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node as WireNode};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, debug, info, info_span};

use crate::index::Index;
use crate::registry::{Node, Registry};
use session::Session;

/// Responses on their way to one sidecar; the next are computed when these are taken.
const RESPONSES_MAX: usize = 8;

/// The service.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// What is served.
    pub index: Arc<Index>,
    /// Who is served.
    pub registry: Arc<Registry>,
    /// Owns the streams.
    pub tasks: TaskTracker,
    /// Ends the streams.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::channel(RESPONSES_MAX);
        let discovery = self.clone();
        let stream = async move {
            if let Err(status) = discovery.serve(request.into_inner(), &sender).await {
                debug!(%status, "stream ends");
                // The sidecar may be gone already.
                let _ = sender.send(Err(status)).await;
            }
        };
        self.tasks.spawn(stream.instrument(info_span!("sidecar")));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Discovery {
    /// One stream, from its first request to its end.
    async fn serve(
        &self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        responses: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Result<(), Status> {
        let Some(first) = requests.message().await? else { return Ok(()) };
        let node = node(first.node.as_ref())?;
        info!(namespace = node.namespace, pod = node.pod, "connected");
        let mut views = self.index.subscribe(&node.namespace);
        let entry = self.registry.add(node);
        let mut session = Session::default();
        session.request(first)?;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            for response in session.responses(&view) {
                if responses.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
            }
            entry.progress(session.progress());
            tokio::select! {
                () = self.stop.cancelled() => return Err(Status::unavailable("the controller ends")),
                () = responses.closed() => return Ok(()),
                message = requests.message() => match message? {
                    Some(request) => session.request(request)?,
                    None => return Ok(()),
                },
                changed = views.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }
}

/// Who the first request says it comes from.
fn node(wire: Option<&WireNode>) -> Result<Node, Status> {
    let wire = wire.ok_or_else(|| Status::invalid_argument("the first request of a stream says who asks: node is missing"))?;
    let (namespace, pod) = wire
        .id
        .split_once('/')
        .filter(|(namespace, pod)| !namespace.is_empty() && !pod.is_empty())
        .ok_or_else(|| Status::invalid_argument(format!("node.id: {:?} is not NAMESPACE/POD", wire.id)))?;
    let node = wire.metadata.as_ref().and_then(|metadata| metadata.fields.get("node")).and_then(|value| value.kind.clone());
    let node = match node {
        Some(prost_types::value::Kind::StringValue(name)) => name,
        _ => String::new(),
    };
    Ok(Node { namespace: namespace.to_owned(), pod: pod.to_owned(), cluster: wire.cluster.clone(), node })
}
