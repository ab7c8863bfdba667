//! What processes have used: CPU time and memory, from the kernel.

use std::fs;
use std::path::Path;

use anyhow::Context;

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
