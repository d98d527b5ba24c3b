"""Scapy as the other end of a network card: it answers a ping, and sees what the guest says on its own.

pip install scapy; python examples/scapy_peer.py
"""

from __future__ import annotations

import asyncio

from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

import aioemu
from aioemu.images import PROMPT, debian_guest
from aioemu.netdev.peer import Wire

ADDRESS, MAC = "10.0.0.1", "02:00:00:00:00:01"


class ScapyHost:
    """Takes frames apart and builds the answers with scapy."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def wired(self, wire: Wire) -> None:
        """Called once, with what sends."""
        self.wire = wire

    def frame_received(self, frame: bytes) -> None:
        """Called with each frame that reaches this end."""
        packet = Ether(frame)
        self.seen.append(packet.summary())
        if ARP in packet and packet[ARP].op == 1 and packet[ARP].pdst == ADDRESS:
            answer = ARP(op=2, hwsrc=MAC, psrc=ADDRESS, hwdst=packet.src, pdst=packet[ARP].psrc)
        elif ICMP in packet and packet[IP].dst == ADDRESS and packet[ICMP].type == 8:
            echo = ICMP(type=0, id=packet[ICMP].id, seq=packet[ICMP].seq) / packet[ICMP].payload
            answer = IP(src=ADDRESS, dst=packet[IP].src) / echo
        else:
            return
        self.wire.send(bytes(Ether(src=MAC, dst=packet.src) / answer))


async def main() -> None:
    """A guest that pings scapy."""
    guest = debian_guest(modules=["virtio_mmio", "virtio_net"])
    host = ScapyHost()
    async with aioemu.Lab() as lab:
        keywords = {"kernel": guest.vmlinux, "initrd": guest.initrd, "append": guest.append, "accel": "tcg"}
        vm = lab.machine("guest", ready=PROMPT, machine="microvm", devices=["virtio-net-device"], **keywords)
        lab.link(vm.nic[0], host)
        await lab.start()
        await vm.console.send("ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up; ping -c 3 10.0.0.1\n")
        print((await vm.console.expect(r"round-trip.*", 30)).group())
    print("\n".join(host.seen))


if __name__ == "__main__":
    asyncio.run(main())
