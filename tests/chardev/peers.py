"""The other side of a socket chardev."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from tests.chardev.front import PATIENCE_S


async def dial(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as a program does."""
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.open_unix_connection(path)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Leave."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def raw_dial(path: str) -> socket.socket:
    """Connect without a reader: nothing is read until asked for."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.setblocking(False)
    return sock
