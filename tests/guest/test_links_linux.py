"""Two Debian guests on a link: what they send arrives whole, in segments of any size, over IPv4, IPv6 and tags."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from aioemu import Lab, Machine
from aioemu.images import PROMPT, debian_guest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(240)]

LIMIT_S = 90.0
SIZE_MB = 4
MODULES = ["virtio_mmio", "virtio_net", "8021q"]
UP = """\
ip link set lo up; ip link set eth0 up; ip addr add 10.0.0.$1/24 dev eth0
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip addr add fd00::$1/64 dev eth0
vconfig add eth0 7; ip link set eth0.7 up; ip addr add 10.0.7.$1/24 dev eth0.7
mkfifo /open
dd if=/dev/urandom of=/data bs=1M count=4 2>/dev/null
"""


async def ask(vm: Machine, command: str) -> str:
    """What a command at the guest's prompt prints."""
    await vm.console.send(f"{command}; echo through-$((40+2))\n")
    found = await vm.console.expect(r"(?P<answer>(?s:.*?))through-42\r\n", LIMIT_S)
    return re.sub(r".*\$\(\(40\+2\)\)\s*", "", found["answer"], flags=re.DOTALL).strip()


async def pass_data(a: Machine, b: Machine, to: str) -> bool:
    """Send /data from one to the other: whether it arrived as it was."""
    sent = (await ask(a, "md5sum </data")).split()[0]
    await ask(b, "(nc -l -p 5000 <>/open | md5sum >/got; echo done >>/got) 2>/dev/null & sleep 0.2")
    await ask(a, f"until nc {to} 5000 </data; do sleep 0.1; done")
    got = await ask(b, "until grep -q done /got; do sleep 0.1; done; cat /got; rm /got")
    return sent in got


async def test_what_linux_sends_arrives_whole() -> None:
    """64 KiB segments, jumbo frames, tags and fragments; packets where frames may be lost, damaged or doubled."""
    image = debian_guest(MODULES, shell=True, files={"etc/up": UP})
    guest: dict[str, Any] = {"machine": "microvm", "accel": "tcg", "memory": "256M", "kernel": image.kernel}
    guest |= {"initrd": image.initrd, "append": image.append, "devices": ["virtio-net-device"], "ready": PROMPT}
    async with Lab() as lab:
        a, b = lab.machine("a", **guest), lab.machine("b", **guest)
        link = lab.link(a.nic[0], b.nic[0], seed=7)
        await lab.start()
        await asyncio.gather(ask(a, "sh /etc/up 1"), ask(b, "sh /etc/up 2"))

        frames = link.a_to_b.stats.frames
        assert await pass_data(a, b, "10.0.0.2")
        assert link.a_to_b.stats.frames - frames < SIZE_MB * (1 << 20) / 4000  # segments of many packets passed whole
        assert await pass_data(a, b, "fd00::2")
        assert await pass_data(a, b, "10.0.7.2")

        for values in ({"delay_ms": 2, "jitter_ms": 1}, {"loss": 0.01}, {"corrupt": 0.01}, {"duplicate": 0.1}):
            await link.impair(**values)
            assert await pass_data(a, b, "10.0.0.2"), values
            await link.clear()
        counts = link.a_to_b.stats
        assert min(counts.dropped["loss"], counts.corrupted, counts.duplicated) > 0

        for mtu in (9000, 65535):
            await asyncio.gather(*(ask(vm, f"ip link set eth0 mtu {mtu}") for vm in (a, b)))
            assert f"{mtu - 28} data bytes" in (text := await ask(a, f"ping -c 1 -s {mtu - 28} 10.0.0.2"))
            assert "1 packets received" in text
            assert await pass_data(a, b, "10.0.0.2")
        assert not a.nic[0].stats.sent.dropped
