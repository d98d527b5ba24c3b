"""The PC's interrupt controllers on a bench: the test is processor, guest and clock. No engine, no threads."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aioemu._core import ffi, lib

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR_LOW, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVT_TIMER, LVT_LINT0, LVT_ERROR = 0x320, 0x350, 0x370
INITIAL_COUNT, CURRENT_COUNT, DIVIDE = 0x380, 0x390, 0x3E0
MASKED, PERIODIC, DEADLINE = 1 << 16, 1 << 17, 2 << 17
DIVIDE_BY_1 = 0xB
INTERRUPT, NMI, INIT, SIPI = 1, 2, 4, 8


class Chip:
    """One chip's registers as the bus reaches them."""

    def __init__(self, chip: Any) -> None:
        assert chip != ffi.NULL
        self.chip = chip

    def _access(self, offset: int, size: int, value: int | None) -> int:
        done, cell, reg = ffi.new("uint32_t *", size), ffi.new("uint64_t *", value or 0), ffi.new("uint32_t *")
        assert lib.core_chip_access(self.chip, offset, done, value is not None, cell, reg) == 0
        return int(cell[0])

    def read(self, offset: int, size: int = 4) -> int:
        return self._access(offset, size, None) & ((1 << 8 * size) - 1)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self._access(offset, size, value)

    def save(self) -> bytes:
        state = ffi.new("uint8_t[]", lib.core_chip_state_size(self.chip))
        assert lib.core_chip_save(self.chip, state, len(state)) == 0
        return bytes(state)

    def load(self, state: bytes) -> bool:
        """True when the chip took the state; the only refusal is -EINVAL."""
        rc = int(lib.core_chip_load(self.chip, state, len(state)))
        assert rc in (0, -errno.EINVAL)
        return rc == 0


class Bench:
    """Controllers for `cpus` processors, with a clock that the test moves."""

    def __init__(self, machine: Any, cpus: int) -> None:
        self.machine = machine
        self.now_ns = 1_000_000
        lib.core_clock_own(machine, self.now_ns)
        self.intc = lib.core_intc_new(machine, cpus)
        assert self.intc != ffi.NULL
        self.apics = [Chip(lib.core_intc_chip(self.intc, lib.CORE_LAPIC, i)) for i in range(cpus)]
        self.ioapic = Chip(lib.core_intc_chip(self.intc, lib.CORE_IOAPIC, 0))
        self.pics = [Chip(lib.core_intc_chip(self.intc, lib.CORE_I8259, i)) for i in range(2)]
        self.pit = Chip(lib.core_intc_chip(self.intc, lib.CORE_I8254, 0))
        self.port61 = Chip(lib.core_intc_chip(self.intc, lib.CORE_PORT61, 0))
        self.elcr = Chip(lib.core_intc_chip(self.intc, lib.CORE_ELCR, 0))

    def enable_apics(self) -> None:
        for number, apic in enumerate(self.apics):
            apic.write(SVR, 0x1FF)
            apic.write(LVT_LINT0, MASKED)
            apic.write(LDR, 1 << (24 + number))

    def advance(self, ns: int) -> None:
        """Let time pass, stopping wherever a timer is due, as the host would."""
        end = self.now_ns + ns
        while True:
            due = self.poll()
            if due == 0 or due > end:
                break
            self.set_clock(max(due, self.now_ns))
        self.set_clock(end)
        self.poll()

    def set_clock(self, now_ns: int) -> None:
        self.now_ns = now_ns
        lib.core_clock_own(self.machine, now_ns)

    def poll(self) -> int:
        return int(lib.core_intc_poll(self.intc))

    def irq(self, gsi: int, level: int) -> int:
        return int(lib.core_intc_irq(self.intc, gsi, level))

    def msi(self, address: int, data: int) -> int:
        return int(lib.core_intc_msi(self.intc, address, data))

    def take(self, cpu: int = 0) -> int:
        return int(lib.core_intc_acknowledge(self.intc, cpu))

    def signals(self, cpu: int = 0) -> int:
        return int(lib.core_intc_signals(self.intc, cpu))

    def redirect(self, pin: int, entry: int) -> None:
        for half in (1, 0):
            self.ioapic.write(0x00, 0x10 + 2 * pin + half)
            self.ioapic.write(0x10, entry >> 32 * half & 0xFFFFFFFF)

    def entry(self, pin: int) -> int:
        value = 0
        for half in (0, 1):
            self.ioapic.write(0x00, 0x10 + 2 * pin + half)
            value |= self.ioapic.read(0x10) << 32 * half
        return value


@contextmanager
def bench(cpus: int = 1) -> Iterator[Bench]:
    """A bench that is taken down again."""
    machine = lib.core_machine_new(1)
    made = Bench(machine, cpus)
    try:
        yield made
    finally:
        lib.core_intc_free(made.intc)
        lib.core_machine_free(machine)
