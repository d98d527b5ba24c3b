"""The native machine on an event loop: one reader for everything its vCPU threads have to say.

Not here: what the machine consists of. `close` joins the threads and frees the core; nothing of it may be used after.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from msgspec import Struct

from aioemu._core import ffi, lib
from aioemu.bus.router import Router
from aioemu.errors import AccelError, EmuError, HostError
from aioemu.log import Log
from aioemu.machine.iothread import ReactorIo

EVENTS_AT_ONCE = 64  # per look: keeps one busy machine from holding the loop of all the others
STORM_NS = 200_000  # two questions within this: a third is near
POLL_NS = 60_000  # how long to look for it: an exit and re-entry take 30 us, falling asleep and waking up as much
PASS_MAX = 255  # chances let pass at most: one look in a few milliseconds of storm
STAY_NS = 500_000  # then the loop's other business has its turn
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
GPR_NAMES = tuple("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split())
INSTRUCTION_BYTES = 15  # the longest x86 instruction


class StopKind(IntEnum):
    """Why a vCPU left the guest for good (core_stop)."""

    SHUTDOWN = 1
    RESET = 2
    POWEROFF = 3
    CRASH = 4
    INTERNAL_ERROR = 5
    FAIL_ENTRY = 6
    DEBUG = 7
    HALTED = 8
    HOST_ERROR = 9


class Stop(Struct, frozen=True):
    """One vCPU's stop: `detail` and `more` as core_stop says."""

    kind: StopKind
    vcpu: int
    detail: int
    more: int


class Patience:
    """Whether looking for the next event pays: after a look in vain the next chances are let pass, twice as many each
    time (the vCPU may need the very processor that the looking takes)."""

    def __init__(self) -> None:
        self._pass = self._passed = 0

    def tries(self) -> bool:
        """Whether to look this time."""
        if self._passed < self._pass:
            self._passed += 1
            return False
        return True

    def learn(self, *, hit: bool) -> None:
        """The look found something, or nothing."""
        self._passed = 0
        self._pass = 0 if hit else min(PASS_MAX, 2 * self._pass + 1)


def _segment_flags(segment: Any) -> int:
    """A segment's attributes where its descriptor has them (SDM vol. 3A 3.4.5): the upper half, without the base."""
    access = segment.type << 8 | segment.s << 12 | segment.dpl << 13 | segment.present << 15
    high = segment.avl << 20 | segment.l << 21 | segment.db << 22 | segment.g << 23
    limit = segment.limit >> (12 if segment.g else 0)
    return int(access | high | limit & 0xF0000)


class Native:
    """Owns one core machine; must be made, used and closed on one loop's thread."""

    def __init__(self, max_vcpus: int, log: Log, on_stop: Callable[[Stop], None]) -> None:
        self.ptr = lib.core_machine_new(max_vcpus)
        if self.ptr == ffi.NULL:
            raise HostError(f"a machine of {max_vcpus} vCPUs")
        self.log = log
        self.router = Router(self.ptr, log.to("bus"))
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self._events = ffi.new("core_event[]", EVENTS_AT_ONCE)
        self._paused: list[asyncio.Future[None]] = []
        self._asked_ns = 0  # when a vCPU last waited for Python
        self._patience = Patience()
        self._fd = lib.core_machine_event_fd(self.ptr)
        self._loop.add_reader(self._fd, self._collect)
        self._io: ReactorIo | None = None

    @property
    def io(self) -> ReactorIo:
        """The I/O context that this loop drives; made when it is first asked for."""
        if self._io is None:
            self._io = ReactorIo()
        return self._io

    @property
    def vcpu_count(self) -> int:
        return int(lib.core_vcpu_count(self.ptr))

    @property
    def is_paused(self) -> bool:
        """No vCPU is in the guest."""
        return bool(lib.core_machine_is_paused(self.ptr))

    def start_threads(self) -> None:
        """Make the vCPU threads; they wait until `resume`."""
        rc = lib.core_machine_start(self.ptr)
        if rc < 0:
            raise HostError("start a vCPU thread", -rc)

    def resume(self) -> None:
        """Let the vCPUs into the guest."""
        lib.core_machine_resume(self.ptr)

    async def pause(self) -> None:
        """Return when no vCPU is in the guest any more. Cancelling leaves them on their way out."""
        if lib.core_machine_pause(self.ptr):
            return
        paused = self._loop.create_future()
        self._paused.append(paused)
        try:
            await paused
        finally:
            if paused in self._paused:
                self._paused.remove(paused)

    def drain(self) -> None:
        """Handle everything that the vCPUs have handed over so far; while they stand still."""
        while self.ptr != ffi.NULL:
            count = lib.core_machine_collect(self.ptr, self._events, EVENTS_AT_ONCE)
            if not count:
                return
            self._handle(count)

    def reset(self) -> None:
        """Power-on state of every vCPU and of the accelerator's own chips; only while paused."""
        rc = lib.core_machine_reset(self.ptr)
        if rc < 0:
            raise AccelError(f"reset of the processors: {HostError('accelerator', -rc)}")

    def thread_id(self, vcpu: int) -> int:
        """The host's thread id of a vCPU; 0 before it has a thread."""
        return max(0, int(lib.core_vcpu_thread_id(self.ptr, vcpu)))

    def registers(self, vcpu: int) -> dict[str, int]:
        """General and control registers by name, segments as `cs.base` and so on; while that vCPU stands still."""
        state: Any = ffi.new("core_cpu_state *")
        rc = lib.core_vcpu_get_state(self.ptr, vcpu, state)
        if rc < 0:
            raise HostError(f"registers of vCPU {vcpu}", -rc)
        values = {name: int(state.gpr[i]) for i, name in enumerate(GPR_NAMES)}
        for name in ("rip", "rflags", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"):
            values[name] = int(getattr(state, name))
        for name in SEGMENTS:
            segment = getattr(state, name)
            values[name] = int(segment.selector)
            values[f"{name}.base"] = int(segment.base)
            values[f"{name}.limit"] = int(segment.limit)
            values[f"{name}.flags"] = _segment_flags(segment)
        values["gdt.limit"], values["idt.limit"] = int(state.gdt_limit), int(state.idt_limit)
        values["gdt"], values["idt"], values["halted"] = int(state.gdt_base), int(state.idt_base), int(state.halted)
        return values

    def translate(self, vcpu: int, address: int) -> int | None:
        """Guest-virtual to guest-physical, as that vCPU sees it now; None where nothing is mapped."""
        physical = ffi.new("uint64_t *")
        return int(physical[0]) if lib.core_vcpu_translate(self.ptr, vcpu, address, physical) == 0 else None

    def debug(self, vcpu: int, *, single_step: bool = False, breakpoints: Sequence[int] = ()) -> None:
        """Stop that vCPU after each instruction, or before the one at a breakpoint (at most four), with StopKind.DEBUG.

        While it stands still; without arguments it runs freely again.
        """
        addresses = ffi.new("uint64_t[]", list(breakpoints) or [0])
        rc = lib.core_vcpu_debug(self.ptr, vcpu, single_step, addresses, len(breakpoints))
        if rc < 0:
            raise HostError(f"debug vCPU {vcpu}", -rc)

    def exits(self) -> dict[str, int]:
        """User-space exits of all vCPUs so far, by kind."""
        counts = {}
        for kind in range(lib.CORE_EXIT_COUNT):
            name = _text(lib.core_exit_name(kind))
            counts[name] = sum(lib.core_vcpu_exits(self.ptr, v, kind) for v in range(self.vcpu_count))
        return counts

    def first_entry_ns(self) -> int:
        """When the boot processor first entered the guest (CLOCK_MONOTONIC), 0 before."""
        return int(lib.core_vcpu_first_entry_ns(self.ptr, 0))

    def close(self) -> None:
        """End the threads and free everything; may be called twice."""
        if self.ptr == ffi.NULL:
            return
        self._loop.remove_reader(self._fd)
        self.router.close()
        if self._io is not None:
            self._io.close()
        for paused in self._paused:
            if not paused.done():
                paused.set_exception(EmuError("the machine was closed"))
        lib.core_machine_free(self.ptr)
        self.ptr = ffi.NULL

    def _collect(self) -> None:
        """Handle what has come; while a guest asks again and again, stay and look instead of going to sleep."""
        if not self._handle(lib.core_machine_collect(self.ptr, self._events, EVENTS_AT_ONCE)):
            return
        now = time.monotonic_ns()
        storm, self._asked_ns = now - self._asked_ns < STORM_NS, now
        if storm and self.ptr != ffi.NULL and self._patience.tries():
            self._stay(now + STAY_NS)

    def _stay(self, end_ns: int) -> None:
        while time.monotonic_ns() < end_ns:
            count = lib.core_machine_poll(self.ptr, self._events, EVENTS_AT_ONCE, POLL_NS)
            self._patience.learn(hit=count > 0)
            if not self._handle(count):
                return
            self._asked_ns = time.monotonic_ns()

    def _handle(self, count: int) -> bool:
        """Handle that many events; whether a vCPU waited for one of the answers."""
        events, asked = self._events, False
        for i in range(count):
            event = events[i]
            kind = event.kind
            if kind <= lib.CORE_EVENT_NOTIFY:
                asked = asked or kind <= lib.CORE_EVENT_WRITE
                self.router.handle(event)
            elif kind == lib.CORE_EVENT_STOPPED:
                self._on_stop(Stop(StopKind(event.value), event.vcpu, event.offset, event.aux))
            elif self.is_paused:
                self._release()
            if self.ptr == ffi.NULL:  # a device's answer closed the machine
                return False
        return asked

    def _release(self) -> None:
        waiting, self._paused = self._paused, []
        for paused in waiting:
            if not paused.done():
                paused.set_result(None)


def _text(string: Any) -> str:
    raw = ffi.string(string)
    return raw if isinstance(raw, str) else raw.decode("ascii")
