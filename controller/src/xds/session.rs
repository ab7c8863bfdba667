//! The state of one delta-xDS stream, without any I/O.
//!
//! Invariant: a name that is followed has been told its newest version, or its absence, as soon as [`Session::responses`] returns.

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use proto::encoded::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tonic::Status;

use crate::index::{Kind, Names, Resource, View};
use crate::registry::{ByResponse, Held, Progress, Unacknowledged};

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
    kind: Kind,
    nonce: u64,
    revision: String,
    resources: Vec<Arc<Resource>>,
    removed: Vec<String>,
}

impl Answer {
    /// In the form of the wire.
    #[must_use]
    pub fn into_message(self) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: self.revision,
            resources: self.resources.iter().map(|resource| resource.encoded.clone()).collect(),
            type_url: self.kind.type_url().to_owned(),
            nonce: self.nonce.to_string(),
            removed_resources: self.removed,
        }
    }
}

/// What a sidecar follows of one kind, and what it has been told.
#[derive(Debug, Default)]
struct Subscription {
    everything: bool,
    asked: bool,
    names: BTreeSet<String>,
    /// What it was told, in the version that it was told.
    told: HashSet<ByName>,
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
    /// Names that were told and not acknowledged, and when, by the nonce of their response.
    unanswered: BTreeMap<u64, (Instant, Arc<[String]>)>,
    /// Names of which the last answer was a rejection, and when they were told.
    refused: BTreeMap<String, Instant>,
    rejected: Option<String>,
    /// Names that the next response stands for without containing them: the sidecar holds them from an earlier stream, and its answer says that they
    /// are in force.
    taken_over: Vec<String>,
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

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.as_str().hash(state);
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
        let mut answer = |kind, resources, removed| {
            nonce += 1;
            answers.push(Answer { kind, nonce, revision: view.revision().to_string(), resources, removed });
            nonce
        };
        for ((kind, news), is_first) in news.iter_mut().zip(first_of_everything) {
            // A wildcard is answered even when there is nothing, so that the sidecar knows that there is nothing.
            if is_first || !news.new.is_empty() {
                let mut names = std::mem::take(&mut self.of(*kind).taken_over);
                names.extend(news.new.iter().map(|resource| resource.name.clone()));
                let nonce_sent = answer(*kind, std::mem::take(&mut news.new), Vec::new());
                self.of(*kind).sent(nonce_sent, names);
            }
        }
        for (kind, news) in news.into_iter().rev() {
            if !news.gone.is_empty() {
                let nonce_sent = answer(kind, Vec::new(), news.gone);
                self.of(kind).sent(nonce_sent, Vec::new());
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
            resources: kinds.iter().map(|(kind, subscription)| (kind.label(), subscription.told.len())).collect(),
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
        for (told, names) in std::mem::replace(&mut self.unanswered, later).into_values() {
            for name in names.iter().filter(|name| is_refused(name)) {
                self.refused.entry(name.clone()).or_insert(told);
            }
        }
        Ok(())
    }

    /// A response with these resources is on its way.
    fn sent(&mut self, nonce: u64, names: Vec<String>) {
        self.nonce_sent = nonce;
        self.unanswered.insert(nonce, (Instant::now(), names.into()));
        self.is_changed();
    }

    /// What was said of it to others is to be said anew.
    fn is_changed(&mut self) {
        self.said.take();
        self.said_unacknowledged.take();
    }

    /// What was told and is not acknowledged: of several that have a name the last counts, which was told first, or refused.
    fn unacknowledged(&self) -> ByResponse {
        let unanswered = self.unanswered.values().rev().filter(|(_, names)| !names.is_empty());
        let unanswered = unanswered.map(|(told, names)| (Unacknowledged { told: *told, is_refused: false }, Arc::clone(names)));
        let refused = self.refused.iter().map(|(name, told)| (Unacknowledged { told: *told, is_refused: true }, [name.clone()].into()));
        unanswered.chain(refused).collect()
    }

    /// What was told, and whether it was acknowledged.
    fn held(&self) -> Arc<[Held]> {
        let unacknowledged = self.unacknowledged();
        let unacknowledged: HashMap<&str, Unacknowledged> =
            unacknowledged.iter().flat_map(|(state, names)| names.iter().map(|name| (name.as_str(), *state))).collect();
        let held = |ByName(resource): &ByName| Held {
            name: resource.name.clone(),
            version: resource.version.clone(),
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
            self.due.extend(request.initial_resource_versions.keys().cloned());
            self.is_returning = !request.initial_resource_versions.is_empty();
            self.held = request.initial_resource_versions.into_iter().collect();
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
        let due = std::mem::take(&mut self.due);
        let held = std::mem::take(&mut self.held);
        if std::mem::take(&mut self.is_all_due) {
            for resource in view.all(kind) {
                self.tell(resource, &held, &mut news);
            }
        }
        for name in due {
            match view.get(kind, &name) {
                Some(resource) if self.follows(&name) => self.tell(resource, &held, &mut news),
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

    fn tell(&mut self, resource: &Arc<Resource>, held: &BTreeMap<String, String>, news: &mut News) {
        let told = self.told.get(resource.name.as_str()).map(|told| &told.0.version).or_else(|| held.get(&resource.name));
        if told != Some(&resource.version) {
            news.new.push(Arc::clone(resource));
        } else if !self.told.contains(resource.name.as_str()) && self.everything && self.nonce_sent == 0 {
            self.taken_over.push(resource.name.clone());
        }
        self.absent.remove(&resource.name);
        self.told.replace(ByName(Arc::clone(resource)));
        self.is_changed();
    }
}

#[cfg(test)]
mod tests;
