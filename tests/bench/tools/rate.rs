//! An open loop: a request is due whether or not the one before was answered, and waits from then on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::say;

/// An answer is read in one go: it is short.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A thread a connection: timers of an event loop are too coarse for what is measured.
pub(crate) fn run(address: SocketAddr, host: &str, path: &str, rate: u32, connections: u32, seconds: u64) -> anyhow::Result<()> {
    // The kernel may wake a thread this much later; by default 50 microseconds.
    nix::sys::prctl::set_timerslack(1)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let interval = Duration::from_secs(1) * connections / rate;
    let begin = Instant::now() + Duration::from_millis(200);
    let end = begin + Duration::from_secs(seconds);
    let results: Vec<anyhow::Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|index| {
                let (request, first) = (request.as_str(), begin + interval * index / connections);
                scope.spawn(move || one(address, request, first, interval, end))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))).collect()
    });
    let errors = results.iter().filter(|result| result.is_err()).count();
    if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
        eprintln!("{error:#}");
    }
    let mut latencies: Vec<f64> = results.into_iter().flatten().flatten().map(|latency| latency.as_secs_f64() * 1e6).collect();
    latencies.sort_by(f64::total_cmp);
    ensure!(!latencies.is_empty(), "no answer at all");
    let at = |per_mille: usize| latencies[(latencies.len() * per_mille / 1000).min(latencies.len() - 1)];
    say(latencies.len() as u64, errors as u64, Some([at(500), at(900), at(990), at(999)]));
    Ok(())
}

fn one(address: SocketAddr, request: &str, first: Instant, interval: Duration, end: Instant) -> anyhow::Result<Vec<Duration>> {
    nix::sys::prctl::set_timerslack(1)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut latencies, mut due, mut buffer) = (Vec::new(), first, vec![0; ANSWER_BYTES_MAX]);
    while due < end {
        // Until the request is due: the pace is what is measured with.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request.as_bytes())?;
        answered(&mut stream, &mut buffer)?;
        latencies.push(due.elapsed());
        due += interval;
    }
    Ok(latencies)
}

/// Reads one answer of known length.
fn answered(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        ensure!(read > 0, "the connection ended");
        filled += read;
        let text = std::str::from_utf8(&buffer[..filled])?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.context("an answer of known length")? {
            return Ok(());
        }
    }
}
