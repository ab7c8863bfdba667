//! A network namespace with a mount namespace beside it, held by file descriptors: gone with the last process that uses it.

use std::fs::File;
use std::path::Path;
use std::thread;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// The two namespaces of a pod, cluster or router.
#[derive(Debug)]
pub struct Namespace {
    net: File,
    mounts: File,
}

impl Namespace {
    /// Makes namespaces; inside of them `hosts` is `/etc/hosts`, if given.
    ///
    /// # Errors
    /// The kernel's reason not to.
    pub fn new(hosts: Option<&Path>) -> anyhow::Result<Self> {
        on_a_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("make namespaces")?;
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("private mounts")?;
            if let Some(hosts) = hosts {
                mount(Some(hosts), "/etc/hosts", none, MsFlags::MS_BIND, none).context("mount /etc/hosts")?;
            }
            let open = |name| File::open(format!("/proc/thread-self/ns/{name}")).context("open a namespace");
            Ok(Self { net: open("net")?, mounts: open("mnt")? })
        })
    }

    /// Runs `work` on a thread inside.
    ///
    /// # Errors
    /// The namespaces cannot be entered, or `work` fails.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        on_a_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Runs `work` on a thread inside that goes on by itself.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<thread::JoinHandle<()>> {
        let inside = Self { net: self.net.try_clone()?, mounts: self.mounts.try_clone()? };
        let (entered, wait) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let result = inside.enter();
            let is_inside = result.is_ok();
            // The other side waits for exactly this.
            let _ = entered.send(result);
            if is_inside {
                work();
            }
        })?;
        wait.recv().context("a thread ended early")??;
        Ok(thread)
    }

    /// Runs a future inside, on a runtime of its own.
    ///
    /// # Errors
    /// The namespaces cannot be entered, or the future fails.
    pub fn block_on<T: Send, F: Future<Output = anyhow::Result<T>>>(&self, work: impl FnOnce() -> F + Send) -> anyhow::Result<T> {
        self.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work()))
    }

    /// The network namespace, for moving a link into it.
    #[must_use]
    pub(crate) fn net(&self) -> &File {
        &self.net
    }

    fn enter(&self) -> anyhow::Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
        // A thread shares its root and working directory with the others until then.
        unshare(CloneFlags::CLONE_FS).context("own file system view")?;
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).context("enter a mount namespace")?;
        Ok(())
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
