//! Who follows what: a change wakes those that it concerns and nobody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Kind;
use super::shown::Changed;

/// Names by kind.
pub type Names = BTreeSet<(Kind, String)>;

/// Names under which a member will see something else. Never a queue: a name that changes again meanwhile is in it once.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<InboxState>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct InboxState {
    names: Names,
    /// Names were taken out, and what follows from them has not been noted yet.
    is_busy: bool,
}

impl Inbox {
    fn put(&self, kind: Kind, name: &str) {
        self.state.lock().names.insert((kind, name.to_owned()));
        self.arrived.notify_one();
    }

    /// Takes everything out.
    pub fn take(&self) -> Names {
        let state = &mut *self.state.lock();
        state.is_busy = true;
        std::mem::take(&mut state.names)
    }

    /// Names of a kind that are in it.
    #[must_use]
    pub fn names(&self, kind: Kind) -> Vec<String> {
        self.state.lock().names.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect()
    }

    /// What was taken out has been answered.
    pub fn done(&self) {
        self.state.lock().is_busy = false;
    }

    /// Whether nothing is in it or taken out of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.names.is_empty() && !state.is_busy
    }

    /// Until something arrives.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// Members by what they follow of one kind.
#[derive(Debug, Default)]
struct Interest {
    everything: BTreeSet<u64>,
    names: HashMap<String, BTreeSet<u64>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Members {
    next: u64,
    inboxes: BTreeMap<u64, (String, Arc<Inbox>)>,
    interests: BTreeMap<Kind, Interest>,
}

impl Members {
    pub(super) fn join(&mut self, namespace: &str) -> (u64, Arc<Inbox>) {
        self.next += 1;
        let inbox = Arc::<Inbox>::default();
        self.inboxes.insert(self.next, (namespace.to_owned(), Arc::clone(&inbox)));
        (self.next, inbox)
    }

    /// Leaves with all names that it followed.
    pub(super) fn leave(&mut self, member: u64, names: &Names) {
        self.inboxes.remove(&member);
        self.unfollow(member, names);
        for interest in self.interests.values_mut() {
            interest.everything.remove(&member);
        }
    }

    pub(super) fn follow(&mut self, member: u64, names: &Names) {
        for (kind, name) in names {
            self.interests.entry(*kind).or_default().names.entry(name.clone()).or_default().insert(member);
        }
    }

    pub(super) fn follow_all(&mut self, member: u64, kind: Kind) {
        self.interests.entry(kind).or_default().everything.insert(member);
    }

    pub(super) fn unfollow(&mut self, member: u64, names: &Names) {
        for (kind, name) in names {
            let Some(interest) = self.interests.get_mut(kind) else { continue };
            if let Some(members) = interest.names.get_mut(name) {
                members.remove(&member);
                if members.is_empty() {
                    interest.names.remove(name);
                }
            }
        }
    }

    /// Tells those that a change concerns.
    pub(super) fn tell(&self, changed: &Changed) {
        let Some(interest) = self.interests.get(&changed.kind) else { return };
        let named = interest.names.get(&changed.name).into_iter().flatten();
        for member in named.chain(&interest.everything) {
            if let Some((namespace, inbox)) = self.inboxes.get(member)
                && changed.concerns(namespace)
            {
                inbox.put(changed.kind, &changed.name);
            }
        }
    }
}
