//! A program of a suite inside a pod: its lines as they come, a time limit, and an end that is certain.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::Namespace;

const LINES_MAX: usize = 64;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A program that runs; ended when dropped. Its standard input is a pipe that nobody writes to, and it ends when that does: so also when its
/// runner is killed.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<std::io::Result<String>>,
    end: Instant,
    within: Duration,
    log: PathBuf,
}

impl Program {
    /// Starts it inside a namespace; what it says on standard error goes to `log`.
    pub(crate) fn start(namespace: &Namespace, mut command: Command, log: &Path, within: Duration) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut child = namespace.run(|| command.spawn().with_context(|| format!("{}", command.get_program().display())))?;
        let output = child.stdout.take().context("standard output")?;
        let (send, lines) = sync_channel(LINES_MAX);
        // Ends with the program's output, which `drop` waits for.
        thread::Builder::new().name("lines".to_owned()).spawn(move || {
            for line in BufReader::new(output).lines() {
                if send.send(line).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { child, lines, end: Instant::now() + within, within, log: log.to_owned() })
    }

    /// Its next line; none after its last one.
    pub(crate) fn line(&mut self) -> anyhow::Result<Option<String>> {
        match self.lines.recv_timeout(self.end.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line?)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => self.fail("nothing more came in time"),
        }
    }

    /// Waits until it has said that it takes connections.
    pub(crate) fn listening(&mut self) -> anyhow::Result<()> {
        let line = self.line()?;
        if line.as_deref() == Some("listening") { Ok(()) } else { self.fail("it does not listen") }
    }

    /// Waits for its end; fails if it did not succeed.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() { Ok(()) } else { self.fail(&status.to_string()) };
            }
            ensure!(Instant::now() < self.end, "no end within {} s", self.within.as_secs());
            thread::sleep(LOOK_EVERY);
        }
    }

    fn fail<T>(&self, what: &str) -> anyhow::Result<T> {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        anyhow::bail!("{what} (limit {} s); it said in {}:\n{}", self.within.as_secs(), self.log.display(), said.trim_end())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only for a program that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        while self.lines.recv().is_ok() {}
    }
}
