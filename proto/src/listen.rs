//! Listening where a node may not have IPv6 at all.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Peers that connect all at once wait here for a moment; the kernel resets those that do not fit.
const LISTEN_BACKLOG: u32 = 4096;
/// `EAFNOSUPPORT` of Linux: a kernel with `ipv6.disable=1`.
const FAMILY_NOT_SUPPORTED: i32 = 97;

/// Listens. `[::]` means every address of the node: where the kernel has no IPv6, all of IPv4.
///
/// # Errors
/// The address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    with_fallback(address, |address| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        // Connections inherit it: without it the second small message of an answer waits 40 ms for the first one's acknowledgement.
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    })
}

fn with_fallback<T>(address: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open(address) {
        Err(error) if error.raw_os_error() == Some(FAMILY_NOT_SUPPORTED) && address.is_ipv6() && address.ip().is_unspecified() => {
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel without IPv6.
    fn without_ipv6(address: SocketAddr) -> io::Result<SocketAddr> {
        if address.is_ipv6() { Err(io::Error::from_raw_os_error(FAMILY_NOT_SUPPORTED)) } else { Ok(address) }
    }

    #[tokio::test]
    async fn connections_wait_for_no_acknowledgement() {
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("listens");
        let client = tokio::net::TcpStream::connect(listener.local_addr().expect("an address"));
        let (accepted, _client) = tokio::join!(listener.accept(), client);
        assert!(accepted.expect("accepted").0.nodelay().expect("the kernel says"));
    }

    #[test]
    fn every_address_is_every_ipv4_address_where_there_is_no_ipv6() {
        let any = "[::]:15020".parse().expect("an address");
        assert_eq!(with_fallback(any, without_ipv6).expect("falls back"), "0.0.0.0:15020".parse().expect("an address"));
        let loopback = "[::1]:15020".parse().expect("an address");
        with_fallback(loopback, without_ipv6).expect_err("one address is that one and no other");
    }
}
