//! One JSON line a request, written by a thread of its own: a full pipe or disk never stops a worker, it drops lines and counts them.
//!
//! A line is made where the request ended: to hand over what it says would cost more than the line.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use super::Told;

/// Once so much waits to be written, lines are dropped.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// So much memory stays with a log in which nothing waits.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// What comes within this time is written together: a thread that wakes up for each line would cost more than the line.
const BATCH: Duration = Duration::from_millis(5);

/// Where lines wait for the writer; it ends when this is dropped and all has been written.
#[derive(Debug)]
pub(crate) struct AccessLog {
    queue: Arc<Queue>,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Told when something waits that was not there, or nothing will come any more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whole lines.
    lines: Vec<u8>,
    is_over: bool,
}

impl AccessLog {
    /// Opens a path for appending, or `-` for standard output.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let out: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(std::io::stdout())
        } else {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.with_context(|| format!("--access-log {}", path.display()))?)
        };
        Self::to(out)
    }

    fn to(out: impl Write + Send + 'static) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let log = Self { queue: Arc::default(), dropped: Counter::default() };
        let (queue, dropped) = (Arc::clone(&log.queue), log.dropped.clone());
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || queue.write_all(out, &dropped))?;
        Ok((log, writer))
    }

    /// Queues a line, or counts it as dropped.
    pub(super) fn tell(&self, told: &Told) {
        let mut waiting = self.queue.waiting.lock();
        let before = waiting.lines.len();
        if before >= WAITING_BYTES_MAX || serde_json::to_writer(&mut waiting.lines, &Line::of(told)).is_err() {
            waiting.lines.truncate(before);
            self.dropped.inc();
            return;
        }
        waiting.lines.push(b'\n');
        drop(waiting);
        if before == 0 {
            self.queue.changed.notify_one();
        }
    }

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> Counter {
        self.dropped.clone()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue.waiting.lock().is_over = true;
        self.queue.changed.notify_one();
    }
}

impl Queue {
    fn write_all(&self, mut out: impl Write, dropped: &Counter) {
        let mut lines = Vec::new();
        let mut is_torn = false;
        loop {
            let is_over = {
                let mut waiting = self.waiting.lock();
                self.changed.wait_while(&mut waiting, |waiting| waiting.lines.is_empty() && !waiting.is_over);
                waiting.is_over
            };
            if !is_over {
                std::thread::sleep(BATCH);
            }
            std::mem::swap(&mut self.waiting.lock().lines, &mut lines);
            if lines.is_empty() && is_over {
                return;
            }
            // A log that cannot be written must not end the process; the next lines try again, and begin on a line of their own.
            let left = if is_torn && !write(&mut out, b"\n").is_empty() { &lines[..] } else { write(&mut out, &lines) };
            dropped.inc_by(left.iter().filter(|byte| **byte == b'\n').count() as u64);
            is_torn = lines[..lines.len() - left.len()].last().map_or(is_torn, |last| *last != b'\n');
            lines.clear();
            lines.shrink_to(KEPT_BYTES_MAX);
        }
    }
}

/// Writes as much as can be written, and gives the rest.
fn write<'l>(out: &mut impl Write, mut lines: &'l [u8]) -> &'l [u8] {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return lines,
            Ok(length) => lines = lines.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return lines,
        }
    }
    // What the system does not take now it takes with the next lines.
    let _ = out.flush();
    lines
}

/// What is said of a request.
#[derive(Debug, Serialize)]
pub(super) struct Line<'t> {
    time_s: f64,
    frontend: &'t str,
    route: &'t str,
    rule: &'t str,
    backend: &'t str,
    source_cluster: &'t str,
    endpoint: Option<SocketAddr>,
    method: Option<&'t str>,
    path: &'t str,
    protocol: &'static str,
    status: u16,
    reason: &'static str,
    retries: u32,
    head_us: Option<u64>,
    total_us: u64,
    bytes_sent: u64,
    /// Lines that were left out before this one; of somebody who listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) missed: Option<u64>,
}

impl<'t> Line<'t> {
    pub(super) fn of(told: &'t Told) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            time_s: told.time().as_secs_f64(),
            frontend: &told.frontend,
            route: &told.route,
            rule: &told.rule,
            backend: &told.backend,
            source_cluster: &told.source_cluster,
            endpoint: told.endpoint,
            method: told.method.as_ref().map(::http::Method::as_str),
            path: &told.path,
            protocol: told.protocol,
            status: told.status,
            reason: told.reason,
            retries: told.retries,
            head_us: told.head.map(micros),
            total_us: micros(told.total),
            bytes_sent: told.bytes_sent,
            missed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use serde_json::{Value, json};

    use super::*;

    /// Stands still until it is let go, and says what it was given.
    struct Slow {
        holds: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Returns when the other end is gone: there is nothing to receive.
            let _ = self.holds.recv();
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(path: &str) -> Told {
        let endpoint = Some("[fd00::7]:8080".parse().expect("an address"));
        Told {
            path: path.to_owned(),
            status: 200,
            method: Some(::http::Method::GET),
            endpoint,
            ..Told::new("shop/store".into(), &"".into())
        }
    }

    #[test]
    fn a_line_is_an_object_whatever_the_path() {
        let text = serde_json::to_string(&Line::of(&told("/\"\\\n\u{1}x"))).expect("a line");
        assert!(!text.contains('\n'), "{text}");
        let line: Value = serde_json::from_str(&text).expect("JSON");
        for (name, value) in [
            ("path", json!("/\"\\\n\u{1}x")),
            ("frontend", json!("shop/store")),
            ("endpoint", json!("[fd00::7]:8080")),
            ("method", json!("GET")),
            ("status", json!(200)),
            ("head_us", Value::Null),
        ] {
            assert_eq!(line[name], value, "{name}");
        }
        assert!(line.get("missed").is_none());
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_next_line_is_whole() {
        /// Takes some bytes, then nothing once, then everything.
        struct Full(Vec<usize>, Vec<u8>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let room = self.0.pop().unwrap_or(usize::MAX).min(bytes.len());
                self.1.extend(&bytes[..room]);
                if room == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(room) }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Full(vec![0, 5], Vec::new());
        assert_eq!(write(&mut out, b"one\ntwo\nthree\n"), b"wo\nthree\n");
        assert_eq!((write(&mut out, b"\nfour\n"), out.1.as_slice()), (&b""[..], &b"one\nt\nfour\n"[..]));
    }

    #[test]
    fn a_writer_that_stands_still_costs_lines_and_nobody_waits_for_it() {
        let ((hold, holds), (written, seen)) = (channel(), channel());
        let (log, writer) = AccessLog::to(Slow { holds, written }).expect("a log");
        let long = told(&"x".repeat(64 * 1024));
        // What the writer has taken already and what waits are two buffers, both with a limit.
        let most = 2 * (WAITING_BYTES_MAX / (64 * 1024) + 1);
        for _ in 0..most + 3 {
            log.tell(&long);
        }
        let dropped = log.dropped();
        assert!(dropped.get() >= 3, "{} dropped", dropped.get());
        drop((log, hold));
        writer.join().expect("no panic");
        let lines = seen.into_iter().flat_map(|part| part.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>());
        let whole = lines.filter(|line| !line.is_empty()).map(|line| serde_json::from_slice::<Value>(&line).expect("JSON"));
        assert_eq!(whole.count() as u64 + dropped.get(), most as u64 + 3, "each line is written whole or counted as dropped");
    }
}
