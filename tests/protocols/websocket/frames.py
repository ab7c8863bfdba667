"""WebSocket by hand, for what a well-behaved library does not do (RFC 6455 section 5.2)."""

import asyncio
import base64
import os
import struct
from collections.abc import Callable

TEXT, CLOSE = 1, 8
HEAD_BYTES_MAX = 64 * 1024


class Raw:
    """A connection after its opening handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, host: str, port: int, path: str, together: bytes = b"") -> "Raw":
        """Asks for a WebSocket; `together` is sent in the same breath as the request."""
        reader, writer = await asyncio.open_connection(host, port, limit=HEAD_BYTES_MAX)
        key = base64.b64encode(os.urandom(16)).decode()
        fields = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        head = "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *fields, "", ""])
        writer.write(head.encode() + together)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return cls(reader, writer)

    def send(self, frame: bytes) -> None:
        self.writer.write(frame)

    async def receive(self, once_begun: Callable[[], None] = lambda: None) -> tuple[int, bytes]:
        """Opcode and payload of a frame; `once_begun` is called when its first bytes are there and most of it is not."""
        first, second = await self.reader.readexactly(2)
        once_begun()
        length = second & 127
        if length == 126:
            length = struct.unpack("!H", await self.reader.readexactly(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", await self.reader.readexactly(8))[0]
        assert not second & 128, "a server's frames are not masked"
        return first & 15, await self.reader.readexactly(length)

    async def ends(self) -> None:
        """Nothing more comes but the end."""
        rest = await self.reader.read()
        assert rest == b"", rest
        self.writer.close()

    def drop(self) -> None:
        self.writer.transport.abort()


def frame(opcode: int, payload: bytes, masked: bool = True, first_bits: int = 0x80) -> bytes:
    """A short frame; `first_bits` are FIN and the reserved ones."""
    assert len(payload) < 126
    head = bytes([first_bits | opcode, len(payload) | (0x80 if masked else 0)])
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def close_frame(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


def code_of(payload: bytes) -> int:
    return struct.unpack("!H", payload[:2])[0]
