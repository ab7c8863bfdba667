//! The state of one delta-xDS stream, without any I/O.
//!
//! Invariant: a name that is followed has been told its newest version, or its absence, as soon as [`Session::responses`] returns.

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use proto::encoded::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tonic::Status;

use crate::index::{Kind, Names, Resource, View};
use crate::registry::{ByResponse, Counts, Held, Progress, Resources, Unacknowledged};

/// Of what a sidecar says against resources so much is kept.
const REJECTION_CHARS_MAX: usize = 1024;
/// Above this a sidecar asks for more than any sidecar should.
const NAMES_MAX: usize = 65_536;

/// One stream.
#[derive(Debug, Default)]
pub struct Session {
    nonce: u64,
    vips: Subscription,
    frontends: Subscription,
    backends: Subscription,
}

/// What a request changes about what is followed.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Following {
    /// Names that are followed from now on.
    pub more: Names,
    /// Names that are followed no more.
    pub less: Names,
    /// A kind of which everything is followed from now on.
    pub all: Option<Kind>,
}

/// What is to be sent. It shares its resources with everybody else's.
#[derive(Debug)]
pub struct Answer {
    /// All of it but the resources.
    pub head: DeltaDiscoveryResponse,
    /// The resources.
    pub resources: Resources,
}

/// What a sidecar follows of one kind, and what it has been told.
#[derive(Debug, Default)]
struct Subscription {
    everything: bool,
    asked: bool,
    names: BTreeSet<String>,
    /// What it was told, in the version that it was told.
    told: BTreeSet<ByName>,
    /// Names that it was told do not exist.
    absent: BTreeSet<String>,
    /// Names to look at.
    due: BTreeSet<String>,
    /// Everything is to be looked at.
    is_all_due: bool,
    /// What it holds from an earlier stream, by name: looked at once.
    held: BTreeMap<String, String>,
    nonce_sent: u64,
    nonce_answered: u64,
    /// What was told and not acknowledged, and when, by the nonce of its response.
    unanswered: BTreeMap<u64, (Instant, Resources)>,
    /// Of which the last answer was a rejection, by name, and when it was told.
    refused: BTreeMap<String, (Instant, Arc<Resource>)>,
    rejected: Option<String>,
    /// What the next response stands for without containing it: the sidecar holds it from an earlier stream, and its answer says that it is in
    /// force.
    taken_over: Vec<Arc<Resource>>,
    is_returning: bool,
    /// What is said of it to others until something of it changes: most turns of a stream change nothing here.
    said: OnceCell<Arc<[Held]>>,
    said_unacknowledged: OnceCell<ByResponse>,
}

/// A resource that is found by its name.
#[derive(Debug)]
struct ByName(Arc<Resource>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

impl Session {
    /// Takes in a request: a subscription, an acknowledgement, a rejection, or several of these.
    ///
    /// # Errors
    /// A type or nonce that is unknown, or too many names; the stream ends.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<Following, Status> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.type_url() == request.type_url);
        let kind = kind.ok_or_else(|| Status::invalid_argument(format!("type_url: {:?} is not served", request.type_url)))?;
        let nonce_newest = self.nonce;
        let subscription = self.of(kind);
        subscription.answer(&request, nonce_newest)?;
        subscription.subscribe(kind, request)
    }

    fn of(&mut self, kind: Kind) -> &mut Subscription {
        match kind {
            Kind::Vip => &mut self.vips,
            Kind::Frontend => &mut self.frontends,
            Kind::Backend => &mut self.backends,
        }
    }

    /// Takes note of names that mean something else now.
    pub fn changed(&mut self, names: Names) {
        for (kind, name) in names {
            let subscription = self.of(kind);
            if subscription.follows(&name) {
                subscription.due.insert(name);
            }
        }
    }

    /// What has to be sent: first what is new, backends before the frontends that name them before the VIPs that lead there; then what is
    /// gone, in reverse.
    pub fn responses(&mut self, view: &dyn View) -> Vec<Answer> {
        let kinds = [Kind::Backend, Kind::Frontend, Kind::Vip];
        let mut news = kinds.map(|kind| (kind, self.of(kind).news(kind, view)));
        let first_of_everything = kinds.map(|kind| self.of(kind).is_first_of_everything());
        let mut answers = Vec::new();
        let mut nonce = self.nonce;
        let mut answer = |kind: Kind, resources: Resources, removed_resources| {
            nonce += 1;
            let head = DeltaDiscoveryResponse {
                system_version_info: view.revision().to_owned(),
                resources: Vec::new(),
                type_url: kind.type_url().to_owned(),
                nonce: nonce.to_string(),
                removed_resources,
            };
            answers.push(Answer { head, resources });
            nonce
        };
        for ((kind, news), is_first) in news.iter_mut().zip(first_of_everything) {
            // A wildcard is answered even when there is nothing, so that the sidecar knows that there is nothing.
            if is_first || !news.new.is_empty() {
                let taken_over = std::mem::take(&mut self.of(*kind).taken_over);
                let new: Resources = std::mem::take(&mut news.new).into();
                let told = if taken_over.is_empty() { Arc::clone(&new) } else { taken_over.iter().chain(new.iter()).cloned().collect() };
                let nonce_sent = answer(*kind, new, Vec::new());
                self.of(*kind).sent(nonce_sent, told);
            }
        }
        for (kind, news) in news.into_iter().rev() {
            if !news.gone.is_empty() {
                let nonce_sent = answer(kind, Resources::default(), news.gone);
                self.of(kind).sent(nonce_sent, Resources::default());
            }
        }
        self.nonce = nonce;
        answers
    }

    /// What the stream has come to.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let kinds = [(Kind::Vip, &self.vips), (Kind::Frontend, &self.frontends), (Kind::Backend, &self.backends)];
        Progress {
            // A sidecar that has not asked for VIPs yet has only just connected.
            acknowledged: self.vips.asked && kinds.iter().all(|(_, subscription)| subscription.is_answered()),
            resources: Counts { vip: self.vips.told.len(), frontend: self.frontends.told.len(), backend: self.backends.told.len() },
            rejected: kinds.iter().filter_map(|(kind, subscription)| Some((kind.label(), subscription.rejected.clone()?))).collect(),
            frontends: Arc::clone(self.frontends.said.get_or_init(|| self.frontends.held())),
            vips_unacknowledged: Arc::clone(self.vips.said_unacknowledged.get_or_init(|| self.vips.unacknowledged())),
            is_returning: self.vips.is_returning,
        }
    }
}

#[derive(Debug, Default)]
struct News {
    new: Vec<Arc<Resource>>,
    gone: Vec<String>,
}

impl Subscription {
    fn answer(&mut self, request: &DeltaDiscoveryRequest, nonce_newest: u64) -> Result<(), Status> {
        if request.response_nonce.is_empty() {
            return Ok(());
        }
        let known = request.response_nonce.parse().ok().filter(|nonce| *nonce <= nonce_newest);
        let nonce: u64 =
            known.ok_or_else(|| Status::invalid_argument(format!("response_nonce: {:?} was never sent", request.response_nonce)))?;
        self.nonce_answered = self.nonce_answered.max(nonce);
        self.is_changed();
        // A sidecar says of everything that it rejects at the moment, by name, whichever response it answers.
        let complaint = request.error_detail.as_ref().map(|error| error.message.as_str());
        self.rejected = complaint.map(|complaint| complaint.chars().take(REJECTION_CHARS_MAX).collect());
        let is_refused = |name: &str| complaint.is_some_and(|complaint| complaint.contains(&format!("{name}: ")));
        self.refused.retain(|name, _| is_refused(name));
        let later = self.unanswered.split_off(&(nonce + 1));
        let answered = std::mem::replace(&mut self.unanswered, later);
        if complaint.is_some() {
            for (told, resources) in answered.into_values() {
                for resource in resources.iter().filter(|resource| is_refused(&resource.name)) {
                    self.refused.entry(resource.name.clone()).or_insert_with(|| (told, Arc::clone(resource)));
                }
            }
        }
        Ok(())
    }

    /// A response with these resources is on its way.
    fn sent(&mut self, nonce: u64, resources: Resources) {
        self.nonce_sent = nonce;
        self.unanswered.insert(nonce, (Instant::now(), resources));
        self.is_changed();
    }

    /// What was said of it to others is to be said anew.
    fn is_changed(&mut self) {
        self.said.take();
        self.said_unacknowledged.take();
    }

    /// What was told and is not acknowledged: of several of a name the last counts, which was told first, or refused.
    fn unacknowledged(&self) -> ByResponse {
        let unanswered = self.unanswered.values().rev().filter(|(_, resources)| !resources.is_empty());
        let unanswered = unanswered.map(|(told, resources)| (Unacknowledged { told: *told, is_refused: false }, Arc::clone(resources)));
        let refused = self.refused.values();
        let refused = refused.map(|(told, resource)| (Unacknowledged { told: *told, is_refused: true }, [Arc::clone(resource)].into()));
        unanswered.chain(refused).collect()
    }

    /// What was told, and whether it was acknowledged.
    fn held(&self) -> Arc<[Held]> {
        let unacknowledged = self.unacknowledged();
        let unacknowledged: HashMap<&str, Unacknowledged> = unacknowledged
            .iter()
            .flat_map(|(state, resources)| resources.iter().map(|resource| (resource.name.as_str(), *state)))
            .collect();
        let held = |ByName(resource): &ByName| Held {
            resource: Arc::clone(resource),
            unacknowledged: unacknowledged.get(resource.name.as_str()).copied(),
        };
        self.told.iter().map(held).collect()
    }

    fn subscribe(&mut self, kind: Kind, request: DeltaDiscoveryRequest) -> Result<Following, Status> {
        let mut following = Following::default();
        if !self.asked {
            self.asked = true;
            // The first request of a type without names asks for everything.
            if request.resource_names_subscribe.is_empty() {
                self.follow_all(kind, &mut following);
            }
            self.is_returning = !request.initial_resource_versions.is_empty();
            self.held = request.initial_resource_versions;
        }
        for name in request.resource_names_unsubscribe {
            self.names.remove(&name);
            self.absent.remove(&name);
            self.told.remove(name.as_str());
            self.refused.remove(&name);
            self.is_changed();
            following.less.insert((kind, name));
        }
        for name in request.resource_names_subscribe {
            if name == "*" {
                self.follow_all(kind, &mut following);
            } else if self.names.insert(name.clone()) {
                // Asked again: absence is told again.
                self.absent.remove(&name);
                self.due.insert(name.clone());
                following.less.remove(&(kind, name.clone()));
                following.more.insert((kind, name));
            }
        }
        if self.names.len() > NAMES_MAX {
            return Err(Status::resource_exhausted(format!("more than {NAMES_MAX} names are subscribed")));
        }
        Ok(following)
    }

    fn follow_all(&mut self, kind: Kind, following: &mut Following) {
        self.everything = true;
        self.is_all_due = true;
        following.all = Some(kind);
    }

    fn is_answered(&self) -> bool {
        self.nonce_answered >= self.nonce_sent
    }

    fn is_first_of_everything(&self) -> bool {
        self.everything && self.nonce_sent == 0
    }

    fn follows(&self, name: &str) -> bool {
        self.everything || self.names.contains(name)
    }

    /// What differs from what was told; it counts as told from now on.
    fn news(&mut self, kind: Kind, view: &dyn View) -> News {
        let mut news = News::default();
        let mut due = std::mem::take(&mut self.due);
        let mut held = std::mem::take(&mut self.held);
        if std::mem::take(&mut self.is_all_due) {
            held = self.tell_all(view.all(kind), held, &mut news);
        }
        due.extend(held.keys().cloned());
        for name in due {
            match view.get(kind, &name) {
                Some(resource) if self.follows(&name) => self.tell(resource, held.get(&name), &mut news),
                // No route refers to it any more. The client's routes of before may, until it has what the new ones need: to take it away
                // would break requests on their way. It hears no more of it, not even its end, and drops it by itself.
                None if self.names.contains(&name)
                    && (self.told.contains(name.as_str()) || held.contains_key(&name))
                    && view.is_withheld(kind, &name) => {}
                None => {
                    self.refused.remove(&name);
                    self.is_changed();
                    let was_there = self.told.remove(name.as_str()) || held.contains_key(&name);
                    let is_news = if self.names.contains(&name) { self.absent.insert(name.clone()) } else { was_there };
                    if is_news {
                        news.gone.push(name);
                    }
                }
                Some(_) => {}
            }
        }
        news
    }

    /// Tells everything there is, in the order of names. Returns what the sidecar holds from an earlier stream of what is not among it.
    fn tell_all<'r>(
        &mut self,
        all: impl Iterator<Item = &'r Arc<Resource>>,
        held: BTreeMap<String, String>,
        news: &mut News,
    ) -> BTreeMap<String, String> {
        if self.told.is_empty() && self.absent.is_empty() && held.is_empty() {
            // Most streams begin so, with as much as there is: nothing is looked up.
            news.new = all.cloned().collect();
            self.told = news.new.iter().cloned().map(ByName).collect();
            self.is_changed();
            return held;
        }
        let mut left = BTreeMap::new();
        let mut held = held.into_iter().peekable();
        for resource in all {
            while let Some(other) = held.next_if(|(name, _)| *name < resource.name) {
                left.extend([other]);
            }
            let held = held.next_if(|(name, _)| *name == resource.name).map(|(_, version)| version);
            self.tell(resource, held.as_ref(), news);
        }
        left.extend(held);
        left
    }

    /// Tells a resource, or takes note that the sidecar holds this version from before.
    fn tell(&mut self, resource: &Arc<Resource>, held: Option<&String>, news: &mut News) {
        let told = self.told.replace(ByName(Arc::clone(resource)));
        if told.as_ref().map(|told| &told.0.version).or(held) != Some(&resource.version) {
            news.new.push(Arc::clone(resource));
        } else if told.is_none() && self.everything && self.nonce_sent == 0 {
            self.taken_over.push(Arc::clone(resource));
        }
        self.absent.remove(&resource.name);
        self.is_changed();
    }
}

#[cfg(test)]
mod tests;
