"""QEMU at the other end: what it sends we hear, what we send it hears, over each kind of socket."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aioemu.netdev.port import Box
from tests.netdev.waiting import frame_from, settled

QEMU = "qemu-system-x86_64"
ETHERNET = b"\xff" * 6 + bytes.fromhex("525400000001") + b"\x88\xb5"

pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason="QEMU is the oracle")


@asynccontextmanager
async def bridge(folder: Path, *netdevs: str) -> AsyncIterator[None]:
    """A QEMU without a machine whose hub joins the back ends (ids n0, n1)."""
    arguments = [QEMU, "-M", "none", "-nodefaults", "-display", "none", "-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
    for number, netdev in enumerate(netdevs):
        arguments += ["-netdev", netdev, "-netdev", f"hubport,id=h{number},hubid=0,netdev=n{number}"]
    process = await asyncio.create_subprocess_exec(*arguments)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("we_listen", [True, False])
async def test_streams_and_datagrams_with_qemu(
    open_back_end: Callable[..., Any], boxes: Callable[..., Box], tmp_path: Path, we_listen: bool
) -> None:
    """Frames go in by a stream, come out by datagrams, and back, whoever of the two listens."""
    wire, ours, theirs = (str(tmp_path / name) for name in ("wire", "ours", "theirs"))
    near, far = boxes(), boxes()
    end = await open_back_end(
        "dgram", "d", local={"type": "unix", "path": ours}, remote={"type": "unix", "path": theirs}
    )
    far.join(end.port)
    stream = None
    if we_listen:
        stream = await open_back_end("stream", "s", server=True, addr={"type": "unix", "path": wire})
    role = "off" if we_listen else "on"
    async with bridge(
        tmp_path,
        f"stream,id=n0,server={role},addr.type=unix,addr.path={wire}",
        f"dgram,id=n1,local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}",
    ):
        if stream is None:
            stream = await open_back_end("stream", "s", addr={"type": "unix", "path": wire}, reconnect_ms=20)
        near.join(stream.port)
        await settled(lambda: near.carrier and Path(theirs).exists())
        for size in (46, 1486, 9000, 60_000):
            near.send(ETHERNET + bytes(size))
            assert await frame_from(far) == ETHERNET + bytes(size)
            far.send(ETHERNET + b"\1" * size)
            assert await frame_from(near) == ETHERNET + b"\1" * size

    await settled(lambda: not near.carrier)


async def test_the_old_socket_back_end_with_qemu(
    open_back_end: Callable[..., Any], boxes: Callable[..., Box], tmp_path: Path
) -> None:
    """connect= on QEMU's side, multicast on both."""
    near, group = boxes(), boxes()
    server = await open_back_end("socket", "s", listen="127.0.0.1:0")
    near.join(server.port)
    group.join((await open_back_end("socket", "m", mcast="230.0.0.78:24078", localaddr="127.0.0.1")).port)
    port = server._listener.getsockname()[1]
    async with bridge(
        tmp_path,
        f"socket,id=n0,connect=127.0.0.1:{port}",
        "socket,id=n1,mcast=230.0.0.78:24078,localaddr=127.0.0.1",
    ):
        await settled(lambda: near.carrier)
        near.send(ETHERNET + b"to the group")
        assert await frame_from(group) == ETHERNET + b"to the group"
        group.send(ETHERNET + b"from the group")
        async with asyncio.timeout(10):
            while await frame_from(near) != ETHERNET + b"from the group":
                pass
