//! Netlink by hand: nested attributes, and a socket whose every failure is an errno with the place where it happened.
//!
//! Messages are in host byte order, as the kernel of the same machine wants them; what a protocol keeps in network order is
//! written with the `be` functions.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};

const HEADER_LEN: usize = 16;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const NESTED: u16 = 1 << 15;
/// Bits of an attribute's type that are no part of the type.
const TYPE_MASK: u16 = 0x3fff;

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;

/// One receive takes at most this much; the kernel fills dumps in pages well below it.
const RECEIVE_BYTES_MAX: usize = 256 * 1024;
/// A batch of many thousand elements is one datagram; the kernel caps this by `net.core.wmem_max` unless we are root.
const SEND_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The kernel answers dumps at once; this only bounds a kernel that does not.
const ANSWER_TIMEOUT_S: i64 = 5;

/// Writes messages and their attributes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// The bytes written so far.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One whole message; `fixed` is the protocol's header after netlink's own.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, sequence: u32, fixed: &[u8], body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        self.pad();
        body(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// How much has been written: where the next message begins.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a flag to the message that begins at `start`.
    pub(crate) fn add_flag(&mut self, start: usize, flag: u16) {
        if let Some(flags) = self.bytes.get_mut(start + 6..start + 8) {
            let present = u16::from_ne_bytes([flags[0], flags[1]]);
            flags.copy_from_slice(&(present | flag).to_ne_bytes());
        }
    }

    /// One attribute with plain bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |writer| writer.bytes.extend_from_slice(value));
    }

    /// A string, with the zero the kernel expects.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |writer| {
            writer.bytes.extend_from_slice(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// A 32-bit number in network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A 64-bit number in network order.
    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// An attribute made of attributes.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, body);
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        // Callers chunk what can grow (see `nft::ELEMENTS_PER_MESSAGE_MAX`), so the length always fits; a length of 0 would be refused
        // by the kernel rather than misread.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(0);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The attributes of a message or of a nested attribute, type and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The value of one attribute.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A zero-terminated string.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

/// A 32-bit number in network order.
pub(crate) fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// One message as it was received.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its type.
    pub(crate) kind: u16,
    /// The sequence number of the request it belongs to.
    pub(crate) sequence: u32,
    /// What follows netlink's own header.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Of an acknowledgement: what went wrong, if anything did. `None` for all other messages.
    pub(crate) fn verdict(&self) -> Option<Result<(), Errno>> {
        if self.kind != MESSAGE_ERROR {
            return None;
        }
        let code = self.body.first_chunk::<4>().map_or(0, |raw| i32::from_ne_bytes(*raw));
        Some(if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) })
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens a socket; `groups` is the mask of multicast groups to hear.
    pub(crate) fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let timeout = nix::sys::time::TimeVal::new(ANSWER_TIMEOUT_S, 0);
        setsockopt(&fd, sockopt::ReceiveTimeout, &timeout)?;
        // Notifications of thousands of elements come at once; without the privilege some are lost, which is provided for.
        match setsockopt(&fd, sockopt::RcvBufForce, &SEND_BYTES_MAX) {
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        // The forced form needs privilege in the first user namespace; without it the system's limit is the limit.
        if setsockopt(&fd, sockopt::SndBufForce, &SEND_BYTES_MAX).is_err() {
            setsockopt(&fd, sockopt::SndBuf, &SEND_BYTES_MAX)?;
        }
        Ok(Self { fd })
    }

    /// Sends messages as one datagram.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Everything that is already there. The kernel answers changes inside `send`, so nothing is left to wait for.
    pub(crate) fn drain(&self) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        while let Some(more) = self.receive(MsgFlags::MSG_DONTWAIT)? {
            messages.extend(more);
        }
        Ok(messages)
    }

    /// Sends a dump request and collects what it finds.
    pub(crate) fn dump(&self, request: &[u8]) -> io::Result<Vec<Message>> {
        self.send(request)?;
        let mut found = Vec::new();
        while let Some(messages) = self.receive(MsgFlags::empty())? {
            for message in messages {
                match message.verdict() {
                    _ if message.kind == MESSAGE_DONE => return Ok(found),
                    Some(Err(errno)) => return Err(errno.into()),
                    Some(Ok(())) => return Ok(found),
                    None => found.push(message),
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn receive(&self, flags: MsgFlags) -> io::Result<Option<Vec<Message>>> {
        let mut buffer = vec![0; RECEIVE_BYTES_MAX];
        match recv(self.fd.as_raw_fd(), &mut buffer, flags) {
            Ok(length) => Ok(Some(split(&buffer[..length]))),
            Err(Errno::EAGAIN) => Ok(None),
            // More came than the socket's queue takes: what is lost are notifications, and who hears of one looks for itself.
            Err(Errno::ENOBUFS) => Ok(Some(Vec::new())),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The messages of one datagram; a cut one ends the list.
pub(crate) fn split(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER_LEN..length) else { break };
        messages.push(Message { kind: u16::from_ne_bytes([k0, k1]), sequence: u32::from_ne_bytes([s0, s1, s2, s3]), body: body.to_vec() });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut writer = Writer::default();
        writer.string(1, "odd");
        writer.nest(2, |inner| inner.be32(7, 0x0102_0304));
        let read = attributes(writer.as_bytes());
        assert_eq!(read.len(), 2);
        assert_eq!(text(read[0].1), "odd");
        assert_eq!(attribute(read[1].1, 7).and_then(be32), Some(0x0102_0304));
    }

    #[test]
    fn a_cut_attribute_ends_the_list() {
        assert!(attributes(&[9, 0, 1, 0, 5]).is_empty());
        assert!(attributes(&[0, 0, 1, 0]).is_empty(), "a length of zero does not loop");
    }
}
