"""Base address registers: what a function offers, and the regions that follow from what the guest wrote.

The guest may put a BAR anywhere, over anything, and move it at any time. What overlaps another device is not mapped and
reads all ones; it is tried again whenever a place becomes free. An address that cannot be (zero, beyond the space, or
all ones while it is being sized) is not decoded. None of this is the host's problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from aioemu.bus.wires import MMIO, PIO, Placeable

BarKind = Literal["io", "mem32", "mem64"]
LEAST = {"io": 4, "mem32": 16, "mem64": 16}  # bytes (PCI 3.0, 6.2.5.1)
LIMIT = {"io": 1 << 16, "mem32": 1 << 32, "mem64": 1 << 64}
MEM64, PREFETCH, IO = 0x4, 0x8, 0x1  # type bits
WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class BarSpec:
    """One BAR: a power of two of bytes, and what answers at which offset of it."""

    index: int
    kind: BarKind
    size: int
    parts: Sequence[tuple[int, Placeable]] = ()
    prefetch: bool = False

    def __post_init__(self) -> None:
        last = 4 if self.kind == "mem64" else 5
        if not 0 <= self.index <= last or self.size & (self.size - 1) or self.size < LEAST[self.kind]:
            raise ValueError(f"BAR {self.index}: no {self.kind} BAR of {self.size} bytes can be there")
        end = 0
        for offset, part in sorted(self.parts, key=lambda p: p[0]):
            if offset < end or offset + part.size > self.size:
                raise ValueError(f"BAR {self.index}: part at {offset:#x} overlaps or does not fit")
            end = offset + part.size

    @property
    def space(self) -> int:
        return PIO if self.kind == "io" else MMIO

    def tuning(self) -> dict[str, dict[str, int]]:
        """Reset value and writable bits of its one or two registers."""
        mask = ~(self.size - 1)
        low = {"reset": self._type_bits(), "writable": mask & (WORD - 3 if self.kind == "io" else WORD - 15)}
        made = {f"bar{self.index}": low}
        if self.kind == "mem64":
            made[f"bar{self.index + 1}"] = {"writable": mask >> 32 & WORD}
        return made

    def base(self, values: Sequence[int]) -> int | None:
        """Where the guest put it; None where nothing can be decoded."""
        value = values[self.index]
        if self.kind == "mem64":
            value |= values[self.index + 1] << 32
        base = value & ~(self.size - 1)
        return base if base and base + self.size < LIMIT[self.kind] else None

    def _type_bits(self) -> int:
        if self.kind == "io":
            return IO
        return (MEM64 if self.kind == "mem64" else 0) | (PREFETCH if self.prefetch else 0)


class BarMapper(Protocol):
    """The board's bus as BARs see it."""

    def map(self, space: int, base: int, device: Placeable, name: str) -> object | None:
        """Put a device there; None when the place is taken."""

    def unmap(self, place: object) -> None:
        """Take away what `map` returned."""


class MappedBar:
    """One BAR's regions as they are now."""

    def __init__(self, spec: BarSpec, name: str) -> None:
        self.spec = spec
        self.name = f"{name} BAR {spec.index}"
        self.base: int | None = None
        self._places: list[object | None] = [None] * len(spec.parts)

    @property
    def refused(self) -> bool:
        """Part of it should be there, but the place is taken."""
        return self.base is not None and None in self._places

    def move(self, mapper: BarMapper, base: int | None) -> bool:
        """Decode at `base` from now on; whether that changed anything."""
        if base == self.base:
            return False
        for place in self._places:
            if place is not None:
                mapper.unmap(place)
        self._places = [None] * len(self.spec.parts)
        self.base = base
        self.retry(mapper)
        return True

    def retry(self, mapper: BarMapper) -> None:
        """Map what is not mapped yet."""
        if self.base is None:
            return
        for number, (offset, part) in enumerate(self.spec.parts):
            if self._places[number] is None:
                self._places[number] = mapper.map(self.spec.space, self.base + offset, part, self.name)
