//! The world of objects, what sidecars are sent of it, and who is told of a change.
//!
//! Invariant: a resource is encoded once and shared by all who follow it; what is equal to before wakes nobody, and what differs wakes those
//! that it concerns alone.

mod members;
mod shown;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message as _;
use prost::bytes::Bytes;
use proto::{type_url, xds};
use routing::api::{Object, ObjectKey};
use routing::graph::Graph;
use routing::model::ServiceRef;
use routing::status::EntryStatus;
use routing::world::{Settings, Touched, World};
use tokio::sync::watch;

use crate::revision::Revision;
use members::Members;
pub use members::{Inbox, Names};
pub use shown::RouteVersion;
use shown::Shown;

/// What a resource is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// An address that is dialled.
    Vip,
    /// Routes.
    Frontend,
    /// Endpoints.
    Backend,
}

impl Kind {
    /// All, in the order in which one names the next.
    pub const ALL: [Self; 3] = [Self::Vip, Self::Frontend, Self::Backend];

    /// On the wire.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Vip => type_url::VIP,
            Self::Frontend => type_url::FRONTEND,
            Self::Backend => type_url::BACKEND,
        }
    }

    /// For people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Vip => "vip",
            Self::Frontend => "frontend",
            Self::Backend => "backend",
        }
    }
}

/// What is sent under a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resource {
    /// The name.
    pub name: String,
    /// What differs has another one.
    pub version: String,
    /// The message of the wire, name and version included.
    pub encoded: Bytes,
}

impl Resource {
    /// A resource of this content.
    #[must_use]
    pub fn new(name: String, version: String, content: Option<prost_types::Any>) -> Self {
        let message = xds::Resource { version, resource: content, name };
        let encoded = message.encode_to_vec().into();
        Self { name: message.name, version: message.version, encoded }
    }
}

/// What the sidecars of a namespace can be sent, at one moment.
pub trait View {
    /// What is seen under a name.
    fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>>;
    /// Whether what is under a name, if anything, is not for who asks: of a backend, that no route that is seen refers to it.
    fn is_withheld(&self, kind: Kind, name: &str) -> bool;
    /// All that is seen of a kind, in the order of names.
    fn all(&self, kind: Kind) -> Box<dyn Iterator<Item = &Arc<Resource>> + '_>;
    /// What it was made of, as [`Revision`] writes it.
    fn revision(&self) -> &str;
}

struct OfNamespace<'s> {
    shown: &'s Shown,
    namespace: &'s str,
}

impl View for OfNamespace<'_> {
    fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>> {
        self.shown.get(kind, name, self.namespace)
    }

    fn is_withheld(&self, kind: Kind, name: &str) -> bool {
        self.shown.is_withheld(kind, name, self.namespace)
    }

    fn all(&self, kind: Kind) -> Box<dyn Iterator<Item = &Arc<Resource>> + '_> {
        self.shown.all(kind, self.namespace)
    }

    fn revision(&self) -> &str {
        &self.shown.revision
    }
}

/// Feeders call [`Self::apply`] and [`Self::delete`], then [`Self::flush`].
#[derive(Debug)]
pub struct Index {
    state: Mutex<State>,
    /// What the source has shown; none before it has shown all of it once.
    seen: watch::Sender<Option<Revision>>,
}

#[derive(Debug)]
struct State {
    world: World,
    shown: Shown,
    members: Members,
    dirty: Touched,
    /// Of what was applied since the last flush too.
    raised: Revision,
}

impl Index {
    /// An index without objects.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let state = State {
            world: World::new(settings),
            shown: Shown::default(),
            members: Members::default(),
            dirty: Touched::default(),
            raised: Revision::default(),
        };
        Self { state: Mutex::new(state), seen: watch::Sender::new(None) }
    }

    /// Adds or replaces an object.
    pub fn apply(&self, object: Object) {
        let state = &mut *self.state.lock();
        state.dirty.merge(state.world.apply(object));
    }

    /// Removes an object.
    pub fn delete(&self, key: &ObjectKey) {
        let state = &mut *self.state.lock();
        state.dirty.merge(state.world.delete(key));
    }

    /// Takes note of the resource version of a change that was applied.
    pub fn raise(&self, kind: &str, version: u64) {
        self.state.lock().raised.raise(kind, version);
    }

    /// Says how far the source has come; the first word of it means that everything there is has been applied and flushed.
    pub fn saw(&self, revision: Revision) {
        self.seen.send_replace(Some(revision));
    }

    /// Waits until the source has been read whole and shown at least as much as some replica had seen.
    pub async fn caught_up(&self, with: &Revision) {
        // The index owns the sender: the wait ends by itself or by whoever gives it up.
        let _ = self.seen.subscribe().wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.covers(with))).await;
    }

    /// Computes anew what the changes since the last flush touch, tells whom it concerns, and returns the objects whose status may differ.
    pub fn flush(&self) -> BTreeSet<ObjectKey> {
        let state = &mut *self.state.lock();
        let dirty = std::mem::take(&mut state.dirty);
        state.shown.revision = state.raised.to_string();
        for changed in state.shown.refresh(&state.world, &dirty) {
            state.members.tell(&changed);
        }
        dirty.statuses
    }

    /// Becomes a member: told of what it follows as long as it lives.
    #[must_use]
    pub fn join(self: &Arc<Self>, namespace: &str) -> Member {
        let (id, inbox) = self.state.lock().members.join(namespace);
        Member { id, namespace: namespace.to_owned(), inbox, names: Names::new(), index: Arc::clone(self) }
    }

    /// Addresses that unrelated objects claim.
    #[must_use]
    pub fn disputes(&self) -> BTreeSet<(SocketAddr, ServiceRef, ServiceRef)> {
        self.state.lock().world.disputes()
    }

    /// What leads where, all of it or from one namespace's frontends.
    #[must_use]
    pub fn graph(&self, namespace: Option<&str>) -> Graph {
        Graph::of(&self.state.lock().world, namespace)
    }

    /// A look at the routes that somebody sees now. Nothing changes meanwhile: it has to be short.
    pub fn look_at_routes<T>(&self, look: impl FnOnce(Routes<'_>) -> T) -> T {
        look(Routes(&self.state.lock().shown))
    }

    /// What is to be written to an object's status; none: no such object, or none that has a status of ours.
    #[must_use]
    pub fn status(&self, key: &ObjectKey) -> Option<Vec<EntryStatus>> {
        self.state.lock().world.status(key)
    }
}

/// The routes that somebody sees.
#[derive(Clone, Copy, Debug)]
pub struct Routes<'s>(&'s Shown);

impl<'s> Routes<'s> {
    /// All of them; one that is seen in several places several times.
    pub fn all(self) -> impl Iterator<Item = &'s RouteVersion> {
        self.0.routes()
    }

    /// The version of a frontend that clients of a namespace see, and its routes.
    #[must_use]
    pub fn seen(self, frontend: &str, namespace: &str) -> Option<(&'s str, &'s [RouteVersion])> {
        self.0.routes_of(frontend, namespace)
    }

    /// The routes that clients of a namespace see behind a VIP.
    #[must_use]
    pub fn behind(self, vip: &str, namespace: &str) -> Option<&'s [RouteVersion]> {
        self.0.routes_behind(vip, namespace)
    }
}

/// One who follows.
#[derive(Debug)]
pub struct Member {
    id: u64,
    namespace: String,
    inbox: Arc<Inbox>,
    names: Names,
    index: Arc<Index>,
}

impl Member {
    /// Where it is told.
    #[must_use]
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Follows names, and others no more. What they mean now has to be looked up afterwards, not before.
    pub fn follow(&mut self, more: Names, less: &Names) {
        let members = &mut self.index.state.lock().members;
        members.unfollow(self.id, less);
        members.follow(self.id, &more);
        self.names.retain(|name| !less.contains(name));
        self.names.extend(more);
    }

    /// Follows all of a kind.
    pub fn follow_all(&self, kind: Kind) {
        self.index.state.lock().members.follow_all(self.id, kind);
    }

    /// A look at what there is now. Nothing changes meanwhile: it has to be short.
    pub fn look<T>(&self, look: impl FnOnce(&dyn View) -> T) -> T {
        let state = &*self.index.state.lock();
        look(&OfNamespace { shown: &state.shown, namespace: &self.namespace })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.index.state.lock().members.leave(self.id, &self.names);
    }
}

#[cfg(test)]
mod tests;
