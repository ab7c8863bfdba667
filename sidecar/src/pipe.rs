//! Bytes from one socket to another that never enter the process: a pipe between the two holds the kernel's own pages (splice(2)).
//!
//! Invariant: what goes by a pipe is what would have gone through memory, in the same order; where there is no pipe, all goes through memory.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::Full;
#[cfg(test)]
use http_body_util::combinators::BoxBody;
use nix::errno::Errno;
use nix::fcntl::{self, FcntlArg, OFlag, SpliceFFlags};
use nix::sys::socket::{self, MsgFlags};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe holds, in bytes. The kernel counts pages of parts, however small they are.
const BYTES_MAX: usize = 256 * 1024;
/// Pipes at once; the kernel grants a user 64 MiB of them (`pipe-user-pages-soft`).
const PIPES_MAX: usize = 128;
/// A body of which less is left goes through memory, unless it has a pipe already: to open one for so little would not pay.
const BODY_BYTES_MIN: u64 = 64 * 1024;

static PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Left by the last body, for the next one, and whether it has been so since the last sweep. No more than one, and not for long: what is open
    /// counts for the user, and a node has many sidecars.
    static IDLE: Cell<Option<(Pipe, bool)>> = const { Cell::new(None) };
}

/// This process may not splice: a seccomp profile forbids it.
static IS_FORBIDDEN: AtomicBool = AtomicBool::new(false);

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
    /// An empty pipe; none where the kernel or [`PIPES_MAX`] grants no more of them, or only small ones, or splice(2) is forbidden.
    pub(crate) fn open() -> Option<Self> {
        if IS_FORBIDDEN.load(Ordering::Relaxed) {
            return None;
        }
        if let Some((idle, _)) = IDLE.take() {
            return Some(idle);
        }
        let place = Place::take()?;
        let (outlet, inlet) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        fcntl::fcntl(&inlet, FcntlArg::F_SETPIPE_SZ(i32::try_from(BYTES_MAX).ok()?)).ok()?;
        Some(Self { outlet, inlet, held_bytes: 0, place })
    }

    /// Takes in what has come, up to so many bytes. Only called while the pipe is empty.
    ///
    /// Before urgent data splice(2) says that nothing is there, or that the stream has ended, whatever comes after it: only recv(2) steps over it.
    /// So it is asked whenever splice(2) says so, and `beside` takes what it gives; also where splice(2) is forbidden.
    pub(crate) fn poll_fill(
        &mut self,
        from: &TcpStream,
        bytes_max: u64,
        beside: &mut [u8],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Filled>> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(BYTES_MAX).min(BYTES_MAX);
        loop {
            ready!(from.poll_read_ready(context))?;
            let filled = from.try_io(Interest::READABLE, || match splice(from, &self.inlet, bytes_max) {
                Ok(0) => recv(from, beside).map(Filled::Beside),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => recv(from, beside).map(Filled::Beside),
                Err(error) if is_refusal(&error) => {
                    IS_FORBIDDEN.store(true, Ordering::Relaxed);
                    recv(from, beside).map(Filled::Beside)
                }
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

/// Closes the pipe of this thread that no body has used since the last sweep.
pub(crate) fn sweep() {
    IDLE.set(IDLE.take().filter(|(_, is_old)| !is_old).map(|(pipe, _)| (pipe, true)));
}

/// Where what has come is, and how much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Filled {
    /// In the pipe.
    Pipe(usize),
    /// In the memory beside it; 0: the stream has ended.
    Beside(usize),
}

/// A stream whose bytes may pass the process by.
pub(crate) trait Socket: Unpin {
    /// Its socket, where the bytes there are the stream's: under TLS they are not.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    /// Bytes have come or gone that it did not see.
    fn passed(&self) {}
}

#[cfg(test)]
impl Socket for tokio::io::DuplexStream {}

#[cfg(test)]
impl Socket for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// What comes next of a body.
#[derive(Debug)]
pub(crate) enum Part {
    /// In memory.
    Frame(Frame<Bytes>),
    /// So many bytes of data, in the pipe.
    Piped(usize),
}

impl Part {
    /// Of a body that was lent no pipe.
    pub(crate) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Frame(frame) => frame,
            // There was no pipe for it to be in.
            Self::Piped(_) => Frame::data(Bytes::new()),
        }
    }
}

/// A body that may come through a pipe.
pub(crate) trait PipedBody: http_body::Body<Data = Bytes> {
    /// As [`http_body::Body::poll_frame`], but that data may have gone into the pipe that the way leads through.
    fn poll_part(
        self: Pin<&mut Self>,
        _: &mut Way,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, <Self as http_body::Body>::Error>>> {
        self.poll_frame(context).map_ok(Part::Frame)
    }

    /// Asked instead while nobody has room for its next part: ready, with why, when its time is over all the same.
    fn poll_overdue(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<<Self as http_body::Body>::Error> {
        Poll::Pending
    }
}

impl PipedBody for Full<Bytes> {}

#[cfg(test)]
impl<E> PipedBody for BoxBody<Bytes, E> {}

/// A way for the next part of a body, through a pipe that is opened when it is first used.
#[derive(Debug, Default)]
pub(crate) struct Way {
    is_open: bool,
    /// There was no pipe to be had: it is not asked for again.
    is_refused: bool,
    pipe: Option<Pipe>,
}

impl Way {
    /// Whether nothing is on it.
    pub(crate) fn is_empty(&self) -> bool {
        self.pipe.as_ref().is_none_or(|pipe| pipe.held_bytes == 0)
    }

    /// Says whether it can be taken now. Only called while it is empty.
    pub(crate) fn open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// The pipe for a body of which so much is left; none where that is too little, or the way is not open.
    pub(crate) fn pipe(&mut self, left_bytes: u64) -> Option<&mut Pipe> {
        if self.pipe.is_none() && self.is_open && !self.is_refused && left_bytes >= BODY_BYTES_MIN {
            self.pipe = Pipe::open();
            self.is_refused = self.pipe.is_none();
        }
        self.pipe.as_mut().filter(|_| self.is_open)
    }

    /// Gives on until nothing is left on it.
    pub(crate) fn poll_drain(&mut self, to: &impl Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let (Some(pipe), Some(socket)) = (&mut self.pipe, to.plain())
            && pipe.held_bytes > 0
        {
            let before = pipe.held_bytes;
            let drained = pipe.poll_drain(socket, context);
            if pipe.held_bytes < before {
                to.passed();
            }
            return drained;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take().filter(|pipe| pipe.held_bytes == 0) {
            // A thread that ends keeps none.
            let _ = IDLE.try_with(|idle| idle.set(Some((pipe, false))));
        }
    }
}

/// Whether splice(2) will never be done here, whatever the bytes.
fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw).is_some_and(|error| matches!(error, Errno::EPERM | Errno::ENOSYS | Errno::EINVAL))
}

fn recv(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    socket::recv(from.as_raw_fd(), buffer, MsgFlags::empty()).map_err(Into::into)
}

fn splice(from: impl AsFd, to: impl AsFd, bytes_max: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    fcntl::splice(from, None, to, None, bytes_max, flags).map_err(Into::into)
}

/// Whoever opens pipes in a test holds this: there are only so many in a process, and one test takes them all.
#[cfg(test)]
pub(crate) struct PipesOfATest(#[expect(dead_code, reason = "kept for its end")] tokio::sync::MutexGuard<'static, ()>);

#[cfg(test)]
pub(crate) async fn pipes_of_a_test() -> PipesOfATest {
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    PipesOfATest(ONE.lock().await)
}

#[cfg(test)]
impl Drop for PipesOfATest {
    /// The thread would keep it a little longer.
    fn drop(&mut self) {
        drop(IDLE.take());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    use super::*;

    /// Two ends of a connection in which little waits to be read.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpSocket::new_v4().expect("a socket");
        listener.set_recv_buffer_size(8 * 1024).expect("small");
        listener.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let listener = listener.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(8 * 1024).expect("small");
        let (client, server) = tokio::join!(socket.connect(address), listener.accept());
        (client.expect("connected"), server.expect("accepted").0)
    }

    /// A socket that counts what has passed it by.
    struct Counting(TcpStream, Cell<usize>);

    impl Socket for Counting {
        fn plain(&self) -> Option<&TcpStream> {
            Some(&self.0)
        }

        fn passed(&self) {
            self.1.set(self.1.get() + 1);
        }
    }

    #[tokio::test]
    async fn what_a_slow_reader_takes_is_told_before_the_pipe_is_empty() {
        let _pipes = pipes_of_a_test().await;
        let (mut sender, from) = connected().await;
        let (to, mut receiver) = connected().await;
        let to = Counting(to, Cell::new(0));
        let sending = tokio::spawn(async move { sender.write_all(&vec![7; 1_000_000]).await });
        let mut way = Way::default();
        way.open(true);
        let mut beside = [0; 16];
        loop {
            let pipe = way.pipe(1_000_000).expect("a pipe");
            poll_fn(|context| pipe.poll_fill(&from, 1_000_000, &mut beside, context)).await.expect("filled");
            let before = to.1.get();
            // Nobody reads meanwhile: sooner or later only a part of what the pipe holds finds room.
            let held = way.pipe.as_ref().map_or(0, |pipe| pipe.held_bytes);
            let is_drained = poll_fn(|context| Poll::Ready(way.poll_drain(&to, context).is_ready())).await;
            let left = way.pipe.as_ref().map_or(0, |pipe| pipe.held_bytes);
            assert_eq!(to.1.get() > before, left < held, "told when something went, and only then");
            if !is_drained && left < held {
                break;
            }
            if !is_drained {
                let mut taken = vec![0; left];
                let (read, drained) = tokio::join!(receiver.read_exact(&mut taken), poll_fn(|context| way.poll_drain(&to, context)));
                assert!(read.is_ok() && drained.is_ok());
            }
        }
        sending.abort();
    }

    #[tokio::test]
    async fn an_empty_pipe_serves_the_next_body_and_ends_when_none_comes() {
        let _pipes = pipes_of_a_test().await;
        let used = || {
            let mut way = Way::default();
            way.open(true);
            way.pipe(BODY_BYTES_MIN).map(|pipe| pipe.inlet.as_raw_fd()).expect("a pipe")
        };
        let first = used();
        assert!(IDLE.take().is_some_and(|(pipe, _)| pipe.inlet.as_raw_fd() == first), "it is left");
        used();
        sweep();
        let kept = used();
        sweep();
        let idle = IDLE.take().expect("used since the sweep before");
        assert_eq!(idle.0.inlet.as_raw_fd(), kept);
        IDLE.set(Some(idle));
        sweep();
        assert!(IDLE.take().is_none(), "closed");
    }

    #[tokio::test]
    async fn where_splice_is_refused_bytes_come_beside_the_pipe_and_no_other_is_opened() {
        let _pipes = pipes_of_a_test().await;
        let (mut client, server) = connected().await;
        client.write_all(b"bytes").await.expect("sent");
        // No pipe at either end: the kernel refuses as it does where it is forbidden to.
        let file = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").expect("opened"));
        let mut pipe = Pipe { outlet: file(), inlet: file(), held_bytes: 0, place: Place::take().expect("a place") };
        let mut beside = [0; 16];
        let filled = poll_fn(|context| pipe.poll_fill(&server, u64::MAX, &mut beside, context)).await.expect("read");
        assert_eq!((filled, &beside[..5]), (Filled::Beside(5), &b"bytes"[..]));
        assert!(Pipe::open().is_none(), "it would be of no use");
        IS_FORBIDDEN.store(false, Ordering::Relaxed);
        assert!(Pipe::open().is_some());
    }
}
