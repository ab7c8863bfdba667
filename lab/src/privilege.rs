//! By what right namespaces are made: as root, or as the only user of a user namespace of one's own.

use std::fs;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// The sidecar's uid, or the mark of its sockets.
pub(crate) const SIDECAR_ID: u32 = 2102;

/// By what right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Privilege {
    /// Root: the sidecar has a uid of its own, by which interception exempts it.
    Root,
    /// A user namespace, where only one uid exists: the sidecar's sockets are exempted by a mark.
    UserNamespace,
}

impl Privilege {
    /// Finds out, and enters a user namespace if that is needed. Only a process with one thread can.
    ///
    /// # Errors
    /// Neither can be had; says what to do.
    pub fn acquire() -> anyhow::Result<Self> {
        if has_capabilities()? {
            // Root of a user namespace may have but one uid.
            return Ok(if has_second_uid()? { Self::Root } else { Self::UserNamespace });
        }
        let (uid, gid) = (geteuid(), getegid());
        match unshare(CloneFlags::CLONE_NEWUSER) {
            Ok(()) => {}
            Err(Errno::EINVAL) => bail!("a user namespace can only be entered before other threads are started"),
            Err(errno) => bail!(
                "this needs root, or user namespaces, and neither can be had ({errno}).\n\
                 Either run it as root, or allow user namespaces: sysctl user.max_user_namespaces=10000, \
                 and on some distributions sysctl kernel.unprivileged_userns_clone=1 or \
                 kernel.apparmor_restrict_unprivileged_userns=0."
            ),
        }
        // A process may map its own ids, once it cannot change its groups any more.
        for (file, text) in [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))] {
            fs::write(format!("/proc/self/{file}"), text).with_context(|| format!("user namespace: {file}"))?;
        }
        Ok(Self::UserNamespace)
    }
}

fn has_second_uid() -> anyhow::Result<bool> {
    let map = fs::read_to_string("/proc/self/uid_map").context("uid_map")?;
    let covers = |line: &str| {
        let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u64>().ok());
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&SIDECAR_ID.into()))
    };
    Ok(map.lines().any(covers))
}

/// CAP_NET_ADMIN, CAP_SYS_ADMIN, and the right to become another user, for root and for containers that run as it.
fn has_capabilities() -> anyhow::Result<bool> {
    const NEEDED: u64 = 1 << 6 | 1 << 7 | 1 << 12 | 1 << 21;
    let status = fs::read_to_string("/proc/self/status").context("capabilities")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("capabilities")?;
    let effective = u64::from_str_radix(line.trim(), 16).context("capabilities")?;
    Ok(effective & NEEDED == NEEDED)
}
