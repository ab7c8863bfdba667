//! Keeps the live snapshot equal to what the controller says; without a controller the last one stays.

pub(crate) mod client;
mod followed;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use backon::BackoffBuilder;
use proto::xds::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Locality, Node};
use routing::locality::Location;
use routing::model::FrontendId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::snapshot::Live;
use crate::telemetry::Telemetry;
use crate::telemetry::load::Reporter;
use client::{Client, Confirms, Intercept, Step};

/// Requests on their way to the controller.
const REQUESTS_MAX: usize = 1024;
/// Frontends that connections wait for; one more is dropped and asked for again by the next connection.
pub(crate) const DEMANDS_MAX: usize = 1024;
/// A controller that does not answer a connection attempt for so long is tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A controller that is gone without a word is noticed after about twice this time.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A frontend that was subscribed to because it was dialled is let go when unused for so long.
const FRONTEND_IDLE_S: u64 = 600;
/// How often that is looked at.
const RELEASE_EVERY: Duration = Duration::from_secs(60);
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Waits between attempts: doubling, with jitter, without end.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(RECONNECT_MIN)
        .with_max_delay(RECONNECT_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

/// What control says to the other parts and hears from them.
#[derive(Debug)]
pub(crate) struct Control {
    /// Where the snapshot is published.
    pub(crate) live: Live,
    /// Set once the first state is in force.
    pub(crate) ready: watch::Sender<bool>,
    /// Changes with every published snapshot, for connections that wait for a frontend.
    pub(crate) published: watch::Sender<()>,
    /// Frontends that connections wait for.
    pub(crate) demands: mpsc::Receiver<FrontendId>,
    /// What should be intercepted; none before the first state is known.
    pub(crate) intercept: Option<watch::Sender<Option<Intercept>>>,
    /// Which of these is in place.
    pub(crate) intercepted: watch::Receiver<Option<u64>>,
    /// When the process began.
    pub(crate) began: Instant,
    /// Who is told of it all.
    pub(crate) telemetry: Arc<Telemetry>,
}

enum Event {
    Connected(mpsc::Sender<DeltaDiscoveryRequest>),
    /// Where the controller says that this pod is.
    Zone(String),
    Response(Box<DeltaDiscoveryResponse>),
}

impl Control {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self, config: Config, stop: CancellationToken) -> anyhow::Result<()> {
        let controller = ControllerClient {
            endpoint: endpoint(&config)?,
            node: node(&config),
            token: Token(config.token_file.clone()),
            revision: String::new(),
            telemetry: Arc::clone(&self.telemetry),
            reporter: Reporter::new(Arc::clone(&self.telemetry), Arc::clone(&self.live), self.began),
        };
        let (events_in, mut events) = mpsc::channel(1);
        let streams = controller.stream_again_and_again(events_in, stop.clone());
        let location = Location { cluster: config.cluster.clone(), node: config.node.clone(), zone: config.zone.clone() };
        let loop_ = async {
            let mut client = Client::new(location);
            let mut requests: Option<mpsc::Sender<DeltaDiscoveryRequest>> = None;
            let mut release = tokio::time::interval(RELEASE_EVERY);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    event = events.recv() => match event {
                        Some(Event::Connected(sender)) => {
                            send(&sender, client.connected());
                            requests = Some(sender);
                        }
                        Some(Event::Zone(zone)) => client.is_in(zone),
                        Some(Event::Response(response)) => client.response(*response),
                        None => return,
                    },
                    Some(id) = self.demands.recv() => client.demand(id, self.began.elapsed().as_secs()),
                    Ok(()) = self.intercepted.changed() => {
                        if let Some(version) = *self.intercepted.borrow_and_update() {
                            client.intercepted(version);
                        }
                    }
                    _ = release.tick() => client.release(self.began.elapsed().as_secs().saturating_sub(FRONTEND_IDLE_S)),
                }
                let confirms = if self.intercept.is_some() { Confirms::Watch } else { Confirms::Nobody };
                let step = client.step(confirms);
                self.obey(step, requests.as_ref());
            }
        };
        tokio::join!(streams, loop_);
        Ok(())
    }

    fn obey(&self, step: Step, requests: Option<&mpsc::Sender<DeltaDiscoveryRequest>>) {
        if let Some(snapshot) = step.snapshot {
            debug!(vips = snapshot.vips.len(), frontends = snapshot.frontends.len(), "published");
            // Whoever lets go of the retired one last drops it: a worker, at its next look.
            drop(self.live.swap(snapshot));
            self.telemetry.state_changed();
            self.published.send_replace(());
        }
        if let (Some(intercept), Some(wanted)) = (&self.intercept, step.intercept) {
            intercept.send_if_modified(|current| current.replace(wanted.clone()).as_ref() != Some(&wanted));
        }
        if let Some(requests) = requests {
            send(requests, step.requests);
        }
        if step.is_ready && self.ready.send_if_modified(|ready| !std::mem::replace(ready, true)) {
            info!("ready");
        }
    }
}

/// A stream that is full or gone is about to be replaced, and the next one begins with everything that is held.
fn send(sender: &mpsc::Sender<DeltaDiscoveryRequest>, requests: Vec<DeltaDiscoveryRequest>) {
    for request in requests {
        if let Err(error) = sender.try_send(request) {
            debug!(%error, "request");
        }
    }
}

fn node(config: &Config) -> Node {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let fields = [("namespace", &config.namespace), ("pod", &config.pod), ("node", &config.node), ("version", &version)];
    Node {
        id: format!("{}/{}", config.namespace, config.pod),
        cluster: config.cluster.clone(),
        metadata: Some(prost_types::Struct { fields: fields.map(|(name, value)| (name.to_owned(), text(value))).into() }),
        locality: (!config.zone.is_empty()).then(|| Locality { zone: config.zone.clone(), ..Default::default() }),
    }
}

fn text(value: &str) -> prost_types::Value {
    prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(value.to_owned())) }
}

fn endpoint(config: &Config) -> anyhow::Result<Endpoint> {
    let place = || format!("--controller {:?}", config.controller);
    let endpoint = Endpoint::from_shared(config.controller.clone())
        .with_context(place)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_while_idle(true);
    if endpoint.uri().scheme() != Some(&http::uri::Scheme::HTTPS) {
        return Ok(endpoint);
    }
    let ca = config.controller_ca.as_ref().context("--controller-ca: is needed to know a controller by https")?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    endpoint.tls_config(tls).context("--controller-ca")
}

/// Where the token is that says which pod this is; none: nobody wants to know.
#[derive(Debug)]
pub(crate) struct Token(Option<PathBuf>);

impl Token {
    /// What goes with a call, with the token as it is now: it is replaced before it ends.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn metadata(&self) -> anyhow::Result<MetadataMap> {
        let mut metadata = MetadataMap::new();
        if let Some(path) = &self.0 {
            let place = || format!("--token-file {}", path.display());
            let token = std::fs::read_to_string(path).with_context(place)?;
            metadata.insert("authorization", format!("Bearer {}", token.trim()).parse().with_context(place)?);
        }
        Ok(metadata)
    }
}

/// The way to the controller.
struct ControllerClient {
    endpoint: Endpoint,
    node: Node,
    token: Token,
    /// Of the newest response, whichever replica it came from.
    revision: String,
    telemetry: Arc<Telemetry>,
    reporter: Reporter,
}

impl ControllerClient {
    async fn stream_again_and_again(mut self, events: mpsc::Sender<Event>, stop: CancellationToken) {
        let mut waits = backoff();
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.stream_once(&events) => ended,
            };
            self.telemetry.controller_connected.set(0);
            if let Err(error) = ended {
                warn!(error = format!("{error:#}"), controller = %self.endpoint.uri(), "no controller; the last state stays in force");
            }
            if began.elapsed() > RECONNECT_MAX {
                waits = backoff();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(waits.next().unwrap_or(RECONNECT_MAX)) => {}
            }
        }
    }

    async fn stream_once(&mut self, events: &mpsc::Sender<Event>) -> anyhow::Result<()> {
        let channel = self.endpoint.connect().await.context("connect")?;
        let (sender, receiver) = mpsc::channel::<DeltaDiscoveryRequest>(REQUESTS_MAX);
        let mut first = Some(self.introduction());
        // The first request of a stream says who asks.
        let outgoing = tokio_stream::StreamExt::map(ReceiverStream::new(receiver), move |mut request| {
            request.node = first.take();
            request
        });
        let mut request = tonic::Request::new(outgoing);
        *request.metadata_mut() = self.token.metadata()?;
        events.send(Event::Connected(sender)).await.context("control ends")?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone()).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let response = client.delta_aggregated_resources(request).await?;
        if let Some(zone) = response.metadata().get(proto::ZONE_METADATA).and_then(|zone| zone.to_str().ok()) {
            events.send(Event::Zone(zone.to_owned())).await.context("control ends")?;
        }
        info!(controller = %self.endpoint.uri(), "connected");
        self.telemetry.controller_connected.set(1);
        let mut responses: Streaming<DeltaDiscoveryResponse> = response.into_inner();
        let (revision, reporter, token) = (&mut self.revision, &mut self.reporter, &self.token);
        let obeyed = async {
            while let Some(response) = responses.message().await? {
                revision.clone_from(&response.system_version_info);
                events.send(Event::Response(Box::new(response))).await.context("control ends")?;
            }
            Ok(())
        };
        tokio::select! {
            ended = obeyed => ended,
            never = reporter.run(channel, token) => match never {},
        }
    }

    /// Who asks, and what the state it holds was made of.
    fn introduction(&self) -> Node {
        let mut node = self.node.clone();
        if let Some(metadata) = &mut node.metadata {
            metadata.fields.insert(proto::REVISION_METADATA.to_owned(), text(&self.revision));
        }
        node
    }
}

/// A response is at most as large as this: some hundred thousand endpoints.
const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is live before the first state.
pub(crate) fn empty() -> Live {
    Arc::new(arc_swap::ArcSwap::from_pointee(crate::snapshot::Snapshot::default()))
}
