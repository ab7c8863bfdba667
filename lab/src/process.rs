//! The real programs, started inside a namespace, with what they say in a file each.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Namespace;

/// After SIGTERM a program has this long.
const STOP_MAX: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Who a program runs as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum As {
    /// As the lab itself.
    Lab,
    /// As this uid, without any capability and without a way to gain one.
    Nobody(u32),
}

/// Where the programs are: beside the one that runs now, or one folder up (tests).
///
/// # Errors
/// It is in neither place.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("own path")?;
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not beside {}: build it first (make build)", own.display()))
}

/// A process id namespace whose first process ends with the lab, however the lab ends: the kernel then ends all others in it.
#[derive(Debug)]
pub(crate) struct Holder {
    // Its standard input is a pipe that nobody writes to; it ends when the other end is closed, as the kernel does with that of a dead process.
    child: Child,
    pids: File,
}

impl Holder {
    /// Starts the first process.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let path = program("isthmus")?;
        let spawned = std::thread::scope(|scope| {
            // On a thread of its own: only its children are in the new namespace.
            let spawned = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWPID).context("a process id namespace")?;
                let mut command = Command::new(&path);
                command.arg("hold").stdin(Stdio::piped()).process_group(0);
                command.spawn().with_context(|| path.display().to_string())
            });
            spawned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let child = spawned?;
        let pids = File::open(format!("/proc/{}/ns/pid", child.id())).context("the process id namespace")?;
        Ok(Self { child, pids })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends at once; a child that is gone needs no waiting.
        let _ = self.child.wait();
    }
}

/// A program that runs; ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Process {
    /// Starts a program inside a namespace.
    pub(crate) fn start(
        holder: &Holder,
        namespace: &Namespace,
        name: &str,
        arguments: &[String],
        who: As,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let path = program(name)?;
        let file = File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        let child = namespace.run(|| {
            setns(&holder.pids, CloneFlags::CLONE_NEWPID).context("enter a process id namespace")?;
            let mut command = Command::new(&path);
            command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).env_remove("RUST_LOG");
            // Ctrl-C in a terminal is for the lab, which ends its programs in order.
            command.process_group(0);
            if let As::Nobody(uid) = who {
                nix::sys::prctl::set_no_new_privs().context("no_new_privs")?;
                command.uid(uid).gid(uid);
            }
            command.spawn().with_context(|| path.display().to_string())
        })?;
        Ok(Self { child, log: log.to_owned(), name: name.to_owned() })
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait().with_context(|| self.name.clone())?;
        let said = || std::fs::read_to_string(&self.log).unwrap_or_default();
        ensure!(ended.is_none(), "{} ended: {}\n{}", self.name, ended.map_or(String::new(), |status| status.to_string()), said());
        Ok(())
    }

    /// Waits for its end; fails if it did not succeed.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait().with_context(|| self.name.clone())?;
        let said = || std::fs::read_to_string(&self.log).unwrap_or_default();
        ensure!(status.success(), "{}: {status}\n{}", self.name, said());
        Ok(())
    }

    /// Ends it with a signal, and waits; gives whether it ended by itself then.
    pub(crate) fn end(&mut self, with: Signal) -> bool {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return true;
        }
        self.signal(with);
        let end = Instant::now() + STOP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                self.signal(Signal::SIGKILL);
                // SIGKILL cannot be refused; a child that is gone needs no waiting.
                let _ = self.child.wait();
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            match kill(Pid::from_raw(pid), signal) {
                // ESRCH: it has ended by itself, which is as well.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => tracing::warn!(program = self.name, %signal, %errno, "signal"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody waits for a drain here: the pod or the whole lab is going.
        self.end(Signal::SIGKILL);
    }
}

/// Waits until `ready` gives something, looking often; on failure says what was waited for.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut ready: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(value) = ready().with_context(|| what.to_owned())? {
            return Ok(value);
        }
        if Instant::now() > end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what}: not within {} s", within.as_secs())).into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
