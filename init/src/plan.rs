//! What is intercepted and how, as one transaction.
//!
//! ```text
//! table inet isthmus {
//!   set vips4 { type ipv4_addr . inet_service }      set cidrs4 { type ipv4_addr; flags interval }     (and the same for IPv6)
//!   chain output { type nat hook output priority -100
//!     nfproto ipv4, tcp, flags == syn, skuid != 2102, ip daddr . tcp dport @vips4, redirect to :15001
//!     nfproto ipv4, tcp, flags == syn, skuid != 2102, ip daddr @cidrs4,            redirect to :15001  (and the same for IPv6)
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::Serialize;

use crate::cidr::{self, Cidr};
use crate::diag;
use crate::nft::read::Reader;
use crate::nft::{Batch, Chain, Error, Expiry, Expression, Family, Hook, Key, Protocol, Set};
use crate::segments::{self, Segments};

/// The table that holds everything.
pub const TABLE: &str = "isthmus";
const CHAIN: &str = "output";
/// Where destination NAT of packets made here has its place. At the same priority the table that was there first decides.
const PRIORITY: i32 = -100;

/// Whose connections are never intercepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exempt {
    /// Sockets of this uid, as the network namespace's own user namespace counts.
    Uid(u32),
    /// Sockets with this mark: where only one uid exists.
    Mark(u32),
}

impl Exempt {
    fn expression(self) -> Expression {
        match self {
            Self::Uid(uid) => Expression::SocketUidIsNot(uid),
            Self::Mark(mark) => Expression::MarkIsNot(mark),
        }
    }
}

/// What happens to connections that were open before their VIP was intercepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Existing {
    /// They go on as they are.
    Keep,
    /// They are ended, so that clients reconnect and obey.
    Reset,
}

/// How long elements live by themselves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lifetime {
    /// For ever: without a sidecar connections are refused.
    Unlimited,
    /// Unless renewed within this time they vanish: without a sidecar connections take the platform's way.
    Renewed(Duration),
}

/// What is intercepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Exactly these addresses and ports.
    pub vips: BTreeSet<SocketAddr>,
    /// Every port of these addresses.
    pub cidrs: Vec<Cidr>,
    /// Whose connections are not.
    pub exempt: Exempt,
    /// Where they are redirected to.
    pub port: NonZeroU16,
    /// How long `vips` last.
    pub lifetime: Lifetime,
    /// How large segments to `vips` and `cidrs` are to be.
    pub segments: Segments,
}

pub(crate) fn vip_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "vips4",
        Family::V6 => "vips6",
    }
}

fn cidr_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "cidrs4",
        Family::V6 => "cidrs6",
    }
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Plan {
    /// The whole table, in place of whatever there was. Redirected connections live on.
    #[must_use]
    pub fn install(&self) -> Batch {
        let mut batch = Batch::new(TABLE);
        batch.replace_table();
        batch.chain(&Chain::nat(CHAIN, Hook::Output, PRIORITY));
        for family in FAMILIES {
            let expiry = match self.lifetime {
                Lifetime::Unlimited => Expiry::Never,
                Lifetime::Renewed(_) => Expiry::Each,
            };
            batch.set(&Set { name: vip_set(family), key: Key::AddressPort(family), expiry });
            batch.set(&Set { name: cidr_set(family), key: Key::AddressRange(family), expiry: Expiry::Never });
            let matches = [
                ("vips", Expression::DestinationPortIn(family, vip_set(family))),
                ("cidrs", Expression::DestinationIn(family, cidr_set(family))),
            ];
            for (name, matched) in matches {
                batch.rule(
                    CHAIN,
                    name,
                    &[
                        Expression::Family(family),
                        Expression::Protocol(Protocol::Tcp),
                        Expression::OpensConnection,
                        self.exempt.expression(),
                        matched,
                        Expression::Redirect(self.port),
                    ],
                );
            }
        }
        self.add_vips(&mut batch);
        let ranges = cidr::merged(&self.cidrs);
        for family in FAMILIES {
            let ranges: Vec<(IpAddr, IpAddr)> = ranges.iter().filter(|(first, _)| Family::of(*first) == family).copied().collect();
            batch.add_ranges(cidr_set(family), &ranges);
        }
        batch
    }

    /// Makes the installed VIPs equal to `vips`, all at once. What was decided for open connections stays.
    #[must_use]
    pub fn replace_vips(&self) -> Batch {
        let mut batch = Batch::new(TABLE);
        for family in FAMILIES {
            batch.flush_set(vip_set(family));
        }
        self.add_vips(&mut batch);
        batch
    }

    /// The same by the difference to `before` alone, for VIPs that last: what stays is not touched, so that no connection that comes meanwhile can
    /// miss it (before Linux 6.17 a lookup may miss an element that is removed and added again by one transaction). Refused as a whole
    /// if something is to go that is not there.
    #[must_use]
    pub fn change_vips(&self, before: &BTreeSet<SocketAddr>) -> Batch {
        let mut batch = Batch::new(TABLE);
        for family in FAMILIES {
            batch.remove_destinations(vip_set(family), &of_family(before.difference(&self.vips), family));
            batch.add_destinations(vip_set(family), &of_family(self.vips.difference(before), family), None);
        }
        batch
    }

    fn add_vips(&self, batch: &mut Batch) {
        let timeout = match self.lifetime {
            Lifetime::Unlimited => None,
            Lifetime::Renewed(timeout) => Some(timeout),
        };
        for family in FAMILIES {
            batch.add_destinations(vip_set(family), &of_family(&self.vips, family), timeout);
        }
    }

    /// Whether a connection to `destination` is intercepted.
    #[must_use]
    pub fn intercepts(&self, destination: SocketAddr) -> bool {
        self.vips.contains(&destination) || self.cidrs.iter().any(|cidr| cidr.contains(destination.ip()))
    }

    /// Families in which something is intercepted but to which the pod has no route: a client there gets "network unreachable" before
    /// interception is asked.
    #[must_use]
    pub fn unroutable(&self) -> Vec<IpAddr> {
        let addresses = self.vips.iter().map(SocketAddr::ip).chain(self.cidrs.iter().map(Cidr::last));
        let mut families = BTreeSet::new();
        let mut unroutable = Vec::new();
        for address in addresses {
            if families.insert(Family::of(address)) && towards(address).is_none() {
                unroutable.push(address);
            }
        }
        unroutable
    }
}

fn of_family<'v>(vips: impl IntoIterator<Item = &'v SocketAddr>, family: Family) -> Vec<SocketAddr> {
    vips.into_iter().filter(|vip| Family::of(vip.ip()) == family).copied().collect()
}

/// A socket that has asked the kernel for a route, without sending anything; none if there is none.
pub(crate) fn towards(address: IpAddr) -> Option<UdpSocket> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((address, 9)).ok()?;
    Some(socket)
}

/// Empties every set: nothing new is intercepted, redirected connections live on. Nothing to do where nothing is installed.
///
/// # Errors
/// The kernel's reason not to.
pub fn withdraw() -> Result<(), Error> {
    remove_routes()?;
    let installed = Reader::open(TABLE).and_then(|reader| reader.exists());
    if !installed.map_err(|source| Error::Netlink { doing: "look", source })? {
        return Ok(());
    }
    let mut batch = Batch::new(TABLE);
    for family in FAMILIES {
        batch.flush_set(vip_set(family));
        batch.flush_set(cidr_set(family));
    }
    batch.commit()
}

/// What is not intercepted any more goes where it went.
fn remove_routes() -> Result<(), Error> {
    segments::remove().map_err(|source| Error::Netlink { doing: "remove routes", source })
}

/// Deletes the table. Redirected connections break: for the end of a pod.
///
/// # Errors
/// The kernel's reason not to.
pub fn delete() -> Result<(), Error> {
    remove_routes()?;
    let mut batch = Batch::new(TABLE);
    batch.create_table();
    batch.delete_table();
    batch.commit()
}

/// Ends connections to what `plan` intercepts and `before` did not, but for those of the sidecar; gives how many.
///
/// # Errors
/// The kernel's reason not to.
pub fn reset_existing(plan: &Plan, before: &Installed) -> io::Result<usize> {
    let spared = match plan.exempt {
        Exempt::Uid(uid) => Some(uid),
        Exempt::Mark(_) => None,
    };
    diag::destroy(|connection| {
        let destination = connection.destination;
        Some(connection.uid) != spared && plan.intercepts(destination) && !before.intercepts(destination)
    })
}

/// Whoever changes tables without pause is not waited for any longer.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);

/// What is in force.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Installed {
    /// Addresses and ports.
    pub vips: BTreeSet<SocketAddr>,
    /// Ranges, both ends included.
    pub ranges: Vec<(IpAddr, IpAddr)>,
    /// Rules, by the kernel's expressions.
    pub rules: Vec<String>,
    /// Those of `vips` and `ranges` to which segments are large.
    pub large_segments: BTreeSet<segments::Route>,
}

impl Installed {
    /// Reads it in the network namespace of the calling thread; empty if nothing is installed.
    ///
    /// # Errors
    /// The kernel's reason not to say.
    pub fn read() -> Result<Self, Error> {
        let installed = Self::list().map_err(|error| match error.raw_os_error() {
            Some(code) => Error::Refused { object: format!("list table inet {TABLE}"), errno: Errno::from_raw(code) },
            None => Error::Netlink { doing: "list", source: error },
        })?;
        let large_segments = segments::installed().map_err(|source| Error::Netlink { doing: "list routes", source })?;
        Ok(Self { large_segments, ..installed })
    }

    /// What is replaced while it is read is read again, so that it is never a mixture.
    fn list() -> io::Result<Self> {
        let reader = Reader::open(TABLE)?;
        let end = Instant::now() + LIST_TIMEOUT;
        loop {
            let generation = reader.generation()?;
            let listed = Self::list_once(&reader);
            // A commit counts up a moment before it is in force, so that what is gone all the same was replaced just then.
            let is_gone = listed.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::ENOENT as i32));
            if Instant::now() >= end || (reader.generation()? == generation && !is_gone) {
                return listed;
            }
            // Who replaces it may have been interrupted in the middle of it.
            std::thread::yield_now();
        }
    }

    fn list_once(reader: &Reader) -> io::Result<Self> {
        if !reader.exists()? {
            return Ok(Self::default());
        }
        let mut installed = Self::default();
        for family in FAMILIES {
            installed.vips.extend(reader.destinations(vip_set(family), family)?);
            installed.ranges.extend(reader.ranges(cidr_set(family), family)?);
        }
        installed.rules = reader.rules()?.into_iter().map(|rule| format!("{}: {}", rule.chain, rule.expressions.join(", "))).collect();
        Ok(installed)
    }

    /// Whether a connection to `destination` is intercepted.
    #[must_use]
    pub fn intercepts(&self, destination: SocketAddr) -> bool {
        let ip = destination.ip();
        self.vips.contains(&destination)
            || self.ranges.iter().any(|(first, last)| ip.is_ipv4() == first.is_ipv4() && (*first..=*last).contains(&ip))
    }
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rules.is_empty() {
            return writeln!(f, "nothing is installed");
        }
        for rule in &self.rules {
            writeln!(f, "rule   {rule}")?;
        }
        for vip in &self.vips {
            writeln!(f, "vip    {vip}")?;
        }
        for (first, last) in &self.ranges {
            writeln!(f, "range  {first} - {last}")?;
        }
        for route in &self.large_segments {
            writeln!(f, "large  {route}")?;
        }
        Ok(())
    }
}
