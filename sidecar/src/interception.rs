//! Tells `isthmus-init watch` which VIPs to intercept, over a unix socket that only the two of them see.
//!
//! One JSON line a change, `{"version":7,"vips":["10.96.0.1:80"]}`, always the whole set; the answer repeats the version:
//! `{"version":7,"ok":true}` once the set is in place. An open connection is the sign of life for `--fail open`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control::backoff;
use crate::control::client::Intercept;

/// A watch that does not answer for so long is connected to again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer answers are none.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[derive(Serialize)]
struct Wanted<'a> {
    version: u64,
    vips: &'a BTreeSet<SocketAddr>,
}

#[derive(Deserialize)]
struct Answer {
    version: u64,
    ok: bool,
    #[serde(default)]
    error: String,
}

/// Runs until cancelled: whatever `wanted` becomes is made so, and then said in `intercepted`.
pub(crate) async fn run(
    path: &Path,
    mut wanted: watch::Receiver<Option<Intercept>>,
    intercepted: watch::Sender<Option<u64>>,
    stop: CancellationToken,
) {
    let mut waits = backoff();
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = converse(path, &mut wanted, &intercepted) => ended,
        };
        if let Err(error) = ended {
            warn!(error = format!("{error:#}"), socket = %path.display(), "interception cannot be changed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(waits.next().unwrap_or(ANSWER_TIMEOUT)) => {}
        }
    }
}

async fn converse(
    path: &Path,
    wanted: &mut watch::Receiver<Option<Intercept>>,
    intercepted: &watch::Sender<Option<u64>>,
) -> anyhow::Result<()> {
    let stream = UnixStream::connect(path).await.context("connect")?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(tokio::io::AsyncReadExt::take(read, u64::MAX));
    let mut line = String::new();
    // A new connection begins with the whole set, also if it is the one of before.
    wanted.mark_changed();
    loop {
        tokio::select! {
            changed = wanted.changed() => changed.context("control ends")?,
            // Nothing is said unasked, so this is the end of the connection.
            read = read.fill_buf() => {
                ensure!(read?.is_empty(), "isthmus-init watch spoke unasked");
                anyhow::bail!("isthmus-init watch closed the connection");
            }
        }
        let Some(Intercept { version, vips }) = wanted.borrow_and_update().clone() else { continue };
        let mut text = serde_json::to_vec(&Wanted { version, vips: &vips })?;
        text.push(b'\n');
        line.clear();
        let answered = async {
            write.write_all(&text).await?;
            read.get_mut().set_limit(ANSWER_BYTES_MAX as u64);
            read.read_line(&mut line).await
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answered).await.context("no answer in time")?.context("answer")?;
        let answer: Answer = serde_json::from_str(&line).with_context(|| format!("answer {line:?}"))?;
        ensure!(answer.version == version, "answer to version {} instead of {version}", answer.version);
        ensure!(answer.ok, "refused: {}", answer.error);
        info!(vips = vips.len(), "intercepted");
        intercepted.send_replace(Some(version));
    }
}
