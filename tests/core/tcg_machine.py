"""A native machine on the software processor, driven without asyncio: small guests, the test is the reactor.

Ports: a write to OUT is recorded (and waits for the test's answer as any Python device would), a read from OUT gets
`reply`. Guests are GNU assembler text in Intel syntax. Not here: boards, boot code, devices.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aioemu._core import ffi, lib

OUT = 0xE8
RAM_SIZE = 16 << 20
CODE, AP_CODE, STACK, IDT, GDT, PML4 = 0x10000, 0x8000, 0x7000, 0x5000, 0x4000, 0x1000
KCS, KDS = 0x08, 0x10
LIMIT_S = 60.0  # of a whole test: a hang is a failure, slowness of a busy host is not
LAPIC = 0xFEE00000


def engine_library() -> Path | None:
    """The engine under test: AIOEMU_ENGINE_LIBRARY, or the installed package's."""
    given = os.environ.get("AIOEMU_ENGINE_LIBRARY")
    if given:
        return Path(given)
    try:
        import aioemu_engine
    except ImportError:
        return None
    path = Path(aioemu_engine.library_path())
    return path if path.exists() else None


needs_engine = pytest.mark.skipif(
    engine_library() is None, reason="the engine's package is not installed (make engine)"
)


def assemble(source: str, address: int, bits: int) -> bytes:
    """Machine code that will lie at `address`."""
    head = f".intel_syntax noprefix\n.code{bits}\n.text\n.globl _start\n_start:\n"
    with tempfile.TemporaryDirectory() as where:
        text, obj, out = (Path(where) / name for name in ("a.s", "a.o", "a.bin"))
        text.write_text(head + source + "\n")
        subprocess.run(["as", "--64", "-o", obj, text], check=True)
        subprocess.run(["ld", "-Ttext", hex(address), "--oformat", "binary", "-o", out, obj], check=True)
        return out.read_bytes()


class Machine:
    """RAM at 0, `vcpus` processors, the OUT port; the test collects events by `run_until`."""

    def __init__(self, vcpus: int = 1, ram_size: int = RAM_SIZE, library: Path | None = None) -> None:
        library = library or engine_library()
        assert library is not None
        self.m = lib.core_machine_new(vcpus)
        check(lib.core_tcg_attach(self.m, str(library).encode(), lib.CORE_TCG_PIT))
        fd = os.memfd_create("ram")
        os.ftruncate(fd, ram_size)
        check(lib.core_ram_add(self.m, 0, ram_size, fd, 0, 0))
        os.close(fd)
        self.ram = ffi.buffer(lib.core_ram_ptr(self.m, 0, ram_size), ram_size)
        self.port = lib.core_raw_new()
        check(lib.core_map(self.m, lib.CORE_PIO, OUT, 4, self.port, 7))
        for apic_id in range(vcpus):
            assert lib.core_vcpu_add(self.m, apic_id) == apic_id
        self.out: list[int] = []
        self.stops: list[Any] = []
        self.paused = False
        self.reply = 0
        self.answering = True
        self._poll = select.poll()
        self._poll.register(lib.core_machine_event_fd(self.m), select.POLLIN)
        self._deadline = time.monotonic() + LIMIT_S

    def close(self) -> None:
        lib.core_machine_free(self.m)
        lib.core_chip_free(self.port)

    # ---- guest ----

    def put(self, gpa: int, data: bytes) -> None:
        self.ram[gpa : gpa + len(data)] = data
        lib.core_ram_written(self.m, gpa, len(data))

    def u64(self, gpa: int) -> int:
        return int.from_bytes(self.ram[gpa : gpa + 8], "little")

    def state(self, vcpu: int = 0) -> Any:
        state = ffi.new("core_cpu_state *")
        check(lib.core_vcpu_get_state(self.m, vcpu, state))
        return state

    def set_state(self, state: Any, vcpu: int = 0) -> None:
        check(lib.core_vcpu_set_state(self.m, vcpu, state))

    def real(self, source: str, address: int = CODE) -> None:
        """vCPU 0 starts in real mode at `address`."""
        self.put(address, assemble(source, address & 0xFFFF, 16))
        state = self.state()
        state.cs.selector, state.cs.base = address >> 4 & 0xF000, address & 0xF0000
        state.rip, state.gpr[4] = address & 0xFFFF, STACK
        self.set_state(state)

    def flat(self, source: str, address: int = CODE) -> None:
        """vCPU 0 starts in 32-bit protected mode without paging, flat segments, interrupts off."""
        self.put(address, assemble(source, address, 32))
        state = self.state()
        _segments(state, code=0xC09B)
        state.cr0, state.rip, state.gpr[4] = 0x11, address, STACK
        self._tables(state)

    def long(self, source: str, address: int = CODE) -> None:
        """vCPU 0 starts in long mode; the first 4 GiB are mapped to themselves in 2 MiB pages."""
        self.put(address, assemble(source, address, 64))
        self.put(PML4, (0x2003).to_bytes(8, "little"))
        tables = 0x100000
        for gib in range(4):
            self.put(0x2000 + 8 * gib, (tables + 4096 * gib | 3).to_bytes(8, "little"))
            pages = b"".join(((gib << 30 | n << 21) | 0x83).to_bytes(8, "little") for n in range(512))
            self.put(tables + 4096 * gib, pages)
        state = self.state()
        _segments(state, code=0xA09B)
        state.cr0, state.cr3, state.cr4, state.efer = 0x80000011, PML4, 0x620, 0x500
        state.rip, state.gpr[4] = address, STACK
        self._tables(state)

    def _tables(self, state: Any) -> None:
        self.put(GDT, b"".join(x.to_bytes(8, "little") for x in (0, 0xAF9B000000FFFF, 0xCF93000000FFFF)))
        state.gdt_base, state.gdt_limit = GDT, 0x17
        state.idt_base, state.idt_limit = IDT, 0xFFF
        state.rflags = 2
        self.set_state(state)

    def gate64(self, vector: int, source: str, dpl: int = 0) -> None:
        """A handler of long mode, somewhere in memory."""
        at = 0x40000 + vector * 0x100
        code = assemble(source, at, 64)
        assert len(code) <= 0x100
        self.put(at, code)
        low = (at & 0xFFFF) | KCS << 16 | (0x8E | dpl << 5) << 40 | (at >> 16 & 0xFFFF) << 48
        self.put(IDT + 16 * vector, low.to_bytes(8, "little") + (at >> 32).to_bytes(8, "little"))

    # ---- running ----

    def start(self) -> None:
        check(lib.core_machine_start(self.m))
        self.resume()

    def resume(self) -> None:
        self.paused = False
        lib.core_clock_start(self.m)
        check(lib.core_machine_resume(self.m))

    def pause(self) -> None:
        """Ask, and wait until no vCPU runs."""
        lib.core_machine_pause(self.m)
        self.run_until(lambda: bool(lib.core_machine_is_paused(self.m)))
        lib.core_clock_stop(self.m)

    def run_until_changed(self, gpa: int, before: int) -> None:
        """The guest has written something else there; it says nothing, so look often."""
        self.run_until(lambda: self.u64(gpa) != before, look_s=0.0002)

    def run_until(self, done: Callable[[], bool], look_s: float = 0.05) -> None:
        while not done():
            left = self._deadline - time.monotonic()
            assert left > 0, f"the guest did not get there: out {[hex(v) for v in self.out]}, stops {self.stops}"
            self._poll.poll(min(left, look_s) * 1000)
            self._collect()

    def idle(self, seconds: float) -> None:
        """Answer what comes for a while in which nothing needs to happen."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            self._collect()

    def run_until_quiet(self, seconds: float) -> None:
        """Run for a while, or until it stops."""
        end = time.monotonic() + seconds
        self.run_until(lambda: bool(self.stops) or time.monotonic() > end)

    def run_until_out(self, count: int = 1) -> list[int]:
        self.run_until(lambda: len(self.out) >= count or bool(self.stops))
        assert len(self.out) >= count, f"stopped: {self.stops} after {self.out}"
        return self.out

    def run_until_stop(self) -> Any:
        self.run_until(lambda: bool(self.stops))
        return self.stops.pop()

    def _collect(self) -> None:
        events = ffi.new("core_event[]", 64)
        count = lib.core_machine_collect(self.m, events, 64)
        for event in events[0:count]:
            if event.kind in (lib.CORE_EVENT_READ, lib.CORE_EVENT_WRITE):
                if event.kind == lib.CORE_EVENT_WRITE:
                    self.out.append(int(event.value))
                self.waiting = (event.thread, event.seq)
                if self.answering:
                    self.answer()
            elif event.kind == lib.CORE_EVENT_STOPPED:
                self.stops.append(ffi.new("core_event *", event)[0])
            elif event.kind == lib.CORE_EVENT_PAUSED:
                self.paused = True

    def answer(self) -> None:
        check(lib.core_answer(self.m, *self.waiting, self.reply))


def _segments(state: Any, code: int) -> None:
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(state, name)
        rights = code if name == "cs" else 0xC093
        segment.base, segment.limit, segment.selector = 0, 0xFFFFFFFF, KCS if name == "cs" else KDS
        segment.type, segment.s, segment.dpl, segment.present = rights & 15, 1, 0, 1
        segment.l, segment.db, segment.g = rights >> 13 & 1, rights >> 14 & 1, 1
        segment.unusable = 0


def check(rc: int) -> None:
    assert rc >= 0, os.strerror(-rc)


@contextmanager
def machine(vcpus: int = 1, ram_size: int = RAM_SIZE, library: Path | None = None) -> Iterator[Machine]:
    """A machine that is torn down, threads and all; on another library than the engine when one is given."""
    made = Machine(vcpus, ram_size, library)
    try:
        yield made
    finally:
        made.close()
