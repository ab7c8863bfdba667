//! A directory of Kubernetes YAML as a source: read whole at every change, compared with what was there before.
//!
//! Invariant: a file that is no YAML keeps its last good form; an object that cannot be read counts as absent; neither hides another.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::Watcher;
use routing::api::{Object, ObjectKey};
use routing::manifest::{self, Document};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Changes within this time are read together.
const SETTLE: Duration = Duration::from_millis(10);
/// Read again after this time even if no change was notified: some file systems notify nothing.
const RESCAN: Duration = Duration::from_secs(5);
/// Above this a file is not read.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The manifests below a directory, by relative name.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// What they hold.
    pub contents: BTreeMap<String, Vec<u8>>,
    /// Why others, and directories, could not be read: one of them hides no other.
    pub unread: BTreeMap<String, String>,
}

/// What a directory held when it was read.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// [`manifest::digest`] of the files.
    pub digest: String,
    /// The objects and how they were written.
    pub objects: BTreeMap<ObjectKey, Written>,
    /// What could not be read, for the one who wrote it.
    pub problems: BTreeSet<String>,
}

/// An object and its document.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// As read.
    pub object: Object,
    /// As written.
    pub value: Value,
}

/// A directory that is followed.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    last_good: BTreeMap<String, Vec<Document>>,
}

impl Directory {
    /// A directory that was not read yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, last_good: BTreeMap::new() }
    }

    /// Reads the directory.
    ///
    /// # Errors
    /// The directory itself cannot be read; what concerns a file or an object is in [`Scan::problems`].
    pub fn scan(&mut self) -> io::Result<Scan> {
        let mut files = read(&self.root)?;
        let mut scan = Scan { digest: manifest::digest(&files.contents), ..Scan::default() };
        self.last_good.retain(|name, _| files.contents.contains_key(name) || files.is_unread(name));
        scan.problems.extend(files.unread.iter().map(|(name, why)| format!("{name}: {why}; what it held before stays")));
        for (name, bytes) in std::mem::take(&mut files.contents) {
            let parsed = String::from_utf8(bytes)
                .map_err(|error| error.to_string())
                .and_then(|text| manifest::parse(&text).map_err(|error| error.to_string()));
            match parsed {
                Ok(documents) => drop(self.last_good.insert(name.clone(), documents)),
                Err(error) => drop(scan.problems.insert(format!("{name}: no YAML, its last good form stays: {error}"))),
            }
        }
        for (name, documents) in &self.last_good {
            for document in documents {
                scan.add(name, document);
            }
        }
        Ok(scan)
    }
}

impl Scan {
    fn add(&mut self, file: &str, document: &Document) {
        let place = format!("{file}: document {}", document.number);
        match Object::decode(&document.value) {
            Ok(None) => debug!(file, document = document.number, "a kind that is not read"),
            Ok(Some(object)) => match self.objects.entry(object.key()) {
                Entry::Vacant(entry) => {
                    entry.insert(Written { object, value: document.value.clone() });
                }
                Entry::Occupied(entry) => {
                    self.problems.insert(format!("{place}: {} was there before; the first one counts", entry.key()));
                }
            },
            Err(error) => drop(self.problems.insert(format!("{place}: {error}"))),
        }
    }
}

/// Reads every manifest below a directory: files of YAML and JSON. Names that begin with a dot are left out (editors, version control, ConfigMap
/// mounts).
///
/// # Errors
/// The directory itself cannot be read.
pub fn read(directory: &Path) -> io::Result<Files> {
    let mut files = Files::default();
    collect(directory, "", &mut files)?;
    Ok(files)
}

fn collect(directory: &Path, prefix: &str, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let relative = format!("{prefix}{name}");
        let path = entry.path();
        let read = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => collect(&path, &format!("{relative}/"), files).map_err(|error| error.to_string()),
            Ok(_) if !is_manifest(&name) => Ok(()),
            Ok(_) if entry.file_name().to_str().is_none() => Err("its name is not in UTF-8".to_owned()),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(format!("larger than {} MiB", FILE_BYTES_MAX >> 20)),
            Ok(_) => match fs::read(&path) {
                Ok(bytes) => {
                    files.contents.insert(relative.clone(), bytes);
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            },
            Err(_) if !is_manifest(&name) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        // A file or directory may go between listing and reading: the next time it is not there. A link that leads nowhere is there.
        if let Err(why) = read
            && fs::symlink_metadata(&path).is_ok()
        {
            files.unread.insert(relative, why);
        }
    }
    Ok(())
}

impl Files {
    /// Whether a name, or a directory that it is in, could not be read.
    fn is_unread(&self, name: &str) -> bool {
        let directories = name.match_indices('/').filter_map(|(end, _)| name.get(..end));
        directories.chain([name]).any(|name| self.unread.contains_key(name))
    }
}

fn is_manifest(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|suffix| name.ends_with(suffix))
}

/// Follows the directory until cancelled; `changed` gets every scan that differs from the one before, and logs are written once a problem.
///
/// # Errors
/// The directory cannot be read at the start.
pub async fn follow(root: PathBuf, stop: CancellationToken, mut changed: impl FnMut(&Scan)) -> anyhow::Result<()> {
    let (notify, mut notified) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
        // Full means that a change is waiting to be read already.
        Ok(event) if !event.kind.is_access() => drop(notify.try_send(())),
        Ok(_) => {}
        Err(error) => warn!(%error, "file notification"),
    })?;
    watch(&mut watcher, &root);
    let mut directory = Directory::new(root.clone());
    let mut last = directory.scan()?;
    report(&Scan::default(), &last);
    changed(&last);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            event = notified.recv() => if event.is_none() { return Ok(()) },
            () = tokio::time::sleep(RESCAN) => watch(&mut watcher, &root),
        }
        tokio::time::sleep(SETTLE).await;
        match directory.scan() {
            Ok(scan) if scan.digest != last.digest || scan.problems != last.problems => {
                report(&last, &scan);
                changed(&scan);
                last = scan;
            }
            Ok(_) => {}
            Err(error) => warn!(%error, path = %root.display(), "the source cannot be read; what was read before stays"),
        }
    }
}

/// Watching again what is watched already does no harm; it is needed when the directory was replaced.
fn watch(watcher: &mut impl Watcher, root: &Path) {
    if let Err(error) = watcher.watch(root, notify::RecursiveMode::Recursive) {
        warn!(%error, path = %root.display(), "changes are found by reading again");
    }
}

fn report(before: &Scan, now: &Scan) {
    for problem in now.problems.difference(&before.problems) {
        error!(%problem, "source");
    }
    for problem in before.problems.difference(&now.problems) {
        info!(%problem, "source: mended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMPORT: &str =
        "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\nmetadata: {name: store}\nspec: {ports: [{port: 80}]}\n";

    fn names(scan: &Scan) -> Vec<String> {
        scan.objects.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_that_is_no_yaml_keeps_its_last_good_form() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("written");
        write("a.yaml", IMPORT);
        write("b.yml", &IMPORT.replace("store", "cart"));
        write("ignored.txt", "[");
        let mut directory = Directory::new(root.path().to_owned());
        assert_eq!(names(&directory.scan().expect("read")), ["ServiceImport default/cart", "ServiceImport default/store"]);
        write("a.yaml", "kind: [\n");
        let scan = directory.scan().expect("read");
        assert_eq!(names(&scan), ["ServiceImport default/cart", "ServiceImport default/store"]);
        let problem = scan.problems.first().expect("a problem");
        assert!(problem.starts_with("a.yaml: no YAML, its last good form stays: line 1 "), "{problem}");
        fs::remove_file(root.path().join("a.yaml")).expect("removed");
        assert_eq!(names(&directory.scan().expect("read")), ["ServiceImport default/cart"]);
    }

    #[test]
    fn a_bad_object_is_named_by_file_document_and_field_and_hides_no_other() {
        let root = tempfile::tempdir().expect("a directory");
        let bad = IMPORT.replace("port: 80", "port: eighty");
        fs::create_dir(root.path().join("sub")).expect("created");
        fs::write(root.path().join("sub/a.yaml"), format!("{IMPORT}---\n{bad}")).expect("written");
        let scan = Directory::new(root.path().to_owned()).scan().expect("read");
        assert_eq!(names(&scan), ["ServiceImport default/store"]);
        let problem = scan.problems.first().expect("a problem");
        assert!(problem.starts_with("sub/a.yaml: document 2: spec.ports[0].port: "), "{problem}");
    }

    #[test]
    fn what_cannot_be_read_is_named_hides_no_other_and_stays_as_it_was() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("a.yaml"), IMPORT).expect("written");
        fs::write(root.path().join("b.json"), r#"{"kind": "Other"}"#).expect("written");
        let mut directory = Directory::new(root.path().to_owned());
        assert!(directory.scan().expect("read").problems.is_empty());
        for name in ["a.yaml", "b.json"] {
            fs::File::create(root.path().join(name)).and_then(|file| file.set_len(FILE_BYTES_MAX + 1)).expect("written");
        }
        std::os::unix::fs::symlink("gone", root.path().join("c.yml")).expect("a link");
        let scan = directory.scan().expect("read");
        assert_eq!(names(&scan), ["ServiceImport default/store"], "as before");
        let gone = io::Error::from_raw_os_error(2);
        let [large, also, link] = ["a.yaml: larger than 16 MiB", "b.json: larger than 16 MiB", &format!("c.yml: {gone}")]
            .map(|problem| format!("{problem}; what it held before stays"));
        assert_eq!(scan.problems, BTreeSet::from([large, also, link]));
        fs::remove_file(root.path().join("a.yaml")).expect("removed");
        assert!(names(&directory.scan().expect("read")).is_empty());
    }

    #[test]
    fn of_an_object_in_two_files_the_first_counts() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("b.yaml"), IMPORT).expect("written");
        fs::write(root.path().join("a.yaml"), IMPORT.replace("80", "81")).expect("written");
        let scan = Directory::new(root.path().to_owned()).scan().expect("read");
        assert_eq!(scan.objects.values().next().expect("one").value["spec"]["ports"][0]["port"], 81);
        assert_eq!(
            scan.problems.first().map(String::as_str),
            Some("b.yaml: document 1: ServiceImport default/store was there before; the first one counts")
        );
    }
}
