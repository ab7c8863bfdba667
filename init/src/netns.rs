//! Work in another network namespace: in a thread of its own, so that the caller's never changes.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};

/// Runs `work` in the namespace at `path` (`/run/netns/X`, `/proc/PID/ns/net`), or here if there is no path.
///
/// # Errors
/// The namespace cannot be entered, or `work` fails.
pub fn within<T: Send>(path: Option<&Path>, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let Some(path) = path else { return work() };
    let name = path.display();
    let namespace = File::open(path).with_context(|| format!("--netns {name}"))?;
    std::thread::scope(|scope| {
        let entered = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("--netns {}: CAP_SYS_ADMIN is needed to enter it", path.display()))?;
            work()
        });
        entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
