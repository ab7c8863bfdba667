//! Puts the parts together: source to index to sidecars and status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use parking_lot::Mutex;
use proto::xds::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use routing::api::ObjectKey;
use routing::model::ServiceRef;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{Admin, Loaded, router};
use crate::config::{Config, Source};
use crate::directory::{Scan, Written, follow};
use crate::index::Index;
use crate::registry::Registry;
use crate::status::StatusDirectory;
use crate::xds::Discovery;

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
    let signals = tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        info!("ends");
        on_signal.cancel();
    });
    let result = match Controller::bind(config).await {
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
    status: Option<StatusDirectory>,
    listen: TcpListener,
    admin: TcpListener,
}

impl Controller {
    /// Takes the addresses and opens the status directory.
    ///
    /// # Errors
    /// A setting is wrong or an address is taken.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let Source::Directory(root) = &config.source;
        let status = config.status_dir.as_deref().map(|path| StatusDirectory::open(path, root)).transpose()?;
        let listen = TcpListener::bind(config.listen).await.with_context(|| format!("--listen {}", config.listen))?;
        let admin = TcpListener::bind(config.admin).await.with_context(|| format!("--admin {}", config.admin))?;
        info!(listen = %listen.local_addr()?, admin = %admin.local_addr()?, cluster = config.cluster, "serves");
        Ok(Self { config, status, listen, admin })
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
        let Source::Directory(root) = self.config.source.clone();
        let index = Arc::new(Index::new(self.config.settings()));
        let registry = Arc::new(Registry::default());
        let loaded = Arc::new(Mutex::new(Loaded::default()));
        let tasks = TaskTracker::new();
        let discovery = Discovery { index: Arc::clone(&index), registry: Arc::clone(&registry), tasks: tasks.clone(), stop: stop.clone() };
        let mut feed = Feed {
            index: Arc::clone(&index),
            status: self.status,
            objects: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            disputes: BTreeSet::new(),
        };
        let answers = router(Admin { index, registry: Arc::clone(&registry), loaded: Arc::clone(&loaded) });
        let scanned = |scan: &Scan| {
            feed.take(scan);
            *loaded.lock() = Loaded { digest: Some(scan.digest.clone()), objects: scan.objects.len(), problems: scan.problems.len() };
            registry.notify();
        };
        let source = follow(root.clone(), stop.clone(), scanned);
        let xds = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(AggregatedDiscoveryServiceServer::new(discovery))
            .serve_with_incoming_shutdown(TcpListenerStream::new(self.listen), stop.clone().cancelled_owned());
        let result = tokio::try_join!(
            async { source.await.with_context(|| format!("--source dir:{}", root.display())) },
            async { xds.await.context("xDS server") },
            async { axum::serve(self.admin, answers).with_graceful_shutdown(stop.clone().cancelled_owned()).await.context("admin server") },
        );
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        result.map(drop)
    }
}

/// Turns what a directory holds into changes of the index, and their consequences into status.
struct Feed {
    index: Arc<Index>,
    status: Option<StatusDirectory>,
    objects: BTreeMap<ObjectKey, Written>,
    /// What has a status that is not written yet.
    unwritten: BTreeSet<ObjectKey>,
    /// What was said about addresses that unrelated objects claim.
    disputes: BTreeSet<(SocketAddr, ServiceRef, ServiceRef)>,
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
        let disputes = self.index.disputes();
        for (address, owner, other) in disputes.difference(&self.disputes) {
            warn!(%address, %owner, %other, "claimed by both: the first one is dialled there");
        }
        self.disputes = disputes;
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
