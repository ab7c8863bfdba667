//! Which sidecars are connected and whether they obey the newest state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::index::{Inbox, Kind};

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
    pub resources: BTreeMap<&'static str, usize>,
    /// The last rejection by type: what the sidecar could not obey.
    pub rejected: BTreeMap<&'static str, String>,
    /// The frontends that it was told.
    #[serde(skip)]
    pub frontends: Arc<[Held]>,
    /// Addresses that it was told and has not acknowledged.
    #[serde(skip)]
    pub vips_unacknowledged: Arc<[String]>,
    /// Since when an address or a frontend is not acknowledged; none: all are.
    #[serde(skip)]
    pub routes_behind_since: Option<Instant>,
}

/// A resource that a sidecar was told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// In which version.
    pub version: String,
    /// Whether the sidecar has said that it obeys it.
    pub is_acknowledged: bool,
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

    /// Addresses of which it has not acknowledged what there is to be told.
    #[must_use]
    pub fn vips_behind(&self) -> BTreeSet<String> {
        self.progress.vips_unacknowledged.iter().cloned().chain(self.inbox.names(Kind::Vip)).collect()
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
