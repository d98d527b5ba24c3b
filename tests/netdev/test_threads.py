"""Back ends whose card works in another thread: frames go in from there while the loop connects, drops and closes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aioemu.machine.iothread import IoThread, IoThreadProperties
from aioemu.netdev.port import Box, Port
from tests.netdev.stack import BROADCAST, IPV4, ether, ping
from tests.netdev.waiting import settled

FRAME = ether(IPV4, ping("10.0.2.15", "10.0.2.2", size=1400), BROADCAST)
THREADS = 3


def _has_taken(port: Port) -> bool:
    return port.stats.received.frames > 0


@pytest.mark.parametrize("kind", ["user", "stream", "dgram"])
async def test_a_back_end_goes_while_threads_send(
    open_back_end: Callable[..., Any], boxes: Callable[..., Box], tmp_path: Path, kind: str
) -> None:
    """Each time it is closed in the middle of their frames; nothing is freed under them, and the loop goes on."""
    options: dict[str, dict[str, Any]] = {
        "user": {},
        "stream": {"server": True, "addr": {"type": "unix", "path": str(tmp_path / "wire")}},
        "dgram": {
            "local": {"type": "unix", "path": str(tmp_path / "a")},
            "remote": {"type": "unix", "path": str(tmp_path / "a")},  # hears itself
        },
    }
    box = boxes(64)
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            box.send(FRAME)

    threads = [threading.Thread(target=hammer) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            netdev = await open_back_end(kind, **options[kind])
            box.join(netdev.port)
            writer = (await asyncio.open_unix_connection(tmp_path / "wire"))[1] if kind == "stream" else None
            await settled(partial(_has_taken, netdev.port))
            netdev.close()
            if writer is not None:
                writer.close()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def test_a_stream_is_served_by_an_iothread(
    open_back_end: Callable[..., Any], boxes: Callable[..., Box], tmp_path: Path
) -> None:
    """Moved to a thread's context, frames pass both ways while the loop stands still; then it moves back."""
    netdev = await open_back_end("stream", server=True, addr={"type": "unix", "path": str(tmp_path / "wire")})
    box = boxes(4096)
    box.join(netdev.port)
    io_thread = IoThread("io0", IoThreadProperties())
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(tmp_path / "wire"))
        peer.settimeout(10)
        await settled(lambda: box.carrier)
        netdev.port.drive(io_thread.ptr)

        for _ in range(200):  # without a turn of the loop
            peer.sendall(len(FRAME).to_bytes(4, "big") + FRAME)
        deadline = time.monotonic() + 10
        while box.waiting < 200 and time.monotonic() < deadline:
            pass
        assert box.waiting == 200
        sent = 0
        while box.send(FRAME):
            sent += 1
        left = sent * (len(FRAME) + 4)
        while left:
            left -= len(peer.recv(min(left, 65536)))

        netdev.port.drive(netdev._context.io())
        io_thread.close()
        peer.sendall(len(FRAME).to_bytes(4, "big") + FRAME)
        await settled(lambda: box.waiting == 201)
    await settled(lambda: not box.carrier)
