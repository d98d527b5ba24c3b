"""The other end of a network card in Python: a host at 10.0.0.1 that answers ARP and ping.

python examples/own_peer.py   # boots Debian's kernel, which pings it over a link of 20 ms
"""

from __future__ import annotations

import asyncio

import aioemu
from aioemu.images import PROMPT, debian_guest
from aioemu.netdev.peer import Wire

MAC, IP = bytes.fromhex("020000000001"), bytes([10, 0, 0, 1])


class Host:
    """Has one address, and knows nobody."""

    def wired(self, wire: Wire) -> None:
        """Called once, with what sends."""
        self.wire = wire

    def frame_received(self, frame: bytes) -> None:
        """Called with each frame that reaches this end."""
        if frame[12:22] == bytes.fromhex("08060001080006040001") and frame[38:42] == IP:  # who has IP
            self.wire.send(frame[6:12] + MAC + frame[12:21] + b"\2" + MAC + IP + frame[22:32])
        elif frame[12:15] == b"\x08\0\x45" and frame[23] == 1 and frame[30:34] == IP and frame[34] == 8:  # ping
            checksum = int.from_bytes(frame[36:38], "big") + 0x0800  # RFC 1624: the type becomes 0
            checksum = (checksum & 0xFFFF) + (checksum >> 16)
            head = frame[6:12] + MAC + frame[12:26] + IP + frame[26:30]
            self.wire.send(head + b"\0\0" + checksum.to_bytes(2, "big") + frame[38:])


async def main() -> None:
    """A guest, a link and the host."""
    guest = debian_guest(modules=["virtio_mmio", "virtio_net"])
    async with aioemu.Lab() as lab:
        keywords = {"kernel": guest.vmlinux, "initrd": guest.initrd, "append": guest.append, "accel": "tcg"}
        vm = lab.machine("guest", ready=PROMPT, machine="microvm", devices=["virtio-net-device"], **keywords)
        link = lab.link(vm.nic[0], Host())
        await lab.start()
        await link.impair(delay_ms=10)
        await vm.console.send("ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; ping -c 3 10.0.0.1\n")
        print((await vm.console.expect(r"round-trip.*", 30)).group())


if __name__ == "__main__":
    asyncio.run(main())
