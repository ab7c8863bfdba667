//! The conversation with the sidecar: newline-delimited JSON over a unix socket.
//!
//! `{"version":7,"vips":["10.96.0.1:80"]}` asks for exactly this set; `{"version":7,"ok":true}` says that it is in place.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A line of this length holds more VIPs than a pod can have routes for.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A sidecar that does not take an answer for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the sidecar asks for.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Wanted {
    /// Repeated in the answer.
    pub(crate) version: u64,
    /// The whole set.
    pub(crate) vips: BTreeSet<SocketAddr>,
}

#[derive(Serialize)]
struct Answer<'a> {
    version: u64,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// A sidecar that is connected.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: UnixStream,
    begun: Vec<u8>,
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self { stream, begun: Vec::new() })
    }

    /// The newest whole line of what has arrived, if there is one; older ones are superseded.
    ///
    /// # Errors
    /// The connection has ended, or what it says is no line of ours.
    pub(crate) fn read(&mut self) -> io::Result<Option<Wanted>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.begun.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.begun.len() > LINE_BYTES_MAX {
                return Err(io::Error::other(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
        }
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
        let lines: Vec<u8> = self.begun.drain(..=end).collect();
        let newest = lines[..end].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice(newest).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Says what became of a wish.
    pub(crate) fn answer(&mut self, version: u64, result: Result<(), &str>) -> io::Result<()> {
        let answer = Answer { version, ok: result.is_ok(), error: result.err() };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        // An answer is shorter than any socket's buffer.
        self.stream.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, Peer) {
        let (sidecar, watch) = UnixStream::pair().expect("a pair");
        (sidecar, Peer::new(watch).expect("a peer"))
    }

    #[test]
    fn the_newest_whole_line_counts() {
        let (mut sidecar, mut peer) = pair();
        assert_eq!(peer.read().expect("nothing yet"), None);
        sidecar.write_all(b"{\"version\":1,\"vips\":[]}\n{\"version\":2,\"vips\":[\"10.0.0.1:80\"").expect("written");
        assert_eq!(peer.read().expect("a line").map(|wanted| wanted.version), Some(1));
        sidecar.write_all(b",\"[fd00::1]:80\"]}\n").expect("written");
        let wanted = peer.read().expect("a line").expect("whole now");
        assert_eq!((wanted.version, wanted.vips.len()), (2, 2));
    }

    #[test]
    fn what_is_no_wish_ends_the_conversation() {
        for text in ["x\n", "{\"version\":1,\"vips\":[\"10.0.0.1\"]}\n", "{\"version\":-1,\"vips\":[]}\n"] {
            let (mut sidecar, mut peer) = pair();
            sidecar.write_all(text.as_bytes()).expect("written");
            assert_eq!(peer.read().expect_err("no wish").kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
    }

    #[test]
    fn an_ended_connection_is_noticed() {
        let (sidecar, mut peer) = pair();
        drop(sidecar);
        assert_eq!(peer.read().expect_err("ended").kind(), io::ErrorKind::UnexpectedEof);
    }
}
