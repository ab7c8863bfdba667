//! The expressions that rules are made of, and their encoding.
//!
//! A register is sixteen bytes wide; a concatenated key (address, then port) fills consecutive four-byte parts of it, so the port of
//! an IPv4 key lands in part 1 and that of an IPv6 key in part 4.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::netlink::Writer;

const LIST_ELEMENT: u16 = 1;
/// `NFT_REG_1` and `NFT_REG_2`: sixteen bytes each.
const REGISTER: u32 = 1;
const REGISTER_SECOND: u32 = 2;
/// `NFT_REG32_00`: where four-byte parts begin; the same bytes as `NFT_REG_1`.
const REGISTER_PART: u32 = 8;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const VERDICT_JUMP: u32 = (-3_i32).cast_unsigned();
/// fin, syn, rst, ack.
const TCP_FLAGS_MASK: u8 = 0x17;
const TCP_FLAG_SYN: u8 = 0x02;

/// What `meta` can load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Meta {
    Mark = 3,
    SocketUid = 10,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

/// Does a comparison look for equality or for difference?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// The transport protocols that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// The address family of a rule in the `inet` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`: the numbers of AF_INET and AF_INET6.
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Offset and length of an address in the network header; the source lies one length before the destination.
    fn destination(self) -> (u32, u32) {
        match self {
            Self::V4 => (16, 4),
            Self::V6 => (24, 16),
        }
    }
}

/// One step of a rule: a rule goes on as long as its expressions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// The packet is of this address family.
    Family(Family),
    /// The packet is of this transport protocol.
    Protocol(Protocol),
    /// A TCP segment that opens a connection (SYN and none of FIN, RST, ACK). In the middle of a connection conntrack may see a packet as
    /// new (`nf_conntrack_tcp_loose`); redirecting that would reset a connection that was there before us.
    OpensConnection,
    /// The sending socket's owner is not this uid. A packet without a socket does not pass.
    SocketUidIsNot(u32),
    /// The sending socket's mark is not this one.
    MarkIsNot(u32),
    /// The destination address is this one.
    DestinationIs(IpAddr),
    /// The destination address is outside of loopback.
    DestinationIsNotLoopback(Family),
    /// The destination port is this one.
    PortIs(NonZeroU16),
    /// The source port is this one.
    SourcePortIs(NonZeroU16),
    /// `destination address . destination port` is in this named set.
    DestinationPortIn(Family, &'static str),
    /// The destination address is in this named set.
    DestinationIn(Family, &'static str),
    /// True once in so many packets, at random.
    OneIn(u32),
    /// Goes on in another chain and returns if nothing there decides.
    Jump(&'static str),
    /// To this port of the machine itself: 127.0.0.1 or ::1 for packets made here.
    Redirect(NonZeroU16),
    /// To this address and port.
    DestinationNat(std::net::SocketAddr),
    /// Answer a TCP connection with a reset.
    RejectWithReset,
    /// Answer with "port unreachable".
    RejectWithUnreachable,
}

impl Expression {
    /// Appends the kernel's expressions for this one.
    pub(crate) fn encode(&self, out: &mut Writer) {
        match self {
            Self::Family(family) => meta_compare(out, Meta::NetworkProtocol, Compare::Equal, &[family.number()]),
            Self::Protocol(protocol) => meta_compare(out, Meta::TransportProtocol, Compare::Equal, &[protocol.number()]),
            Self::OpensConnection => {
                payload(out, BASE_TRANSPORT, 13, 1, REGISTER);
                masked(out, &[TCP_FLAGS_MASK]);
                compare(out, Compare::Equal, &[TCP_FLAG_SYN]);
            }
            Self::SocketUidIsNot(uid) => meta_compare(out, Meta::SocketUid, Compare::NotEqual, &uid.to_ne_bytes()),
            Self::MarkIsNot(mark) => meta_compare(out, Meta::Mark, Compare::NotEqual, &mark.to_ne_bytes()),
            Self::DestinationIs(address) => {
                destination(out, Family::of(*address));
                compare(out, Compare::Equal, &octets(*address));
            }
            Self::DestinationIsNotLoopback(Family::V4) => {
                destination(out, Family::V4);
                masked(out, &[0xff, 0, 0, 0]);
                compare(out, Compare::NotEqual, &[127, 0, 0, 0]);
            }
            Self::DestinationIsNotLoopback(Family::V6) => {
                destination(out, Family::V6);
                compare(out, Compare::NotEqual, &std::net::Ipv6Addr::LOCALHOST.octets());
            }
            Self::PortIs(port) => {
                payload(out, BASE_TRANSPORT, 2, 2, REGISTER);
                compare(out, Compare::Equal, &port.get().to_be_bytes());
            }
            Self::SourcePortIs(port) => {
                payload(out, BASE_TRANSPORT, 0, 2, REGISTER);
                compare(out, Compare::Equal, &port.get().to_be_bytes());
            }
            Self::DestinationPortIn(family, set) => {
                destination(out, *family);
                let (_, address_len) = family.destination();
                payload(out, BASE_TRANSPORT, 2, 2, REGISTER_PART + address_len / 4);
                lookup(out, set);
            }
            Self::DestinationIn(family, set) => {
                destination(out, *family);
                lookup(out, set);
            }
            Self::OneIn(modulus) => one_in(out, *modulus),
            Self::Jump(chain) => jump(out, chain),
            Self::Redirect(port) => {
                immediate(out, REGISTER, &port.get().to_be_bytes());
                expression(out, "redir", |data| data.be32(1, REGISTER));
            }
            Self::DestinationNat(to) => destination_nat(out, *to),
            Self::RejectWithReset => reject(out, 1, 0),
            Self::RejectWithUnreachable => reject(out, 2, 1),
        }
    }
}

/// The bytes of an address, as keys and headers have them.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn expression(out: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    out.nest(LIST_ELEMENT, |element| {
        element.string(1, name);
        element.nest(2, data);
    });
}

fn meta_compare(out: &mut Writer, key: Meta, how: Compare, value: &[u8]) {
    expression(out, "meta", |data| {
        data.be32(1, REGISTER);
        data.be32(2, key as u32);
    });
    compare(out, how, value);
}

fn compare(out: &mut Writer, how: Compare, value: &[u8]) {
    expression(out, "cmp", |data| {
        data.be32(1, REGISTER);
        data.be32(2, how as u32);
        data.nest(3, |nested| nested.bytes(1, value));
    });
}

fn payload(out: &mut Writer, base: u32, offset: u32, length: u32, register: u32) {
    expression(out, "payload", |data| {
        data.be32(1, register);
        data.be32(2, base);
        data.be32(3, offset);
        data.be32(4, length);
    });
}

fn destination(out: &mut Writer, family: Family) {
    let (offset, length) = family.destination();
    payload(out, BASE_NETWORK, offset, length, REGISTER);
}

fn masked(out: &mut Writer, mask: &[u8]) {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    expression(out, "bitwise", |data| {
        data.be32(1, REGISTER);
        data.be32(2, REGISTER);
        data.be32(3, length);
        data.nest(4, |nested| nested.bytes(1, mask));
        data.nest(5, |nested| nested.bytes(1, &vec![0; mask.len()]));
    });
}

fn lookup(out: &mut Writer, set: &str) {
    expression(out, "lookup", |data| {
        data.string(1, set);
        data.be32(2, REGISTER);
    });
}

fn one_in(out: &mut Writer, modulus: u32) {
    const RANDOM: u32 = 1;
    expression(out, "numgen", |data| {
        data.be32(1, REGISTER);
        data.be32(2, modulus);
        data.be32(3, RANDOM);
        data.be32(4, 0);
    });
    compare(out, Compare::Equal, &0_u32.to_ne_bytes());
}

fn jump(out: &mut Writer, chain: &str) {
    expression(out, "immediate", |data| {
        data.be32(1, 0);
        data.nest(2, |value| {
            value.nest(2, |verdict| {
                verdict.be32(1, VERDICT_JUMP);
                verdict.string(2, chain);
            });
        });
    });
}

fn immediate(out: &mut Writer, register: u32, value: &[u8]) {
    expression(out, "immediate", |data| {
        data.be32(1, register);
        data.nest(2, |nested| nested.bytes(1, value));
    });
}

fn destination_nat(out: &mut Writer, to: std::net::SocketAddr) {
    const DESTINATION: u32 = 1;
    immediate(out, REGISTER, &octets(to.ip()));
    immediate(out, REGISTER_SECOND, &to.port().to_be_bytes());
    expression(out, "nat", |data| {
        data.be32(1, DESTINATION);
        data.be32(2, u32::from(Family::of(to.ip()).number()));
        data.be32(3, REGISTER);
        data.be32(5, REGISTER_SECOND);
    });
}

fn reject(out: &mut Writer, kind: u32, code: u8) {
    expression(out, "reject", |data| {
        data.be32(1, kind);
        data.bytes(2, &[code]);
    });
}
