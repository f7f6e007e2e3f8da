"""Relays connections to a port that is published in another network namespace.

Run inside that namespace: `python relay.py FD PORT`. The listening socket FD is inherited, and stays in the
namespace in which it was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

CHUNK = 65536


async def relay(descriptor: int, port: int) -> None:
    async def connected(near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(near_writer):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(far_writer):
                await asyncio.gather(copy(near_reader, far_writer), copy(far_reader, near_writer))

    server = await asyncio.start_server(connected, sock=socket.socket(fileno=descriptor))
    await server.serve_forever()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    asyncio.run(relay(*map(int, sys.argv[1:])))
