"""Debian on aioemu and Debian on QEMU, joined by a stream: the wire is the same on both sides."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from aioemu.api import Machine
from aioemu.images import PROMPT, debian_guest

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is the oracle"),
]

LIMIT_S = 90.0
MODULES = ["virtio_pci", "virtio_net"]
OURS, THEIRS = "10.5.0.1", "10.5.0.2"


def rc(address: str) -> str:
    return f"ip link set eth0 up; ip addr add {address}/24 dev eth0"


async def start_qemu(wire: Path) -> asyncio.subprocess.Process:
    """A guest at THEIRS, which stays at its prompt."""
    image = debian_guest(MODULES, rc=rc(THEIRS), shell=True)
    arguments = ["-M", "q35", "-accel", "tcg", "-m", "256M", "-nodefaults", "-display", "none", "-serial", "stdio"]
    arguments += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.append]
    arguments += ["-netdev", f"stream,id=n0,server=off,addr.type=unix,addr.path={wire}"]
    arguments += ["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:02"]
    return await asyncio.create_subprocess_exec(
        "qemu-system-x86_64", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


async def test_two_guests_ping_each_other(tmp_path: Path) -> None:
    """Small and fragmented pings pass between them, and carrier goes when QEMU ends."""
    image = debian_guest(MODULES, rc=rc(OURS), shell=True)
    async with Machine(
        machine="q35",
        accel="tcg",
        memory="256M",
        kernel=image.kernel,
        initrd=image.initrd,
        append=image.append,
        netdevs=[f"stream,id=n0,server=on,addr.type=unix,addr.path={tmp_path / 'wire'}"],
        devices=["virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01"],
    ) as vm:
        qemu = await start_qemu(tmp_path / "wire")
        try:
            assert qemu.stdout is not None
            await asyncio.wait_for(qemu.stdout.readuntil(PROMPT.encode()), LIMIT_S)
            await vm.console.expect(PROMPT, LIMIT_S)
            await vm.console.send(f"ping -c 3 -i 0.2 {THEIRS}; ping -c 2 -s 5000 {THEIRS}; echo end-$((40+2))\n")
            text = await vm.console.expect(r"(?P<text>(?s:.*?))end-42\r\n", LIMIT_S)
            assert re.findall(r"(\d) packets received", text["text"]) == ["3", "2"]
        finally:
            qemu.kill()
            await qemu.wait()
        await vm.console.send("sleep 0.3; cat /sys/class/net/eth0/carrier; echo end-$((50+2))\n")
        text = await vm.console.expect(r"(?P<text>(?s:.*?))end-52\r\n", LIMIT_S)
        assert "\r\n0\r\n" in text["text"]
