"""A network card with a driver on one side and a box on the other."""

from __future__ import annotations

import struct
from itertools import pairwise

from aioemu._core import lib
from aioemu.devices.virtio import net
from aioemu.devices.virtio.device import RingProperties
from aioemu.devices.virtio.net import VirtioNet
from aioemu.netdev.port import Box, Port
from tests.devices.virtio.driver import BUFFERS_AT, Ring, drive

MAC = bytes((0x52, 0x54, 0, 0x12, 0x34, 0x56))
OTHER = bytes((2, 0, 0, 0, 0, 1))
PLAIN = bytes(12)
HEADER = struct.Struct("<BBHHHHH")
CONTROL_AT = 0xE0000
ALL = (
    net.F_CSUM | net.F_GUEST_CSUM | net.F_GUEST_OFFLOADS | net.F_MAC | net.F_GUEST_TSO4 | net.F_HOST_TSO4
    | net.F_MRG_RXBUF | net.F_STATUS | net.F_CTRL_VQ | net.F_CTRL_RX | net.F_CTRL_VLAN | net.F_CTRL_RX_EXTRA
    | net.F_GUEST_ANNOUNCE | net.F_CTRL_MAC
)  # fmt: skip


def ethernet(size: int = 60, to: bytes = MAC, type_: bytes = b"\x88\xb5") -> bytes:
    return to + OTHER + type_ + bytes(n & 0xFF for n in range(size - 14))


class Rig:
    """A card with a driver on one side and a box on the other; its io context runs when told to."""

    def __init__(self, features: int = ALL, *, box: Box | None = None) -> None:
        self.io = lib.core_io_new()
        self.card = VirtioNet(MAC, features=ALL, ring=RingProperties(packed=True))
        self.card.io = lambda: self.io
        self.port = Port(self.card.port, self.card, owned=False)
        self.box = box or Box(takes=frozenset(("csum", "tso4")))
        self.port.join(self.box)
        self.board, self.rings = drive(self.card, features, size=64)
        self.run()

    @property
    def rx(self) -> Ring:
        return self.rings[0]

    @property
    def tx(self) -> Ring:
        return self.rings[1]

    def run(self) -> None:
        lib.core_io_run(self.io, 1_000_000)

    def kick(self, ring: Ring) -> None:
        ring.kick()
        self.run()

    def give_buffers(self, *sizes: int, at: int = BUFFERS_AT) -> list[int]:
        """Offer receive buffers; where each of them is."""
        places = []
        for size in sizes:
            self.rx.add([(at, size, True)])
            places.append(at)
            at += size + 64
        self.kick(self.rx)
        return places

    def send(self, data: bytes, cuts: tuple[int, ...] = (), at: int = BUFFERS_AT + 0x20000) -> None:
        """Send bytes, header and all, in pieces."""
        self.board.memory.write(at, data)
        edges = [0, *cuts, len(data)]
        self.tx.add([(at + a, b - a, False) for a, b in pairwise(edges)])
        self.kick(self.tx)

    def command(self, *data: bytes) -> int:
        """A command; the device's answer."""
        memory, pieces, at = self.board.memory, [], CONTROL_AT
        for piece in data:
            memory.write(at, piece)
            pieces.append((at, len(piece), False))
            at += len(piece)
        memory.write(at, b"\xee")
        self.rings[2].add([*pieces, (at, 1, True)])
        self.rings[2].kick()
        assert len(self.rings[2].used()) == 1
        return memory.read(at, 1)[0]

    def close(self) -> None:
        self.card.close()
        self.port.close()
        self.box.close()
        self.board.close()
        lib.core_io_free(self.io)
