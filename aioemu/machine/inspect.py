"""Looking into a machine: its processors, memory as one of them sees it, and what is on its bus, for monitors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from aioemu._core import lib
from aioemu.bus.router import IrqSource, Region
from aioemu.config import Smp
from aioemu.errors import EmuError, HostError
from aioemu.machine.native import Native
from aioemu.machine.report import format_registers
from aioemu.memory.guest import GuestMemory

PAGE_SIZE = 4096
IOAPIC_PINS = 24


class Vcpu(Struct, frozen=True):
    """One virtual processor."""

    index: int
    thread_id: int  # of the host thread that runs it
    qom_path: str
    topology: Mapping[str, int]


def list_vcpus(native: Native, smp: Smp) -> list[Vcpu]:
    """Every processor there is."""
    return [
        Vcpu(n, native.thread_id(n), f"/machine/unattached/device[{n}]", place(smp, n))
        for n in range(native.vcpu_count)
    ]


def place(smp: Smp, index: int) -> dict[str, int]:
    """Where processor `index` sits, by query-cpus-fast's names."""
    rest, thread = divmod(index, smp.threads)
    rest, core = divmod(rest, smp.cores)
    socket, die = divmod(rest, smp.dies)
    where = {"core-id": core, "thread-id": thread, "socket-id": socket}
    return {**where, "die-id": die} if smp.dies > 1 else where


class VirtualMemory:
    """Guest memory by the addresses that a vCPU uses now; while that vCPU stands still."""

    def __init__(self, native: Native, memory: GuestMemory) -> None:
        self._native = native
        self._memory = memory

    def read(self, vcpu: int, address: int, size: int) -> bytes:
        """EmuError where nothing is mapped."""
        data = b""
        while len(data) < size:
            at = address + len(data)
            physical = self._native.translate(vcpu, at)
            if physical is None:
                raise EmuError(f"Invalid addr 0x{at:016x}/size {size - len(data)} specified")
            data += self._memory.read(physical, min(size - len(data), PAGE_SIZE - at % PAGE_SIZE))
        return data


def registers_text(native: Native, vcpu: int) -> str:
    """A vCPU's registers as `info registers` prints them."""
    return "\n".join(format_registers(native.registers(vcpu))) + "\n"


def bus_text(regions: list[Region], memory: GuestMemory) -> str:
    """What is where, as `info mtree` prints it."""
    lines = []
    for number, name, root, end in ((1, "memory", "system", (1 << 64) - 1), (0, "I/O", "io", 0xFFFF)):
        lines += [f"address-space: {name}", f"  {0:016x}-{end:016x} (prio 0, i/o): {root}"]
        rows = [(r.base, r.last, "i/o", r.name) for r in regions if r.space == number]
        if number:
            rows += [(r.start, r.end - 1, "ram", "pc.ram") for r in memory.ranges]
        lines += [f"    {first:016x}-{last:016x} (prio 0, {kind}): {text}" for first, last, kind, text in sorted(rows)]
        lines.append("")
    return "\n".join(lines)


def line_levels(sources: Iterable[IrqSource]) -> list[bool]:
    """The inputs of the I/O APIC, each the OR of its sources. Lines that chips in the core drive read as low."""
    high = {source.gsi for source in sources if source.level}
    return [number in high for number in range(IOAPIC_PINS)]


def inject_nmi(native: Native) -> None:
    """A non-maskable interrupt for every processor."""
    for vcpu in range(native.vcpu_count):
        rc = lib.core_vcpu_inject_nmi(native.ptr, vcpu)
        if rc < 0:
            raise HostError(f"NMI for vCPU {vcpu}", -rc)
