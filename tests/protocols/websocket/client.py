"""The WebSocket cases: `client.py HOST PORT [CASE]`. A line of JSON a case on standard output, as soon as the case has ended.

Invariant: it ends when its standard input does, and so with its runner.
"""

import asyncio
import json
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from frames import CLOSE, TEXT, Raw, close_frame, code_of, frame

# A case that takes longer has failed.
PATIENCE_S = 60
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
KIB, MIB = 1024, 1024 * 1024

CASES: dict[str, tuple[str, Callable[[], Awaitable[None]]]] = {}
HOST, PORT = sys.argv[1], int(sys.argv[2])


def case(name: str) -> Callable:
    def add(run: Callable[[], Awaitable[None]]) -> Callable:
        CASES[run.__name__] = (name, run)
        return run

    return add


def ws(path: str, **options) -> connect:
    options = {"compression": None, "max_size": MESSAGE_BYTES_MAX, "ping_interval": None, "proxy": None, **options}
    return connect(f"ws://{HOST}:{PORT}/{path}", **options)


def raw(path: str, together: bytes = b"") -> Awaitable[Raw]:
    return Raw.open(HOST, PORT, f"/{path}", together)


async def comes_back(connection: ClientConnection, message: str | bytes) -> None:
    await connection.send(message)
    got = await connection.recv()
    # No message of 16 MiB in a report.
    assert type(got) is type(message) and len(got) == len(message), f"{type(got)} of {len(got)}, not {type(message)} of {len(message)}"
    assert got == message, "another message of the same length came back"


async def ends_with(connection: ClientConnection, code: int, reason: str = "") -> None:
    try:
        await connection.recv()
    except ConnectionClosed:
        assert (connection.close_code, connection.close_reason) == (code, reason), (connection.close_code, connection.close_reason)
        return
    raise AssertionError("a message, not the end")


async def server_saw(name: str) -> list:
    async with ws(f"how/{name}") as connection:
        return json.loads(await connection.recv())


@case("text, in several scripts")
async def text() -> None:
    async with ws("echo") as connection:
        for message in ("a", "Grüße, κόσμε, 世界, 🌍", "\0\r\n\r\n", "a" * 125, "a" * 126, "a" * 127):
            await comes_back(connection, message)


@case("binary, every byte there is")
async def binary() -> None:
    async with ws("echo") as connection:
        for length in (1, 125, 126, 127, 256, 65535, 65536):
            await comes_back(connection, (bytes(range(256)) * (length // 256 + 1))[:length])


@case("empty messages of both kinds")
async def empty() -> None:
    async with ws("echo") as connection:
        for message in ("", b"", ""):
            await comes_back(connection, message)


@case("64 KiB")
async def message_64_kib() -> None:
    await large(64 * KIB)


@case("1 MiB")
async def message_1_mib() -> None:
    await large(MIB)


@case("16 MiB")
async def message_16_mib() -> None:
    await large(16 * MIB)


async def large(length: int) -> None:
    async with ws("echo") as connection:
        await comes_back(connection, os.urandom(length))
        await comes_back(connection, "0123456789abcdef" * (length // 16))


@case("fragments stay as they were cut, there and back")
async def fragmented() -> None:
    lengths = [1, 0, 125, 70_000, 3, 0]
    async with ws("fragments") as connection:
        await connection.send("x" * length for length in lengths)
        there = json.loads(await connection.recv())
        back = [len(fragment) async for fragment in connection.recv_streaming()]
    # The library ends a fragmented message with an empty frame of its own.
    assert there == [*lengths, 0], there
    assert back == [*there, 0], back


@case("a ping between two fragments of a message")
async def ping_between_fragments() -> None:
    async with ws("echo") as connection:

        async def parts():
            yield "before, "
            await asyncio.wait_for(await connection.ping(), PATIENCE_S)
            yield "after"

        await connection.send(parts())
        assert await connection.recv() == "before, after"


@case("pings of the client")
async def client_pings() -> None:
    async with ws("echo") as connection:
        for payload in (b"", b"ping", os.urandom(125)):
            await asyncio.wait_for(await connection.ping(payload), PATIENCE_S)


@case("pings of the server")
async def server_pings() -> None:
    async with ws("pings") as connection:
        assert await connection.recv() == "3"


@case("a pong that nobody asked for")
async def unsolicited_pong() -> None:
    async with ws("echo") as connection:
        await connection.pong(b"unasked")
        await comes_back(connection, "still here")


CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]


@case("close codes and reasons of the client")
async def client_closes() -> None:
    for code in CODES:
        reason = f"reason {code}".ljust(123, ".")
        async with ws(f"named/client-{code}") as connection:
            await comes_back(connection, "hello")
            await connection.close(code, reason)
            assert connection.close_code == code, connection.close_code
        assert await server_saw(f"client-{code}") == [code, reason]


@case("close codes and reasons of the server")
async def server_closes() -> None:
    for code in CODES:
        async with ws(f"closes/{code}/because") as connection:
            await ends_with(connection, code, "because")


@case("a close without a code")
async def close_without_code() -> None:
    connection = await raw("named/no-code")
    connection.send(frame(CLOSE, b""))
    assert await connection.receive() == (CLOSE, b"")
    await connection.ends()
    assert await server_saw("no-code") == [1005, ""]


@case("1000 small messages, one after the other")
async def small_messages_in_turn() -> None:
    async with ws("echo") as connection:
        for number in range(1000):
            await comes_back(connection, f"message {number}")


@case("1000 small messages, not waiting for any")
async def small_messages_at_once() -> None:
    async with ws("echo") as connection:

        async def send() -> None:
            for number in range(1000):
                await connection.send(f"message {number}")

        sending = asyncio.create_task(send())
        for number in range(1000):
            assert await connection.recv() == f"message {number}"
        await sending


@case("the server speaks first")
async def server_speaks_first() -> None:
    async with ws("speaks-first") as connection:
        for number in range(100):
            assert await connection.recv() == f"first {number}"


@case("a message in the same breath as the request")
async def message_with_request() -> None:
    connection = await raw("echo", frame(TEXT, b"early"))
    assert await connection.receive() == (TEXT, b"early")
    connection.drop()


@case("a frame that comes byte by byte")
async def byte_by_byte() -> None:
    connection = await raw("echo")
    for byte in frame(TEXT, b"slowly"):
        connection.send(bytes([byte]))
        await connection.writer.drain()
        await asyncio.sleep(0)
    assert await connection.receive() == (TEXT, b"slowly")
    connection.drop()


@case("16 MiB in either direction at the same time")
async def both_directions() -> None:
    async with ws("echo") as connection:
        message = os.urandom(MIB)

        async def send() -> None:
            for _ in range(16):
                await connection.send(message)

        sending = asyncio.create_task(send())
        for _ in range(16):
            assert await connection.recv() == message
        await sending


@case("50 connections side by side")
async def side_by_side() -> None:
    async def one(number: int) -> None:
        async with ws("echo") as connection:
            for turn in range(10):
                await comes_back(connection, f"{number} {turn}" * 100)

    await asyncio.gather(*(one(number) for number in range(50)))


@case("half-open: the client closes, ends its side, and still gets the answer to its close")
async def half_open() -> None:
    connection = await raw("named/half-open")
    connection.send(close_frame(1000, "bye"))
    connection.writer.write_eof()
    opcode, payload = await connection.receive()
    assert (opcode, code_of(payload)) == (CLOSE, 1000), (opcode, payload)
    await connection.ends()
    assert await server_saw("half-open") == [1000, "bye"]


@case("half-open: what was on its way to the client comes whole")
async def half_open_bulk() -> None:
    length = 8 * MIB
    connection = await raw(f"bulk/{length}")
    connection.send(frame(TEXT, b"now"))

    def close_meanwhile() -> None:
        connection.send(close_frame(1000))
        connection.writer.write_eof()

    opcode, payload = await connection.receive(close_meanwhile)
    assert (opcode, len(payload)) == (2, length), (opcode, len(payload))
    opcode, payload = await connection.receive()
    assert (opcode, code_of(payload)) == (CLOSE, 1000), (opcode, payload)
    await connection.ends()


@case("the client's connection ends without a close: the server hears of it")
async def client_ends() -> None:
    connection = await raw("named/ends")
    connection.send(frame(TEXT, b"hello"))
    await connection.receive()
    connection.writer.write_eof()
    await connection.ends()
    assert await server_saw("ends") == [1006, ""]


@case("the client's connection is reset: the server hears of it")
async def client_resets() -> None:
    connection = await raw("named/reset")
    connection.send(frame(TEXT, b"hello"))
    await connection.receive()
    connection.drop()
    assert await server_saw("reset") == [1006, ""]


@case("the server's connection ends without a close: the client hears of it")
async def server_aborts() -> None:
    async with ws("aborts") as connection:
        await connection.send("now")
        try:
            await connection.recv()
        except ConnectionClosedError:
            assert connection.close_code == 1006, connection.close_code
            return
    raise AssertionError("a message, not the end")


@case("faults of the client are the server's to answer")
async def client_faults() -> None:
    faults = [
        ("not masked", frame(TEXT, b"x", masked=False), 1002), ("a reserved bit", frame(TEXT, b"x", first_bits=0xC0), 1002),
        ("a reserved opcode", frame(3, b"x"), 1002), ("no UTF-8", frame(TEXT, b"\xff\xfe"), 1007),
        ("a fragmented ping", frame(9, b"x", first_bits=0), 1002), ("a reserved close code", close_frame(1005), 1002),
    ]
    for what, wrong, code in faults:
        connection = await raw("echo")
        connection.send(wrong)
        opcode, payload = await connection.receive()
        assert (opcode, code_of(payload)) == (CLOSE, code), (what, opcode, payload)
        connection.drop()


@case("compressed: permessage-deflate is between client and server")
async def compressed() -> None:
    async with ws("compressed", compression="deflate") as connection:
        assert [extension.name for extension in connection.protocol.extensions] == ["permessage-deflate"]
        for message in ("a" * 100_000, b"", os.urandom(MIB), "b" * 100_000):
            await comes_back(connection, message)


@case("a subprotocol, and header fields of the request")
async def subprotocol_and_headers() -> None:
    options = {"subprotocols": ["first", "second"], "origin": "http://example.com", "additional_headers": {"X-Mine": "1"}}
    async with ws("headers", **options) as connection:
        assert connection.subprotocol == "second", connection.subprotocol
        seen = {name.lower(): value for name, value in json.loads(await connection.recv())}
    for name, value in {"origin": "http://example.com", "x-mine": "1", "sec-websocket-version": "13", "upgrade": "websocket"}.items():
        assert seen.get(name) == value, (name, seen)


@case("a refused handshake: status, header fields and body of the server")
async def refused() -> None:
    try:
        async with ws("nothing"):
            raise AssertionError("a connection")
    except InvalidStatus as error:
        answer = error.response
    assert (answer.status_code, answer.headers.get("x-refused-by"), answer.body) == (403, "server", b"no nothing here\n"), answer


@case("a request that asks for no WebSocket")
async def no_upgrade() -> None:
    reader, writer = await asyncio.open_connection(HOST, PORT)
    writer.write(f"GET /echo HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 426 "), answer


async def judge(run: Callable[[], Awaitable[None]]) -> tuple[str, str]:
    try:
        await asyncio.wait_for(run(), PATIENCE_S)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        line = next((entry.lineno for entry in reversed(where) if entry.filename == __file__), 0)
        return "failed", f"{type(error).__name__}: {error} (client.py:{line})"
    return "passed", ""


async def main() -> None:
    only = sys.argv[3:]
    for name, (title, run) in CASES.items():
        if not only or name in only:
            verdict, detail = await judge(run)
            print(json.dumps({"case": name, "name": title, "verdict": verdict, "detail": detail}), flush=True)


def end_with_parent() -> None:
    # Blocks until the runner, which writes nothing, closes the other end or ends.
    while os.read(0, 1):
        pass
    os._exit(3)


threading.Thread(target=end_with_parent, daemon=True).start()
asyncio.run(main())
