//! Writes statuses to the API server: the leader alone, by read-modify-write, only where something differs, at a bounded rate.
//!
//! Invariants: what is written carries the resource version it was computed from, so that nobody's change is lost (digest S-3); what cannot
//! be written is tried again and holds nothing else up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use parking_lot::Mutex;
use routing::api::ObjectKey;
use routing::status::{Condition, EntryStatus};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::live::Verdicts;
use super::{CALL_TIMEOUT, MANAGER, in_time};
use crate::index::Index;
use crate::status::{Place, entries, is_newer, is_ours};

/// At most fifty statuses a second.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// What could not be written is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The objects whose status is ours to write, as they were seen last.
pub(super) type Held = Arc<Mutex<BTreeMap<ObjectKey, HeldStatus>>>;

/// Of an object: what is needed to write its status.
#[derive(Clone, Debug)]
pub(super) struct HeldStatus {
    resource: ApiResource,
    /// `metadata`, as far as it is needed, and `status`.
    value: Value,
}

impl HeldStatus {
    pub(super) fn of(mut value: Value, resource: &ApiResource) -> Self {
        let metadata = &value["metadata"];
        let metadata = json!({
            "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
        });
        Self { resource: resource.clone(), value: json!({"metadata": metadata, "status": value["status"].take()}) }
    }

    fn text(&self, field: &str) -> &str {
        self.value["metadata"][field].as_str().unwrap_or_default()
    }

    fn reference(&self) -> ObjectReference {
        let text = |field: &str| Some(self.text(field).to_owned());
        ObjectReference {
            api_version: Some(self.resource.api_version.clone()),
            kind: Some(self.resource.kind.clone()),
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            ..ObjectReference::default()
        }
    }
}

/// Objects whose status may have to be written.
#[derive(Debug, Default)]
pub(super) struct Pending {
    keys: Mutex<BTreeSet<ObjectKey>>,
    added: Notify,
}

impl Pending {
    pub(super) fn add(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        self.keys.lock().extend(keys);
        self.added.notify_one();
    }

    async fn take(&self) -> ObjectKey {
        loop {
            if let Some(key) = self.keys.lock().pop_first() {
                return key;
            }
            self.added.notified().await;
        }
    }
}

/// What statuses are made of.
pub(super) struct Facts {
    pub(super) index: Arc<Index>,
    pub(super) held: Held,
    pub(super) verdicts: Arc<Verdicts>,
}

impl Facts {
    /// What is to be written; none: no such object, or none that has a status of ours.
    fn statuses(&self, key: &ObjectKey) -> Option<Vec<EntryStatus>> {
        let mut statuses = self.index.status(key)?;
        if let Some(verdict) = self.verdicts.of(key) {
            for status in &mut statuses {
                // Of a parent that it is not attached to there is nothing to be live.
                // Nor has an object of that name that was made anew come as far as the one before.
                let is_of = |condition: &Condition| {
                    condition.kind == "Accepted" && condition.status && condition.observed_generation >= verdict.observed_generation
                };
                if status.conditions.iter().any(is_of) {
                    status.conditions.push(verdict.clone());
                }
            }
        }
        Some(statuses)
    }
}

/// Writes what [`Pending`] names while this replica leads.
pub(super) struct StatusWriter {
    client: Client,
    facts: Facts,
    pending: Arc<Pending>,
    leadership: watch::Receiver<bool>,
    recorder: Recorder,
}

enum Outcome {
    Done,
    Again,
}

impl StatusWriter {
    pub(super) fn new(client: Client, facts: Facts, pending: Arc<Pending>, leadership: watch::Receiver<bool>) -> Self {
        let recorder = Recorder::new(client.clone(), Reporter { controller: MANAGER.to_owned(), instance: None });
        Self { client, facts, pending, leadership, recorder }
    }

    pub(super) async fn run(mut self) {
        let mut pace = tokio::time::interval(WRITE_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = tokio::time::interval(RETRY_AFTER);
        let mut later = BTreeSet::new();
        loop {
            // The sender lives as long as this task's siblings: all of them end together.
            if !*self.leadership.borrow() {
                if self.await_leadership().await.is_err() {
                    return;
                }
                // What another leader left undone.
                self.pending.add(self.facts.held.lock().keys().cloned());
            }
            let key = tokio::select! {
                key = self.pending.take() => key,
                _ = retry.tick() => {
                    self.pending.add(std::mem::take(&mut later));
                    continue;
                }
                changed = self.leadership.changed() => {
                    if changed.is_err() { return }
                    continue;
                }
            };
            if let Outcome::Again = self.write(&key, &mut pace).await {
                later.insert(key);
            }
        }
    }

    /// What another leader writes in the meantime is not ours to write.
    async fn await_leadership(&mut self) -> Result<(), watch::error::RecvError> {
        loop {
            tokio::select! {
                leads = self.leadership.wait_for(|leads| *leads) => return leads.map(drop),
                _ = self.pending.take() => {}
            }
        }
    }

    async fn write(&self, key: &ObjectKey, pace: &mut tokio::time::Interval) -> Outcome {
        let Some(held) = self.facts.held.lock().get(key).cloned() else { return Outcome::Done };
        let Some(statuses) = self.facts.statuses(key) else { return Outcome::Done };
        let place = Place::of(key.kind);
        if is_newer(place, &held.value, &statuses) {
            return Outcome::Done;
        }
        let entries = entries(place, &held.value, None, &statuses, Timestamp::now());
        if place.entries(Some(&held.value)) == entries {
            return Outcome::Done;
        }
        pace.tick().await;
        let patch = json!({
            "metadata": {"resourceVersion": held.value["metadata"]["resourceVersion"]},
            "status": {place.list(): entries},
        });
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &held.resource);
        match in_time(CALL_TIMEOUT, api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch))).await {
            Ok(written) => {
                debug!(object = %key, "status written");
                self.events(&held, place, &statuses).await;
                self.keep(key, &held, written);
                Outcome::Done
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Done,
            // The watch brings the newer form.
            Err(kube::Error::Api(status)) if status.code == 409 => Outcome::Again,
            Err(error) => {
                warn!(object = %key, %error, "status cannot be written; it is tried again");
                Outcome::Again
            }
        }
    }

    /// What was written is what is there, until the watch says otherwise.
    fn keep(&self, key: &ObjectKey, before: &HeldStatus, written: DynamicObject) {
        let Ok(value) = serde_json::to_value(written) else { return };
        let mut held = self.facts.held.lock();
        if let Some(current) = held.get_mut(key)
            && current.text("resourceVersion") == before.text("resourceVersion")
        {
            *current = HeldStatus::of(value, &before.resource);
        }
    }

    /// An event for each condition that a user has to do something about and that says something else than before.
    async fn events(&self, before: &HeldStatus, place: Place, statuses: &[EntryStatus]) {
        let said_before = |condition: &Condition| {
            let ours = place.entries(Some(&before.value)).iter().filter(|entry| is_ours(entry));
            let mut conditions = ours.filter_map(|entry| entry["conditions"].as_array()).flatten();
            conditions.any(|earlier| earlier["reason"] == condition.reason && earlier["message"] == condition.message)
        };
        let wrong = |condition: &&Condition| condition.status == (condition.kind == "PartiallyInvalid");
        for condition in statuses.iter().flat_map(|status| &status.conditions).filter(wrong).filter(|condition| !said_before(condition)) {
            let event = Event {
                type_: EventType::Warning,
                reason: condition.reason.to_owned(),
                note: Some(condition.message.chars().take(EVENT_NOTE_CHARS_MAX).collect()),
                action: condition.kind.to_owned(),
                secondary: None,
            };
            if let Err(error) = in_time(CALL_TIMEOUT, self.recorder.publish(&event, &before.reference())).await {
                debug!(%error, "event");
            }
        }
    }
}

/// The API's maximum of an event's note is 1024 bytes; characters may have up to four.
const EVENT_NOTE_CHARS_MAX: usize = 256;
