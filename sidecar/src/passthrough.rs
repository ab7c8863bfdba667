//! Bytes to where they were going anyway: unread, without limits of time, each direction ending by itself.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A direction begins with this buffer.
const BUFFER_BYTES_MIN: usize = 16 * 1024;
/// And doubles it, up to this, while reads fill it.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// The connections that pass through: what `/config` lists, and what a route that comes later can be told about.
#[derive(Debug, Default)]
pub(crate) struct PassThroughs {
    open: Arc<Mutex<BTreeMap<u64, PassThrough>>>,
    next: AtomicU64,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct PassThrough {
    destination: SocketAddr,
    peer: SocketAddr,
    since: Instant,
}

/// One of them, for a reader.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    destination: SocketAddr,
    client: SocketAddr,
    age_s: u64,
}

impl PassThroughs {
    /// Lists a connection for as long as the entry lives.
    pub(crate) fn add(&self, destination: SocketAddr, peer: SocketAddr) -> Entry {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(id, PassThrough { destination, peer, since: Instant::now() });
        Entry { id, open: Arc::clone(&self.open) }
    }

    /// Those whose destination fulfils a condition, the oldest first.
    pub(crate) fn list(&self, mut condition: impl FnMut(SocketAddr) -> bool) -> Vec<Listed> {
        let open = self.open.lock();
        let chosen = open.values().filter(|connection| condition(connection.destination));
        let listed = chosen.map(|connection| Listed {
            destination: connection.destination,
            client: connection.peer,
            age_s: connection.since.elapsed().as_secs(),
        });
        listed.collect()
    }
}

/// A connection's place in the list.
#[derive(Debug)]
pub(crate) struct Entry {
    id: u64,
    open: Arc<Mutex<BTreeMap<u64, PassThrough>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.lock().remove(&self.id);
    }
}

/// Copies both directions until both have ended; gives the bytes of both. An error of one side becomes a reset of the other, as if there
/// were nothing between them.
pub(crate) async fn copy(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<u64> {
    let copied = copy_both(client, server).await;
    if copied.is_err() {
        reset(client);
        reset(server);
    }
    copied
}

/// Copies both directions of any two streams.
pub(crate) async fn copy_both<A, B>(a: &mut A, b: &mut B) -> io::Result<u64>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut a_read, mut a_write) = tokio::io::split(a);
    let (mut b_read, mut b_write) = tokio::io::split(b);
    let (there, back) = tokio::try_join!(copy_one(&mut a_read, &mut b_write), copy_one(&mut b_read, &mut a_write))?;
    Ok(there + back)
}

/// Copies one direction to its end, then ends the other side's input.
async fn copy_one(read: &mut (impl AsyncRead + Unpin), write: &mut (impl AsyncWrite + Unpin)) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES_MIN];
    let mut total = 0_u64;
    loop {
        let length = read.read(&mut buffer).await?;
        if length == 0 {
            // The peer may be gone already; then its own direction says so.
            if let Err(error) = write.shutdown().await
                && error.kind() != io::ErrorKind::NotConnected
            {
                return Err(error);
            }
            return Ok(total);
        }
        write.write_all(&buffer[..length]).await?;
        // TLS keeps what it was given until it is told to send it.
        write.flush().await?;
        total += length as u64;
        if length == buffer.len() && length < BUFFER_BYTES_MAX {
            buffer.resize(length * 2, 0);
        }
    }
}

/// Lets a connection end with a reset when it is dropped.
pub(crate) fn reset(stream: &TcpStream) {
    // A socket that is gone needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
