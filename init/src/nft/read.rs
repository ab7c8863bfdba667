//! What is in force: chains, rules and set elements as the kernel lists them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::{FAMILY_INET, Family, SUBSYSTEM, header};
use crate::netlink::{ACK, DUMP, Message, REQUEST, Socket, Writer, attribute, attributes, be32, split, text};

const GET_TABLE: u16 = 1;
const GET_RULE: u16 = 7;
const GET_ELEMENT: u16 = 13;
const GET_GENERATION: u16 = 16;
const HEADER_LEN: usize = 4;

/// One rule, by the names of the kernel's expressions in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The chain it is in.
    pub chain: String,
    /// `meta`, `cmp`, `payload` ...
    pub expressions: Vec<String>,
}

/// Reads one table.
#[derive(Debug)]
pub struct Reader {
    socket: Socket,
    table: &'static str,
}

impl Reader {
    /// A reader in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's reason not to open a netlink socket.
    pub fn open(table: &'static str) -> io::Result<Self> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkNetFilter, 0)?, table })
    }

    /// Is the table there?
    ///
    /// # Errors
    /// The kernel's reason not to say.
    pub fn exists(&self) -> io::Result<bool> {
        let request = self.request(GET_TABLE, ACK, |body| body.string(1, self.table));
        match self.socket.dump(&request) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Changes with every change of any table of the network namespace: what is read between two equal ones is of one state.
    ///
    /// # Errors
    /// The kernel's reason not to say.
    pub fn generation(&self) -> io::Result<u32> {
        let messages = self.socket.dump(&self.request(GET_GENERATION, ACK, |_| {}))?;
        let number = messages.iter().find_map(|message| attribute(message.body.get(HEADER_LEN..)?, 1).and_then(be32));
        number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel gives no generation"))
    }

    /// Its rules, in order.
    ///
    /// # Errors
    /// The kernel's reason not to list them.
    pub fn rules(&self) -> io::Result<Vec<Rule>> {
        let request = self.request(GET_RULE, DUMP, |body| body.string(1, self.table));
        Ok(Dump(self.socket.dump(&request)?).rules(self.table))
    }

    /// The `address . port` elements of a set that have not expired.
    ///
    /// # Errors
    /// The kernel's reason not to list them; ENOENT if there is no such set.
    pub fn destinations(&self, set: &str, family: Family) -> io::Result<Vec<SocketAddr>> {
        Ok(self.elements(set)?.destinations(family))
    }

    /// The boundaries of a set of ranges, in order: where each begins, and after which address it ends.
    ///
    /// # Errors
    /// The kernel's reason not to list them; ENOENT if there is no such set.
    pub fn ranges(&self, set: &str, family: Family) -> io::Result<Vec<(IpAddr, IpAddr)>> {
        Ok(self.elements(set)?.ranges(family))
    }

    fn elements(&self, set: &str) -> io::Result<Dump> {
        let request = self.request(GET_ELEMENT, DUMP, |body| {
            body.string(1, self.table);
            body.string(2, set);
        });
        self.socket.dump(&request).map(Dump)
    }

    #[expect(clippy::unused_self, reason = "reads as the other calls of the reader do")]
    fn request(&self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.message(SUBSYSTEM << 8 | kind, REQUEST | flags, 1, &header(FAMILY_INET, 0), body);
        writer.as_bytes().to_vec()
    }
}

/// What the kernel listed.
#[derive(Debug)]
pub struct Dump(Vec<Message>);

impl Dump {
    /// The messages that were received at once; what is cut off is left out.
    #[must_use]
    pub fn received(bytes: &[u8]) -> Self {
        Self(split(bytes))
    }

    /// The rules of a table, in order.
    #[must_use]
    pub fn rules(&self, table: &str) -> Vec<Rule> {
        self.0.iter().filter_map(|message| rule(message, table)).collect()
    }

    /// The `address . port` elements of a set.
    #[must_use]
    pub fn destinations(&self, family: Family) -> Vec<SocketAddr> {
        self.keys().iter().filter_map(|(key, _)| destination(key, family)).collect()
    }

    /// The boundaries of a set of ranges, in order: where each begins, and after which address it ends.
    #[must_use]
    pub fn ranges(&self, family: Family) -> Vec<(IpAddr, IpAddr)> {
        let mut bounds: Vec<(IpAddr, bool)> = self.keys().iter().filter_map(|(key, ends)| Some((address(key, family)?, *ends))).collect();
        // Of neighbours one ends where the next begins, and the end comes first.
        bounds.sort_unstable_by_key(|(bound, ends)| (*bound, !ends));
        let mut found = Vec::new();
        let mut open = None;
        for (bound, ends) in bounds {
            match (ends, open.take()) {
                (true, Some(first)) => found.extend(predecessor(bound).map(|last| (first, last))),
                (false, _) => open = Some(bound),
                (true, None) => {}
            }
        }
        if let Some(first) = open {
            found.push((first, last_of(family)));
        }
        found
    }

    fn keys(&self) -> Vec<(Vec<u8>, bool)> {
        let mut found = Vec::new();
        for message in &self.0 {
            let Some(list) = message.body.get(HEADER_LEN..).and_then(|body| attribute(body, 3)) else { continue };
            for (_, element) in attributes(list) {
                let Some(key) = attribute(element, 1).and_then(|key| attribute(key, 1)) else { continue };
                let ends = attribute(element, 3).and_then(be32).is_some_and(|flags| flags & 1 == 1);
                found.push((key.to_vec(), ends));
            }
        }
        found
    }
}

fn rule(message: &Message, table: &str) -> Option<Rule> {
    let body = message.body.get(HEADER_LEN..)?;
    if text(attribute(body, 1)?) != table {
        return None;
    }
    let expressions = attributes(attribute(body, 4)?).into_iter();
    Some(Rule {
        chain: text(attribute(body, 2)?),
        expressions: expressions.filter_map(|(_, expression)| attribute(expression, 1).map(text)).collect(),
    })
}

fn address(key: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => Some(IpAddr::V4(Ipv4Addr::from(*key.first_chunk::<4>()?))),
        Family::V6 => Some(IpAddr::V6(Ipv6Addr::from(*key.first_chunk::<16>()?))),
    }
}

fn destination(key: &[u8], family: Family) -> Option<SocketAddr> {
    let address = address(key, family)?;
    let port = key.get(if address.is_ipv4() { 4..6 } else { 16..18 })?;
    Some(SocketAddr::new(address, u16::from_be_bytes([port[0], port[1]])))
}

fn predecessor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => Some(IpAddr::V4(v4.to_bits().checked_sub(1)?.into())),
        IpAddr::V6(v6) => Some(IpAddr::V6(v6.to_bits().checked_sub(1)?.into())),
    }
}

fn last_of(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::BROADCAST.into(),
        Family::V6 => Ipv6Addr::from(u128::MAX).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One message with these keys and whether each ends a range.
    fn dump(bounds: &[([u8; 4], bool)]) -> Dump {
        let mut writer = Writer::default();
        writer.message(SUBSYSTEM << 8 | GET_ELEMENT, 0, 1, &header(FAMILY_INET, 0), |body| {
            body.nest(3, |list| {
                for (key, ends) in bounds {
                    list.nest(1, |element| {
                        element.nest(1, |data| data.bytes(1, key));
                        element.be32(3, u32::from(*ends));
                    });
                }
            });
        });
        Dump::received(writer.as_bytes())
    }

    #[test]
    fn neighbouring_ranges_are_both_read() {
        let ranges =
            dump(&[([10, 0, 0, 0], false), ([10, 1, 0, 0], true), ([10, 1, 0, 0], false), ([10, 2, 0, 0], true)]).ranges(Family::V4);
        let address = |a, b, c, d| IpAddr::from([a, b, c, d]);
        let expected = [(address(10, 0, 0, 0), address(10, 0, 255, 255)), (address(10, 1, 0, 0), address(10, 1, 255, 255))];
        assert_eq!(ranges, expected);
    }
}
