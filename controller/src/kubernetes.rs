//! The API server as a source: each kind is listed and watched; what changes goes to the index.
//!
//! Invariants: nothing is served before every kind that is served there has been listed once; an object that cannot be read counts as
//! absent and hides no other; when the API server is gone, the last state stays.

pub mod access;
pub mod certificates;
pub mod discovery;
pub mod identity;
mod lease;
mod live;
mod mesh;
pub mod peers;
mod status;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use routing::api::ObjectKey;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::index::Index;
use crate::registry::Registry;
use crate::revision::Revision;
use crate::run::Disputes;
use crate::source::Loaded;
use discovery::FOLLOWED;
use live::{Looker, Verdicts};
use peers::Peers;
use status::{Held, Pending, StatusWriter};
use watch::Change;

/// Changes on their way to the index; beyond it the watches wait.
const CHANGES_MAX: usize = 1024;
/// A call to the API server that nobody waits for in a hurry is over by then, or tried again.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The index is brought up to date at most this often: under a stream of changes, several go out at once.
const FLUSH_EVERY: Duration = Duration::from_millis(25);

/// The name under which we act: field manager, holder of the lease, reporter of events.
pub const MANAGER: &str = "isthmus-controller";

/// What the parts that feed and write share.
#[derive(Clone)]
pub struct Kubernetes {
    /// The API server.
    pub client: Client,
    /// Our own namespace.
    pub namespace: String,
    /// Our own pod: who holds the lease.
    pub pod: String,
    /// What is fed.
    pub index: Arc<Index>,
    /// Who waits for changes.
    pub registry: Arc<Registry>,
    /// What is said of the source.
    pub loaded: Arc<Mutex<Loaded>>,
    /// The other replicas.
    pub peers: Peers,
}

impl Kubernetes {
    /// Follows the API server and writes statuses until cancelled.
    ///
    /// # Errors
    /// A part ends by itself.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (sender, receiver) = mpsc::channel(CHANGES_MAX);
        let held = Held::default();
        let pending = Arc::new(Pending::default());
        let (leads, leadership) = tokio::sync::watch::channel(false);
        let served = discovery::Discovery::new(self.client.clone(), Arc::clone(&self.loaded));
        let feed = Feed {
            index: Arc::clone(&self.index),
            registry: Arc::clone(&self.registry),
            loaded: Arc::clone(&self.loaded),
            held: Arc::clone(&held),
            pending: Arc::clone(&pending),
            unlisted: FOLLOWED.iter().map(|followed| followed.plural).collect(),
            objects: BTreeMap::new(),
            problems: BTreeMap::new(),
            seen: Revision::default(),
            disputes: Disputes::default(),
        };
        let verdicts = Arc::<Verdicts>::default();
        let looker = Looker {
            peers: self.peers,
            index: Arc::clone(&self.index),
            registry: Arc::clone(&self.registry),
            pending: Arc::clone(&pending),
            verdicts: Arc::clone(&verdicts),
            leadership: leadership.clone(),
        };
        let facts = status::Facts { index: Arc::clone(&self.index), held, verdicts };
        let writer = StatusWriter::new(self.client.clone(), facts, pending, leadership.clone());
        let work = async {
            tokio::join!(
                served.run(),
                watch::all(&self.client, served.subscribe(), sender, &self.loaded),
                feed.run(receiver),
                writer.run(),
                mesh::keep_status(self.client.clone(), served.subscribe(), leadership.clone()),
                looker.run(),
                tell_leadership(&self.loaded, leadership),
            );
        };
        let work = async {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                () = work => anyhow::bail!("a part that follows the API server ended"),
            }
        };
        // It gives the lease back when everything else has been told to end.
        let lead = lease::lead(self.client.clone(), &self.namespace, &self.pod, leads, stop.clone());
        tokio::join!(work, lead).0
    }

    /// A client as the pod's service account, or as the kubeconfig says.
    ///
    /// # Errors
    /// There is neither.
    pub async fn client() -> anyhow::Result<Client> {
        Client::try_default().await.context("--source kubernetes: neither a service account nor a kubeconfig")
    }
}

async fn tell_leadership(loaded: &Mutex<Loaded>, mut leadership: tokio::sync::watch::Receiver<bool>) {
    loop {
        loaded.lock().leads = *leadership.borrow_and_update();
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the API server's version has native sidecars by default.
///
/// # Errors
/// It does not say its version.
pub async fn has_native_sidecars(client: &Client) -> anyhow::Result<bool> {
    let version = client.apiserver_version().await.context("version of the API server")?;
    // Some providers write "29+". What is no number all the same is no version that is known to have them.
    let number = |text: &str| text.trim_end_matches(|last: char| !last.is_ascii_digit()).parse::<u32>().ok();
    Ok(number(&version.major).zip(number(&version.minor)) >= Some(NATIVE_SIDECARS_SINCE))
}

/// Native sidecars are on by default since this version (KEP-753).
const NATIVE_SIDECARS_SINCE: (u32, u32) = (1, 29);

/// The ranges of the cluster's Services; empty if the API server does not know such objects (before 1.33) or does not let us read them.
///
/// # Errors
/// It cannot be asked now.
pub async fn service_ranges(client: &Client) -> anyhow::Result<Vec<String>> {
    match Api::<ServiceCIDR>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items.into_iter().filter_map(|range| range.spec?.cidrs).flatten().collect()),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            info!(code = status.code, "the API server does not say the ranges of Services");
            Ok(Vec::new())
        }
        Err(error) => Err(error).context("ranges of Services"),
    }
}

/// A call to the API server that has to be over within this time.
///
/// # Errors
/// The call's own; or it is not over.
pub async fn in_time<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(kube::Error::Service(format!("no answer within {} s", limit.as_secs()).into())))
}

/// Turns what the watches say into changes of the index.
struct Feed {
    index: Arc<Index>,
    registry: Arc<Registry>,
    loaded: Arc<Mutex<Loaded>>,
    held: Held,
    pending: Arc<Pending>,
    /// Kinds that have not been listed yet.
    unlisted: BTreeSet<&'static str>,
    /// What is in force, by kind.
    objects: BTreeMap<&'static str, BTreeSet<ObjectKey>>,
    /// What cannot be read, and why.
    problems: BTreeMap<ObjectKey, String>,
    seen: Revision,
    disputes: Disputes,
}

impl Feed {
    async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        let mut last = Instant::now();
        while let Some(change) = changes.recv().await {
            self.take(change);
            // A change is flushed at once, unless another was a moment ago; those that come in the meantime are flushed with it.
            let until = last + FLUSH_EVERY;
            while let Ok(Some(change)) = tokio::time::timeout_at(until, changes.recv()).await {
                self.take(change);
            }
            while let Ok(change) = changes.try_recv() {
                self.take(change);
            }
            last = Instant::now();
            self.flush();
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Apply { plural, version, object, held } => {
                let key = object.key();
                self.mended(&key);
                self.objects.entry(plural).or_default().insert(key.clone());
                if let Some(held) = held {
                    self.held.lock().insert(key, held);
                }
                self.index.apply(*object);
                self.raise(plural, version);
            }
            Change::Broken { plural, version, key, error } => {
                warn!(object = %key, error, "cannot be read and counts as absent");
                self.problems.insert(key.clone(), error);
                self.remove(plural, &key);
                self.raise(plural, version);
            }
            Change::Delete { plural, version, key } => {
                self.mended(&key);
                self.remove(plural, &key);
                self.raise(plural, version);
            }
            Change::Listed { plural, version, keys } => {
                let gone: Vec<ObjectKey> = self.objects.entry(plural).or_default().difference(&keys).cloned().collect();
                for key in &gone {
                    self.remove(plural, key);
                }
                self.problems.retain(|key, _| keys.contains(key) || !is_of(key, plural));
                if self.unlisted.remove(plural) {
                    info!(kind = plural, objects = keys.len(), "listed");
                }
                // What is gone was seen gone at some time before the list.
                if !gone.is_empty() {
                    self.index.raise(plural, version);
                }
                // Of a kind that is not served nothing was seen, and nothing is waited for.
                if version > 0 {
                    self.seen.raise(plural, version);
                }
            }
        }
    }

    fn raise(&mut self, plural: &'static str, version: u64) {
        self.index.raise(plural, version);
        self.seen.raise(plural, version);
    }

    fn mended(&mut self, key: &ObjectKey) {
        if self.problems.remove(key).is_some() {
            info!(object = %key, "mended");
        }
    }

    fn remove(&mut self, plural: &'static str, key: &ObjectKey) {
        if let Some(keys) = self.objects.get_mut(plural) {
            keys.remove(key);
        }
        self.held.lock().remove(key);
        self.index.delete(key);
    }

    fn flush(&mut self) {
        if !self.unlisted.is_empty() {
            return;
        }
        self.pending.add(self.index.flush());
        self.index.saw(self.seen.clone());
        self.disputes.report(&self.index);
        {
            let mut loaded = self.loaded.lock();
            if !std::mem::replace(&mut loaded.complete, true) {
                info!("every kind has been listed: serves");
            }
            loaded.objects = self.objects.values().map(BTreeSet::len).sum();
            loaded.problems = self.problems.len();
        }
        self.registry.notify();
    }
}

fn is_of(key: &ObjectKey, plural: &str) -> bool {
    FOLLOWED.iter().any(|followed| followed.plural == plural && followed.kind == key.kind)
}
