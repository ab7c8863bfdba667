//! Accepts redirected connections within a limit: each worker its own, so that they need not change threads, unless another one has fewer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Client connections at once; beyond it the kernel's backlog pushes back.
const CONNECTIONS_MAX: usize = 10_000;
/// Connections that the kernel keeps for us.
const BACKLOG: i32 = 4096;
/// After an error of the machine (no file descriptors, no memory) the next attempt waits this long.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A connection of the runtime that accepted it, or on its way to another one.
#[derive(Debug)]
pub(crate) struct Accepted<S = TcpStream> {
    /// The connection.
    pub(crate) stream: S,
    /// Where it was going.
    pub(crate) destination: SocketAddr,
    /// It was dialled as it is: nothing has redirected it.
    pub(crate) is_direct: bool,
    /// Who it is from.
    pub(crate) peer: SocketAddr,
    /// Its place within [`CONNECTIONS_MAX`].
    pub(crate) permit: OwnedSemaphorePermit,
}

impl<S> Accepted<S> {
    /// The same with another form of its stream.
    pub(crate) fn try_map<T>(self, form: impl FnOnce(S) -> io::Result<T>) -> io::Result<Accepted<T>> {
        let Self { stream, destination, is_direct, peer, permit } = self;
        Ok(Accepted { stream: form(stream)?, destination, is_direct, peer, permit })
    }
}

/// A listener, not yet in any runtime.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: std::net::TcpListener,
    port: u16,
}

/// Opens the listeners of each worker, over which the kernel spreads connections; a family that the pod does not have is left out.
pub(crate) fn bind(addresses: &[SocketAddr], workers: usize) -> anyhow::Result<Vec<Vec<Listener>>> {
    let mut listeners: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
    for address in addresses {
        for worker in &mut listeners {
            match bind_one(*address) {
                Ok(listener) => worker.push(listener),
                Err(error) if is_missing_family(&error) => {
                    warn!(%address, %error, "left out: the pod does not have this family");
                    break;
                }
                Err(error) => return Err(error).with_context(|| format!("--outbound {address}")),
            }
        }
    }
    ensure!(listeners.iter().all(|worker| !worker.is_empty()), "--outbound: the pod has none of these addresses");
    Ok(listeners)
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

fn bind_one(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart finds connections of its predecessor in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // One for each worker. Nobody but this user can have another.
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket = std::net::TcpListener::from(socket);
    let port = socket.local_addr()?.port();
    Ok(Listener { socket, port })
}

/// Room for [`CONNECTIONS_MAX`] connections, shared by all listeners.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTIONS_MAX))
}

/// Accepts until cancelled.
///
/// # Errors
/// The listener is none of this runtime's to wait for.
pub(crate) async fn accept(
    listener: Listener,
    room: Arc<Semaphore>,
    stop: CancellationToken,
    mut take: impl FnMut(Accepted) -> io::Result<()>,
) -> io::Result<()> {
    let Listener { socket, port } = listener;
    let socket = TcpListener::from_std(socket)?;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = accept_one(&socket, port, &room) => accepted,
        };
        match accepted.and_then(&mut take) {
            Ok(()) => {}
            Err(error) if is_of_the_connection(&error) => tracing::debug!(%error, "connection gone before it was accepted"),
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn accept_one(listener: &TcpListener, port: u16, room: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    let destination = original_destination(&stream, peer)?;
    let (destination, is_direct) = match destination {
        // Another port than ours was dialled.
        Some(destination) if destination.port() != port => (destination, false),
        Some(destination) => (destination, stream.local_addr()? == destination),
        None => (stream.local_addr()?, true),
    };
    Ok(Accepted { stream, destination, is_direct, peer, permit })
}

/// SOL_IP 80 or SOL_IPV6 80; none: without connection tracking nothing was redirected.
fn original_destination(stream: &TcpStream, peer: SocketAddr) -> io::Result<Option<SocketAddr>> {
    let socket = SockRef::from(stream);
    let destination = if peer.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match destination {
        Ok(address) => address.as_socket().map(Some).ok_or_else(|| io::Error::other("the original destination is no IP address")),
        Err(error) if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENOPROTOOPT)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected)
        || error.kind() == io::ErrorKind::InvalidInput
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[tokio::test]
    async fn what_is_accepted_is_without_delay_and_known_to_be_dialled_as_it_is() {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
            let Listener { socket, port } = bind_one(address).expect("a listener");
            let socket = TcpListener::from_std(socket).expect("a listener");
            let client = std::net::TcpStream::connect((address.ip(), port)).expect("connected");
            let accepted = accept_one(&socket, port, &room()).await.expect("accepted");
            assert_eq!(accepted.peer, client.local_addr().expect("an address"));
            assert_eq!((accepted.destination, accepted.is_direct), (client.peer_addr().expect("an address"), true));
            assert!(accepted.stream.nodelay().expect("an option"));
        }
    }
}
