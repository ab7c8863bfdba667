//! Large segments for what never leaves the pod, where that was asked for.
//!
//! A socket takes its segment size from the route by which it was dialled. A redirected connection ends at the loopback interface, but was
//! dialled by way of the pod's own: 1448 bytes instead of 65,483, which costs bulk transfers a tenth of their CPU time. So IPv4 VIPs can get a route
//! of their own by way of the loopback interface, by port:
//!
//! ```text
//! 15001: from all iif lo uidrange 2102-2102 goto 15003       (what the sidecar dials goes as it went)
//! 15002: from all iif lo ipproto tcp dport 80 lookup TABLES + 80
//! 15003: from all nop
//! table TABLES + 80:  VIP dev lo scope link src POD mtu 1500 advmss 65495
//! ```
//!
//! What the application sends stays as small as it was unless that was asked for too: without TCP_NODELAY a write smaller than a segment waits for
//! the acknowledgement of the one before (Nagle), for 40 ms where both are parts of one request. The sidecar sends without delay.
//!
//! Invariant: what has such a route is intercepted, for without the redirect its segments would end in the loopback interface. Hence the order (a
//! route goes before its VIP and comes after it), and hence who does not get one: VIPs that connections from before are open to, whatever vanishes
//! by itself without a sidecar, ranges (a client's own address may be in one, and answers to it would be led astray), all where a strict
//! reverse path filter would drop answers to the sidecar's own connections. An IPv6 route by way of the loopback interface is either refused or
//! local, which would give the application what is meant for others: there is none. What remains is why it has to be asked for, see
//! `docs/interception.md`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use nix::errno::Errno;
use nix::sys::socket::{SockProtocol, getsockopt, sockopt};
use serde::{Serialize, Serializer};

use crate::diag;
use crate::netlink::{CREATE, DUMP, EXCLUSIVE, Message, REQUEST, Socket, Writer, attribute, attributes, text};
use crate::plan::{Exempt, Lifetime, Plan, towards};

/// Ports beyond so many stay as they are: every new connection of the pod walks a rule for each.
pub const PORTS_MAX: usize = 16;
/// Routes or rules of one message to the kernel: all of them fit the socket's buffer, whoever may not enlarge it.
const CHANGES_PER_MESSAGE_MAX: usize = 500;
/// The first of our tables; a port's is so much further.
const TABLES: u32 = 0x4953_0000;
/// Priorities of our rules: behind the kernel's own for local addresses, before those of its main table.
const SPARED: u32 = 15_001;
const BY_PORT: u32 = 15_002;
const GOES_ON: u32 = 15_003;
/// By this number of its maker a rule is known to be ours; the kernel and routing daemons have others.
const US: u8 = 0x49;
/// The largest segment that can be advertised: what the loopback interface takes at once, without headers.
const ADVERTISED_BYTES: u32 = 65_495;
/// The loopback interface's number in every network namespace.
const LOOPBACK: u32 = 1;

/// What segments to intercepted VIPs are to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Segments {
    /// As large as the loopback interface takes them in both directions, where that is safe.
    All,
    /// The same of what the application receives.
    Received,
    /// As large as the interface takes them that was dialled by.
    Small,
}

/// A destination whose connections have large segments.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Route {
    vip: SocketAddrV4,
    /// Also what is sent there.
    is_sent: bool,
}

/// How a destination is dialled without its route.
#[derive(Clone, Copy, Debug)]
struct Way {
    source: Ipv4Addr,
    mtu: u32,
}

impl Way {
    /// None: there is no way, and whom nobody reaches needs no segments.
    fn to(address: Ipv4Addr) -> Option<Self> {
        let socket = towards(address.into())?;
        let IpAddr::V4(source) = socket.local_addr().ok()?.ip() else { return None };
        Some(Self { source, mtu: u32::try_from(getsockopt(&socket, sockopt::IpMtu).ok()?).ok()? })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.vip, if self.is_sent { "all" } else { "received" })
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Route {
    fn table(self) -> u32 {
        TABLES + u32::from(self.vip.port())
    }

    /// `struct rtmsg` and attributes.
    fn write(self, writer: &mut Writer, kind: u16, flags: u16, way: Option<Way>) {
        const STATIC: u8 = 4;
        const SCOPE_LINK: u8 = 253;
        const UNICAST: u8 = 1;
        let fixed = [IPV4, WHOLE, 0, 0, 0, STATIC, SCOPE_LINK, UNICAST, 0, 0, 0, 0];
        writer.message(kind, REQUEST | flags, 1, &fixed, |writer| {
            writer.bytes(route::DESTINATION, &self.vip.ip().octets());
            writer.bytes(route::OUTPUT, &LOOPBACK.to_ne_bytes());
            writer.bytes(route::TABLE, &self.table().to_ne_bytes());
            let Some(way) = way else { return };
            writer.bytes(route::SOURCE, &way.source.octets());
            if !self.is_sent {
                writer.nest(route::METRICS, |writer| {
                    writer.bytes(route::MTU, &way.mtu.to_ne_bytes());
                    writer.bytes(route::ADVERTISED, &ADVERTISED_BYTES.to_ne_bytes());
                });
            }
        });
    }

    /// One of ours, of a dump.
    fn read(message: &Message) -> Option<Self> {
        let attributes = message.body.get(HEADER_LEN..)?;
        let table = u32::from_ne_bytes(attribute(attributes, route::TABLE)?.try_into().ok()?);
        let port = u16::try_from(table.checked_sub(TABLES)?).ok()?;
        // What the kernel remembers of a way is none of ours.
        if u32::from_ne_bytes(*message.body.get(8..)?.first_chunk()?) & CLONED != 0 {
            return None;
        }
        let address = attribute(attributes, route::DESTINATION)?.first_chunk::<4>()?;
        let mtu = attribute(attributes, route::METRICS).and_then(|metrics| attribute(metrics, route::MTU));
        Some(Self { vip: SocketAddrV4::new(Ipv4Addr::from(*address), port), is_sent: mtu.is_none() })
    }
}

const IPV4: u8 = 2;
/// `RTM_F_CLONED`.
const CLONED: u32 = 0x200;
/// Of one address.
const WHOLE: u8 = 32;
/// `struct rtmsg`, and `struct fib_rule_hdr` too.
const HEADER_LEN: usize = 12;

/// Attributes of routes.
mod route {
    pub(super) const DESTINATION: u16 = 1;
    pub(super) const OUTPUT: u16 = 4;
    pub(super) const SOURCE: u16 = 7;
    pub(super) const METRICS: u16 = 8;
    pub(super) const MTU: u16 = 2;
    pub(super) const ADVERTISED: u16 = 8;
    pub(super) const TABLE: u16 = 15;
    pub(super) const NEW: u16 = 24;
    pub(super) const DELETE: u16 = 25;
    pub(super) const GET: u16 = 26;
}

/// Attributes of rules.
mod rule {
    pub(super) const INPUT: u16 = 3;
    pub(super) const GOTO: u16 = 4;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const MARK: u16 = 10;
    pub(super) const TABLE: u16 = 15;
    pub(super) const MASK: u16 = 16;
    pub(super) const UIDS: u16 = 20;
    pub(super) const MAKER: u16 = 21;
    pub(super) const PROTOCOL: u16 = 22;
    pub(super) const PORTS: u16 = 24;
    pub(super) const NEW: u16 = 32;
    pub(super) const DELETE: u16 = 33;
    pub(super) const GET: u16 = 34;
    /// Those that we write.
    pub(super) const OURS: [u16; 10] = [INPUT, GOTO, PRIORITY, MARK, TABLE, MASK, UIDS, MAKER, PROTOCOL, PORTS];
    pub(super) const TO_TABLE: u8 = 1;
    pub(super) const TO_PRIORITY: u8 = 2;
    pub(super) const NOTHING: u8 = 3;
}

/// A rule, as the attributes of which it is made.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Rule {
    action: u8,
    attributes: BTreeSet<(u16, Vec<u8>)>,
}

impl Rule {
    fn new(priority: u32, action: u8, attributes: impl IntoIterator<Item = (u16, Vec<u8>)>) -> Self {
        let priority = (rule::PRIORITY, priority.to_ne_bytes().to_vec());
        Self { action, attributes: attributes.into_iter().chain([priority, (rule::MAKER, vec![US])]).collect() }
    }

    fn goes_on() -> Self {
        Self::new(GOES_ON, rule::NOTHING, [])
    }

    fn spares(exempt: Exempt) -> Self {
        let who = match exempt {
            Exempt::Uid(uid) => vec![(rule::UIDS, [uid.to_ne_bytes(), uid.to_ne_bytes()].concat())],
            Exempt::Mark(mark) => vec![(rule::MARK, mark.to_ne_bytes().to_vec()), (rule::MASK, u32::MAX.to_ne_bytes().to_vec())],
        };
        let goes = (rule::GOTO, GOES_ON.to_ne_bytes().to_vec());
        Self::new(SPARED, rule::TO_PRIORITY, who.into_iter().chain([goes, from_here()]))
    }

    fn by_port(port: u16) -> Self {
        const TCP: u8 = 6;
        let table = TABLES + u32::from(port);
        let ports = [port.to_ne_bytes(), port.to_ne_bytes()].concat();
        let table = (rule::TABLE, table.to_ne_bytes().to_vec());
        Self::new(BY_PORT, rule::TO_TABLE, [table, (rule::PROTOCOL, vec![TCP]), (rule::PORTS, ports), from_here()])
    }

    /// `struct fib_rule_hdr` and attributes.
    fn write(&self, writer: &mut Writer, kind: u16, flags: u16) {
        let fixed = [IPV4, 0, 0, 0, 0, 0, 0, self.action, 0, 0, 0, 0];
        writer.message(kind, REQUEST | flags, 1, &fixed, |writer| {
            for (kind, value) in &self.attributes {
                writer.bytes(*kind, value);
            }
        });
    }

    /// One of ours, of a dump: with those attributes of which ours are made.
    fn read(message: &Message) -> Option<Self> {
        let found = attributes(message.body.get(HEADER_LEN..)?);
        if !found.contains(&(rule::MAKER, &[US])) {
            return None;
        }
        let action = *message.body.get(7)?;
        let ours = found.into_iter().filter(|(kind, _)| rule::OURS.contains(kind));
        // The kernel says of every rule which table it is for, and of one without: none.
        let ours = ours.filter(|(kind, value)| *kind != rule::TABLE || action == rule::TO_TABLE || value.iter().any(|byte| *byte != 0));
        // The name ends with a zero or not.
        let ours = ours.map(|(kind, value)| if kind == rule::INPUT { from_interface(&text(value)) } else { (kind, value.to_vec()) });
        Some(Self { action, attributes: ours.collect() })
    }
}

/// Only what is sent by this pod itself: of that the kernel says that it comes in by the loopback interface.
fn from_here() -> (u16, Vec<u8>) {
    from_interface("lo")
}

fn from_interface(name: &str) -> (u16, Vec<u8>) {
    (rule::INPUT, [name.as_bytes(), &[0]].concat())
}

/// What has large segments in the network namespace of the calling thread.
///
/// # Errors
/// The kernel's reason not to say.
pub fn installed() -> io::Result<BTreeSet<Route>> {
    Kernel::open()?.routes()
}

/// Takes it from whatever `plan` does not intercept, or not for certain: before the plan is put in force.
///
/// # Errors
/// The kernel's reason not to. Nothing may then be withdrawn from interception.
pub fn shrink(plan: &Plan) -> io::Result<()> {
    let wanted = wanted(plan).unwrap_or_default();
    let kernel = Kernel::open()?;
    let mut have = kernel.routes()?;
    // Rules that somebody changed, or that spare somebody else than the plan does, lead nobody anywhere.
    if have.is_empty() || kernel.rules()? == rules(plan.exempt, &have) {
        have.retain(|route| !wanted.contains(route));
    }
    kernel.remove(&have)
}

/// Takes it from everything.
///
/// # Errors
/// The kernel's reason not to.
pub fn remove() -> io::Result<()> {
    let kernel = Kernel::open()?;
    kernel.remove(&kernel.routes()?)
}

/// Gives it to what `plan` intercepts, where that is safe: after the plan has been put in force. Gives how many VIPs have it now.
///
/// # Errors
/// The kernel's reason not to: it has no rules, or does not know them by port and uid. Everything is as large as it was.
pub fn enlarge(plan: &Plan) -> io::Result<usize> {
    let Some(wanted) = wanted(plan) else { return Ok(0) };
    let kernel = Kernel::open()?;
    let have = kernel.routes()?;
    let fresh: Vec<Route> = wanted.difference(&have).copied().collect();
    if fresh.is_empty() {
        return Ok(have.len());
    }
    // New connections are redirected by now, so that one which is not is among these. Of a socket that its process has left the kernel says uid 0.
    let busy: BTreeSet<SocketAddr> = diag::unfinished()?
        .into_iter()
        .filter(|connection| connection.uid == 0 || Exempt::Uid(connection.uid) != plan.exempt)
        .map(|connection| connection.destination)
        .collect();
    let fresh = fresh.into_iter().filter(|route| !busy.contains(&route.vip.into()));
    let fresh: Vec<(Route, Way)> = fresh.filter_map(|route| Some((route, Way::to(*route.vip.ip())?))).collect();
    kernel.add(&fresh, plan.exempt)?;
    Ok(have.len() + fresh.len())
}

/// [`enlarge`], of which nothing else depends.
pub(crate) fn enlarge_or_warn(plan: &Plan) {
    match enlarge(plan) {
        Ok(large) => tracing::debug!(large, "segments"),
        Err(error) => tracing::warn!(%error, "segments stay as small as the pod's interface takes them"),
    }
}

/// What would have it if nothing was open; none: nothing may.
fn wanted(plan: &Plan) -> Option<BTreeSet<Route>> {
    if plan.segments == Segments::Small || plan.lifetime != Lifetime::Unlimited || filters_strictly() {
        return None;
    }
    let is_sent = plan.segments == Segments::All;
    let vips = plan.vips.iter().filter_map(|vip| match vip {
        SocketAddr::V4(vip) => Some(Route { vip: *vip, is_sent }),
        SocketAddr::V6(_) => None,
    });
    // Port 0 is nobody's.
    let mut wanted: BTreeSet<Route> = vips.filter(|route| route.vip.port() != 0).collect();
    let ports: BTreeSet<u16> = wanted.iter().map(|route| route.vip.port()).collect();
    if let Some(beyond) = ports.iter().nth(PORTS_MAX) {
        wanted.retain(|route| route.vip.port() < *beyond);
    }
    Some(wanted)
}

/// The rules by which these are found.
fn rules(exempt: Exempt, routes: &BTreeSet<Route>) -> BTreeSet<Rule> {
    let by_port = routes.iter().map(|route| Rule::by_port(route.vip.port()));
    by_port.chain([Rule::spares(exempt), Rule::goes_on()]).collect()
}

/// Whether answers have to come in by the interface that their sender would be dialled by: an answer from a VIP to the sidecar's own
/// connection does not, by our routes. The kernel takes the larger of two settings, 1 is strict and 2 is loose.
fn filters_strictly() -> bool {
    const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
    let setting = |interface: &str| {
        let text = fs::read_to_string(format!("{SETTINGS}/{interface}/rp_filter")).ok()?;
        text.trim().parse::<u8>().ok()
    };
    let (Ok(interfaces), Some(all)) = (fs::read_dir(SETTINGS), setting("all")) else {
        // Nothing is known: as if it was.
        return true;
    };
    interfaces.flatten().any(|interface| match interface.file_name().to_str() {
        Some("all" | "default" | "lo") => false,
        name => name.and_then(setting).is_none_or(|own| own.max(all) == 1),
    })
}

/// Routes and rules of the kernel.
struct Kernel {
    socket: Socket,
}

impl Kernel {
    fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkRoute, 0)? })
    }

    fn dump(&self, kind: u16) -> io::Result<Vec<Message>> {
        let mut writer = Writer::default();
        writer.message(kind, REQUEST | DUMP, 1, &[IPV4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| {});
        self.socket.dump(writer.as_bytes())
    }

    fn routes(&self) -> io::Result<BTreeSet<Route>> {
        Ok(self.dump(route::GET)?.iter().filter_map(Route::read).collect())
    }

    fn rules(&self) -> io::Result<BTreeSet<Rule>> {
        Ok(self.dump(rule::GET)?.iter().filter_map(Rule::read).collect())
    }

    /// Sends changes; what is so already is no error.
    fn send(&self, count: usize, write: impl Fn(&mut Writer, usize)) -> io::Result<()> {
        for first in (0..count).step_by(CHANGES_PER_MESSAGE_MAX) {
            let mut writer = Writer::default();
            (first..count.min(first + CHANGES_PER_MESSAGE_MAX)).for_each(|index| write(&mut writer, index));
            self.socket.send(writer.as_bytes())?;
            // Only what went wrong is answered, and inside `send`.
            let answers = self.socket.drain()?;
            let is_so_already = |errno: &Errno| matches!(errno, Errno::EEXIST | Errno::ESRCH | Errno::ENOENT);
            if let Some(errno) = answers.iter().filter_map(Message::verdict).filter_map(Result::err).find(|errno| !is_so_already(errno)) {
                return Err(errno.into());
            }
        }
        Ok(())
    }

    fn add(&self, routes: &[(Route, Way)], exempt: Exempt) -> io::Result<()> {
        if routes.is_empty() {
            return Ok(());
        }
        let all: BTreeSet<Route> = routes.iter().map(|(route, _)| *route).collect();
        if let Err(error) = self.lead(&rules(exempt, &all)) {
            // There is no route yet that they could lead to.
            self.tidy()?;
            return Err(error);
        }
        self.send(routes.len(), |writer, index| {
            let (route, way) = routes[index];
            route.write(writer, route::NEW, CREATE, Some(way));
        })
    }

    /// Rules that are missing, in an order in which the sidecar is spared from the beginning.
    fn lead(&self, wanted: &BTreeSet<Rule>) -> io::Result<()> {
        let have = self.rules()?;
        let (by_port, mut missing): (Vec<&Rule>, Vec<&Rule>) =
            wanted.iter().filter(|rule| !have.contains(rule)).partition(|rule| rule.action == rule::TO_TABLE);
        missing.extend(by_port);
        self.send(missing.len(), |writer, index| missing[index].write(writer, rule::NEW, CREATE | EXCLUSIVE))?;
        // A kernel that does not know an attribute makes a rule without it.
        let have = self.rules()?;
        if wanted.iter().any(|rule| !have.contains(rule)) {
            return Err(io::Error::other("the kernel does not keep rules by port and uid"));
        }
        Ok(())
    }

    /// Takes routes away, and then rules that lead nowhere. A kernel without rules, for one, is asked nothing.
    fn remove(&self, routes: &BTreeSet<Route>) -> io::Result<()> {
        if routes.is_empty() {
            return Ok(());
        }
        let routes: Vec<Route> = routes.iter().copied().collect();
        self.send(routes.len(), |writer, index| routes[index].write(writer, route::DELETE, 0, None))?;
        self.tidy()
    }

    /// Takes rules away that lead nowhere, those to tables first: what is spared is spared until then.
    fn tidy(&self) -> io::Result<()> {
        let left: BTreeSet<Rule> = self.routes()?.iter().map(|route| Rule::by_port(route.vip.port())).collect();
        let is_needed = |rule: &Rule| left.contains(rule) || (!left.is_empty() && rule.action != rule::TO_TABLE);
        let have = self.rules()?;
        let (mut unneeded, others): (Vec<&Rule>, Vec<&Rule>) =
            have.iter().filter(|rule| !is_needed(rule)).partition(|rule| rule.action == rule::TO_TABLE);
        unneeded.extend(others);
        self.send(unneeded.len(), |writer, index| unneeded[index].write(writer, rule::DELETE, 0))
    }
}
