//! Keeps what is intercepted equal to what the sidecar says, for as long as the pod lives.
//!
//! Invariants: a sidecar that restarts finds what its predecessor had; without a sidecar connections are refused (`closed`), or take the
//! platform's way once the elements' time is over (`open`); what somebody else deletes is reported and put back.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::SockProtocol;
use tracing::{error, info, warn};

use crate::netlink::Socket;
use crate::nft::Error;
use crate::plan::{Existing, Installed, Lifetime, Plan, TABLE, reset_existing};
use crate::segments;
use crate::socket::{Peer, Wanted};

/// In `open` mode elements vanish this long after the sidecar did.
pub const OPEN_AFTER: Duration = Duration::from_secs(2);
/// And are renewed this often until then.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// The multicast group of nf_tables: one more than its bit.
const GROUP_NFTABLES: u32 = 1 << 6;

/// Watches until SIGTERM or SIGINT. What is in force stays: the pod ends after this.
///
/// # Errors
/// The socket cannot be opened, or the first table cannot be installed.
pub fn watch(path: &Path, mut plan: Plan, existing: Existing) -> anyhow::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signals")?;
    let listener = listen(path)?;
    let changes = Socket::open(SockProtocol::NetlinkNetFilter, GROUP_NFTABLES).context("netlink notifications")?;
    plan.vips = Installed::read().context("what is installed")?.vips;
    segments::shrink(&plan).context("large segments")?;
    plan.install().commit().context("install")?;
    changes.drain().context("netlink notifications")?;
    info!(socket = %path.display(), vips = plan.vips.len(), "watches");
    let mut watch = Watch { plan, existing, peer: None, has_spoken: false, renewed: Instant::now() };
    loop {
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(changes.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(watch.peer.as_ref().map(|peer| PollFd::new(peer.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, watch.timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        if ready[0] {
            info!("ends; what is intercepted stays");
            return Ok(());
        }
        if ready[2] {
            watch.somebody_changed(&changes);
        }
        if ready.get(3) == Some(&true) {
            watch.hear();
        }
        if ready[1] {
            watch.accept(&listener);
        }
        watch.renew();
    }
}

fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let name = path.display();
    // Left behind by a predecessor that is gone; a live one in the same pod would be a mistake of the manifest.
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("--socket {name}")),
    }
    let listener = UnixListener::bind(path).with_context(|| format!("--socket {name}"))?;
    // The directory is what protects it: only this container and the sidecar's mount it, and their uids differ.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).with_context(|| format!("--socket {name}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Watch {
    plan: Plan,
    existing: Existing,
    peer: Option<Peer>,
    /// Whether the peer has said what it wants: only then is it a sign of life for the elements.
    has_spoken: bool,
    renewed: Instant,
}

impl Watch {
    fn timeout(&self) -> PollTimeout {
        match (self.plan.lifetime, self.has_spoken) {
            (Lifetime::Renewed(_), true) => {
                let left = RENEW_EVERY.saturating_sub(self.renewed.elapsed());
                u16::try_from(left.as_millis() + 1).map_or(PollTimeout::MAX, PollTimeout::from)
            }
            (Lifetime::Unlimited, _) | (_, false) => PollTimeout::NONE,
        }
    }

    /// The newest connection is the sidecar's; an older one is that of its predecessor.
    fn accept(&mut self, listener: &UnixListener) {
        match listener.accept().and_then(|(stream, _)| Peer::new(stream)) {
            Ok(peer) => {
                info!("sidecar connected");
                self.peer = Some(peer);
                self.has_spoken = false;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => warn!(%error, "accept"),
        }
    }

    fn hear(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        match peer.read() {
            Ok(Some(wanted)) => self.obey(wanted),
            Ok(None) => {}
            Err(error) => {
                match self.plan.lifetime {
                    Lifetime::Unlimited => warn!(%error, "sidecar gone; its connections are refused until it is back"),
                    Lifetime::Renewed(_) => warn!(%error, "sidecar gone; connections take the platform's way from now on"),
                }
                self.lose();
            }
        }
    }

    fn lose(&mut self) {
        self.peer = None;
        self.has_spoken = false;
    }

    fn obey(&mut self, wanted: Wanted) {
        let version = wanted.version;
        let result = self.change(wanted).map_err(|error| format!("{error:#}"));
        if let Err(error) = &result {
            error!(error, version, "refused");
        }
        let result = result.as_ref().copied().map_err(String::as_str);
        if let Some(peer) = &mut self.peer
            && let Err(error) = peer.answer(version, result)
        {
            warn!(%error, "sidecar gone");
            self.lose();
        }
    }

    fn change(&mut self, wanted: Wanted) -> anyhow::Result<()> {
        let before = Installed { vips: self.in_force()?, ..Default::default() };
        let plan = Plan { vips: wanted.vips, ..self.plan.clone() };
        self.renewed = Instant::now();
        segments::shrink(&plan).context("large segments")?;
        self.put_in_force(&plan)?;
        self.plan = plan;
        self.has_spoken = true;
        info!(version = wanted.version, vips = self.plan.vips.len(), "intercepts");
        for address in self.plan.unroutable() {
            warn!(%address, "the pod has no route there: clients get \"network unreachable\" before interception is asked");
        }
        self.reset_existing(&before);
        segments::enlarge_or_warn(&self.plan);
        Ok(())
    }

    fn put_in_force(&self, plan: &Plan) -> Result<(), Error> {
        // Elements with a time of their own are renewed as a whole; so are all where somebody else has changed some.
        let is_changed = plan.lifetime == Lifetime::Unlimited && plan.change_vips(&self.plan.vips).commit().is_ok();
        if is_changed { Ok(()) } else { plan.replace_vips().commit() }
    }

    /// Elements whose time is over let connections by in the meantime; when exactly that was, only the kernel knows.
    fn in_force(&self) -> anyhow::Result<BTreeSet<SocketAddr>> {
        let Lifetime::Renewed(time) = self.plan.lifetime else { return Ok(self.plan.vips.clone()) };
        if self.renewed.elapsed() >= time {
            return Ok(BTreeSet::new());
        }
        Ok(&self.plan.vips & &Installed::read().context("what is installed")?.vips)
    }

    /// The set is in place whatever comes of this.
    fn reset_existing(&self, before: &Installed) {
        if self.existing != Existing::Reset {
            return;
        }
        match reset_existing(&self.plan, before) {
            Ok(0) => {}
            Ok(ended) => info!(ended, "connections from before, so that clients reconnect and obey"),
            Err(error) => error!(%error, "connections from before stay"),
        }
    }

    fn renew(&mut self) {
        let is_due = matches!(self.plan.lifetime, Lifetime::Renewed(_)) && self.has_spoken && self.renewed.elapsed() >= RENEW_EVERY;
        if is_due {
            self.renewed = Instant::now();
            if let Err(error) = self.plan.replace_vips().commit() {
                error!(%error, "renew");
            }
        }
    }

    /// `nft flush ruleset` by somebody, for example.
    fn somebody_changed(&mut self, changes: &Socket) {
        if let Err(error) = changes.drain() {
            warn!(%error, "netlink notifications");
        }
        let is_there = Installed::read().map(|installed| !installed.rules.is_empty());
        match is_there {
            Ok(true) => {}
            Ok(false) => {
                error!(table = TABLE, "somebody deleted the table: connections passed their routes by since then; it is put back");
                // What is not intercepted any more is to go by, as everything else does, until it is.
                match segments::remove().map_err(anyhow::Error::from).and_then(|()| Ok(self.plan.install().commit()?)) {
                    Ok(()) => {
                        self.reset_existing(&Installed::default());
                        segments::enlarge_or_warn(&self.plan);
                    }
                    Err(error) => error!(%error, "put back"),
                }
            }
            Err(error) => error!(%error, "what is installed"),
        }
    }
}
