//! Bytes to where they were going anyway: unread, without limits of time, each direction ending by itself.

use std::collections::BTreeMap;
use std::future::poll_fn;
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
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::pipe::{Filled, Pipe};

/// A direction begins with this buffer.
const BUFFER_BYTES_MIN: usize = 16 * 1024;
/// And doubles it, up to this, while reads fill it.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Between two sockets a read that fills so much is the last one: from then on a pipe serves better.
const BULK_BYTES: usize = 64 * 1024;
/// What a pipe cannot take goes through so much memory.
const BESIDE_BYTES: usize = 4 * 1024;

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
    let copied = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::try_join!(move_one(client_read, server_write), move_one(server_read, client_write))
    };
    if copied.is_err() {
        reset(client);
        reset(server);
    }
    copied.map(|(there, back)| there + back)
}

/// Copies both directions of any two streams.
pub(crate) async fn copy_both<A, B>(a: &mut A, b: &mut B) -> io::Result<u64>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut a_read, mut a_write) = tokio::io::split(a);
    let (mut b_read, mut b_write) = tokio::io::split(b);
    let (there, back) = tokio::try_join!(copy_one(&mut a_read, &mut b_write, usize::MAX), copy_one(&mut b_read, &mut a_write, usize::MAX))?;
    Ok(there.bytes + back.bytes)
}

/// Moves one direction of two sockets to its end: through memory while it is small, through a pipe once it comes in bulk.
async fn move_one(mut read: ReadHalf<'_>, mut write: WriteHalf<'_>) -> io::Result<u64> {
    let begun = copy_one(&mut read, &mut write, BULK_BYTES).await?;
    if begun.has_ended {
        return Ok(begun.bytes);
    }
    let rest = match Pipe::open() {
        Some(pipe) => splice_one(pipe, &read, &mut write).await?,
        None => copy_one(&mut read, &mut write, usize::MAX).await?.bytes,
    };
    Ok(begun.bytes + rest)
}

/// Moves one direction through a pipe to its end, then ends the other side's input.
async fn splice_one(mut pipe: Pipe, read: &ReadHalf<'_>, write: &mut WriteHalf<'_>) -> io::Result<u64> {
    let mut beside = vec![0; BESIDE_BYTES];
    let mut total = 0_u64;
    loop {
        total += match poll_fn(|context| pipe.poll_fill(read.as_ref(), u64::MAX, &mut beside, context)).await? {
            Filled::Beside(0) => {
                end(write).await?;
                return Ok(total);
            }
            Filled::Beside(length) => {
                write.write_all(&beside[..length]).await?;
                length as u64
            }
            Filled::Pipe(length) => {
                poll_fn(|context| pipe.poll_drain(write.as_ref(), context)).await?;
                length as u64
            }
        };
    }
}

/// How far a direction was copied.
struct Copied {
    bytes: u64,
    has_ended: bool,
}

/// Copies one direction to its end, then ends the other side's input; or stops after a read of `bulk_bytes`.
async fn copy_one(read: &mut (impl AsyncRead + Unpin), write: &mut (impl AsyncWrite + Unpin), bulk_bytes: usize) -> io::Result<Copied> {
    let mut buffer = vec![0; BUFFER_BYTES_MIN];
    let mut bytes = 0_u64;
    loop {
        let length = read.read(&mut buffer).await?;
        if length == 0 {
            end(write).await?;
            return Ok(Copied { bytes, has_ended: true });
        }
        write.write_all(&buffer[..length]).await?;
        // TLS keeps what it was given until it is told to send it.
        write.flush().await?;
        bytes += length as u64;
        if length >= bulk_bytes {
            return Ok(Copied { bytes, has_ended: false });
        }
        if length == buffer.len() && length < BUFFER_BYTES_MAX {
            buffer.resize(length * 2, 0);
        }
    }
}

async fn end(write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    match write.shutdown().await {
        // The peer may be gone already; then its own direction says so.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        ended => ended,
    }
}

/// Lets a connection end with a reset when it is dropped.
pub(crate) fn reset(stream: &TcpStream) {
    // A socket that is gone needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rand::rngs::SmallRng;
    use rand::{RngCore as _, SeedableRng as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::pipe::pipes_of_a_test;

    /// Two ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.expect("connected"), accepted.expect("accepted").0)
    }

    /// A client and a server, and between them what copies; its end says how it went.
    async fn between() -> (TcpStream, TcpStream, tokio::task::JoinHandle<io::Result<u64>>) {
        let ((client, mut near), (mut far, server)) = (pair().await, pair().await);
        (client, server, tokio::spawn(async move { copy(&mut near, &mut far).await }))
    }

    async fn send(mut stream: impl AsyncWrite + Unpin, parts: &[Vec<u8>]) {
        for part in parts {
            stream.write_all(part).await.expect("sent");
        }
        stream.shutdown().await.expect("ended");
    }

    async fn receive(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("received");
        bytes
    }

    /// Small parts, then bulk, then small ones again.
    fn parts(seed: u64) -> Vec<Vec<u8>> {
        let mut random = SmallRng::seed_from_u64(seed);
        [1, 1000, 3_000_000, 1, 70_000, 5_000_001, 17]
            .map(|length| {
                let mut part = vec![0; length];
                random.fill_bytes(&mut part);
                part
            })
            .into()
    }

    /// Both directions at once, in parts of every size.
    async fn both_arrive() {
        let (mut client, mut server, copied) = between().await;
        let (there, back) = (parts(1), parts(2));
        let ((client_read, client_write), (server_read, server_write)) = (client.split(), server.split());
        let (at_client, at_server, (), ()) =
            tokio::join!(receive(client_read), receive(server_read), send(client_write, &there), send(server_write, &back));
        assert!(at_server == there.concat() && at_client == back.concat(), "the bytes are others");
        let bytes = copied.await.expect("no panic").expect("copied");
        assert_eq!(bytes, (at_server.len() + at_client.len()) as u64);
    }

    #[tokio::test]
    async fn what_comes_in_bulk_arrives_as_it_was_with_a_pipe_and_without() {
        let _pipes = pipes_of_a_test().await;
        both_arrive().await;
        let all: Vec<Pipe> = std::iter::from_fn(Pipe::open).collect();
        assert!(!all.is_empty(), "there are pipes, and not without end");
        both_arrive().await;
        drop(all);
        assert!(Pipe::open().is_some(), "a pipe that is closed makes room");
    }

    #[tokio::test]
    async fn a_direction_that_ended_leaves_the_other_one_open() {
        let _pipes = pipes_of_a_test().await;
        let (mut client, mut server, copied) = between().await;
        let bulk = vec![7; 2_000_000];
        let (received, ()) = tokio::join!(
            async {
                let mut received = vec![0; bulk.len()];
                server.read_exact(&mut received).await.expect("received");
                assert_eq!(server.read(&mut [0]).await.expect("the end"), 0);
                received
            },
            send(&mut client, std::slice::from_ref(&bulk))
        );
        assert!(received == bulk, "the bytes are others");
        server.write_all(b"still here").await.expect("sent");
        server.shutdown().await.expect("ended");
        assert_eq!(receive(client).await, b"still here");
        assert_eq!(copied.await.expect("no panic").expect("copied"), 2_000_010);
    }

    #[tokio::test]
    async fn what_comes_after_urgent_data_in_bulk_arrives() {
        let _pipes = pipes_of_a_test().await;
        let (mut client, server, copied) = between().await;
        let sent = async {
            for _ in 0..5 {
                client.write_all(&[7; 1_000_000]).await.expect("sent");
                // Out of band: no part of the stream for whoever does not ask for it.
                SockRef::from(&client).send_out_of_band(b"!").expect("sent");
            }
            client.write_all(b"the end").await.expect("sent");
            client.shutdown().await.expect("ended");
        };
        let (received, ()) = tokio::join!(receive(server), sent);
        assert!(received.ends_with(b"the end"));
        // An urgent byte that another one follows before it is read becomes part of the stream (RFC 6093 section 3.3).
        assert!((5_000_007..=5_000_012).contains(&received.len()), "{}", received.len());
        drop(client);
        assert!(copied.await.expect("no panic").is_ok());
    }

    #[tokio::test]
    async fn a_reset_in_the_middle_of_bulk_is_a_reset_for_the_other_side() {
        let _pipes = pipes_of_a_test().await;
        let (mut client, mut server, copied) = between().await;
        let bulk = vec![7; 2_000_000];
        let (sent, ()) = tokio::join!(
            async {
                loop {
                    if let Err(error) = client.write_all(&bulk).await {
                        return error;
                    }
                }
            },
            async {
                server.read_exact(&mut vec![0; 1_000_000]).await.expect("received");
                reset(&server);
                drop(server);
            }
        );
        assert!(matches!(sent.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{sent}");
        assert!(copied.await.expect("no panic").is_err());
    }
}
