//! The objects of manifests, as the controllers of their clusters would read them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use controller::directory::{self, Files};
use controller::kubernetes::discovery::FOLLOWED;
use kube::api::DynamicObject;
use kube::{Client, ResourceExt as _};
use lab::Addresses;
use lab::manifests::{self, ManifestFile, Manifests};
use lab::plan;
use lab::roles::{self, Allocation, PodName};
use routing::api::{Object, ObjectKey, ObjectKind};
use routing::manifest;
use routing::world::{Settings, World};
use serde_json::Value;

use crate::kubernetes;

/// Where an object is written.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// The file; of a running cluster the object's kind and name.
    pub(crate) file: PathBuf,
    /// Which of its documents, from 1; none: the file as a whole.
    pub(crate) document: Option<usize>,
}

impl Place {
    fn named(name: impl Into<PathBuf>) -> Self {
        Self { file: name.into(), document: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.document.map_or(Ok(()), |document| write!(f, ": document {document}"))
    }
}

/// What cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Where.
    pub(crate) place: Place,
    /// Which field; empty: all of it.
    pub(crate) field: String,
    /// Why.
    pub(crate) message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) };
        write!(f, "{}: {field}{}", self.place, self.message)
    }
}

/// The objects of one cluster.
#[derive(Debug)]
pub(crate) struct Objects {
    /// Its name; empty where there is only one.
    pub(crate) cluster: String,
    /// What the objects mean.
    pub(crate) world: World,
    /// Where they are written; those that follow from others are nowhere.
    pub(crate) places: BTreeMap<ObjectKey, Place>,
    /// What cannot be read, and what is written twice.
    pub(crate) faults: Vec<Fault>,
}

/// Those of every cluster. Where a folder has folders of clusters that export Services, imports and endpoints follow from that, with addresses
/// that are made up; what lies beside these folders is in none of them, and a fault.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Objects>> {
    let said = || path.display().to_string();
    let mut objects = Objects::new(String::new());
    if !path.is_dir() {
        objects.add(path, &std::fs::read(path).with_context(said)?);
        return Ok(vec![objects]);
    }
    let (manifests, beside) = manifests::find(path)?;
    if !is_cluster_set(&manifests, &beside) {
        let files = directory::read(path).with_context(said)?;
        files.contents.iter().for_each(|(name, text)| objects.add(&path.join(name), text));
        objects.add_unread(path, &files);
        return Ok(vec![objects]);
    }
    let mut all = derived(path, &manifests);
    objects.add_beside(path, &beside);
    if !objects.faults.is_empty() {
        all.push(objects);
    }
    Ok(all)
}

/// Whether folders are those of clusters: they export Services, directly, or further down where nothing lies beside them.
fn is_cluster_set(manifests: &Manifests, beside: &Files) -> bool {
    let exports = |(name, file): (&String, &ManifestFile)| match file {
        ManifestFile::Documents(documents) => {
            (beside.contents.is_empty() || !name.contains('/')) && documents.iter().any(|document| document["kind"] == "ServiceExport")
        }
        ManifestFile::Unreadable(_) => false,
    };
    manifests.values().any(|cluster| cluster.files.iter().any(exports))
}

/// Those of a client's cluster. Without folders of clusters it may have any name.
pub(crate) fn of_client(path: &Path, cluster: &str) -> anyhow::Result<Objects> {
    let mut all = read(path)?;
    if let [objects] = &mut all[..]
        && objects.cluster.is_empty()
        && let Some(mut only) = all.pop()
    {
        if !cluster.is_empty() {
            only.cluster = cluster.to_owned();
        }
        return Ok(only);
    }
    // What belongs to none is told by whoever looks at all of them.
    all.retain(|objects| !objects.cluster.is_empty());
    let names: Vec<String> = all.iter().map(|objects| objects.cluster.clone()).collect();
    match all.into_iter().find(|objects| objects.cluster == cluster) {
        Some(objects) => Ok(objects),
        None => bail!("{}: in which cluster is the client? --cluster {}", path.display(), names.join(" or ")),
    }
}

/// Those of a running cluster. What cannot be listed counts as absent, and is a fault.
pub(crate) async fn of_cluster(client: &Client, settings: Settings) -> Objects {
    let mut objects = Objects::with(settings);
    for followed in FOLLOWED {
        // They are many, and only policies refer to them.
        if followed.kind == ObjectKind::ConfigMap && !objects.places.keys().any(|key| key.kind == ObjectKind::BackendTlsPolicy) {
            continue;
        }
        match kubernetes::list(client, followed.kind).await {
            Ok(items) => items.into_iter().for_each(|item| objects.add_live(&item)),
            Err(error) => objects.fault(Place::named(followed.plural), "", error.to_string()),
        }
    }
    objects
}

fn derived(path: &Path, manifests: &Manifests) -> Vec<Objects> {
    let pods = plan::pods(manifests, &BTreeMap::new());
    let mut drawn = MadeUp::default();
    pods.keys().for_each(|pod| drawn.pod_of(pod));
    let all = roles::derive(manifests, &pods, &mut drawn);
    let one = |(cluster, derived): (String, roles::Derived)| {
        let folder = path.join(&cluster);
        let mut objects = Objects::new(cluster.clone());
        for (name, text) in &derived.files {
            objects.add(&folder.join(name), text);
        }
        if let Some(manifests) = manifests.get(&cluster) {
            objects.add_unread(&folder, &Files { unread: manifests.unread.clone(), ..Files::default() });
        }
        // What follows from the files is in none of them.
        objects.places.retain(|_, place| place.file.exists());
        objects
    };
    all.into_iter().map(one).collect()
}

impl Objects {
    fn new(cluster: String) -> Self {
        Self::with(Settings { cluster, ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        Self { cluster: settings.cluster.clone(), world: World::new(settings), places: BTreeMap::new(), faults: Vec::new() }
    }

    fn fault(&mut self, place: Place, field: &str, message: String) {
        self.faults.push(Fault { place, field: field.to_owned(), message });
    }

    fn add(&mut self, file: &Path, text: &[u8]) {
        let documents = match std::str::from_utf8(text).map_err(|error| error.to_string()) {
            Ok(text) => manifest::parse(text).map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match documents {
            Ok(documents) => {
                for document in documents {
                    self.add_value(Place { file: file.to_owned(), document: Some(document.number) }, &document.value);
                }
            }
            Err(error) => self.fault(Place::named(file), "", error),
        }
    }

    fn add_unread(&mut self, folder: &Path, files: &Files) {
        files.unread.iter().for_each(|(name, why)| self.fault(Place::named(folder.join(name)), "", why.clone()));
        files.dangling.iter().for_each(|name| self.fault(Place::named(folder.join(name)), "", "a link that leads nowhere".to_owned()));
    }

    /// What lies beside the folders of clusters. What is no object is something else, as an `expected.yaml` is.
    fn add_beside(&mut self, folder: &Path, files: &Files) {
        self.add_unread(folder, files);
        for (name, text) in &files.contents {
            let file = folder.join(name);
            match std::str::from_utf8(text).map(manifest::parse) {
                Ok(Ok(documents)) => documents.iter().filter(|document| document.value["kind"].is_string()).for_each(|document| {
                    let place = Place { file: file.clone(), document: Some(document.number) };
                    self.fault(place, "", "it lies beside the folders of clusters, and belongs to none of them".to_owned());
                }),
                Ok(Err(error)) => self.fault(Place::named(file), "", error.to_string()),
                Err(error) => self.fault(Place::named(file), "", error.to_string()),
            }
        }
    }

    fn add_live(&mut self, object: &DynamicObject) {
        let kind = object.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default();
        let place = Place::named(format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any()));
        match serde_json::to_value(object) {
            Ok(value) => self.add_value(place, &value),
            Err(error) => self.fault(place, "", error.to_string()),
        }
    }

    fn add_value(&mut self, place: Place, value: &Value) {
        match Object::decode(value) {
            Ok(Some(object)) => {
                let key = object.key();
                if let Some(before) = self.places.get(&key) {
                    // As of a controller that follows a directory.
                    let message = format!("{key} is written before, in {before}: the first one counts");
                    return self.fault(place, "metadata.name", message);
                }
                self.world.apply(object);
                self.places.insert(key, place);
            }
            Ok(None) => {}
            Err(error) => self.fault(place, &error.field, error.message.clone()),
        }
    }
}

/// Addresses for whatever has none in the manifests: one after another.
#[derive(Debug, Default)]
struct MadeUp {
    all: BTreeMap<(&'static str, String), Addresses>,
}

impl MadeUp {
    fn of(&mut self, what: &'static str, name: String) -> Addresses {
        let number = u16::try_from(self.all.len() + 1).unwrap_or(u16::MAX);
        let [high, low] = number.to_be_bytes();
        let addresses = Addresses { v4: Ipv4Addr::new(10, 0, high, low), v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number) };
        *self.all.entry((what, name)).or_insert(addresses)
    }

    fn pod_of(&mut self, pod: &PodName) {
        self.of("pod", pod.to_string());
    }
}

impl Allocation for MadeUp {
    fn pod(&self, pod: &PodName) -> Option<Addresses> {
        self.all.get(&("pod", pod.to_string())).copied()
    }

    fn cluster_ips(&mut self, cluster: &str, namespace: &str, name: &str) -> Addresses {
        self.of("cluster", format!("{cluster}/{namespace}/{name}"))
    }

    fn cluster_set_ips(&mut self, cluster: &str, namespace: &str, name: &str) -> Addresses {
        self.of("clusterset", format!("{cluster}/{namespace}/{name}"))
    }
}
