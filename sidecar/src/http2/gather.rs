//! Writes once what the library writes frame by frame: it hands over every larger DATA frame by a call of its own, and asks for a flush after
//! each.
//!
//! Invariant: whoever polls the library's connection calls [`Outlet::poll_after`] afterwards; nothing waits longer than that.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Error;

/// So much waits for a write.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// Room that a connection keeps while nothing waits.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Slices of one call that are looked at.
const SLICES_MAX: usize = 16;

#[derive(Debug)]
struct Gathering<S> {
    stream: S,
    waiting: Vec<u8>,
    /// So much of it has been written.
    written: usize,
    /// Something was written that the stream itself may keep back: TLS does.
    needs_flush: bool,
}

/// The stream as the library sees it.
#[derive(Debug)]
pub(super) struct Gathered<S>(Rc<RefCell<Gathering<S>>>);

/// What writes it out.
#[derive(Debug)]
pub(super) struct Outlet<S>(Rc<RefCell<Gathering<S>>>);

/// A stream, and what writes to it.
pub(super) fn gather<S>(stream: S) -> (Gathered<S>, Outlet<S>) {
    let gathering = Rc::new(RefCell::new(Gathering { stream, waiting: Vec::new(), written: 0, needs_flush: false }));
    (Gathered(Rc::clone(&gathering)), Outlet(gathering))
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    /// Writes what waits, after what the library's connection has come to. What cannot be written yet is by a later call, for which the task
    /// is woken.
    pub(super) fn poll_after<T>(&self, polled: Poll<Result<T, h2::Error>>, context: &mut Context<'_>) -> Poll<Result<T, Error>> {
        if let Poll::Ready(Err(error)) = self.0.borrow_mut().poll_out(context)
            && polled.is_pending()
        {
            return Poll::Ready(Err(error.into()));
        }
        polled.map_err(Error::Stream)
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting[self.written..]))?;
            self.wrote(written)?;
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.needs_flush = true;
        self.written += written;
        if self.written >= self.waiting.len() {
            self.emptied();
        }
        Ok(())
    }

    fn emptied(&mut self) {
        if self.waiting.capacity() > KEPT_BYTES_MAX {
            self.waiting = Vec::new();
        }
        self.waiting.clear();
        self.written = 0;
    }

    fn poll_write(&mut self, slices: &[IoSlice<'_>], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        loop {
            if self.waiting.len() + length <= WAITING_BYTES_MAX {
                slices.iter().for_each(|slice| self.waiting.extend_from_slice(slice));
                return Poll::Ready(Ok(length));
            }
            let mut all = [IoSlice::new(&[]); SLICES_MAX];
            let waiting = self.waiting.len() - self.written;
            let given = std::iter::once(&self.waiting[self.written..]).chain(slices.iter().map(|slice| &**slice));
            for (slot, slice) in all.iter_mut().zip(given) {
                *slot = IoSlice::new(slice);
            }
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &all))?;
            if written > waiting {
                self.needs_flush = true;
                self.emptied();
                return Poll::Ready(Ok(written - waiting));
            }
            self.wrote(written)?;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(&[IoSlice::new(buffer)], context)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(slices, context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: the outlet does it, once for all frames.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gathering = &mut *self.0.borrow_mut();
        ready!(gathering.poll_out(context))?;
        Pin::new(&mut gathering.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn write_all(gathered: &mut Gathered<tokio::io::DuplexStream>, outlet: &Outlet<tokio::io::DuplexStream>, parts: &[Vec<u8>]) {
        for part in parts {
            gathered.write_all(part).await.expect("written");
        }
        poll_fn(|context| outlet.0.borrow_mut().poll_out(context)).await.expect("written out");
    }

    #[tokio::test]
    async fn everything_arrives_in_order_whatever_its_size() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let (mut gathered, outlet) = gather(ours);
        let sizes = [1, 300, 16_384, WAITING_BYTES_MAX, 5, WAITING_BYTES_MAX + 1, 200_000, 9];
        let parts: Vec<Vec<u8>> = sizes.iter().zip(1..).map(|(size, byte)| vec![byte; *size]).collect();
        let expected = parts.concat();
        let read = async {
            let mut read = vec![0; expected.len()];
            theirs.read_exact(&mut read).await.expect("read");
            read
        };
        let (read, ()) = tokio::join!(read, write_all(&mut gathered, &outlet, &parts));
        assert!(read == expected, "the bytes differ");
        assert!(outlet.0.borrow().waiting.capacity() <= KEPT_BYTES_MAX, "an idle connection keeps little");
    }

    /// Keeps what is written until it is flushed, and cannot flush at first.
    #[derive(Default)]
    struct Keeping {
        kept: usize,
        flushed: usize,
        refusals: usize,
    }

    impl AsyncWrite for Keeping {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
            self.kept += buffer.len();
            Poll::Ready(Ok(buffer.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.refusals > 0 {
                self.refusals -= 1;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.flushed = self.kept;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_the_stream_keeps_back_is_flushed_however_often_that_takes() {
        for size in [5, WAITING_BYTES_MAX + 1] {
            let (gathered, outlet) = gather(Keeping { refusals: 3, ..Keeping::default() });
            let slice = vec![0; size];
            let taken = poll_fn(|context| gathered.0.borrow_mut().poll_write(&[IoSlice::new(&slice)], context)).await.expect("taken");
            poll_fn(|context| outlet.0.borrow_mut().poll_out(context)).await.expect("written out");
            assert_eq!((taken, outlet.0.borrow().stream.flushed), (size, size));
        }
    }

    #[tokio::test]
    async fn frames_are_written_together() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let (mut gathered, outlet) = gather(ours);
        for frame in [b"one", b"two"] {
            gathered.write_all(frame).await.expect("taken");
            gathered.flush().await.expect("taken");
        }
        assert_eq!(outlet.0.borrow().waiting, b"onetwo"[..], "not written yet");
        gathered.shutdown().await.expect("shut down");
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).await.expect("read");
        assert_eq!(read, b"onetwo", "what waits goes before the end");
    }
}
