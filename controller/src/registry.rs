//! Which sidecars are connected and whether they obey the newest state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::index::{Inbox, Kind, Resource};

/// Who a sidecar says it is.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Node {
    /// Namespace of the pod; decides which consumer routes apply.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Cluster of the pod.
    pub cluster: String,
    /// Node that the pod runs on, if it said so.
    pub node: String,
    /// Version of the sidecar, if it said so.
    pub version: String,
}

/// What a stream has come to.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Progress {
    /// Everything that was sent has been acknowledged.
    pub acknowledged: bool,
    /// Resources held, by type.
    pub resources: Counts,
    /// The last rejection by type: what the sidecar could not obey.
    pub rejected: BTreeMap<&'static str, String>,
    /// The frontends that it was told.
    #[serde(skip)]
    pub frontends: Arc<[Held]>,
    /// Addresses that it was told and has not acknowledged, by response; of several that have one the last counts.
    #[serde(skip)]
    pub vips_unacknowledged: ByResponse,
    /// It came with what it held from an earlier stream: it is no pod that is only just being made.
    #[serde(skip)]
    pub is_returning: bool,
}

/// How many of each kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// VIPs.
    pub vip: usize,
    /// Frontends.
    pub frontend: usize,
    /// Backends.
    pub backend: usize,
}

/// Resources, shared by whoever speaks of the same.
pub type Resources = Arc<[Arc<Resource>]>;

/// Resources by what is to be said of all of a response.
pub type ByResponse = Arc<[(Unacknowledged, Resources)]>;

/// A resource that a sidecar was told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Which, in the version that it was told.
    pub resource: Arc<Resource>,
    /// What is to be said of it as long as the sidecar has not said that it obeys it.
    pub unacknowledged: Option<Unacknowledged>,
}

/// Something that a sidecar was told and has not acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unacknowledged {
    /// When it was told.
    pub told: Instant,
    /// It has answered that it does not obey it.
    pub is_refused: bool,
}

/// A connected sidecar.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Who it is.
    pub node: Node,
    /// Since when.
    pub since: Instant,
    /// What its stream has come to.
    pub progress: Progress,
    inbox: Arc<Inbox>,
}

impl Connected {
    /// Whether it has acknowledged all that concerns it.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.progress.acknowledged && self.inbox.is_empty()
    }

    /// Addresses of which it has not acknowledged what there is to be told; those that are only about to be told as of now.
    #[must_use]
    pub fn vips_behind(&self) -> BTreeMap<String, Unacknowledged> {
        let now = Unacknowledged { told: Instant::now(), is_refused: false };
        let about_to_be = self.inbox.names(Kind::Vip).into_iter().map(|name| (name, now));
        let told = self.progress.vips_unacknowledged.iter();
        let told = told.flat_map(|(state, resources)| resources.iter().map(|resource| (resource.name.clone(), *state)));
        about_to_be.chain(told).collect()
    }
}

/// The connected sidecars.
#[derive(Debug)]
pub struct Registry {
    sidecars: Mutex<BTreeMap<u64, Connected>>,
    next: AtomicU64,
    changed: watch::Sender<()>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { sidecars: Mutex::default(), next: AtomicU64::default(), changed: watch::Sender::new(()) }
    }
}

impl Registry {
    /// Adds a sidecar for as long as the entry lives.
    pub fn add(self: &Arc<Self>, node: Node, inbox: Arc<Inbox>) -> Entry {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let connected = Connected { node, since: Instant::now(), progress: Progress::default(), inbox };
        self.sidecars.lock().insert(id, connected);
        self.notify();
        Entry { id, registry: Arc::clone(self) }
    }

    /// Everyone who is connected.
    #[must_use]
    pub fn sidecars(&self) -> Vec<Connected> {
        self.sidecars.lock().values().cloned().collect()
    }

    /// Wakes up after every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wakes everyone who waits for a change.
    pub fn notify(&self) {
        self.changed.send_replace(());
    }
}

/// A sidecar's place in the registry; dropping it removes the sidecar.
#[derive(Debug)]
pub struct Entry {
    id: u64,
    registry: Arc<Registry>,
}

impl Entry {
    /// Says what the stream has come to, everything considered that was taken out of its inbox.
    pub fn progress(&self, progress: Progress) {
        if let Some(sidecar) = self.registry.sidecars.lock().get_mut(&self.id) {
            sidecar.progress = progress;
            sidecar.inbox.done();
        }
        self.registry.notify();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.sidecars.lock().remove(&self.id);
        self.registry.notify();
    }
}
