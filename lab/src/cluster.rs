//! A cluster: a namespace that routes between pods, translates VIPs as kube-proxy would, and in which the controller runs.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use controller::directory::{self, FILE_BYTES_MAX, Files};
use http::Version;
use nix::sys::signal::Signal;
use routing::manifest;

use crate::Namespace;
use crate::client::{self, Ask};
use crate::net::{self, Addresses, Forwards};
use crate::process::{As, Holder, Process, wait_for};
use crate::roles::{Derived, hosts};

const CONTROLLER_PORT: u16 = 15010;
const CONTROLLER_ADMIN: &str = "127.0.0.1:15011";
/// Its port; pods find it at the gateway.
pub(crate) const CONTROLLER_ADMIN_PORT: u16 = 15011;
/// A program is up within this time, also on a busy machine.
pub(crate) const UP_MAX: Duration = Duration::from_secs(20);
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: String,
    number: u8,
    pub(crate) namespace: Namespace,
    folder: PathBuf,
    holder: Arc<Holder>,
    controller: Option<Process>,
    digest: String,
}

impl Cluster {
    /// Makes the namespace and joins it to the router.
    pub(crate) fn new(name: &str, number: u8, router: &Namespace, folder: PathBuf, holder: &Arc<Holder>) -> anyhow::Result<Self> {
        for part in ["objects", "status", "hosts"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let namespace = Namespace::new(None)?;
        net::prepare(&namespace, Forwards::Yes)?;
        let link = u16::from(number);
        let end = |last: u8| Addresses {
            v4: Ipv4Addr::new(172, 31, number, last),
            v6: Ipv6Addr::new(0xfd00, 0x31, link, 0, 0, 0, 0, last.into()),
        };
        let pods: [(IpAddr, u8); 2] =
            [(Ipv4Addr::new(10, number, 0, 0).into(), 16), (Ipv6Addr::new(0xfd00, 0x10, link, 0, 0, 0, 0, 0).into(), 64)];
        net::connect_cluster(router, &namespace, &format!("c{number}"), (end(1), end(2)), pods)?;
        Ok(Self { name: name.to_owned(), number, namespace, folder, holder: Arc::clone(holder), controller: None, digest: String::new() })
    }

    /// Its number, from 1, in the order of names.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// The addresses of its nth pod.
    pub(crate) fn pod_addresses(&self, nth: u16) -> Addresses {
        numbered(self.number, 0x10, self.number, nth)
    }

    /// The nth ClusterIPs.
    pub(crate) fn cluster_ips(&self, nth: u16) -> Addresses {
        numbered(100 + self.number, 0x100, self.number, nth)
    }

    /// The nth ClusterSetIPs.
    pub(crate) fn cluster_set_ips(&self, nth: u16) -> Addresses {
        numbered(200 + self.number, 0x200, self.number, nth)
    }

    /// The ranges that all VIPs are from.
    pub(crate) fn vip_ranges(&self) -> Vec<String> {
        let number = self.number;
        vec![
            format!("10.{}.0.0/16", 100 + number),
            format!("10.{}.0.0/16", 200 + number),
            format!("fd00:100:{number:x}::/64"),
            format!("fd00:200:{number:x}::/64"),
        ]
    }

    /// Where sidecars find the controller.
    pub(crate) fn controller_url() -> String {
        format!("http://{}:{CONTROLLER_PORT}", net::GATEWAY_V4)
    }

    /// The folder of route status.
    pub(crate) fn status_folder(&self) -> PathBuf {
        self.folder.join("status")
    }

    /// `/etc/hosts` of the pods of a namespace; made if it is not there, so that it can be mounted.
    pub(crate) fn hosts_file(&self, namespace: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join("hosts").join(namespace);
        if !path.exists() {
            fs::write(&path, "127.0.0.1 localhost\n").with_context(|| path.display().to_string())?;
        }
        Ok(path)
    }

    /// Starts the controller and waits until it serves.
    pub(crate) fn start_controller(&mut self, arguments: &[String]) -> anyhow::Result<()> {
        let folder = self.folder.display();
        let own = [
            format!("--source=dir:{folder}/objects"),
            "--plaintext".to_owned(),
            format!("--cluster={}", self.name),
            format!("--listen=0.0.0.0:{CONTROLLER_PORT}"),
            format!("--admin=0.0.0.0:{CONTROLLER_ADMIN_PORT}"),
            format!("--status-dir={folder}/status"),
        ];
        let arguments: Vec<String> = own.into_iter().chain(arguments.iter().cloned()).collect();
        let log = self.folder.join("controller.log");
        let process = Process::start(&self.holder, &self.namespace, "isthmus-controller", &arguments, As::Lab, &log)?;
        let process = self.controller.insert(process);
        let namespace = &self.namespace;
        wait_for("the controller is ready", UP_MAX, || {
            process.check()?;
            Ok(get(namespace, CONTROLLER_ADMIN, "/readyz").ok().filter(|(status, _)| *status == 200))
        })?;
        Ok(())
    }

    /// Whether the controller runs.
    pub(crate) fn has_controller(&self) -> bool {
        self.controller.is_some()
    }

    /// Kills the controller without a word.
    pub(crate) fn kill_controller(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            controller.end(Signal::SIGKILL);
        }
    }

    /// Puts into force what follows from the manifests: VIPs, names, and files for the controller, which has not obeyed them yet when this
    /// returns.
    pub(crate) fn publish(&mut self, derived: &Derived) -> anyhow::Result<()> {
        self.namespace.run(|| Ok(init::services::rules(&derived.vips).commit()?)).context("VIPs")?;
        for entry in fs::read_dir(self.folder.join("hosts"))? {
            let entry = entry?;
            let namespace = entry.file_name().to_string_lossy().into_owned();
            // In place: the file is mounted.
            fs::write(entry.path(), hosts(derived, &namespace))?;
        }
        self.digest = manifest::digest(&derived.files);
        replace_files(&self.folder.join("objects"), &derived.files)
    }

    /// Waits until the controller and so many sidecars obey what was published last.
    pub(crate) fn settled(&mut self, sidecars: usize) -> anyhow::Result<()> {
        let Some(controller) = &mut self.controller else { return Ok(()) };
        controller.check()?;
        let target = format!("/await?digest={}&sidecars={sidecars}&timeout_ms={}", self.digest, SETTLE_MAX.as_millis());
        let (status, body) = get(&self.namespace, CONTROLLER_ADMIN, &target)?;
        ensure!(status == 200, "cluster {}: {body}", self.name);
        Ok(())
    }

    /// What the controller has logged.
    pub(crate) fn controller_log(&self) -> String {
        fs::read_to_string(self.folder.join("controller.log")).unwrap_or_default()
    }
}

/// The nth pair of a range: 10.SECOND.0.0/16 and fd00:SIX:CLUSTER::/64.
fn numbered(second: u8, six: u16, cluster: u8, nth: u16) -> Addresses {
    let [high, low] = (nth + 1).to_be_bytes();
    Addresses { v4: Ipv4Addr::new(10, second, high, low), v6: Ipv6Addr::new(0xfd00, six, cluster.into(), 0, 0, 0, 0, nth + 1) }
}

/// A GET inside a namespace.
pub(crate) fn get(namespace: &Namespace, address: &str, target: &str) -> anyhow::Result<(u16, String)> {
    namespace.block_on(|| async {
        let answer = client::ask(address.parse()?, Version::HTTP_11, &Ask::get(address, target)).await?;
        Ok((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
    })
}

/// Makes a folder hold exactly these files; each is replaced whole.
fn replace_files(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    let Files { contents, unread, .. } = directory::read(folder).with_context(|| folder.display().to_string())?;
    let unwanted = contents.keys().chain(unread.keys()).filter(|name| !files.contains_key(*name));
    // Where a folder is to be, a file may have been, and the other way round. Others go at the end: an object may have moved from one to another.
    let is_in_way = |name: &&String| files.keys().any(|file| Path::new(file).starts_with(name) || Path::new(name).starts_with(file));
    let (first, last): (Vec<&String>, Vec<&String>) = unwanted.partition(is_in_way);
    first.into_iter().try_for_each(|name| remove(folder, name))?;
    for (name, bytes) in files.iter().filter(|(name, bytes)| contents.get(*name) != Some(*bytes)) {
        ensure!(bytes.len() as u64 <= FILE_BYTES_MAX, "{name}: {} bytes are too many for a file of manifests", bytes.len());
        let path = folder.join(name);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        let begun = parent.join(format!(".{}", name.display()));
        fs::write(&begun, bytes).with_context(|| begun.display().to_string())?;
        fs::rename(&begun, &path).with_context(|| path.display().to_string())?;
    }
    last.into_iter().try_for_each(|name| remove(folder, name))
}

/// Removes a file, and the folders that are empty then.
fn remove(folder: &Path, name: &str) -> anyhow::Result<()> {
    fs::remove_file(folder.join(name)).with_context(|| name.to_owned())?;
    for parent in Path::new(name).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        if fs::remove_dir(folder.join(parent)).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_exactly_what_is_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        for wanted in [&["a.yaml", "sub/deep/b.yaml"][..], &["sub/c.yaml", "a.yaml/d.yaml"], &["a.yaml"], &[]] {
            let files: BTreeMap<String, Vec<u8>> = wanted.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect();
            replace_files(folder.path(), &files).expect("replaced");
            assert_eq!(directory::read(folder.path()).expect("read").contents, files);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 0, "no empty folder is left");
    }
}
