//! One JSON line a request, written by a thread of its own: a full pipe or disk never stops a worker, it drops lines and counts them.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use super::Told;

/// Lines that wait to be written; more are dropped.
const LINES_MAX: usize = 4096;
/// What comes within this time is written together: a thread that wakes up for each line would cost more than the line.
const BATCH: Duration = Duration::from_millis(5);

/// The queue to the writer.
#[derive(Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Told>,
    dropped: Counter,
}

impl AccessLog {
    /// Opens a path for appending, or `-` for standard output. The thread ends when the log is dropped.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let out: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(std::io::stdout())
        } else {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.with_context(|| format!("--access-log {}", path.display()))?)
        };
        let (lines, queue) = sync_channel(LINES_MAX);
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&queue, out))?;
        Ok((Self { lines, dropped: Counter::default() }, writer))
    }

    /// Queues a line, or counts it as dropped.
    pub(super) fn tell(&self, told: Told) {
        if self.lines.try_send(told).is_err() {
            self.dropped.inc();
        }
    }

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> Counter {
        self.dropped.clone()
    }
}

fn write_all(queue: &Receiver<Told>, out: impl Write) {
    let mut out = BufWriter::new(out);
    while let Ok(first) = queue.recv() {
        std::thread::sleep(BATCH);
        let mut next = Ok(first);
        // Whatever is there is written before the buffer is flushed.
        while let Ok(told) = next {
            // A log that cannot be written must not end the process; the next line tries again.
            let _ = writeln!(out, "{}", line(&told));
            next = queue.try_recv();
        }
        let _ = out.flush();
        if matches!(next, Err(TryRecvError::Disconnected)) {
            return;
        }
    }
}

/// What is said of a request.
pub(super) fn line(told: &Told) -> serde_json::Value {
    let since_epoch = told.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "time_s": since_epoch.as_secs_f64(),
        "frontend": &*told.frontend,
        "route": &*told.route,
        "rule": &*told.rule,
        "backend": &*told.backend,
        "source_cluster": &*told.source_cluster,
        "endpoint": told.endpoint.map(|address| address.to_string()),
        "method": told.method.as_ref().map(::http::Method::as_str),
        "path": told.path,
        "protocol": told.protocol,
        "status": told.status,
        "reason": told.reason,
        "retries": told.retries,
        "head_us": told.head.map(|head| u64::try_from(head.as_micros()).unwrap_or(u64::MAX)),
        "total_us": u64::try_from(told.total.as_micros()).unwrap_or(u64::MAX),
        "bytes_sent": told.bytes_sent,
    })
}
