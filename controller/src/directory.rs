//! A directory of Kubernetes YAML as a source: read whole at every change, compared with what was there before.
//!
//! Invariant: a file that is no YAML keeps its last good form; an object that cannot be read counts as absent; neither hides another.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
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
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The manifests below a directory, by relative name.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// What they hold.
    pub contents: BTreeMap<String, Vec<u8>>,
    /// Why others, and directories, could not be read: one of them hides no other.
    pub unread: BTreeMap<String, String>,
    /// Links that lead nowhere: as if nothing were there.
    pub dangling: BTreeSet<String>,
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
        scan.problems.extend(files.dangling.iter().map(|name| format!("{name}: a link that leads nowhere")));
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
        let is_manifest = [".yaml", ".yml", ".json"].iter().any(|suffix| name.ends_with(suffix));
        let is_other = !is_manifest && entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_other {
            continue;
        }
        let relative = format!("{prefix}{name}");
        match read_entry(&entry, &relative, is_manifest, files) {
            Ok(()) => {}
            // It went between listing and reading; a link that leads nowhere is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_manifest && fs::symlink_metadata(entry.path()).is_ok() {
                    files.dangling.insert(relative);
                }
            }
            Err(error) => drop(files.unread.insert(relative, error.to_string())),
        }
    }
    Ok(())
}

fn read_entry(entry: &DirEntry, relative: &str, is_manifest: bool, files: &mut Files) -> io::Result<()> {
    let path = entry.path();
    let metadata = fs::metadata(&path)?;
    if metadata.is_dir() {
        return collect(&path, &format!("{relative}/"), files);
    }
    if !is_manifest {
        return Ok(());
    }
    if entry.file_name().to_str().is_none() {
        return Err(io::Error::other("its name is not in UTF-8"));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    files.contents.insert(relative.to_owned(), fs::read(&path)?);
    Ok(())
}

impl Files {
    /// Whether a name, or a directory that it is in, could not be read.
    fn is_unread(&self, name: &str) -> bool {
        let directories = name.match_indices('/').filter_map(|(end, _)| name.get(..end));
        directories.chain([name]).any(|name| self.unread.contains_key(name))
    }
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
    use std::os::unix::fs::symlink;

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
        let scan = directory.scan().expect("read");
        assert_eq!(names(&scan), ["ServiceImport default/store"], "as before");
        let large = ["a.yaml", "b.json"].map(|name| format!("{name}: larger than 16 MiB; what it held before stays"));
        assert_eq!(scan.problems, BTreeSet::from(large));
        fs::remove_file(root.path().join("a.yaml")).expect("removed");
        assert!(names(&directory.scan().expect("read")).is_empty());
    }

    #[test]
    fn a_directory_that_cannot_be_read_keeps_what_it_held() {
        let root = tempfile::tempdir().expect("a directory");
        let held = root.path().join("sub/deep");
        fs::create_dir_all(&held).and_then(|()| fs::write(held.join("a.yaml"), IMPORT)).expect("written");
        let mut directory = Directory::new(root.path().to_owned());
        assert_eq!(names(&directory.scan().expect("read")).len(), 1);
        // A loop of links cannot be read by root either.
        fs::remove_dir_all(root.path().join("sub")).and_then(|()| symlink("sub", root.path().join("sub"))).expect("a link");
        let scan = directory.scan().expect("read");
        assert_eq!(names(&scan).len(), 1);
        assert!(scan.problems.first().is_some_and(|problem| problem.starts_with("sub: ")), "{:?}", scan.problems);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named_and_holds_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("target"), IMPORT).and_then(|()| symlink("target", root.path().join("a.yaml"))).expect("a link");
        let mut directory = Directory::new(root.path().to_owned());
        assert_eq!(names(&directory.scan().expect("read")).len(), 1);
        fs::remove_file(root.path().join("target")).expect("removed");
        let scan = directory.scan().expect("read");
        assert!(names(&scan).is_empty());
        assert_eq!(scan.problems, BTreeSet::from(["a.yaml: a link that leads nowhere".to_owned()]));
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
