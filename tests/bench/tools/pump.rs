//! Bytes in bulk.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::say;

const BUFFER_BYTES: usize = 256 * 1024;

/// Takes in all that comes.
pub(crate) fn sink(listen: SocketAddr) -> anyhow::Result<()> {
    for stream in TcpListener::bind(listen)?.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
    }
    Ok(())
}

/// Sends for a time.
pub(crate) fn run(address: SocketAddr, connections: u32, seconds: u64) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let sent: Vec<anyhow::Result<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(move || send(address, end))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))).collect()
    });
    let errors = sent.iter().filter(|sent| sent.is_err()).count();
    say(sent.into_iter().flatten().sum(), errors as u64, None);
    Ok(())
}

fn send(address: SocketAddr, end: Instant) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    let (buffer, mut sent) = (vec![b'x'; BUFFER_BYTES], 0);
    while Instant::now() < end {
        stream.write_all(&buffer)?;
        sent += BUFFER_BYTES as u64;
    }
    Ok(sent)
}
