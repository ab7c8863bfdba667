//! The resources of one type: what is subscribed to, held, known to be absent, rejected.

use std::collections::{BTreeMap, BTreeSet};

use proto::xds::{DeltaDiscoveryRequest, Resource};

/// Resources of one type by name.
#[derive(Debug)]
pub(super) struct Followed<T> {
    follows: Follows,
    names: BTreeSet<String>,
    /// The last good form of each.
    pub(super) held: BTreeMap<String, Held<T>>,
    absent: BTreeSet<String>,
    rejected: BTreeMap<String, String>,
    /// Of responses that have not been answered.
    pub(super) nonces: Vec<String>,
}

/// How resources of a type are subscribed to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Follows {
    /// With the wildcard.
    Everything,
    /// One by one.
    Names,
}

/// A good form and its version.
#[derive(Debug)]
pub(super) struct Held<T> {
    /// As the controller named it.
    pub(super) version: String,
    /// Converted.
    pub(super) value: T,
}

impl<T> Followed<T> {
    /// Nothing is held yet.
    pub(super) fn new(follows: Follows) -> Self {
        Self {
            follows,
            names: BTreeSet::new(),
            held: BTreeMap::new(),
            absent: BTreeSet::new(),
            rejected: BTreeMap::new(),
            nonces: Vec::new(),
        }
    }

    /// What is said about a name that was let go in the meantime is about the past.
    fn is_followed(&self, name: &str) -> bool {
        self.follows == Follows::Everything || self.names.contains(name)
    }

    /// The first request of a new stream.
    pub(super) fn reconnect(&mut self, type_url: &str) -> DeltaDiscoveryRequest {
        self.nonces.clear();
        self.absent.clear();
        self.rejected.clear();
        DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: self.names.iter().cloned().collect(),
            initial_resource_versions: self.held.iter().map(|(name, held)| (name.clone(), held.version.clone())).collect(),
            ..Default::default()
        }
    }

    /// Takes in what a response brings; `convert` gets the resource and its former value.
    pub(super) fn take(
        &mut self,
        resources: Vec<Resource>,
        removed: &[String],
        nonce: String,
        mut convert: impl FnMut(&Resource, Option<&T>) -> Result<T, String>,
    ) {
        for resource in resources {
            if !self.is_followed(&resource.name) {
                continue;
            }
            self.absent.remove(&resource.name);
            match convert(&resource, self.held.get(&resource.name).map(|held| &held.value)) {
                Ok(value) => {
                    self.rejected.remove(&resource.name);
                    self.held.insert(resource.name, Held { version: resource.version, value });
                }
                Err(message) => {
                    tracing::warn!(resource = resource.name, message, "rejected; the last good form stays");
                    self.rejected.insert(resource.name, message);
                }
            }
        }
        for name in removed {
            if !self.is_followed(name) {
                continue;
            }
            self.held.remove(name);
            self.rejected.remove(name);
            self.absent.insert(name.clone());
        }
        self.nonces.push(nonce);
    }

    /// Changes what is subscribed to; gives the names to subscribe to and those to unsubscribe from.
    pub(super) fn follow(&mut self, names: BTreeSet<String>) -> (Vec<String>, Vec<String>) {
        let subscribe = names.difference(&self.names).cloned().collect();
        let unsubscribe: Vec<String> = self.names.difference(&names).cloned().collect();
        for name in &unsubscribe {
            self.held.remove(name);
            self.absent.remove(name);
            self.rejected.remove(name);
        }
        self.names = names;
        (subscribe, unsubscribe)
    }

    /// Whether its state is known: held, absent or rejected.
    pub(super) fn is_settled(&self, name: &str) -> bool {
        self.held.contains_key(name) || self.absent.contains(name) || self.rejected.contains_key(name)
    }

    /// Whether there is a form of it, or may be one that has not arrived.
    pub(super) fn may_be(&self, name: &str) -> bool {
        self.held.contains_key(name) || !self.is_settled(name)
    }

    /// What is rejected and why.
    pub(super) fn complaint(&self) -> Option<String> {
        let parts: Vec<String> = self.rejected.iter().map(|(name, message)| format!("{name}: {message}")).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}
