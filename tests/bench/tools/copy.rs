//! The least that a proxy can do: bytes from one socket to another, a thread a core, nothing looked at.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::iter::Cycle;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::vec::IntoIter;

use anyhow::Context;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

const BUFFER_BYTES: usize = 256 * 1024;
const EVENTS: usize = 256;
const BACKLOG: i32 = 8192;

/// `PORT=ADDRESS[,ADDRESS]`.
pub(crate) fn pair(text: &str) -> Result<(u16, Vec<SocketAddr>), String> {
    let (port, addresses) = text.split_once('=').ok_or("PORT=ADDRESS")?;
    let addresses = addresses.split(',').map(|address| address.parse().map_err(|_| format!("ADDRESS: {address}")));
    Ok((port.parse().map_err(|_| format!("PORT: {port}"))?, addresses.collect::<Result<_, _>>()?))
}

/// Runs until it is ended.
pub(crate) fn run(threads: usize, ports: &[(u16, Vec<SocketAddr>)]) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| Copier::new(ports)?.run())).collect();
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked"))))
    })
}

struct Copier {
    epoll: Epoll,
    listeners: HashMap<RawFd, (TcpListener, Cycle<IntoIter<SocketAddr>>)>,
    sides: HashMap<RawFd, Side>,
    buffer: Vec<u8>,
}

struct Side {
    stream: TcpStream,
    other: RawFd,
    /// What the other side has not taken yet.
    left: Vec<u8>,
}

impl Copier {
    fn new(ports: &[(u16, Vec<SocketAddr>)]) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        let mut listeners = HashMap::new();
        for (port, to) in ports {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            // Each thread has listeners of its own.
            socket.set_reuse_port(true)?;
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], *port)).into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let listener: TcpListener = socket.into();
            epoll.add(&listener, event(listener.as_raw_fd(), EpollFlags::EPOLLIN)?)?;
            listeners.insert(listener.as_raw_fd(), (listener, to.clone().into_iter().cycle()));
        }
        Ok(Self { epoll, listeners, sides: HashMap::new(), buffer: vec![0; BUFFER_BYTES] })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                let descriptor = RawFd::try_from(event.data()).context("a descriptor")?;
                if self.listeners.contains_key(&descriptor) {
                    self.accept(descriptor)?;
                } else if self.step(descriptor, event.events()).is_err() {
                    self.close(descriptor);
                }
            }
        }
    }

    fn accept(&mut self, listener: RawFd) -> anyhow::Result<()> {
        let Some((listener, in_turn)) = self.listeners.get_mut(&listener) else { return Ok(()) };
        loop {
            let client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            // The backend is near: connecting to it takes no time worth an event.
            let server = TcpStream::connect(in_turn.next().context("an address")?)?;
            for stream in [&client, &server] {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                self.epoll.add(stream, event(stream.as_raw_fd(), EpollFlags::EPOLLIN)?)?;
            }
            let (from, other) = (client.as_raw_fd(), server.as_raw_fd());
            self.sides.insert(from, Side { stream: client, other, left: Vec::new() });
            self.sides.insert(other, Side { stream: server, other: from, left: Vec::new() });
        }
    }

    fn step(&mut self, descriptor: RawFd, flags: EpollFlags) -> anyhow::Result<()> {
        // It was closed by an event before this one.
        let Some(side) = self.sides.get(&descriptor) else { return Ok(()) };
        let other = side.other;
        if flags.contains(EpollFlags::EPOLLOUT) {
            return self.flush(other, descriptor);
        }
        if !side.left.is_empty() {
            return Ok(());
        }
        let read = match (&side.stream).read(&mut self.buffer) {
            Ok(0) => anyhow::bail!("ended"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let to = self.sides.get(&other).context("the other side")?;
        let written = match (&to.stream).write(&self.buffer[..read]) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        if written < read {
            let left = self.buffer[written..read].to_vec();
            self.watch(descriptor, EpollFlags::empty())?;
            self.watch(other, EpollFlags::EPOLLOUT)?;
            if let Some(side) = self.sides.get_mut(&descriptor) {
                side.left = left;
            }
        }
        Ok(())
    }

    /// What was left of `from` goes to `to`, which can take it.
    fn flush(&mut self, from: RawFd, to: RawFd) -> anyhow::Result<()> {
        let (Some(source), Some(target)) = (self.sides.get(&from), self.sides.get(&to)) else { return Ok(()) };
        let written = (&target.stream).write(&source.left)?;
        let source = self.sides.get_mut(&from).context("a side")?;
        source.left.drain(..written);
        if source.left.is_empty() {
            self.watch(from, EpollFlags::EPOLLIN)?;
            self.watch(to, EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    fn watch(&self, descriptor: RawFd, flags: EpollFlags) -> anyhow::Result<()> {
        let Some(side) = self.sides.get(&descriptor) else { return Ok(()) };
        Ok(self.epoll.modify(&side.stream, &mut event(descriptor, flags)?)?)
    }

    fn close(&mut self, descriptor: RawFd) {
        if let Some(side) = self.sides.remove(&descriptor) {
            self.sides.remove(&side.other);
        }
    }
}

fn event(descriptor: RawFd, flags: EpollFlags) -> anyhow::Result<EpollEvent> {
    Ok(EpollEvent::new(flags, u64::try_from(descriptor).context("a descriptor")?))
}
