//! What the end-to-end tests are written in: manifests as short as they can be, a lab made of them, questions asked from its pods.

pub mod collector;
pub mod load;
pub mod metrics;
pub mod pages;
pub mod yaml;

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::Version;
use lab::client::{Answer, Ask};
use lab::lab::{Lab, Options};
use lab::privilege::Privilege;
use lab::roles::PodName;
use serde_json::Value;
use tempfile::TempDir;

/// What is sent without anybody waiting for it has arrived within this time.
const SEEN_MAX: Duration = Duration::from_secs(20);

/// A lab and the folder that it follows.
#[derive(Debug)]
pub struct Bed {
    // Before the folder.
    lab: Lab,
    folder: TempDir,
}

impl Deref for Bed {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for Bed {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

impl Bed {
    /// A lab of these files, `CLUSTER/FILE`, in which everything is in force.
    ///
    /// # Errors
    /// Something does not come up.
    pub fn start(files: &[(&str, String)], options: Options) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            write(folder.path(), name, text)?;
        }
        let lab = Lab::start(folder.path(), options, Privilege::acquire()?)?;
        Ok(Self { lab, folder })
    }

    /// Writes a file and waits until it is in force.
    ///
    /// # Errors
    /// It does not come into force.
    pub fn apply(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        write(self.folder.path(), name, text)?;
        self.lab.reconcile()
    }

    /// Deletes a file and waits until that is in force.
    ///
    /// # Errors
    /// It does not come into force.
    pub fn delete(&mut self, name: &str) -> anyhow::Result<()> {
        fs::remove_file(self.folder.path().join(name)).with_context(|| name.to_owned())?;
        self.lab.reconcile()
    }

    /// A GET from the first client.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn get(&self, to: &str, target: &str) -> anyhow::Result<Answer> {
        self.get_from(&self.lab.client()?, to, target)
    }

    /// A GET from a pod.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn get_from(&self, pod: &PodName, to: &str, target: &str) -> anyhow::Result<Answer> {
        self.lab.ask(pod, to, &Ask::get(to.strip_suffix(":80").unwrap_or(to), target)).with_context(|| format!("GET {target} to {to}"))
    }

    /// What a pod, `CLUSTER/NAMESPACE/NAME`, was asked for under an id, once it was asked that often: its own count, and what came last.
    ///
    /// # Errors
    /// It takes too long.
    pub fn seen(&self, pod: &str, id: &str, count: u64) -> anyhow::Result<Value> {
        let pod = self.lab.pod(pod)?;
        let to = self.lab.server(&pod)?.to_string();
        let end = Instant::now() + SEEN_MAX;
        loop {
            let seen = self.get_from(&pod, &to, &format!("/-/seen?id={id}"))?.seen();
            if seen["count"].as_u64() >= Some(count) {
                return Ok(seen);
            }
            ensure!(Instant::now() < end, "{pod} was not asked for {id} {count} times: {seen}");
        }
    }

    /// Who answered so many GETs, or with which status a sidecar did: `CLUSTER/NAME` of a Deployment, or the status.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn shares(&self, times: usize, to: &str, target: &str) -> anyhow::Result<BTreeMap<String, usize>> {
        self.shares_from(&self.lab.client()?, times, to, target)
    }

    /// The same from a pod.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn shares_from(&self, pod: &PodName, times: usize, to: &str, target: &str) -> anyhow::Result<BTreeMap<String, usize>> {
        self.shares_of(pod, times, to, Version::HTTP_11, &Ask::get(to, target))
    }

    /// The same for any request, in any version, on one connection.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn shares_of(&self, pod: &PodName, times: usize, to: &str, version: Version, ask: &Ask) -> anyhow::Result<BTreeMap<String, usize>> {
        let address = self.lab.address(pod, to)?;
        self.lab.namespace(pod)?.block_on(|| async {
            let mut counts = BTreeMap::new();
            let mut connection = lab::client::Connection::open(address, version).await?;
            for _ in 0..times {
                *counts.entry(who(&connection.ask(ask).await?)).or_default() += 1;
            }
            Ok(counts)
        })
    }
}

/// `CLUSTER/NAME` of the Deployment that answered, else the status of the sidecar's own answer.
#[must_use]
pub fn who(answer: &Answer) -> String {
    let Some(served_by) = answer.served_by() else { return answer.status.as_u16().to_string() };
    let parts: Vec<&str> = served_by.split('/').collect();
    let deployment = parts.last().and_then(|pod| pod.rsplit_once('-')).map_or("", |(name, _)| name);
    format!("{}/{deployment}", parts.first().copied().unwrap_or_default())
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().context("a name without a folder")?)?;
    fs::write(path, text).with_context(|| name.to_owned())
}
