"""What a driver may command a network card by its control queue (Virtio 1.2, 5.1.6.5): one row for each command.

A command that was not negotiated, has the wrong size or asks for what cannot be is refused and changes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from aioemu._core import lib

F_GUEST_OFFLOADS, F_CTRL_RX, F_CTRL_VLAN, F_CTRL_RX_EXTRA = 1 << 2, 1 << 18, 1 << 19, 1 << 20
F_GUEST_ANNOUNCE, F_MQ, F_CTRL_MAC = 1 << 21, 1 << 22, 1 << 23
ADDRESSES = 64  # of a table; the rest are let in by letting in all
VLANS = 4096
TABLES_MOST = 1 << 16  # addresses: a command larger than any table is refused whole


class Card(Protocol):
    """What commands change; `apply` puts it into force."""

    mac: bytes
    modes: int
    unicast: bytes
    multicast: bytes
    unicast_overflow: bool
    multicast_overflow: bool
    vlans: bytes
    pairs: int
    offloads: int
    max_pairs: int
    on_filter: Callable[[], None]

    @property
    def features(self) -> int: ...
    @property
    def net(self) -> object: ...
    def apply(self) -> None: ...


class ControlQueue:
    """Carries out commands for one card."""

    MOST_BYTES = 2 + 2 * (4 + 6 * TABLES_MOST)

    def __init__(self, card: Card) -> None:
        self._card = card
        self._rows: dict[tuple[int, int], tuple[int, Callable[[bytes], bool]]] = {
            (1, 0): (F_CTRL_RX, self._set_tables),
            (1, 1): (F_CTRL_MAC, self._set_mac),
            (2, 0): (F_CTRL_VLAN, lambda data: self._set_vlan(data, True)),
            (2, 1): (F_CTRL_VLAN, lambda data: self._set_vlan(data, False)),
            (3, 0): (F_GUEST_ANNOUNCE, self._announced),
            (4, 0): (F_MQ, self._set_pairs),
            (5, 0): (F_GUEST_OFFLOADS, self._set_offloads),
        }

    def handle(self, command: bytes) -> bool:
        """Carry out one command: class, number, data. Whether it was."""
        if len(command) < 2:
            return False
        kind, number, data = command[0], command[1], command[2:]
        if kind == 0:
            return self._set_mode(number, data)
        feature, action = self._rows.get((kind, number), (0, None))
        return action is not None and bool(self._card.features & feature) and action(data)

    def _changed(self, *, filter_changed: bool = True) -> bool:
        self._card.apply()
        if filter_changed:
            self._card.on_filter()
        return True

    def _set_mode(self, number: int, data: bytes) -> bool:
        """0 promiscuous, 1 all multicast; with RX_EXTRA 2 all unicast, 3 no multicast, 4 no unicast, 5 no broadcast."""
        feature = F_CTRL_RX if number < 2 else F_CTRL_RX_EXTRA
        if number > 5 or len(data) != 1 or not self._card.features & feature:
            return False
        self._card.modes = self._card.modes & ~(1 << number) | (data[0] != 0) << number
        return self._changed()

    def _set_tables(self, data: bytes) -> bool:
        tables = []
        for _ in range(2):
            if len(data) < 4:
                return False
            (count,) = struct.unpack_from("<I", data)
            if count > TABLES_MOST or len(data) < 4 + 6 * count:
                return False
            tables.append(data[4 : 4 + 6 * count])
            data = data[4 + 6 * count :]
        if data:
            return False
        card, most = self._card, 6 * ADDRESSES
        card.unicast_overflow, card.multicast_overflow = (len(table) > most for table in tables)
        card.unicast, card.multicast = (b"" if len(table) > most else table for table in tables)
        return self._changed()

    def _set_mac(self, data: bytes) -> bool:
        if len(data) != 6:
            return False
        self._card.mac = data
        return self._changed()

    def _set_vlan(self, data: bytes, on: bool) -> bool:
        if len(data) != 2 or (tag := int.from_bytes(data, "little")) >= VLANS:
            return False
        vlans = bytearray(self._card.vlans)
        vlans[tag // 8] = vlans[tag // 8] & ~(1 << tag % 8) | on << tag % 8
        self._card.vlans = bytes(vlans)
        return self._changed()

    def _announced(self, data: bytes) -> bool:
        lib.core_net_announce(self._card.net, False)
        return not data

    def _set_pairs(self, data: bytes) -> bool:
        pairs = int.from_bytes(data, "little")
        if len(data) != 2 or not 1 <= pairs <= self._card.max_pairs:
            return False
        self._card.pairs = pairs
        return self._changed(filter_changed=False)

    def _set_offloads(self, data: bytes) -> bool:
        wanted = int.from_bytes(data, "little")
        known = self._card.features & GUEST_OFFLOADS
        if len(data) != 8 or wanted & ~known:
            return False
        self._card.offloads = wanted
        return self._changed(filter_changed=False)


GUEST_OFFLOADS = sum(1 << bit for bit in (1, 7, 8, 9, 10, 54, 55))  # checksum, TSO4, TSO6, ECN, UFO, USO4, USO6
