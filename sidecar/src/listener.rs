//! Accepts redirected connections within a limit and hands each to the worker that has the fewest.

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

use crate::worker::WorkerHandle;

/// Client connections at once; beyond it the kernel's backlog pushes back.
const CONNECTIONS_MAX: usize = 10_000;
/// Connections that the kernel keeps for us.
const BACKLOG: i32 = 4096;
/// After an error of the machine (no file descriptors, no memory) the next attempt waits this long.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A connection on its way to a worker.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Not yet in any runtime.
    pub(crate) stream: std::net::TcpStream,
    /// Where it was going.
    pub(crate) destination: SocketAddr,
    /// Who it is from.
    pub(crate) peer: SocketAddr,
    /// Its place within [`CONNECTIONS_MAX`].
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Opens the listeners; a family that the pod does not have is left out.
pub(crate) fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        match bind_one(*address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_missing_family(&error) => warn!(%address, %error, "left out: the pod does not have this family"),
            Err(error) => return Err(error).with_context(|| format!("--outbound {address}")),
        }
    }
    ensure!(!listeners.is_empty(), "--outbound: the pod has none of these addresses");
    Ok(listeners)
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart finds connections of its predecessor in TIME_WAIT; a listener that still lives keeps the address all the same.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Room for [`CONNECTIONS_MAX`] connections, shared by all listeners.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONNECTIONS_MAX))
}

/// Accepts until cancelled.
pub(crate) async fn accept(listener: TcpListener, room: Arc<Semaphore>, workers: Arc<[WorkerHandle]>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept_one(&listener, &room) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                if let Some(worker) = workers.iter().min_by_key(|worker| worker.load()) {
                    worker.take(accepted);
                }
            }
            Err(error) if is_of_the_connection(&error) => tracing::debug!(%error, "connection gone before it was accepted"),
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn accept_one(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let destination = original_destination(&stream)?;
    Ok(Accepted { stream: stream.into_std()?, destination, peer, permit })
}

/// SOL_IP 80 or SOL_IPV6 80. Of a connection that was not redirected it is the listener's own address.
fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    let socket = SockRef::from(stream);
    let destination = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match destination {
        Ok(address) => address.as_socket().ok_or_else(|| io::Error::other("the original destination is no IP address")),
        // Without connection tracking nothing was redirected.
        Err(error) if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENOPROTOOPT)) => Ok(local),
        Err(error) => Err(error),
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected)
        || error.kind() == io::ErrorKind::InvalidInput
}
