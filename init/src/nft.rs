//! nf_tables without a program: a batch of changes, encoded by hand, that the kernel takes whole or not at all.
//!
//! Everything is in one table of the `inet` family. The batch belongs to the network namespace of the thread that calls
//! [`Batch::commit`].
//!
//! ```no_run
//! use init::nft::{Batch, Chain, Expression, Family, Hook, Protocol};
//!
//! let vip = "10.96.0.1".parse()?;
//! let mut batch = Batch::new("demo");
//! batch.replace_table();
//! batch.chain(&Chain::nat("output", Hook::Output, -100));
//! batch.rule("output", "10.96.0.1 goes to the pod", &[
//!     Expression::Family(Family::V4),
//!     Expression::Protocol(Protocol::Tcp),
//!     Expression::DestinationIs(vip),
//!     Expression::DestinationNat("10.1.0.7:8080".parse()?),
//! ]);
//! batch.commit()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod expression;
pub mod read;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

pub use self::expression::{Expression, Family, Protocol};
use crate::netlink::{ACK, APPEND, CREATE, REQUEST, Socket, Writer};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_INET: u8 = 1;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// An attribute's length is 16 bits wide; more elements than this in one message overflow it, and the kernel then refuses the
/// whole batch with ENOENT.
pub const ELEMENTS_PER_MESSAGE_MAX: usize = 1000;

/// The places where a base chain can hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Packets that arrive.
    Prerouting,
    /// Packets that are made here.
    Output,
}

/// A chain to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    name: &'static str,
    base: Option<(Hook, i32)>,
}

impl Chain {
    /// A base chain of type `nat`; the lower the priority, the earlier it is asked, and the first NAT decision stands.
    #[must_use]
    pub fn nat(name: &'static str, hook: Hook, priority: i32) -> Self {
        Self { name, base: Some((hook, priority)) }
    }

    /// A chain that rules jump to.
    #[must_use]
    pub fn regular(name: &'static str) -> Self {
        Self { name, base: None }
    }
}

/// What a set's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `address . port`.
    AddressPort(Family),
    /// Ranges of addresses.
    AddressRange(Family),
}

/// A set to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique in the table.
    pub name: &'static str,
    /// What its elements are.
    pub key: Key,
    /// Can elements vanish by themselves?
    pub expiry: Expiry,
}

/// Can the elements of a set vanish by themselves?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// They stay.
    Never,
    /// Each carries a time-out.
    Each,
}

/// The kernel refused a batch; nothing of it is in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One object of the batch was refused.
    #[error("{object}: {} ({errno}){}", .errno.desc(), hint(*.errno))]
    Refused {
        /// The table, chain, rule, set or elements in question.
        object: String,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The batch did not reach the kernel.
    #[error("netlink, {doing}: {source}")]
    Netlink {
        /// What was being done.
        doing: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The kernel took the batch and did not say so.
    #[error("the kernel did not acknowledge the transaction")]
    Silent,
}

impl Error {
    /// The kernel's reason, if it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Netlink { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Silent => None,
        }
    }
}

/// What a person can do about an errno whose name does not say it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the list of all errnos is not ours; the others have no hint")]
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => ": CAP_NET_ADMIN in the pod's network namespace is needed",
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => ": this kernel lacks nf_tables or one of its modules (nft_nat, nft_redir)",
        _ => "",
    }
}

/// Changes to one table that become real together, in order.
#[derive(Debug, Clone)]
pub struct Batch {
    table: &'static str,
    messages: Writer,
    /// What each message is about, by sequence number, for error messages.
    objects: Vec<String>,
    /// Where the last message begins.
    last: usize,
}

impl Batch {
    /// An empty batch about `table`.
    #[must_use]
    pub fn new(table: &'static str) -> Self {
        let mut messages = Writer::default();
        messages.message(BATCH_BEGIN, REQUEST, 0, &header(0, SUBSYSTEM), |_| {});
        Self { table, messages, objects: vec!["transaction".to_owned()], last: 0 }
    }

    /// Creates the table if it is not there.
    pub fn create_table(&mut self) {
        let table = self.table;
        self.push(NEW_TABLE, CREATE, format!("table inet {table}"), |body| body.string(1, table));
    }

    /// Deletes the table with all it holds; it is an error if it is not there. NAT goes with it: redirected connections break.
    pub fn delete_table(&mut self) {
        let table = self.table;
        self.push(DELETE_TABLE, 0, format!("table inet {table}"), |body| body.string(1, table));
    }

    /// An empty table in place of whatever is there. In one batch with the new rules this does not disturb connections.
    pub fn replace_table(&mut self) {
        self.create_table();
        self.delete_table();
        self.create_table();
    }

    /// Creates a chain.
    pub fn chain(&mut self, chain: &Chain) {
        let table = self.table;
        self.push(NEW_CHAIN, CREATE, format!("chain {}", chain.name), |body| {
            body.string(1, table);
            body.string(3, chain.name);
            let Some((hook, priority)) = chain.base else { return };
            let number = match hook {
                Hook::Prerouting => 0,
                Hook::Output => 3,
            };
            body.nest(4, |nested| {
                nested.be32(1, number);
                nested.be32(2, priority.cast_unsigned());
            });
            body.be32(5, 1);
            body.string(7, "nat");
        });
    }

    /// Creates a set.
    pub fn set(&mut self, set: &Set) {
        let table = self.table;
        // The kernel wants a number that is unique within the batch.
        let id = u32::try_from(self.objects.len()).unwrap_or(u32::MAX);
        let (key_type, key_len) = key_layout(set.key);
        let mut flags = 0;
        if matches!(set.key, Key::AddressRange(_)) {
            flags |= 0x4;
        }
        if set.expiry == Expiry::Each {
            flags |= 0x10;
        }
        self.push(NEW_SET, CREATE, format!("set {}", set.name), |body| {
            body.string(1, table);
            body.string(2, set.name);
            body.be32(3, flags);
            body.be32(4, key_type);
            body.be32(5, key_len);
            body.be32(10, id);
        });
    }

    /// Empties a set. Connections that were decided before are not touched.
    pub fn flush_set(&mut self, set: &str) {
        let table = self.table;
        self.push(DELETE_ELEMENT, 0, format!("elements of set {set}"), |body| {
            body.string(1, table);
            body.string(2, set);
        });
    }

    /// Adds `address . port` elements; those that are there stay.
    pub fn add_destinations(&mut self, set: &str, destinations: &[SocketAddr], timeout: Option<Duration>) {
        let timeout_ms = timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        for chunk in destinations.chunks(ELEMENTS_PER_MESSAGE_MAX) {
            let first = chunk.first().map(ToString::to_string).unwrap_or_default();
            self.elements(set, format!("{} elements of set {set} from {first}", chunk.len()), |list| {
                for destination in chunk {
                    list.nest(1, |element| {
                        element.nest(1, |key| key.bytes(1, &destination_key(*destination)));
                        if let Some(timeout_ms) = timeout_ms {
                            element.be64(4, timeout_ms);
                        }
                    });
                }
            });
        }
    }

    /// Removes `address . port` elements, which have to be there.
    pub fn remove_destinations(&mut self, set: &str, destinations: &[SocketAddr]) {
        let table = self.table;
        for chunk in destinations.chunks(ELEMENTS_PER_MESSAGE_MAX) {
            self.push(DELETE_ELEMENT, 0, format!("{} elements of set {set}", chunk.len()), |body| {
                body.string(1, table);
                body.string(2, set);
                body.nest(3, |list| {
                    for destination in chunk {
                        list.nest(1, |element| element.nest(1, |key| key.bytes(1, &destination_key(*destination))));
                    }
                });
            });
        }
    }

    /// Adds ranges, both ends included; they must not overlap.
    pub fn add_ranges(&mut self, set: &str, ranges: &[(IpAddr, IpAddr)]) {
        const INTERVAL_END: u32 = 1;
        for chunk in ranges.chunks(ELEMENTS_PER_MESSAGE_MAX / 2) {
            let first = chunk.first().map(|(first, _)| first.to_string()).unwrap_or_default();
            self.elements(set, format!("{} ranges of set {set} from {first}", chunk.len()), |list| {
                for (first, last) in chunk {
                    list.nest(1, |element| element.nest(1, |key| key.bytes(1, &expression::octets(*first))));
                    // A range that reaches the end of all addresses stays open.
                    let Some(after) = successor(*last) else { continue };
                    list.nest(1, |element| {
                        element.nest(1, |key| key.bytes(1, &expression::octets(after)));
                        element.be32(3, INTERVAL_END);
                    });
                }
            });
        }
    }

    /// Appends a rule to a chain; `name` is how errors call it.
    pub fn rule(&mut self, chain: &str, name: &str, expressions: &[Expression]) {
        let table = self.table;
        self.push(NEW_RULE, CREATE | APPEND, format!("rule {name} in chain {chain}"), |body| {
            body.string(1, table);
            body.string(2, chain);
            body.nest(4, |list| {
                for expression in expressions {
                    expression.encode(list);
                }
            });
        });
    }

    /// Hands the batch to the kernel. On an error nothing of it is in force.
    ///
    /// # Errors
    /// The object that the kernel refused and why, or why the kernel could not be asked.
    pub fn commit(self) -> Result<(), Error> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter, 0).map_err(|source| Error::Netlink { doing: "open", source })?;
        self.commit_on(&socket)
    }

    /// Like [`Batch::commit`], on a socket that is already open.
    pub(crate) fn commit_on(mut self, socket: &Socket) -> Result<(), Error> {
        // One message more than the caller's, whose acknowledgement says that all before it were taken: acknowledging each would
        // overflow the socket's queue for large batches.
        let last = u32::try_from(self.objects.len()).unwrap_or(u32::MAX);
        let table = self.table;
        if self.objects.last().is_some_and(|object| object.starts_with("table")) {
            // The batch ends with the table's own deletion or creation: ask about nothing that may be gone, but for that message itself.
            self.messages.add_flag(self.last, ACK);
            self.messages.message(BATCH_END, REQUEST, last, &header(0, SUBSYSTEM), |_| {});
        } else {
            let kind = SUBSYSTEM << 8 | NEW_TABLE;
            self.messages.message(kind, REQUEST | ACK, last, &header(FAMILY_INET, 0), |body| body.string(1, table));
            self.messages.message(BATCH_END, REQUEST, last + 1, &header(0, SUBSYSTEM), |_| {});
        }
        socket.send(self.messages.as_bytes()).map_err(|source| Error::Netlink { doing: "send", source })?;
        let answers = socket.drain().map_err(|source| Error::Netlink { doing: "receive", source })?;
        for answer in &answers {
            if let Some(Err(errno)) = answer.verdict() {
                let index = usize::try_from(answer.sequence).unwrap_or(usize::MAX);
                let object = self.objects.get(index).cloned().unwrap_or_else(|| format!("table inet {table}"));
                return Err(Error::Refused { object, errno });
            }
        }
        if answers.is_empty() { Err(Error::Silent) } else { Ok(()) }
    }

    fn elements(&mut self, set: &str, object: String, list: impl FnOnce(&mut Writer)) {
        let table = self.table;
        self.push(NEW_ELEMENT, CREATE, object, |body| {
            body.string(1, table);
            body.string(2, set);
            body.nest(3, list);
        });
    }

    fn push(&mut self, kind: u16, flags: u16, object: String, body: impl FnOnce(&mut Writer)) {
        let sequence = u32::try_from(self.objects.len()).unwrap_or(u32::MAX);
        self.objects.push(object);
        self.last = self.messages.len();
        self.messages.message(SUBSYSTEM << 8 | kind, REQUEST | flags, sequence, &header(FAMILY_INET, 0), body);
    }
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The type number as the `nft` program shows it, and the length.
fn key_layout(key: Key) -> (u32, u32) {
    const ADDRESS_V4: u32 = 7;
    const ADDRESS_V6: u32 = 8;
    const SERVICE: u32 = 13;
    match key {
        Key::AddressPort(Family::V4) => (ADDRESS_V4 << 6 | SERVICE, 8),
        Key::AddressPort(Family::V6) => (ADDRESS_V6 << 6 | SERVICE, 20),
        Key::AddressRange(Family::V4) => (ADDRESS_V4, 4),
        Key::AddressRange(Family::V6) => (ADDRESS_V6, 16),
    }
}

/// Address, port, and two zeros that fill the port's part of the register.
fn destination_key(destination: SocketAddr) -> Vec<u8> {
    let mut key = expression::octets(destination.ip());
    key.extend_from_slice(&destination.port().to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    key
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => Some(IpAddr::V4(v4.to_bits().checked_add(1)?.into())),
        IpAddr::V6(v6) => Some(IpAddr::V6(v6.to_bits().checked_add(1)?.into())),
    }
}
