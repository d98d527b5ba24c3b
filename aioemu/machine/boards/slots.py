"""A board's virtio-mmio slots: where each is, its interrupt, and who is in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aioemu.errors import ConfigError

SLOT_BYTES = 0x200


@dataclass(slots=True)
class MmioSlots:
    """Slots of SLOT_BYTES from `base` on, one for each of `gsis`; `edge`: a line belongs to one slot alone."""

    base: int
    gsis: tuple[int, ...]
    edge: bool = False
    taken: dict[int, str] = field(default_factory=dict)

    def take(self, name: str, bus: str | None = None) -> tuple[int, int]:
        """Address and line of a free slot for `name`: the one that `bus` names, or the first."""
        number = self._free() if bus is None else self._named(bus)
        if number in self.taken:
            raise ConfigError(f"{bus}: taken by {self.taken[number]}", "-device")
        self.taken[number] = name
        return self.address(number), self.gsis[number]

    def address(self, number: int) -> int:
        return self.base + SLOT_BYTES * number

    def command_line(self) -> Iterable[str]:
        """What tells Linux of the slots in use, where no table does."""
        return (f"virtio_mmio.device={SLOT_BYTES}@{self.address(n):#x}:{self.gsis[n]}" for n in sorted(self.taken))

    def _free(self) -> int:
        for number in range(len(self.gsis)):
            if number not in self.taken:
                return number
        raise ConfigError(f"all {len(self.gsis)} virtio-mmio slots are taken", "-device")

    def _named(self, bus: str) -> int:
        prefix, _, number = bus.rpartition(".")
        if prefix != "virtio-mmio-bus" or not number.isdecimal() or int(number) >= len(self.gsis):
            raise ConfigError(f"Bus '{bus}' not found: virtio-mmio-bus.0 to .{len(self.gsis) - 1}", "-device")
        return int(number)
