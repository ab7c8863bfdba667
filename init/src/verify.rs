//! Proves that connections to VIPs reach the sidecar's port: dials, takes the connection itself, and compares a random token.
//!
//! A platform may rewrite a VIP before any packet exists (a socket load balancer, for example Cilium's without
//! `socketLB.hostNamespaceOnly`). It rewrites only the VIPs that it knows, so a Service that the platform really knows is dialled as well.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use socket2::SockRef;

use crate::nft::{Batch, Family};
use crate::plan::{Exempt, Installed, Plan, TABLE, vip_set};

/// From the ranges that are for documentation: no platform has a Service there.
const PROBE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 15);
const PROBE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 15);
const PROBE_PORT: u16 = 15001;
/// Everything happens on one machine.
const PATIENCE: Duration = Duration::from_secs(2);
const TOKEN_LEN: usize = 16;

/// Proves the redirect that `plan` describes, which has to be installed; says what it did.
///
/// # Errors
/// A connection that should arrive did not, and the likely reason.
pub fn verify(plan: &Plan, known: Option<SocketAddr>) -> anyhow::Result<Vec<String>> {
    let installed = Installed::read().context("what is installed")?;
    ensure!(!installed.rules.is_empty(), "nothing is installed in table {TABLE}");
    if let Exempt::Uid(uid) = plan.exempt {
        ensure!(nix::unistd::getuid().as_raw() != uid, "run by uid {uid}, which is the sidecar's and exempt: run it as another uid");
    }
    let mut report = Vec::new();
    let mut families = 0;
    for (probe, loopback) in [(IpAddr::from(PROBE_V4), IpAddr::from(Ipv4Addr::LOCALHOST)), (PROBE_V6.into(), Ipv6Addr::LOCALHOST.into())] {
        let listener = match TcpListener::bind((loopback, plan.port.get())) {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                bail!("{loopback}:{} is taken: verify before the sidecar starts", plan.port);
            }
            Err(error) if is_missing_family(&error) => {
                report.push(format!("{probe}: left out, the pod does not have {loopback}"));
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("listen on {loopback}:{}", plan.port)),
        };
        let probe = SocketAddr::new(probe, PROBE_PORT);
        let known = known.filter(|known| known.is_ipv4() == probe.is_ipv4());
        let extra: BTreeSet<SocketAddr> = known.into_iter().chain([probe]).collect();
        let extra: Vec<SocketAddr> = extra.difference(&installed.vips).copied().collect();
        let set = vip_set(Family::of(probe.ip()));
        let mut batch = Batch::new(TABLE);
        batch.add_destinations(set, &extra, None);
        batch.commit().context("add a probe")?;
        let dialled = dial_all(&listener, probe, known, plan, &mut report);
        let mut batch = Batch::new(TABLE);
        batch.remove_destinations(set, &extra);
        batch.commit().context("remove the probe")?;
        families += dialled?;
    }
    ensure!(families > 0, "no family has a route to dial a VIP by: clients would get \"network unreachable\"");
    Ok(report)
}

/// IPv6 switched off in the pod, or in the kernel.
fn is_missing_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

fn dial_all(
    listener: &TcpListener,
    probe: SocketAddr,
    known: Option<SocketAddr>,
    plan: &Plan,
    report: &mut Vec<String>,
) -> anyhow::Result<usize> {
    match dial(listener, probe) {
        Ok(()) => report.push(format!("{probe}: redirected")),
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => {
            report.push(format!("{probe}: left out, the pod has no route there"));
            return Ok(0);
        }
        Err(error) => bail!("{probe} is intercepted, but a connection to it does not arrive at port {}: {error}", plan.port),
    }
    if let Some(known) = known {
        dial(listener, known).with_context(|| {
            format!(
                "{known} is a Service that the platform knows, and a connection to it does not arrive at port {} although one to {probe} \
                 does: a socket load balancer rewrites it before a packet exists (Cilium: set socketLB.hostNamespaceOnly=true), or another \
                 NAT table decides first",
                plan.port
            )
        })?;
        report.push(format!("{known}: redirected, known to the platform"));
    }
    Ok(1)
}

/// Dials, accepts, and compares a token and the original destination.
fn dial(listener: &TcpListener, destination: SocketAddr) -> io::Result<()> {
    let token: [u8; TOKEN_LEN] = SmallRng::from_os_rng().random();
    let mut client = TcpStream::connect_timeout(&destination, PATIENCE)?;
    client.write_all(&token)?;
    listener.set_nonblocking(true)?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let (mut accepted, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::yield_now();
                continue;
            }
            Err(error) => return Err(error),
        };
        accepted.set_nonblocking(false)?;
        accepted.set_read_timeout(Some(PATIENCE))?;
        let mut got = [0; TOKEN_LEN];
        // A connection of somebody else has another token, or none.
        if accepted.read_exact(&mut got).is_ok() && got == token {
            let socket = SockRef::from(&accepted);
            let original = if destination.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
            let original = original?.as_socket();
            if original != Some(destination) {
                return Err(io::Error::other(format!("its original destination is said to be {original:?}")));
            }
            return Ok(());
        }
    }
    Err(io::Error::other("somebody else took it"))
}
