//! What processes have used: CPU time and memory, from the kernel; system calls, from strace.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

/// Processes of a uid.
pub(crate) fn processes(uid: u32) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Processes end while we look.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let real = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().next());
        if real.and_then(|id| id.parse().ok()) == Some(uid) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Nanoseconds that all threads of these have run.
pub(crate) fn cpu_ns(pids: &[u32]) -> u64 {
    let threads = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    threads.map(|thread| run_ns(&thread.path())).sum()
}

fn run_ns(thread: &Path) -> u64 {
    // A thread that has ended counts no more: none of the programs ends threads while it is measured.
    let text = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Resident memory of these, KiB. What several of them share counts for each.
pub(crate) fn rss_kib(pids: &[u32]) -> anyhow::Result<u64> {
    pids.iter()
        .map(|pid| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).context("Rss")?;
            Ok(line.split_whitespace().next().context("Rss")?.parse::<u64>()?)
        })
        .sum()
}

/// CPU time that the whole machine has used, nanoseconds, in steps of a tick.
pub(crate) fn machine_ns() -> anyhow::Result<u64> {
    const TICK_NS: u64 = 10_000_000;
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let (idle, all) = (ticks.get(3).zip(ticks.get(4)).map(|(idle, wait)| idle + wait), ticks.iter().take(8).sum::<u64>());
    Ok((all - idle.context("/proc/stat")?) * TICK_NS)
}

/// How often each system call was made, by its name.
pub(crate) type Calls = BTreeMap<String, u64>;

/// Counts the system calls of processes, of all their threads. They are slower meanwhile. It ends with them if nobody detaches it.
pub(crate) struct Tracer {
    strace: Child,
    counts: NamedTempFile,
    /// What it says, which it may not have to wait with.
    said: JoinHandle<String>,
}

impl Tracer {
    /// strace has got hold of all of them within this time, and lets go of them.
    const SOON: Duration = Duration::from_secs(10);

    /// When this returns all of them are counted.
    pub(crate) fn attach(pids: &[u32]) -> anyhow::Result<Self> {
        let counts = NamedTempFile::new()?;
        let mut command = Command::new("strace");
        command.args(["-f", "--summary-only", "--summary-columns=calls,name", "--output"]).arg(counts.path());
        command.args(pids.iter().map(|pid| format!("--attach={pid}")));
        let mut strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("strace")?;
        let mut lines = BufReader::new(strace.stderr.take().context("standard error")?).lines();
        let (sender, attached) = std::sync::mpsc::channel();
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            while let Some(Ok(line)) = lines.next() {
                if line.contains(" attached") {
                    // Who has stopped waiting is told of what was said.
                    let _ = sender.send(());
                }
                said += &format!("{line}\n");
            }
            said
        });
        for _ in pids {
            if attached.recv_timeout(Self::SOON).is_err() {
                strace.kill()?;
                strace.wait()?;
                anyhow::bail!("strace does not get hold of {pids:?}: {}", said_by(said));
            }
        }
        Ok(Self { strace, counts, said })
    }

    /// What was called since.
    pub(crate) fn detach(self) -> anyhow::Result<Calls> {
        kill(Pid::from_raw(i32::try_from(self.strace.id())?), Signal::SIGINT)?;
        ended_within(self.strace, Self::SOON)?;
        let text = fs::read_to_string(self.counts.path())?;
        calls(&text).with_context(|| format!("strace: {text}{}", said_by(self.said)))
    }
}

fn said_by(reader: JoinHandle<String>) -> String {
    reader.join().unwrap_or_default()
}

/// Waits for a program's end, and ends it if that takes too long.
pub(crate) fn ended_within(child: Child, time: Duration) -> anyhow::Result<Output> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (over, ended) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if ended.recv_timeout(time) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // It is waited for below, so that the pid is still its own; one that has just ended needs no signal.
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output()?;
    drop(over);
    watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
    Ok(output)
}

/// Reads strace's summary: lines of a number and a name below a heading, and their sum, or nothing where nothing was called.
fn calls(summary: &str) -> anyhow::Result<Calls> {
    let rows = summary.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse::<u64>().ok()?, words.next()?.to_owned()))
    });
    let mut calls: Calls = rows.map(|(count, name)| (name, count)).collect();
    let total = calls.remove("total");
    ensure!(calls.values().sum::<u64>() == total.unwrap_or_default(), "not a summary");
    Ok(calls)
}
