"""Linux writes and flushes on a qcow2 disk, and the machine is killed: what the guest was told is there, is there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from aioemu.images import debian_guest
from tests.blockdev.qcow2.conftest import opened
from tests.blockdev.qcow2.tools import MIB, check, facts, make, needs_tools

pytestmark = [needs_tools, pytest.mark.guest, pytest.mark.timeout(180)]
LIMIT_S = 90.0
ACKNOWLEDGED = 40
STRIDE = 300  # sectors between two writes: most of them allocate
RC = f"""
i=0
while [ $i -lt 400 ]; do
    i=$((i + 1))
    echo "number $i " | dd of=/dev/vda bs=512 seek=$((i * {STRIDE})) conv=fsync,sync 2>/dev/null
    echo "ack-$i"
done
"""


@pytest.mark.parametrize("options", ["cluster_size=64k", "cluster_size=4k,lazy_refcounts=on"])
@pytest.mark.parametrize("backed", [False, True], ids=["alone", "backed"])
@pytest.mark.parametrize("thread", [False, True], ids=["reactor", "iothread"])
async def test_a_killed_machine_loses_nothing_acknowledged(
    tmp_path: Path, options: str, backed: bool, thread: bool
) -> None:
    """SIGKILL between two writes of Linux: the image is consistent, and each write that fsync answered for is there."""
    (tmp_path / "base.raw").write_bytes(b"base" * (64 * MIB // 4))
    words = ["-b", "base.raw", "-F", "raw"] if backed else []
    path = make(tmp_path / "disk.qcow2", 64 * MIB, options, *words)
    guest = debian_guest(modules=["virtio_mmio", "virtio_blk"], rc=RC)
    command = [sys.executable, "-m", "aioemu", "-M", "microvm", "-accel", "tcg", "-m", "256M", "-nodefaults"]
    command += ["-display", "none", "-serial", "stdio", "-kernel", str(guest.vmlinux), "-initrd", str(guest.initrd)]
    command += ["-append", guest.append, "-drive", f"file={path},format=qcow2,if=none,id=d"]
    command += ["-object", "iothread,id=io0", "-device", "virtio-blk-device,drive=d" + ",iothread=io0" * thread]
    pipe = asyncio.subprocess.PIPE
    machine = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe)
    assert machine.stdout is not None
    said = b""
    async with asyncio.timeout(LIMIT_S):
        while f"ack-{ACKNOWLEDGED}\r\n".encode() not in said:
            more = await machine.stdout.read(4096)
            assert more, said.decode(errors="replace")
            said += more
        machine.kill()
        said += await machine.stdout.read()
        await machine.wait()
    if facts(path)["dirty-flag"]:
        assert "lazy" in options
    else:
        check(path, leaks=True)
    async with opened(path) as node:
        for number in re.findall(rb"ack-(\d+)\r\n", said):
            found = await node.read(int(number) * STRIDE * 512, 16)
            assert found.startswith(b"number " + number + b" ")
    check(path, leaks=True)
