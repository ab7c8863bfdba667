//! Opens connections of the sidecar's own: marked where interception exempts by mark, counted, and known to the loop guard.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pool::{Peer, Transport};
use crate::reason::Reason;
use crate::tls::Stream;

/// Connections to endpoints and original destinations at once, of the whole pod.
const OWN_CONNECTIONS_MAX: usize = 20_000;
/// An address that does not answer for so long counts as unreachable; a TLS handshake has as long again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Local address and destination of a connection.
type Ends = (SocketAddr, SocketAddr);

/// Opens connections.
#[derive(Debug)]
pub(crate) struct Connector {
    mark: Option<u32>,
    free: Arc<Semaphore>,
    own: Arc<Mutex<HashSet<Ends>>>,
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
    /// Someone else tried while this one waited.
    #[error("another attempt failed a moment ago")]
    FailedMeanwhile,
    /// What the network or the endpoint answered.
    #[error(transparent)]
    Io(io::Error),
    /// The pod itself cannot: no file descriptor, no port, no memory. It says nothing about the endpoint.
    #[error(transparent)]
    Local(io::Error),
    /// There is a connection, but its endpoint is not who it should be, or speaks no TLS.
    #[error("TLS: {0}")]
    Tls(io::Error),
}

/// Holds a connection's place in the count and in the loop guard's list.
#[derive(Debug)]
pub(crate) struct Place {
    ends: Ends,
    own: Arc<Mutex<HashSet<Ends>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.own.lock().remove(&self.ends);
    }
}

impl ConnectError {
    /// Whether the pod itself is the reason, so that another endpoint would be no better and this one no worse.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::TooMany | Self::Local(_))
    }

    /// What it is called in an answer.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::TooMany | Self::Local(_) => Reason::TooManyConnections,
            Self::TimedOut | Self::FailedMeanwhile | Self::Io(_) => Reason::ConnectFailed,
            Self::Tls(_) => Reason::TlsFailed,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut,
        };
        let answers =
            [BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut];
        // Others come from HTTP's own handshake.
        let is_answer = answers.contains(&error.kind()) || error.raw_os_error().is_none();
        if is_answer { Self::Io(error) } else { Self::Local(error) }
    }
}

impl Connector {
    /// Connections carry `mark` if it is given.
    pub(crate) fn new(mark: Option<u32>) -> Self {
        Self { mark, free: Arc::new(Semaphore::new(OWN_CONNECTIONS_MAX)), own: Arc::default() }
    }

    /// Connections that are open or being opened.
    pub(crate) fn count(&self) -> usize {
        OWN_CONNECTIONS_MAX.saturating_sub(self.free.available_permits())
    }

    /// Connects; the place has to live as long as the stream.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<(TcpStream, Place), ConnectError> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| ConnectError::TooMany)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        let place = self.begin(&socket, address, permit)?;
        let stream = TcpStream::from_std(socket.into())?;
        tokio::time::timeout(CONNECT_TIMEOUT, stream.writable()).await.map_err(|_| ConnectError::TimedOut)??;
        match stream.take_error()? {
            None => Ok((stream, place)),
            Some(error) => Err(error.into()),
        }
    }

    /// Connects to an endpoint, in TLS if a policy says so.
    pub(crate) async fn open(&self, peer: &Peer, transport: Option<Transport>) -> Result<(Stream, Place), ConnectError> {
        let (stream, place) = self.connect(peer.address).await?;
        let Some(tls) = &peer.tls else { return Ok((Stream::Plain(stream), place)) };
        let handshake = tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(stream, transport)).await;
        Ok((handshake.map_err(|_| ConnectError::TimedOut)?.map_err(ConnectError::Tls)?, place))
    }

    /// Begins to connect and notes both ends. The lock is held meanwhile: should the connection come back to the listener, whoever accepts it
    /// asks [`Self::is_own`] and waits for the note.
    fn begin(&self, socket: &Socket, address: SocketAddr, permit: OwnedSemaphorePermit) -> io::Result<Place> {
        let mut own = self.own.lock();
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        let local = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("a local address that is none"))?;
        own.insert((local, address));
        Ok(Place { ends: (local, address), own: Arc::clone(&self.own), _permit: permit })
    }

    /// Whether a connection from `peer` to `destination` is one of the sidecar's own: a loop.
    pub(crate) fn is_own(&self, peer: SocketAddr, destination: SocketAddr) -> bool {
        self.own.lock().contains(&(peer, destination))
    }
}
