//! Lists and watches the kinds that are served.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, ListParams};
use kube::core::DynamicResourceScope;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_kind};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use routing::api::{Object, ObjectKey, ObjectKind};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::discovery::{FOLLOWED, Followed, Served};
use super::status::HeldStatus;
use crate::source::Loaded;

/// Objects of one page of a list;
const PAGE: u32 = 500;
/// of ConfigMaps, which may have a mebibyte each.
const CONFIG_MAPS_PAGE: u32 = 50;
/// A watch that goes on says nothing: one whose last error is so old has recovered. Errors come at least twice as often.
const RECOVERED_AFTER: Duration = Duration::from_secs(90);
/// Of ConfigMaps only this entry is read: CA certificates of a BackendTLSPolicy.
const CONFIG_MAP_ENTRY: &str = "ca.crt";

/// What a watch says.
pub(super) enum Change {
    /// An object is there, or is another now.
    Apply { plural: &'static str, version: u64, object: Box<Object>, held: Option<HeldStatus> },
    /// An object is there and cannot be read.
    Broken { plural: &'static str, version: u64, key: ObjectKey, error: String },
    /// An object is gone.
    Delete { plural: &'static str, version: u64, key: ObjectKey },
    /// These are all that there are, at this resource version or a later one.
    Listed { plural: &'static str, version: u64, keys: BTreeSet<ObjectKey> },
}

/// Follows every kind; ends when nobody listens any more.
pub(super) async fn all(
    client: &Client,
    served: watch::Receiver<Option<Served>>,
    changes: mpsc::Sender<Change>,
    loaded: &Arc<Mutex<Loaded>>,
) {
    let kinds = FOLLOWED.iter().map(|followed| {
        let watch = Watch { client: client.clone(), followed, changes: changes.clone(), loaded: Arc::clone(loaded) };
        watch.run(served.clone())
    });
    join_all(kinds).await;
}

/// An object as the API server writes it, and what of its metadata a watch needs: each field is read once, not into a type and out of it again.
#[derive(Clone, Debug)]
struct Written {
    metadata: ObjectMeta,
    value: Value,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::Object(Map::deserialize(deserializer)?);
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let [name, namespace, resource_version] = ["name", "namespace", "resourceVersion"].map(text);
        Ok(Self { metadata: ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() }, value })
    }
}

impl Resource for Written {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.kind).into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.group).into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.version).into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.plural).into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Written {
    /// As it would be written in a file, without what is never read.
    fn into_value(mut self, resource: &ApiResource) -> Value {
        if let Some(metadata) = self.value["metadata"].as_object_mut() {
            metadata.retain(|field, _| !matches!(field.as_str(), "managedFields" | "annotations"));
        }
        self.value["apiVersion"] = json!(resource.api_version);
        self.value["kind"] = json!(resource.kind);
        if resource.plural == "configmaps" {
            let entry = self.value["data"].get_mut(CONFIG_MAP_ENTRY).map(Value::take);
            self.value["data"] = entry.map_or_else(|| json!({}), |entry| json!({CONFIG_MAP_ENTRY: entry}));
        }
        self.value
    }
}

struct Watch {
    client: Client,
    followed: &'static Followed,
    changes: mpsc::Sender<Change>,
    loaded: Arc<Mutex<Loaded>>,
}

impl Watch {
    async fn run(self, mut served: watch::Receiver<Option<Served>>) {
        let plural = self.followed.plural;
        while served.wait_for(Option::is_some).await.is_ok() {
            let resource = served.borrow_and_update().as_ref().and_then(|served| served.get(plural).cloned());
            let following = async {
                match &resource {
                    Some(resource) => self.follow(resource).await,
                    // A kind that is not served has no objects.
                    None => {
                        self.say(Change::Listed { plural, version: 0, keys: BTreeSet::new() }).await;
                        std::future::pending().await
                    }
                }
            };
            let changed = served.wait_for(|served| served.as_ref().and_then(|served| served.get(plural)) != resource.as_ref());
            tokio::select! {
                () = following => return,
                changed = changed => if changed.is_err() { return },
            }
        }
    }

    /// Until nobody listens.
    async fn follow(&self, resource: &ApiResource) {
        let plural = self.followed.plural;
        let api: Api<Written> = Api::all_with(self.client.clone(), resource);
        let mut events = pin!(watch_kind(api.clone(), watcher::Config::default().page_size(self.page())).default_backoff());
        let mut listed = BTreeSet::new();
        let mut version = 0;
        let mut is_failing = false;
        loop {
            let event = if is_failing { tokio::time::timeout(RECOVERED_AFTER, events.next()).await } else { Ok(events.next().await) };
            let event = match event {
                Ok(Some(Ok(event))) => Some(event),
                Ok(Some(Err(error))) => {
                    is_failing = true;
                    self.failing(Some(error.to_string()));
                    continue;
                }
                Ok(None) => return,
                Err(_) => None,
            };
            is_failing = false;
            self.failing(None);
            let Some(event) = event else { continue };
            match event {
                Event::Init => {
                    listed.clear();
                    // The list that follows is at least as new as this one of a single object.
                    version = api
                        .list_metadata(&ListParams::default().limit(1))
                        .await
                        .map_or(0, |list| number(list.metadata.resource_version.as_deref()));
                }
                Event::InitApply(object) => {
                    if let Some(change) = self.applied(object, resource) {
                        listed.insert(change.0);
                        self.say(change.1).await;
                    }
                }
                Event::InitDone => self.say(Change::Listed { plural, version, keys: std::mem::take(&mut listed) }).await,
                Event::Apply(object) => {
                    if let Some((_, change)) = self.applied(object, resource) {
                        self.say(change).await;
                    }
                }
                Event::Delete(object) => {
                    let key = key(self.followed.kind, &object);
                    self.say(Change::Delete { plural, version: number(object.metadata.resource_version.as_deref()), key }).await;
                }
            }
            if self.changes.is_closed() {
                return;
            }
        }
    }

    fn page(&self) -> u32 {
        if self.followed.kind == ObjectKind::ConfigMap { CONFIG_MAPS_PAGE } else { PAGE }
    }

    fn applied(&self, object: Written, resource: &ApiResource) -> Option<(ObjectKey, Change)> {
        let plural = self.followed.plural;
        let key = key(self.followed.kind, &object);
        let version = number(object.metadata.resource_version.as_deref());
        let value = object.into_value(resource);
        let change = match Object::decode(&value) {
            Ok(Some(object)) => {
                let held = self.followed.kind.has_status().then(|| HeldStatus::of(value, resource));
                Change::Apply { plural, version, object: Box::new(object), held }
            }
            Ok(None) => {
                debug!(object = %key, "is of a version that is not read");
                return None;
            }
            Err(error) => Change::Broken { plural, version, key: key.clone(), error: error.to_string() },
        };
        Some((key, change))
    }

    async fn say(&self, change: Change) {
        // Nobody listens any more at the end alone.
        let _ = self.changes.send(change).await;
    }

    fn failing(&self, why: Option<String>) {
        let plural = self.followed.plural;
        let failing = &mut self.loaded.lock().failing;
        match why {
            Some(error) => {
                if failing.insert(plural, error.clone()).is_none() {
                    warn!(kind = plural, error, "cannot be followed; what is known of it stays in force");
                }
            }
            None => drop(failing.remove(plural)),
        }
    }
}

fn key(kind: ObjectKind, object: &Written) -> ObjectKey {
    ObjectKey { kind, namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// Resource versions are numbers of one sequence for each kind; one that is none counts as the oldest.
fn number(version: Option<&str>) -> u64 {
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}
