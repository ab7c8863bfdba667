//! The status of routes and policies: what of it is ours, and how it is brought up to date among entries of others.
//!
//! Invariant: entries and conditions of others stay as and where they are; `lastTransitionTime` moves only with the status (digest S-2 to
//! S-4).

pub mod directory;

use jiff::Timestamp;
use routing::api::ObjectKind;
use routing::status::{CONTROLLER_NAME, Condition, EntryStatus, LIVE};
use serde_json::{Value, json};

/// Where in a status the entries stand, and what each is about.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    list: &'static str,
    reference: &'static str,
}

impl Place {
    /// A route has parents (RouteParentStatus), a policy has ancestors (PolicyAncestorStatus).
    pub(crate) fn of(kind: ObjectKind) -> Self {
        if matches!(kind, ObjectKind::Route(_)) {
            Self { list: "parents", reference: "parentRef" }
        } else {
            Self { list: "ancestors", reference: "ancestorRef" }
        }
    }

    /// The list's name.
    pub(crate) fn list(self) -> &'static str {
        self.list
    }

    /// The entries that an object has.
    pub(crate) fn entries(self, object: Option<&Value>) -> &[Value] {
        let list = object.and_then(|object| object.get("status")).and_then(|status| status.get(self.list));
        list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

pub(crate) fn is_ours(entry: &Value) -> bool {
    entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME)
}

/// Whether the object itself says that somebody of ours has seen a later generation: then "implementations MUST NOT" write
/// (RouteParentStatus.conditions; digest S-4). What was written here before says nothing of the kind: the object may be another by now.
pub(crate) fn is_newer(place: Place, written: &Value, statuses: &[EntryStatus]) -> bool {
    let conditions =
        place.entries(Some(written)).iter().filter(|entry| is_ours(entry)).filter_map(|entry| entry.get("conditions")?.as_array());
    // Whether it is live is said later than the rest, and is nothing that the rest depends on.
    let is_live = |condition: &&Value| condition.get("type").and_then(Value::as_str) == Some(LIVE);
    let conditions = conditions.flatten().filter(|condition| !is_live(condition));
    let there = conditions.filter_map(|condition| condition.get("observedGeneration")?.as_i64()).max();
    let ours = statuses.iter().flat_map(|status| &status.conditions).filter(|condition| condition.kind != LIVE);
    let ours = ours.map(|condition| condition.observed_generation).max();
    there.zip(ours).is_some_and(|(there, ours)| there > ours)
}

/// The entries of an object's status, ours brought up to date: in their places, those that speak of nothing any more left out, new ones at
/// the end. What we said `before` and elsewhere counts as earlier too.
pub(crate) fn entries(place: Place, written: &Value, before: Option<&Value>, statuses: &[EntryStatus], now: Timestamp) -> Vec<Value> {
    let is_about = |entry: &Value, status: &EntryStatus| is_ours(entry) && entry.get(place.reference) == Some(&status.reference);
    let update = |status: &EntryStatus, here: Option<&Value>| {
        let elsewhere = place.entries(before).iter().find(|entry| is_about(entry, status));
        let mut entry = entry(status, elsewhere.or(here), now);
        entry[place.reference] = status.reference.clone();
        entry
    };
    let mut left: Vec<&EntryStatus> = statuses.iter().collect();
    let mut entries = Vec::new();
    for here in place.entries(Some(written)) {
        if !is_ours(here) {
            entries.push(here.clone());
        } else if let Some(index) = left.iter().position(|status| is_about(here, status)) {
            entries.push(update(left.remove(index), Some(here)));
        }
    }
    entries.extend(left.into_iter().map(|status| update(status, None)));
    entries
}

/// An entry with our conditions brought up to date.
fn entry(status: &EntryStatus, earlier: Option<&Value>, now: Timestamp) -> Value {
    let earlier: &[Value] = earlier.and_then(|entry| entry.get("conditions")).and_then(Value::as_array).map_or(&[], Vec::as_slice);
    json!({"controllerName": CONTROLLER_NAME, "conditions": conditions(&status.conditions, earlier, now)})
}

/// Our conditions brought up to date, in their places among those of others.
pub(crate) fn conditions(ours: &[Condition], earlier: &[Value], now: Timestamp) -> Vec<Value> {
    let kind = |condition: &Value| condition.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut left: Vec<&Condition> = ours.iter().collect();
    let mut conditions = Vec::new();
    for before in earlier {
        if !OWN_CONDITIONS.contains(&kind(before).as_str()) {
            conditions.push(before.clone());
        } else if let Some(index) = left.iter().position(|condition| condition.kind == kind(before)) {
            conditions.push(condition_value(left.remove(index), Some(before), now));
        } else if kind(before) == LIVE && ours.iter().any(|condition| condition.kind == "Accepted" && condition.status) {
            // What was found out before is true until something else is: it says of which generation it speaks.
            conditions.push(before.clone());
        }
    }
    conditions.extend(left.into_iter().map(|condition| condition_value(condition, None, now)));
    conditions
}

/// The condition types that we write.
const OWN_CONDITIONS: [&str; 4] = ["Accepted", "ResolvedRefs", "PartiallyInvalid", LIVE];

fn condition_value(condition: &Condition, before: Option<&Value>, now: Timestamp) -> Value {
    let status = if condition.status { "True" } else { "False" };
    let unchanged = before.filter(|before| before.get("status").and_then(Value::as_str) == Some(status));
    let since = unchanged.and_then(|before| before.get("lastTransitionTime")).and_then(Value::as_str).map(str::to_owned);
    // Kubernetes writes whole seconds.
    let since = since.unwrap_or_else(|| now.round(jiff::Unit::Second).unwrap_or(now).to_string());
    json!({
        "type": condition.kind,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": since,
    })
}
