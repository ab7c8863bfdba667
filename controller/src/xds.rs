//! Serves sidecars over delta xDS: a stream each, its state in [`session`], the newest view and never a queue.

pub mod session;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use proto::encoded::{DeltaDiscoveryRequest, Node as WireNode};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, debug, info, info_span, warn};

use crate::index::{Index, Member};
use crate::kubernetes::identity::{Identity, Reviewer};
use crate::registry::{Node, Registry};
use crate::revision::Revision;
use session::{Answer, Following, Session};

/// Responses on their way to one sidecar; the next are computed when these are taken.
const RESPONSES_MAX: usize = 8;
/// A sidecar that holds newer state than this replica has seen waits for it so long: watches lag by less, and a restored API server
/// has forgotten what the sidecar saw.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// So many sidecars at once are given their first state: each is quick, none waits for all others, and the memory of messages on their way is
/// bounded when everybody reconnects.
const FIRST_STATES_MAX: usize = 16;
/// A stream that says nothing for so long ends.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// One that does not acknowledge it within this time makes room all the same.
const FIRST_STATE_TIMEOUT: Duration = Duration::from_secs(2);

/// The service.
#[derive(Clone)]
pub struct Discovery {
    /// What is served.
    pub index: Arc<Index>,
    /// Who is served.
    pub registry: Arc<Registry>,
    /// Who vouches for sidecars; none: they are believed.
    pub reviewer: Option<Reviewer>,
    /// Owns the streams.
    pub tasks: TaskTracker,
    /// Ends the streams.
    pub stop: CancellationToken,
    first_states: Arc<Semaphore>,
}

impl Discovery {
    /// A service of what there is, for whom a reviewer vouches for.
    #[must_use]
    pub fn new(
        index: Arc<Index>,
        registry: Arc<Registry>,
        reviewer: Option<Reviewer>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { index, registry, reviewer, tasks, stop, first_states: Arc::new(Semaphore::new(FIRST_STATES_MAX)) }
    }
}

type Responses = ReceiverStream<Result<Answer, Status>>;

impl Discovery {
    async fn delta_aggregated_resources(&self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Result<Response<Responses>, Status> {
        let (identity, zone) = match &self.reviewer {
            Some(reviewer) => {
                let identity = reviewer.identify(request.metadata()).await?;
                let zone = match &identity.node {
                    Some(node) => reviewer.zone(node).await,
                    None => String::new(),
                };
                (Some(identity), zone)
            }
            None => (None, String::new()),
        };
        let (sender, receiver) = mpsc::channel(RESPONSES_MAX);
        let discovery = self.clone();
        let stream = async move {
            if let Err(status) = discovery.serve(request.into_inner(), identity, &sender).await {
                debug!(%status, "stream ends");
                // The sidecar may be gone already.
                let _ = sender.send(Err(status)).await;
            }
        };
        self.tasks.spawn(stream.instrument(info_span!("sidecar")));
        let mut response = Response::new(ReceiverStream::new(receiver));
        // A zone that is no header value is none that endpoints could be compared with either.
        if let Some(zone) = MetadataValue::try_from(zone).ok().filter(|zone| !zone.is_empty()) {
            response.metadata_mut().insert(proto::ZONE_METADATA, zone);
        }
        Ok(response)
    }

    /// One stream, from its first request to its end.
    async fn serve(
        &self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        identity: Option<Identity>,
        responses: &mpsc::Sender<Result<Answer, Status>>,
    ) -> Result<(), Status> {
        let first = tokio::select! {
            () = self.stop.cancelled() => return Err(Status::unavailable("the controller ends")),
            first = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, requests.message()) => first,
        };
        let first = first.map_err(|_| Status::deadline_exceeded("no request came"))??;
        let Some(first) = first else { return Ok(()) };
        let node = vouched(node(first.node.as_ref())?, identity)?;
        let newest = Revision::parse(&metadata(first.node.as_ref(), proto::REVISION_METADATA));
        // Before the source has been read whole there is nothing to serve: an empty state would take every route away.
        let anything = Revision::default();
        tokio::select! {
            () = self.stop.cancelled() => return Err(Status::unavailable("the controller ends")),
            () = responses.closed() => return Ok(()),
            () = self.index.caught_up(&anything) => {}
        }
        if tokio::time::timeout(CATCH_UP_MAX, self.index.caught_up(&newest)).await.is_err() {
            warn!(namespace = node.namespace, pod = node.pod, %newest, "holds what this replica has not seen in time; it is served all the same");
        }
        info!(namespace = node.namespace, pod = node.pod, "connected");
        let mut member = self.index.join(&node.namespace);
        let inbox = Arc::clone(member.inbox());
        let entry = self.registry.add(node, Arc::clone(&inbox));
        let mut session = Session::default();
        follow(&mut member, session.request(first)?);
        // Nobody closes the semaphore; if somebody did, there would be no turns to wait for, and no reason to serve nobody.
        let mut turn = Turn { permit: self.first_states.acquire().await.ok(), ends: Instant::now() + FIRST_STATE_TIMEOUT };
        // Waited for from the beginning, not anew with each turn.
        let mut stopped = pin!(self.stop.cancelled());
        let mut closed = pin!(responses.closed());
        loop {
            let answers = member.look(|view| {
                // What has changed is taken under the same lock under which it is looked up: neither without the other.
                session.changed(inbox.take());
                session.responses(view)
            });
            for answer in answers {
                // A client that reads nothing keeps nobody else waiting.
                let room = loop {
                    tokio::select! {
                        room = responses.reserve() => break room,
                        () = turn.over() => {}
                        () = stopped.as_mut() => return Err(Status::unavailable("the controller ends")),
                    }
                };
                let Ok(room) = room else { return Ok(()) };
                room.send(Ok(answer));
            }
            let progress = session.progress();
            if progress.acknowledged {
                turn.permit = None;
            }
            entry.progress(progress);
            tokio::select! {
                () = turn.over() => {}
                () = stopped.as_mut() => return Err(Status::unavailable("the controller ends")),
                () = closed.as_mut() => return Ok(()),
                message = requests.message() => match message? {
                    Some(request) => follow(&mut member, session.request(request)?),
                    None => return Ok(()),
                },
                () = inbox.arrived() => {}
            }
        }
    }
}

/// A place among the first states that are sent at once, given back when it is acknowledged or its time is over.
struct Turn<'s> {
    permit: Option<SemaphorePermit<'s>>,
    ends: Instant,
}

impl Turn<'_> {
    /// When the time is over, which happens once.
    async fn over(&mut self) {
        if self.permit.is_none() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep_until(self.ends).await;
        self.permit = None;
    }
}

fn follow(member: &mut Member, following: Following) {
    if let Some(kind) = following.all {
        member.follow_all(kind);
    }
    if !(following.more.is_empty() && following.less.is_empty()) {
        member.follow(following.more, &following.less);
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
    let [node, version] = ["node", "version"].map(|name| metadata(Some(wire), name));
    Ok(Node { namespace: namespace.to_owned(), pod: pod.to_owned(), cluster: wire.cluster.clone(), node, version })
}

/// A text of a node's metadata; empty if it has none of that name.
fn metadata(wire: Option<&WireNode>, name: &str) -> String {
    let value = wire.and_then(|wire| wire.metadata.as_ref()?.fields.get(name)?.kind.clone());
    match value {
        Some(prost_types::value::Kind::StringValue(text)) => text,
        _ => String::new(),
    }
}

/// What a sidecar says of itself has to be what its token says.
fn vouched(node: Node, identity: Option<Identity>) -> Result<Node, Status> {
    let Some(identity) = identity else { return Ok(node) };
    if (&identity.namespace, &identity.pod) == (&node.namespace, &node.pod) {
        return Ok(Node { node: identity.node.unwrap_or(node.node), ..node });
    }
    let (said, known) = (format!("{}/{}", node.namespace, node.pod), format!("{}/{}", identity.namespace, identity.pod));
    Err(Status::permission_denied(format!("node.id: {said:?}, but the token is of {known:?}")))
}
