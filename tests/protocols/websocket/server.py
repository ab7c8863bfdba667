"""The WebSocket server of the suite: `server.py PORT`. What it does is chosen by the path that the client asks for.

Invariant: it ends when its standard input does, and so with its runner.
"""

import asyncio
import json
import signal
import sys
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
# How the connection with a name was closed, as this side saw it.
closed: dict[str, asyncio.Future] = {}


async def echo(ws: ServerConnection, _: str) -> None:
    async for message in ws:
        await ws.send(message)


async def fragments(ws: ServerConnection, _: str) -> None:
    """Tells the length of each fragment that came, and then sends fragments of the same lengths."""
    lengths = [len(fragment) async for fragment in ws.recv_streaming()]
    await ws.send(json.dumps(lengths))
    await ws.send("x" * length for length in lengths)


async def pings(ws: ServerConnection, _: str) -> None:
    """Sends pings, and says how many were answered."""
    answered = 0
    for payload in (b"", b"ping", b"p" * 125):
        await asyncio.wait_for(await ws.ping(payload), 10)
        answered += 1
    await ws.send(str(answered))


async def closes(ws: ServerConnection, argument: str) -> None:
    """Closes with a code and a reason as soon as it is there."""
    code, _, reason = argument.partition("/")
    await ws.close(int(code), reason)


async def speaks_first(ws: ServerConnection, _: str) -> None:
    for number in range(100):
        await ws.send(f"first {number}")


async def bulk(ws: ServerConnection, argument: str) -> None:
    """Sends so many bytes as one message when it is told to, whatever the client does meanwhile."""
    await ws.recv()
    await ws.send(bytes(int(argument)))
    await ws.wait_closed()


async def aborts(ws: ServerConnection, _: str) -> None:
    """Ends the connection in the middle, without a word."""
    await ws.recv()
    ws.transport.abort()


async def named(ws: ServerConnection, name: str) -> None:
    """Echoes, and remembers how it was closed."""
    try:
        await echo(ws, "")
    finally:
        await ws.wait_closed()
        remember(name).set_result([ws.close_code, ws.close_reason])


async def how(ws: ServerConnection, name: str) -> None:
    """Tells how a connection was closed, once it is."""
    await ws.send(json.dumps(await asyncio.wait_for(remember(name), 20)))


async def headers(ws: ServerConnection, _: str) -> None:
    await ws.send(json.dumps(list(ws.request.headers.raw_items())))


def remember(name: str) -> asyncio.Future:
    return closed.setdefault(name, asyncio.get_running_loop().create_future())


HANDLERS = {
    "echo": echo, "compressed": echo, "fragments": fragments, "pings": pings, "closes": closes, "speaks-first": speaks_first,
    "bulk": bulk, "aborts": aborts, "named": named, "how": how, "headers": headers,
}


def split(path: str) -> tuple[str, str]:
    kind, _, argument = path.lstrip("/").partition("/")
    return kind, argument


async def handle(ws: ServerConnection) -> None:
    kind, argument = split(ws.request.path)
    try:
        await HANDLERS[kind](ws, argument)
    except ConnectionClosed:
        pass


def refuse(ws: ServerConnection, request: Request) -> Response | None:
    kind, _ = split(request.path)
    if kind in HANDLERS:
        return None
    body = f"no {kind} here\n".encode()
    fields = Headers({"Content-Length": str(len(body)), "X-Refused-By": "server"})
    return Response(HTTPStatus.FORBIDDEN, HTTPStatus.FORBIDDEN.phrase, fields, body)


def prefer(_: ServerConnection, offered: list[str]) -> str | None:
    return "second" if "second" in offered else None


async def main() -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(sys.stdin, lambda: ended.done() or ended.set_result(None))
    loop.add_signal_handler(signal.SIGTERM, lambda: ended.done() or ended.set_result(None))
    options = {"process_request": refuse, "select_subprotocol": prefer, "max_size": MESSAGE_BYTES_MAX, "ping_interval": None}
    async with serve(handle, None, int(sys.argv[1]), server_header="isthmus-tests", **options):
        print("listening", flush=True)
        await ended


asyncio.run(main())
