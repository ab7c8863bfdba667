//! Puts the parts together: source to index to sidecars and status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use kube::Client;
use parking_lot::Mutex;
use proto::listen::listen;
use proto::resources::load_reporting_server::LoadReportingServer;
use routing::api::ObjectKey;
use routing::model::ServiceRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;
use tracing::{error, info, warn};

use crate::admin::{Admin, router};
use crate::config::{Config, NativeSidecars, Source};
use crate::directory::{Scan, Written, follow};
use crate::index::Index;
use crate::inject;
use crate::kubernetes::certificates::{Authority, Keeper};
use crate::kubernetes::identity::Reviewer;
use crate::kubernetes::peers::Peers;
use crate::kubernetes::{self, Kubernetes};
use crate::load::{LoadReceiver, REPORT_BYTES_MAX, Reports};
use crate::registry::Registry;
use crate::revision::Revision;
use crate::source::Loaded;
use crate::status::directory::StatusDirectory;
use crate::tls::{Certificates, TlsListener};
use crate::webhook::{self, Counts, Webhook};
use crate::xds::Discovery;

/// An API server that does not answer is asked again after this time, and ever less often,
const RETRY_MIN: Duration = Duration::from_millis(200);
/// but at least this often.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// A sidecar that is gone without a word is noticed after about twice this time.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A setting is wrong, an address is taken, or a part fails.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let on_signal = stop.clone();
    // Peers find this replica until they have heard that it ends; a webhook that does not answer costs a pod its sidecar.
    let grace = match config.source {
        Source::Kubernetes => Duration::from_secs(config.kubernetes.drain_grace_s),
        Source::Directory(_) => Duration::ZERO,
    };
    let signals = tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        info!(grace_s = grace.as_secs(), "ends");
        tokio::select! { () = tokio::time::sleep(grace) => {}, _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        on_signal.cancel();
    });
    let result = match Controller::bind(config) {
        Ok(controller) => controller.serve(stop).await,
        Err(error) => Err(error),
    };
    signals.abort();
    result
}

/// A controller whose addresses are taken and which serves nobody yet.
#[derive(Debug)]
pub struct Controller {
    config: Config,
    listen: TcpListener,
    admin: TcpListener,
    webhook: Option<TcpListener>,
}

impl Controller {
    /// Takes the addresses.
    ///
    /// # Errors
    /// A setting is wrong or an address is taken.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        anyhow::ensure!(
            config.plaintext || config.source == Source::Kubernetes,
            "--source dir: without an API server nobody vouches for a sidecar; say --plaintext to serve all the same"
        );
        let sidecars = listen(config.listen).with_context(|| format!("--listen {}", config.listen))?;
        let admin = listen(config.admin).with_context(|| format!("--admin {}", config.admin))?;
        let webhook = match config.kubernetes.webhook.filter(|_| config.source == Source::Kubernetes) {
            Some(address) => Some(listen(address).with_context(|| format!("--webhook {address}"))?),
            None => None,
        };
        info!(listen = %sidecars.local_addr()?, admin = %admin.local_addr()?, cluster = config.cluster, "serves");
        Ok(Self { config, listen: sidecars, admin, webhook })
    }

    /// The addresses of `--listen` and `--admin`, with the ports that were chosen where 0 was asked for.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.listen.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until cancelled.
    ///
    /// # Errors
    /// The source cannot be read at the start, or a server fails.
    pub async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let parts = Parts {
            index: Arc::new(Index::new(self.config.settings())),
            registry: Arc::default(),
            loaded: Arc::default(),
            counts: Arc::default(),
            reports: Arc::default(),
            peers: Arc::default(),
            tasks: TaskTracker::new(),
            stop,
        };
        let Self { config, listen, admin, webhook } = self;
        // It answers from the first moment on, whatever the rest waits for.
        let result = tokio::try_join!(parts.serve_admin(admin), async {
            match config.source.clone() {
                Source::Directory(root) => serve_directory(&config, &parts, listen, root).await,
                Source::Kubernetes => serve_kubernetes(&config, &parts, listen, webhook).await,
            }
        });
        parts.stop.cancel();
        parts.tasks.close();
        parts.tasks.wait().await;
        result.map(drop)
    }
}

async fn serve_directory(config: &Config, parts: &Parts, listen: TcpListener, root: PathBuf) -> anyhow::Result<()> {
    let status = config.status_dir.as_deref().map(|path| StatusDirectory::open(path, &root)).transpose()?;
    let mut feed = Feed {
        index: Arc::clone(&parts.index),
        status,
        objects: BTreeMap::new(),
        unwritten: BTreeSet::new(),
        disputes: Disputes::default(),
    };
    let scanned = |scan: &Scan| {
        feed.take(scan);
        *parts.loaded.lock() = Loaded {
            complete: true,
            leads: true,
            digest: Some(scan.digest.clone()),
            objects: scan.objects.len(),
            problems: scan.problems.len(),
            ..Loaded::default()
        };
        parts.index.saw(Revision::default());
        parts.registry.notify();
    };
    let place = format!("--source dir:{}", root.display());
    let source = follow(root, parts.stop.clone(), scanned);
    tokio::try_join!(async { source.await.context(place) }, parts.serve_sidecars(TcpListenerStream::new(listen), None),)?;
    Ok(())
}

async fn serve_kubernetes(config: &Config, parts: &Parts, listen: TcpListener, webhook: Option<TcpListener>) -> anyhow::Result<()> {
    let kubernetes = &config.kubernetes;
    let client = Kubernetes::client().await?;
    let host = format!("{}.{}.svc", kubernetes.service, kubernetes.namespace);
    // An API server that is away is waited for: ending would only lead to a longer wait of the kubelet's own.
    let begun = async {
        let authority = persistently("the CA", || Authority::load(&client, &kubernetes.namespace)).await;
        let controller = format!("https://{host}:{}", config.listen.port());
        let injection = injection(config, &client, &controller, &authority.pem).await;
        (Arc::new(authority), injection)
    };
    let (authority, injection) = tokio::select! {
        () = parts.stop.cancelled() => return Ok(()),
        begun = begun => begun,
    };
    let names = vec![host.clone(), format!("{host}.cluster.local")];
    let lifetime = Duration::from_secs(kubernetes.certificate_lifetime_s);
    let certificates = Certificates::new(authority.issue(&names, lifetime)?);
    let peers = Peers {
        client: client.clone(),
        namespace: kubernetes.namespace.clone(),
        pod: kubernetes.pod.clone(),
        service: kubernetes.service.clone(),
        admin_port: config.admin.port(),
    };
    let source = Kubernetes {
        client: client.clone(),
        namespace: kubernetes.namespace.clone(),
        pod: kubernetes.pod.clone(),
        index: Arc::clone(&parts.index),
        registry: Arc::clone(&parts.registry),
        loaded: Arc::clone(&parts.loaded),
        peers: parts.peers.get_or_init(|| peers).clone(),
    };
    let webhook = async {
        let Some(listener) = webhook else { return Ok(()) };
        let listener = TlsListener::new(listener, Arc::clone(&certificates), &["h2", "http/1.1"], parts.stop.clone())?;
        let webhook = Webhook { client: client.clone(), settings: injection, counts: Arc::clone(&parts.counts) };
        let stopped = parts.stop.clone().cancelled_owned();
        axum::serve(listener, webhook::router(webhook)).with_graceful_shutdown(stopped).await.context("webhook")
    };
    let sidecars = async {
        if config.plaintext {
            return parts.serve_sidecars(TcpListenerStream::new(listen), None).await;
        }
        let listener = TlsListener::new(listen, Arc::clone(&certificates), &["h2"], parts.stop.clone())?;
        parts.serve_sidecars(listener, Some(Reviewer::new(client.clone()))).await
    };
    let keeper = Keeper {
        client: client.clone(),
        namespace: kubernetes.namespace.clone(),
        authority: Arc::clone(&authority),
        certificates: Arc::clone(&certificates),
        names,
        lifetime,
        webhook: kubernetes.webhook.map(|_| kubernetes.webhook_configuration.clone()),
    };
    let kept = async {
        tokio::select! {
            () = parts.stop.cancelled() => Ok(()),
            error = keeper.run() => Err(error),
        }
    };
    tokio::try_join!(source.run(parts.stop.clone()), sidecars, webhook, kept)?;
    Ok(())
}

/// What the servers share.
struct Parts {
    index: Arc<Index>,
    registry: Arc<Registry>,
    loaded: Arc<Mutex<Loaded>>,
    counts: Arc<Counts>,
    reports: Arc<Reports>,
    /// None without an API server, or before it was found.
    peers: Arc<OnceLock<Peers>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Parts {
    async fn serve_sidecars<S, I>(&self, connections: S, reviewer: Option<Reviewer>) -> anyhow::Result<()>
    where
        S: tokio_stream::Stream<Item = std::io::Result<I>>,
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (index, registry) = (Arc::clone(&self.index), Arc::clone(&self.registry));
        let loads = LoadReceiver { reports: Arc::clone(&self.reports), reviewer: reviewer.clone(), stop: self.stop.clone() };
        let discovery = Discovery::new(index, registry, reviewer, self.tasks.clone(), self.stop.clone());
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(discovery)
            .add_service(LoadReportingServer::new(loads).max_decoding_message_size(REPORT_BYTES_MAX))
            .serve_with_incoming_shutdown(connections, self.stop.clone().cancelled_owned())
            .await
            .context("xDS server")
    }

    async fn serve_admin(&self, listener: TcpListener) -> anyhow::Result<()> {
        let admin = Admin {
            index: Arc::clone(&self.index),
            registry: Arc::clone(&self.registry),
            loaded: Arc::clone(&self.loaded),
            counts: Arc::clone(&self.counts),
            reports: Arc::clone(&self.reports),
            peers: Arc::clone(&self.peers),
            kept: Arc::default(),
        };
        axum::serve(listener, router(admin)).with_graceful_shutdown(self.stop.clone().cancelled_owned()).await.context("admin server")
    }
}

/// What pods are given in this cluster.
async fn injection(config: &Config, client: &Client, controller: &str, ca: &str) -> inject::Settings {
    let kubernetes = &config.kubernetes;
    let native = match kubernetes.native_sidecars {
        NativeSidecars::Always => true,
        NativeSidecars::Never => false,
        NativeSidecars::Auto => persistently("the version", || kubernetes::has_native_sidecars(client)).await,
    };
    let ranges = match kubernetes.vip_range.as_slice() {
        [] => persistently("the ranges of Services", || kubernetes::service_ranges(client)).await,
        ranges => ranges.to_vec(),
    };
    if !native && ranges.is_empty() {
        warn!("no pod can be injected: without native sidecars interception is by ranges, and none is known. Set --vip-range");
    }
    info!(native, ?ranges, sidecar = kubernetes.sidecar_image, init = kubernetes.init_image, "injects");
    inject::Settings {
        cluster: config.cluster.clone(),
        sidecar_image: kubernetes.sidecar_image.clone(),
        init_image: kubernetes.init_image.clone(),
        controller: controller.to_owned(),
        ca: ca.to_owned(),
        native,
        ranges,
        traces: inject::Traces::of(kubernetes.otlp_endpoint.as_ref(), kubernetes.trace_sampling),
    }
}

/// Tries until it succeeds; whoever waits gives up when the controller ends.
async fn persistently<T, F: Future<Output = anyhow::Result<T>>>(what: &str, attempt: impl FnMut() -> F) -> T {
    let mut attempt = attempt;
    let mut waits =
        ExponentialBuilder::default().with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).with_jitter().without_max_times().build();
    loop {
        match attempt().await {
            Ok(result) => return result,
            Err(error) => warn!(error = format!("{error:#}"), "{what} cannot be had yet"),
        }
        tokio::time::sleep(waits.next().unwrap_or(RETRY_MAX)).await;
    }
}

/// What was said about addresses that unrelated objects claim.
#[derive(Debug, Default)]
pub(crate) struct Disputes(BTreeSet<(SocketAddr, ServiceRef, ServiceRef)>);

impl Disputes {
    /// Says what is new.
    pub(crate) fn report(&mut self, index: &Index) {
        let disputes = index.disputes();
        for (address, owner, other) in disputes.difference(&self.0) {
            warn!(%address, %owner, %other, "claimed by both: the first one is dialled there");
        }
        self.0 = disputes;
    }
}

/// Turns what a directory holds into changes of the index, and their consequences into status.
struct Feed {
    index: Arc<Index>,
    status: Option<StatusDirectory>,
    objects: BTreeMap<ObjectKey, Written>,
    /// What has a status that is not written yet.
    unwritten: BTreeSet<ObjectKey>,
    disputes: Disputes,
}

impl Feed {
    fn take(&mut self, scan: &Scan) {
        for key in self.objects.keys().filter(|key| !scan.objects.contains_key(*key)) {
            self.index.delete(key);
        }
        for (key, written) in scan.objects.iter().filter(|(key, written)| self.objects.get(*key) != Some(*written)) {
            info!(object = %key, "applied");
            self.index.apply(written.object.clone());
        }
        self.objects.clone_from(&scan.objects);
        self.unwritten.extend(self.index.flush());
        self.write_status();
        self.disputes.report(&self.index);
    }

    /// What cannot be written is said and tried again with the next change; it keeps nothing else from being written.
    fn write_status(&mut self) {
        let concerned = std::mem::take(&mut self.unwritten);
        let Some(directory) = &self.status else { return };
        for key in concerned {
            let (Some(written), Some(statuses)) = (self.objects.get(&key), self.index.status(&key)) else { continue };
            if let Err(error) = directory.write(&key, &written.value, &statuses, Timestamp::now()) {
                error!(%error, object = %key, "status");
                self.unwritten.insert(key);
            }
        }
        if let Err(error) = directory.retain(&self.objects.keys().filter(|key| key.kind.has_status()).cloned().collect()) {
            error!(%error, "status");
        }
    }
}
