//! Opens connections of the sidecar's own: marked where interception exempts by mark, counted, and known to the loop guard.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections to endpoints and original destinations at once, of the whole pod.
const OWN_CONNECTIONS_MAX: usize = 20_000;
/// An address that does not answer for so long counts as unreachable.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens connections.
#[derive(Debug)]
pub(crate) struct Connector {
    mark: Option<u32>,
    free: Arc<Semaphore>,
    ports: Arc<Mutex<HashSet<(Family, u16)>>>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Family {
    V4,
    V6,
}

fn family(address: SocketAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// [`OWN_CONNECTIONS_MAX`] are open.
    #[error("{OWN_CONNECTIONS_MAX} connections are open")]
    TooMany,
    /// No answer within [`CONNECT_TIMEOUT`].
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    /// The kernel's reason.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Holds a connection's place in the count and in the loop guard's list.
#[derive(Debug)]
pub(crate) struct Place {
    port: (Family, u16),
    ports: Arc<Mutex<HashSet<(Family, u16)>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ports.lock().remove(&self.port);
    }
}

impl Connector {
    /// Connections carry `mark` if it is given.
    pub(crate) fn new(mark: Option<u32>) -> Self {
        Self { mark, free: Arc::new(Semaphore::new(OWN_CONNECTIONS_MAX)), ports: Arc::default() }
    }

    /// Connects; the place has to live as long as the stream.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<(TcpStream, Place), ConnectError> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| ConnectError::TooMany)?;
        let (socket, any) = match family(address) {
            Family::V4 => (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            Family::V6 => (TcpSocket::new_v6()?, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        if let Some(mark) = self.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        socket.set_nodelay(true)?;
        // The port is taken and noted before the first packet leaves, so that a connection that comes back to the listener is always known.
        // No other socket of the pod can get the same port while this one has it.
        socket.bind(any)?;
        let port = (family(address), socket.local_addr()?.port());
        self.ports.lock().insert(port);
        let place = Place { port, ports: Arc::clone(&self.ports), _permit: permit };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await.map_err(|_| ConnectError::TimedOut)??;
        Ok((stream, place))
    }

    /// Whether `peer` is one of the sidecar's own sockets: a connection from it is a loop.
    pub(crate) fn is_own(&self, peer: SocketAddr) -> bool {
        self.ports.lock().contains(&(family(peer), peer.port()))
    }
}
