//! The state of one delta-xDS stream, without any I/O.
//!
//! Invariant: a name that is subscribed has been told its newest version, or its absence, as soon as [`Session::responses`] returns.

use std::collections::{BTreeMap, BTreeSet};

use proto::type_url;
use proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tonic::Status;

use crate::index::{Resources, View};
use crate::registry::Progress;

/// Above this a sidecar asks for more than any sidecar should.
const NAMES_MAX: usize = 65_536;

/// One stream.
#[derive(Debug, Default)]
pub struct Session {
    generation: u64,
    nonce: u64,
    vips: Subscription,
    frontends: Subscription,
    backends: Subscription,
}

/// What a sidecar follows of one type, and what it has been told.
#[derive(Debug, Default)]
struct Subscription {
    everything: bool,
    asked: bool,
    names: BTreeSet<String>,
    /// Name to version; none: told that it does not exist.
    told: BTreeMap<String, Option<String>>,
    nonce_sent: u64,
    nonce_answered: u64,
    rejected: Option<String>,
}

impl Session {
    /// Takes in a request: a subscription, an acknowledgement, a rejection, or several of these.
    ///
    /// # Errors
    /// A type or nonce that is unknown, or too many names; the stream ends.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let subscription = match request.type_url.as_str() {
            type_url::VIP => &mut self.vips,
            type_url::FRONTEND => &mut self.frontends,
            type_url::BACKEND => &mut self.backends,
            other => return Err(Status::invalid_argument(format!("type_url: {other:?} is not served"))),
        };
        subscription.answer(&request, self.nonce)?;
        subscription.subscribe(request)
    }

    /// What has to be sent: first what is new, backends before the frontends that name them before the VIPs that lead there; then what is
    /// gone, in reverse.
    pub fn responses(&mut self, view: &View) -> Vec<DeltaDiscoveryResponse> {
        self.generation = view.generation;
        let revision = view.revision.to_string();
        let nonce = &mut self.nonce;
        let new = [
            self.backends.updates(type_url::BACKEND, &view.backends, nonce),
            self.frontends.updates(type_url::FRONTEND, &view.frontends, nonce),
            self.vips.updates(type_url::VIP, &view.vips, nonce),
        ];
        let gone = [
            self.vips.removals(type_url::VIP, &view.vips, nonce),
            self.frontends.removals(type_url::FRONTEND, &view.frontends, nonce),
            self.backends.removals(type_url::BACKEND, &view.backends, nonce),
        ];
        let responses = new.into_iter().chain(gone).flatten();
        responses.map(|response| DeltaDiscoveryResponse { system_version_info: revision.clone(), ..response }).collect()
    }

    /// What the stream has come to.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let types = [("vip", &self.vips), ("frontend", &self.frontends), ("backend", &self.backends)];
        Progress {
            generation: self.generation,
            // A sidecar that has not asked for VIPs yet has only just connected.
            acknowledged: self.vips.asked && types.iter().all(|(_, subscription)| subscription.is_answered()),
            resources: types.iter().map(|(name, subscription)| (*name, subscription.told.values().flatten().count())).collect(),
            rejected: types.iter().filter_map(|(name, subscription)| Some((*name, subscription.rejected.clone()?))).collect(),
        }
    }
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
        self.rejected = request.error_detail.as_ref().map(|error| error.message.clone());
        Ok(())
    }

    fn subscribe(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if !self.asked {
            self.asked = true;
            // The first request of a type without names asks for everything.
            self.everything = request.resource_names_subscribe.is_empty();
            self.told = request.initial_resource_versions.into_iter().map(|(name, version)| (name, Some(version))).collect();
        }
        for name in request.resource_names_unsubscribe {
            self.names.remove(&name);
            self.told.remove(&name);
        }
        for name in request.resource_names_subscribe {
            if name == "*" {
                self.everything = true;
            } else if self.names.insert(name.clone()) && self.told.get(&name) == Some(&None) {
                // Asked again: absence is told again.
                self.told.remove(&name);
            }
        }
        if self.names.len() > NAMES_MAX {
            return Err(Status::resource_exhausted(format!("more than {NAMES_MAX} names are subscribed")));
        }
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.nonce_answered >= self.nonce_sent
    }

    fn follows(&self, name: &str) -> bool {
        self.everything || self.names.contains(name)
    }

    fn updates(&mut self, type_url: &str, resources: &Resources, nonce: &mut u64) -> Option<DeltaDiscoveryResponse> {
        let followed: Vec<_> = match self.everything {
            true => resources.values().collect(),
            false => self.names.iter().filter_map(|name| resources.get(name)).collect(),
        };
        let new: Vec<_> = followed
            .into_iter()
            .filter(|resource| self.told.get(&resource.name).and_then(Option::as_ref) != Some(&resource.version))
            .map(|resource| resource.as_ref().clone())
            .collect();
        self.told.extend(new.iter().map(|resource| (resource.name.clone(), Some(resource.version.clone()))));
        // A wildcard is answered even when there is nothing, so that the sidecar knows that there is nothing.
        let first_of_everything = self.everything && self.nonce_sent == 0;
        (first_of_everything || !new.is_empty()).then(|| self.response(type_url, nonce, |response| response.resources = new))
    }

    fn removals(&mut self, type_url: &str, resources: &Resources, nonce: &mut u64) -> Option<DeltaDiscoveryResponse> {
        let held = self.told.iter().filter(|(name, version)| version.is_some() && self.follows(name)).map(|(name, _)| name);
        let unknown = self.names.iter().filter(|name| !self.told.contains_key(*name));
        let gone: BTreeSet<String> = held.chain(unknown).filter(|name| !resources.contains_key(*name)).cloned().collect();
        for name in &gone {
            if self.names.contains(name) {
                self.told.insert(name.clone(), None);
            } else {
                self.told.remove(name);
            }
        }
        (!gone.is_empty()).then(|| self.response(type_url, nonce, |response| response.removed_resources = gone.into_iter().collect()))
    }

    fn response(&mut self, type_url: &str, nonce: &mut u64, fill: impl FnOnce(&mut DeltaDiscoveryResponse)) -> DeltaDiscoveryResponse {
        *nonce += 1;
        self.nonce_sent = *nonce;
        let mut response = DeltaDiscoveryResponse { type_url: type_url.to_owned(), nonce: nonce.to_string(), ..Default::default() };
        fill(&mut response);
        response
    }
}

#[cfg(test)]
mod tests;
