"""A learning switch: frames go where their station was last seen, and everywhere while that is not known.

Native (`core/switch.h`), with a bounded table and a bounded queue for each port. VLAN tags pass and are not looked at.
What bridges keep to themselves (STP, LACP, LLDP: 01-80-C2-00-00-0X) is not passed on unless asked for. Not here:
spanning trees. Not trusted: the stations; one that fakes addresses costs the others floods, never memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from aioemu._core import ffi, lib
from aioemu.errors import EmuError, HostError
from aioemu.netdev.link import Clockwork
from aioemu.netdev.port import Port

QUEUE_FRAMES = 1024  # for each port
AGE_S = 300.0  # what IEEE 802.1Q recommends (table 8-6)
STATIONS_MAX = 8192


@dataclass(frozen=True, slots=True)
class Station:
    """A station that the switch has seen: where, and how long ago."""

    mac: str
    port: int
    age_s: float


class Switch:
    """Ports are added as they are needed; `port(n)` is the n-th."""

    learns: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        clockwork: Clockwork,
        *,
        queue_frames: int = QUEUE_FRAMES,
        age_s: float = AGE_S,
        pass_reserved: bool = False,
    ) -> None:
        self.name = name
        self.ptr = lib.core_switch_new(clockwork.io, self.learns, pass_reserved, queue_frames, round(age_s * 1e9))
        if self.ptr == ffi.NULL:
            raise HostError(f"make the switch {name}")
        self.ports: list[Port] = []

    def add_port(self) -> Port:
        """One more port."""
        self.check_open()
        ptr = lib.core_switch_add(self.ptr)
        if ptr == ffi.NULL:
            raise EmuError(f"the switch {self.name} has no room for another port")
        self.ports.append(Port(ptr, self))
        return self.ports[-1]

    def free_port(self) -> Port:
        """A port that nothing is wired to; a new one when there is none."""
        self.check_open()
        return next((port for port in self.ports if port.peer is None), None) or self.add_port()

    @property
    def stations(self) -> list[Station]:
        """Where which station was seen lately."""
        self.check_open()
        found: Any = ffi.new("core_station[]", STATIONS_MAX)
        count = lib.core_switch_stations(self.ptr, found, STATIONS_MAX)
        return [Station(_mac(found[i].mac), found[i].port, found[i].age_ns / 1e9) for i in range(count)]

    def check_open(self) -> None:
        """EmuError when it was closed."""
        if self.ptr == ffi.NULL:
            raise EmuError(f"the switch {self.name} was closed")

    def close(self) -> None:
        """Part all ports and free everything; may be called twice."""
        if self.ptr != ffi.NULL:
            for port in self.ports:
                port.close()
            lib.core_switch_free(self.ptr)
            self.ptr = ffi.NULL


def _mac(value: int) -> str:
    return int(value).to_bytes(6, "big").hex(":")
