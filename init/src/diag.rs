//! Ends TCP connections of the network namespace from outside their process (SOCK_DESTROY over inet_diag).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::netlink::{ACK, DUMP, Message, REQUEST, Socket, Writer};

const DIAG_BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const TCP: u8 = 6;
/// ESTABLISHED and SYN_SENT: what can still become or be a conversation. FIN_WAIT1, FIN_WAIT2 and CLOSE_WAIT: what is half of one.
const OPEN: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8;
/// LAST_ACK and CLOSING as well: what still has something to send.
const UNFINISHED: u32 = OPEN | 1 << 9 | 1 << 11;
/// `struct inet_diag_sockid`.
const ID_LEN: usize = 48;

/// A connection of a process in this namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Connection {
    /// What it was dialled at.
    pub(crate) destination: SocketAddr,
    /// Owner of the socket.
    pub(crate) uid: u32,
    family: u8,
    id: [u8; ID_LEN],
}

/// Ends every connection that is `chosen`; gives how many.
pub(crate) fn destroy(chosen: impl Fn(&Connection) -> bool) -> io::Result<usize> {
    let socket = Socket::open(SockProtocol::NetlinkSockDiag, 0)?;
    let mut ended = 0;
    for connection in list(&socket, OPEN)?.iter().filter(|connection| chosen(connection)) {
        socket.send(&request(DESTROY, ACK, connection.family, OPEN, &connection.id))?;
        match socket.drain()?.iter().find_map(Message::verdict) {
            Some(Ok(())) => ended += 1,
            // It ended by itself in between; of one that only waits for late segments older kernels say EOPNOTSUPP.
            Some(Err(Errno::ENOENT | Errno::EOPNOTSUPP)) | None => {}
            Some(Err(errno)) => return Err(errno.into()),
        }
    }
    Ok(ended)
}

/// Connections that may still send something.
pub(crate) fn unfinished() -> io::Result<Vec<Connection>> {
    list(&Socket::open(SockProtocol::NetlinkSockDiag, 0)?, UNFINISHED)
}

fn list(socket: &Socket, states: u32) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for family in [nix::libc::AF_INET, nix::libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or_default();
        connections.extend(socket.dump(&request(DIAG_BY_FAMILY, DUMP, family, states, &[0; ID_LEN]))?.iter().filter_map(read));
    }
    Ok(connections)
}

fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; ID_LEN]) -> Vec<u8> {
    let mut fixed = vec![family, TCP, 0, 0];
    fixed.extend_from_slice(&states.to_ne_bytes());
    fixed.extend_from_slice(id);
    let mut writer = Writer::default();
    writer.message(kind, REQUEST | flags, 1, &fixed, |_| {});
    writer.as_bytes().to_vec()
}

/// `struct inet_diag_msg`.
fn read(message: &Message) -> Option<Connection> {
    let family = *message.body.first()?;
    let id: [u8; ID_LEN] = message.body.get(4..4 + ID_LEN)?.try_into().ok()?;
    let uid = u32::from_ne_bytes(message.body.get(64..68)?.try_into().ok()?);
    let port = u16::from_be_bytes([id[2], id[3]]);
    let address = id.get(20..36)?;
    let ip: IpAddr = if i32::from(family) == nix::libc::AF_INET {
        Ipv4Addr::from(*address.first_chunk::<4>()?).into()
    } else {
        // An IPv4 connection of a dual-stack socket counts as what it is.
        IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)).to_canonical()
    };
    Some(Connection { destination: SocketAddr::new(ip, port), uid, family, id })
}
