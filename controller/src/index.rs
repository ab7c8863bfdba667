//! The world of objects and the views of it that sidecars are served.
//!
//! Invariant: a resource is encoded once and shared by all who subscribe; what is equal to before wakes nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use proto::{resources as wire, type_url, xds};
use routing::api::{Object, ObjectKey};
use routing::model::{FrontendId, ServiceRef};
use routing::status::EntryStatus;
use routing::world::{Settings, Touched, World};
use tokio::sync::watch;

use crate::revision::Revision;

/// Resources by name.
pub type Resources = BTreeMap<String, Arc<xds::Resource>>;

/// What the sidecars of a namespace can be sent.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Grows with every change of this view.
    pub generation: u64,
    /// The VIP index.
    pub vips: Arc<Resources>,
    /// Frontends with an active route for the namespace.
    pub frontends: Arc<Resources>,
    /// Every backend.
    pub backends: Arc<Resources>,
    /// What it was made of.
    pub revision: Revision,
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
    base: Base,
    dirty: Touched,
    views: BTreeMap<String, watch::Sender<Arc<View>>>,
    /// Of what was applied since the last flush too.
    raised: Revision,
}

/// What views are made of.
#[derive(Debug)]
struct Base {
    world: World,
    backends: Arc<Resources>,
    revision: Revision,
}

impl Index {
    /// An index without objects.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let base = Base { world: World::new(settings), backends: Arc::default(), revision: Revision::default() };
        let state = State { base, dirty: Touched::default(), views: BTreeMap::new(), raised: Revision::default() };
        Self { state: Mutex::new(state), seen: watch::Sender::new(None) }
    }

    /// Adds or replaces an object.
    pub fn apply(&self, object: Object) {
        let state = &mut *self.state.lock();
        state.dirty.merge(state.base.world.apply(object));
    }

    /// Removes an object.
    pub fn delete(&self, key: &ObjectKey) {
        let state = &mut *self.state.lock();
        state.dirty.merge(state.base.world.delete(key));
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

    /// Computes anew what the changes since the last flush touch, publishes what differs, and returns the objects whose status may differ.
    pub fn flush(&self) -> BTreeSet<ObjectKey> {
        let state = &mut *self.state.lock();
        let dirty = std::mem::take(&mut state.dirty);
        for service in &dirty.backends {
            state.base.refresh_backends(service);
        }
        state.base.revision.clone_from(&state.raised);
        state.views.retain(|_, view| view.receiver_count() > 0);
        for (namespace, sender) in &state.views {
            sender.send_if_modified(|view| match state.base.next_view(namespace, view, &dirty.frontends) {
                Some(next) => {
                    *view = Arc::new(next);
                    true
                }
                None => false,
            });
        }
        dirty.statuses
    }

    /// The view of a namespace, followed as long as the receiver lives.
    #[must_use]
    pub fn subscribe(&self, namespace: &str) -> watch::Receiver<Arc<View>> {
        let state = &mut *self.state.lock();
        if let Some(sender) = state.views.get(namespace) {
            return sender.subscribe();
        }
        let first = state.base.next_view(namespace, &View::default(), &BTreeSet::new()).unwrap_or_default();
        let (sender, receiver) = watch::channel(Arc::new(first));
        state.views.insert(namespace.to_owned(), sender);
        receiver
    }

    /// The generation of a namespace's view; none: nobody follows it.
    #[must_use]
    pub fn generation(&self, namespace: &str) -> Option<u64> {
        self.state.lock().views.get(namespace).map(|view| view.borrow().generation)
    }

    /// Addresses that unrelated objects claim.
    #[must_use]
    pub fn disputes(&self) -> BTreeSet<(SocketAddr, ServiceRef, ServiceRef)> {
        self.state.lock().base.world.disputes()
    }

    /// What is to be written to an object's status; none: no such object, or none that has a status of ours.
    #[must_use]
    pub fn status(&self, key: &ObjectKey) -> Option<Vec<EntryStatus>> {
        self.state.lock().base.world.status(key)
    }
}

impl Base {
    fn refresh_backends(&mut self, service: &ServiceRef) {
        let prefix = format!("{service}/");
        let now: Resources = self
            .world
            .backends(service)
            .iter()
            .map(|backend| resource(backend.id.to_string(), type_url::BACKEND, &wire::Backend::from(backend)))
            .collect();
        let is_own = |name: &str| name.starts_with(&prefix);
        let before = self.backends.range(prefix.clone()..).take_while(|(name, _)| is_own(name));
        if before.map(version_of).eq(now.iter().map(version_of)) {
            return;
        }
        let backends = Arc::make_mut(&mut self.backends);
        backends.retain(|name, _| !is_own(name));
        backends.extend(now);
    }

    /// The view after a change; none if it is equal to the one before.
    fn next_view(&self, namespace: &str, before: &View, touched: &BTreeSet<ServiceRef>) -> Option<View> {
        let (world, backends) = (&self.world, &self.backends);
        let vips = world.vips(namespace);
        let ids: BTreeSet<&FrontendId> = vips.iter().map(|vip| &vip.frontend).collect();
        let frontends = ids.into_iter().filter_map(|id| {
            let name = id.to_string();
            match before.frontends.get(&name) {
                Some(kept) if !touched.contains(&id.0.service) => Some((name, Arc::clone(kept))),
                Some(_) | None => {
                    world.frontend(id, namespace).map(|frontend| resource(name, type_url::FRONTEND, &wire::Frontend::from(&frontend)))
                }
            }
        });
        let frontends = kept_if_equal(&before.frontends, frontends.collect());
        let vips = vips.iter().map(|vip| resource(vip.address().to_string(), type_url::VIP, &wire::Vip::from(vip)));
        let vips = kept_if_equal(&before.vips, vips.collect());
        let equal = before.generation > 0
            && Arc::ptr_eq(&vips, &before.vips)
            && Arc::ptr_eq(&frontends, &before.frontends)
            && Arc::ptr_eq(backends, &before.backends);
        let view = |backends: &Arc<Resources>| View {
            generation: before.generation + 1,
            vips,
            frontends,
            backends: Arc::clone(backends),
            revision: self.revision.clone(),
        };
        (!equal).then(|| view(backends))
    }
}

fn kept_if_equal(before: &Arc<Resources>, now: Resources) -> Arc<Resources> {
    if before.iter().map(version_of).eq(now.iter().map(version_of)) { Arc::clone(before) } else { Arc::new(now) }
}

fn version_of<'r>((name, resource): (&'r String, &'r Arc<xds::Resource>)) -> (&'r str, &'r str) {
    (name, &resource.version)
}

fn resource(name: String, type_url: &str, message: &impl Message) -> (String, Arc<xds::Resource>) {
    let any = prost_types::Any { type_url: type_url.to_owned(), value: message.encode_to_vec() };
    let resource = xds::Resource { version: proto::version(message), resource: Some(any), name: name.clone() };
    (name, Arc::new(resource))
}
