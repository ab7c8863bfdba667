//! Bytes from one socket to another that never enter the process: a pipe between the two holds the kernel's own pages (splice(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use nix::fcntl::{self, FcntlArg, OFlag, SpliceFFlags};
use nix::sys::socket::{self, MsgFlags};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe holds, in bytes. The kernel counts pages of parts, however small they are.
const BYTES_MAX: usize = 256 * 1024;
/// Pipes at once; the kernel grants a user 64 MiB of them (`pipe-user-pages-soft`).
const PIPES_MAX: usize = 128;

static PIPES: AtomicUsize = AtomicUsize::new(0);

/// A pipe, and how much of it is full.
#[derive(Debug)]
pub(crate) struct Pipe {
    outlet: OwnedFd,
    inlet: OwnedFd,
    held_bytes: usize,
    #[expect(dead_code, reason = "kept for its end")]
    place: Place,
}

/// One of [`PIPES_MAX`].
#[derive(Debug)]
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let next = |taken| (taken < PIPES_MAX).then_some(taken + 1);
        PIPES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipe {
    /// An empty pipe; none where the kernel or [`PIPES_MAX`] grants no more of them, or only small ones.
    pub(crate) fn open() -> Option<Self> {
        let place = Place::take()?;
        let (outlet, inlet) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        fcntl::fcntl(&inlet, FcntlArg::F_SETPIPE_SZ(i32::try_from(BYTES_MAX).ok()?)).ok()?;
        Some(Self { outlet, inlet, held_bytes: 0, place })
    }

    /// Takes in what has come. Only called while the pipe is empty.
    ///
    /// Before urgent data splice(2) says that nothing is there, or that the stream has ended, whatever comes after it: only recv(2) steps over it.
    /// So it is asked whenever splice(2) says so, and `beside` takes what it gives.
    pub(crate) fn poll_fill(&mut self, from: &TcpStream, beside: &mut [u8], context: &mut Context<'_>) -> Poll<io::Result<Filled>> {
        loop {
            ready!(from.poll_read_ready(context))?;
            let filled = from.try_io(Interest::READABLE, || match splice(from, &self.inlet, BYTES_MAX) {
                Ok(0) => recv(from, beside).map(Filled::Beside),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => recv(from, beside).map(Filled::Beside),
                spliced => spliced.map(Filled::Pipe),
            });
            match filled {
                Ok(filled) => {
                    if let Filled::Pipe(length) = filled {
                        self.held_bytes = length;
                    }
                    return Poll::Ready(Ok(filled));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives on until nothing is left in it.
    pub(crate) fn poll_drain(&mut self, to: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held_bytes > 0 {
            ready!(to.poll_write_ready(context))?;
            match to.try_io(Interest::WRITABLE, || splice(&self.outlet, to, self.held_bytes)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(length) => self.held_bytes = self.held_bytes.saturating_sub(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Where what has come is, and how much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Filled {
    /// In the pipe.
    Pipe(usize),
    /// In the memory beside it; 0: the stream has ended.
    Beside(usize),
}

fn recv(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    socket::recv(from.as_raw_fd(), buffer, MsgFlags::empty()).map_err(Into::into)
}

fn splice(from: impl AsFd, to: impl AsFd, bytes_max: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    fcntl::splice(from, None, to, None, bytes_max, flags).map_err(Into::into)
}
