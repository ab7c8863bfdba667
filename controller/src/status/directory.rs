//! Writes statuses as whole objects, one file each: what a source that is no API server cannot take back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use routing::api::{ObjectKey, ObjectKind};
use routing::model::RouteKind;
use routing::status::EntryStatus;
use serde_json::{Map, Value};

use super::{Place, entries, is_newer};

/// A directory of status files.
#[derive(Clone, Debug)]
pub struct StatusDirectory {
    path: PathBuf,
}

/// Why a status is not written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The directory is part of the source, which would make the controller feed on what it writes.
    #[error("status directory {status} is inside the source {source_root}")]
    InsideSource {
        /// The status directory.
        status: PathBuf,
        /// The source.
        source_root: PathBuf,
    },
    /// A file or directory cannot be written.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// An object cannot be written as YAML.
    #[error("{path}: {message}")]
    Yaml {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

impl StatusDirectory {
    /// Creates the directory if it is missing.
    ///
    /// # Errors
    /// It cannot be created, or it is inside the source.
    pub fn open(path: &Path, source: &Path) -> Result<Self, StatusError> {
        let io = |path: &Path, error| StatusError::Io { path: path.to_owned(), error };
        let source = source.canonicalize().map_err(|error| io(source, error))?;
        fs::create_dir_all(path).map_err(|error| io(path, error))?;
        let path = path.canonicalize().map_err(|error| io(path, error))?;
        if path.starts_with(&source) {
            return Err(StatusError::InsideSource { status: path, source_root: source });
        }
        Ok(Self { path })
    }

    /// Writes an object's status if it differs from what is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, key: &ObjectKey, written: &Value, statuses: &[EntryStatus], now: Timestamp) -> Result<(), StatusError> {
        let path = self.file(key);
        let before: Option<Value> = fs::read_to_string(&path).ok().and_then(|text| serde_saphyr::from_str(&text).ok());
        let place = Place::of(key.kind);
        if is_newer(place, written, statuses) {
            return Ok(());
        }
        let object = with_status(place, written, before.as_ref(), statuses, now);
        if before.as_ref() == Some(&object) {
            return Ok(());
        }
        let text =
            serde_saphyr::to_string(&object).map_err(|error| StatusError::Yaml { path: path.clone(), message: error.to_string() })?;
        let replace = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(text.as_bytes())?;
            file.persist(&path)?;
            Ok(())
        };
        replace().map_err(|error| StatusError::Io { path: path.clone(), error })
    }

    /// Removes the files of objects that are gone.
    ///
    /// # Errors
    /// The directory cannot be read or a file not removed.
    pub fn retain(&self, objects: &BTreeSet<ObjectKey>) -> Result<(), StatusError> {
        let io = |error| StatusError::Io { path: self.path.clone(), error };
        let kept: BTreeSet<PathBuf> = objects.iter().map(|key| self.file(key)).collect();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let ours = entry.file_name().to_str().is_some_and(is_ours_to_write);
            if ours && !kept.contains(&entry.path()) {
                fs::remove_file(entry.path()).map_err(io)?;
            }
        }
        Ok(())
    }

    fn file(&self, key: &ObjectKey) -> PathBuf {
        self.path.join(format!("{}.{}.{}.yaml", key.kind.as_str(), key.namespace, key.name))
    }
}

/// The kinds whose status is written.
const KINDS: [ObjectKind; 6] = [
    ObjectKind::Route(RouteKind::Http),
    ObjectKind::Route(RouteKind::Grpc),
    ObjectKind::Route(RouteKind::Tls),
    ObjectKind::Route(RouteKind::Tcp),
    ObjectKind::BackendTlsPolicy,
    ObjectKind::BackendTrafficPolicy,
];

fn is_ours_to_write(file: &str) -> bool {
    let kind = file.strip_suffix(".yaml").and_then(|name| name.split('.').next());
    KINDS.iter().any(|known| Some(known.as_str()) == kind)
}

/// The object with the entries of others as the source has them and our own anew.
fn with_status(place: Place, written: &Value, before: Option<&Value>, statuses: &[EntryStatus], now: Timestamp) -> Value {
    let entries = entries(place, written, before, statuses, now);
    let mut object = written.clone();
    if let Some(object) = object.as_object_mut() {
        let status = object.entry("status").or_insert_with(|| Value::Object(Map::new()));
        if !status.is_object() {
            *status = Value::Object(Map::new());
        }
        status[place.list()] = Value::Array(entries);
    }
    object
}

#[cfg(test)]
mod tests {
    use routing::status::{CONTROLLER_NAME, Condition};
    use serde_json::json;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey { kind: ObjectKind::Route(RouteKind::Http), namespace: "shop".to_owned(), name: "store".to_owned() }
    }

    fn status(accepted: bool) -> Vec<EntryStatus> {
        let condition =
            Condition { kind: "Accepted", status: accepted, reason: "Accepted", message: String::new(), observed_generation: 1 };
        vec![EntryStatus { reference: json!({"name": "store"}), conditions: vec![condition] }]
    }

    fn read(root: &Path) -> Value {
        let text = fs::read_to_string(root.join("HTTPRoute.shop.store.yaml")).expect("written");
        serde_saphyr::from_str(&text).expect("YAML")
    }

    #[test]
    fn entries_of_others_stay_and_ours_are_replaced() {
        let source = tempfile::tempdir().expect("a directory");
        let root = tempfile::tempdir().expect("a directory");
        let directory = StatusDirectory::open(root.path(), source.path()).expect("opened");
        let other = json!({"controllerName": "example.org/gateway", "parentRef": {"name": "g"}, "conditions": []});
        let stale = json!({"controllerName": CONTROLLER_NAME, "parentRef": {"name": "gone"}, "conditions": []});
        let route = json!({"kind": "HTTPRoute", "spec": {"rules": []}, "status": {"parents": [other, stale]}});
        directory.write(&key(), &route, &status(true), Timestamp::UNIX_EPOCH).expect("written");
        let written = read(root.path());
        assert_eq!(written["spec"], json!({"rules": []}), "the whole object");
        assert_eq!(written["status"]["parents"][0], other);
        assert_eq!(written["status"]["parents"][1]["parentRef"], json!({"name": "store"}));
        assert_eq!(written["status"]["parents"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let source = tempfile::tempdir().expect("a directory");
        let root = tempfile::tempdir().expect("a directory");
        let directory = StatusDirectory::open(root.path(), source.path()).expect("opened");
        let at = |second| Timestamp::from_second(second).expect("a time");
        let since = || read(root.path())["status"]["parents"][0]["conditions"][0]["lastTransitionTime"].clone();
        let route = json!({"kind": "HTTPRoute"});
        directory.write(&key(), &route, &status(true), at(1)).expect("written");
        directory.write(&key(), &route, &status(true), at(2)).expect("written");
        assert_eq!(since(), "1970-01-01T00:00:01Z");
        directory.write(&key(), &route, &status(false), at(3)).expect("written");
        assert_eq!(since(), "1970-01-01T00:00:03Z");
    }

    #[test]
    fn what_speaks_of_a_later_generation_stays() {
        let source = tempfile::tempdir().expect("a directory");
        let root = tempfile::tempdir().expect("a directory");
        let directory = StatusDirectory::open(root.path(), source.path()).expect("opened");
        let of = |generation| {
            let mut status = status(generation == 1);
            status[0].conditions[0].observed_generation = generation;
            status
        };
        let accepted = || read(root.path())["status"]["parents"][0]["conditions"][0]["status"].clone();
        let plain = json!({"kind": "HTTPRoute"});
        directory.write(&key(), &plain, &of(7), Timestamp::UNIX_EPOCH).expect("written");
        directory.write(&key(), &plain, &of(1), Timestamp::UNIX_EPOCH).expect("written: an object of that name, made anew");
        assert_eq!(accepted(), "True");
        let seen = json!({"controllerName": CONTROLLER_NAME, "conditions": [{"type": "Accepted", "observedGeneration": 2}]});
        let route = json!({"kind": "HTTPRoute", "status": {"parents": [seen]}});
        directory.write(&key(), &route, &of(1), Timestamp::UNIX_EPOCH).expect("left alone");
        directory.write(&key(), &route, &of(3), Timestamp::UNIX_EPOCH).expect("written");
        assert_eq!(read(root.path())["status"]["parents"][0]["conditions"][0]["observedGeneration"], 3, "S-4");
    }

    #[test]
    fn what_was_said_of_being_live_keeps_nothing_from_being_written() {
        let source = tempfile::tempdir().expect("a directory");
        let root = tempfile::tempdir().expect("a directory");
        let directory = StatusDirectory::open(root.path(), source.path()).expect("opened");
        let condition = |kind: &str, generation: i64| json!({"type": kind, "status": "True", "observedGeneration": generation});
        let conditions = [condition("Accepted", 1), condition("isthmus.dev/Live", 5)];
        let seen = json!({"controllerName": CONTROLLER_NAME, "parentRef": {"name": "store"}, "conditions": conditions});
        let route = json!({"kind": "HTTPRoute", "status": {"parents": [seen]}});
        let mut status = status(true);
        status[0].conditions[0].observed_generation = 2;
        directory.write(&key(), &route, &status, Timestamp::UNIX_EPOCH).expect("written");
        let conditions = &read(root.path())["status"]["parents"][0]["conditions"];
        assert_eq!(conditions[0]["observedGeneration"], 2);
        assert_eq!(conditions[1], condition("isthmus.dev/Live", 5), "until something else is known");
    }

    #[test]
    fn a_policy_has_ancestors() {
        let source = tempfile::tempdir().expect("a directory");
        let root = tempfile::tempdir().expect("a directory");
        let directory = StatusDirectory::open(root.path(), source.path()).expect("opened");
        let key = ObjectKey { kind: ObjectKind::BackendTlsPolicy, namespace: "shop".to_owned(), name: "store".to_owned() };
        directory.write(&key, &json!({"kind": "BackendTLSPolicy"}), &status(true), Timestamp::UNIX_EPOCH).expect("written");
        let text = fs::read_to_string(root.path().join("BackendTLSPolicy.shop.store.yaml")).expect("written");
        let written: Value = serde_saphyr::from_str(&text).expect("YAML");
        assert_eq!(written["status"]["ancestors"][0]["ancestorRef"], json!({"name": "store"}), "S-9");
        directory.retain(&BTreeSet::new()).expect("retained");
        assert_eq!(fs::read_dir(root.path()).expect("read").count(), 0, "gone with the policy");
    }

    #[test]
    fn a_route_that_is_gone_has_no_file() {
        let source = tempfile::tempdir().expect("a directory");
        let root = tempfile::tempdir().expect("a directory");
        let directory = StatusDirectory::open(root.path(), source.path()).expect("opened");
        directory.write(&key(), &json!({"kind": "HTTPRoute"}), &status(true), Timestamp::UNIX_EPOCH).expect("written");
        fs::write(root.path().join("notes.txt"), "mine").expect("written");
        directory.retain(&BTreeSet::new()).expect("retained");
        let left: Vec<_> = fs::read_dir(root.path()).expect("read").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
    }

    #[test]
    fn a_directory_inside_the_source_is_refused() {
        let source = tempfile::tempdir().expect("a directory");
        for path in [source.path().to_owned(), source.path().join("status")] {
            let error = StatusDirectory::open(&path, source.path()).expect_err("refused");
            assert!(error.to_string().contains("is inside the source"), "{error}");
        }
    }
}
