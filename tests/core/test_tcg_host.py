"""The software processor under the core, as the host uses it: pause, clock, debugging, DMA, reset, eventfds, many."""

from __future__ import annotations

import errno
import os

from aioemu._core import ffi, lib
from tests.core.tcg_machine import CODE, LAPIC, machine, needs_engine

pytestmark = needs_engine

ENABLE_APIC_64 = f"mov edi, {LAPIC}\n mov dword ptr [rdi + 0xf0], 0x1ff\n mov dword ptr [rdi + 0x350], 0x10000\n"


def test_pause_is_exact() -> None:
    """A thousand pauses of a read-modify-write loop lose and double nothing: memory and register agree at the end."""
    with machine() as m:
        m.long("""
            mov ebx, 0x20000
            again: inc rcx
            inc qword ptr [rbx]
            jmp again""")
        m.start()
        for _ in range(1000):
            m.pause()
            assert m.state().gpr[1] - m.u64(0x20000) in (0, 1)
            before = m.u64(0x20000)
            m.resume()
            m.run_until_changed(0x20000, before)


def test_clock_and_timer_stand_still_while_paused() -> None:
    """The counter does not advance over a pause, and a timer that would have been due is due later."""
    with machine() as m:
        m.gate64(0x42, "rdtsc\n out 0xe8, eax\n cli\n hlt")
        m.long(
            ENABLE_APIC_64
            + """
            mov dword ptr [rdi + 0x3e0], 0xb
            mov dword ptr [rdi + 0x320], 0x42
            mov dword ptr [rdi + 0x380], 200000000
            rdtsc
            out 0xe8, eax
            sti
            again: pause
            jmp again"""
        )
        m.start()
        m.run_until_out(1)
        m.pause()
        stopped = lib.core_clock_ns(m.m)
        m.idle(0.4)
        assert lib.core_clock_ns(m.m) == stopped
        assert len(m.out) == 1
        m.resume()
        first, second = m.run_until_out(2)
        assert 0.2e9 <= (second - first) % 2**32 < 3e9


def test_halted_machine_uses_no_time() -> None:
    """HLT with interrupts off sleeps for good: no CPU time, and an NMI still gets through."""
    with machine() as m:
        m.gate64(2, "mov al, 2\n out 0xe8, al\n iretq")
        m.long("out 0xe8, al\n cli\n again: hlt\n jmp again")
        m.start()
        m.run_until_out(1)
        tid = lib.core_vcpu_thread_id(m.m, 0)
        m.run_until(lambda: lib.core_vcpu_exits(m.m, 0, lib.CORE_EXIT_HLT) > 0)
        before = cpu_time(tid)
        m.idle(0.5)
        assert cpu_time(tid) - before <= 2
        lib.core_vcpu_inject_nmi(m.m, 0)
        m.run_until_out(2)


def cpu_time(tid: int) -> int:
    """Scheduler ticks (10 ms) that the thread has used."""
    with open(f"/proc/self/task/{tid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_single_step_and_breakpoint() -> None:
    """A step is one instruction; a breakpoint stops before the instruction at its address."""
    with machine() as m:
        m.long("nop\n nop\n inc rax\n inc rax\n hlt")
        lib.core_vcpu_debug(m.m, 0, 1, ffi.NULL, 0)
        m.start()
        stop = m.run_until_stop()
        assert (stop.value, stop.aux) == (lib.CORE_STOP_DEBUG, CODE + 1)
        m.run_until(lambda: bool(lib.core_machine_is_paused(m.m)))
        lib.core_vcpu_debug(m.m, 0, 0, ffi.new("uint64_t[]", [CODE + 5]), 1)
        m.resume()
        assert m.run_until_stop().aux == CODE + 5
        assert m.state().gpr[0] == 1


def test_host_write_into_running_code() -> None:
    """Code replaced by the host (device DMA) is what runs next: no stale translation, however hot the loop."""
    with machine() as m:
        m.put(0x30000, b"\xb0\x01\xc3")
        m.long("mov ebx, 0x30000\n again: call rbx\n out 0xe8, al\n jmp again")
        m.start()
        for n in range(1, 100):
            m.put(0x30000, bytes([0xB0, n, 0xC3]))
            seen = len(m.out)
            m.run_until_out(seen + 2)
            assert m.out[-1] == n


def test_reset_while_an_access_waits_for_its_answer() -> None:
    """A reset from inside a device's handler: the processor goes on from its new state, not from the old one."""
    with machine() as m:
        m.flat("out 0xe8, eax\n mov eax, 0xbad\n again: out 0xe8, eax\n jmp again")
        m.answering = False
        m.start()
        m.run_until_out(1)
        lib.core_machine_pause(m.m)
        m.run_until(lambda: bool(lib.core_machine_is_paused(m.m)))
        assert lib.core_machine_reset(m.m) == 0
        m.real("mov ax, 0x600d\n out 0xe8, ax\n hlt", 0x18000)
        m.answer()
        m.answering = True
        m.resume()
        m.run_until(lambda: 0x600D in m.out)
        assert m.out[-1] == 0x600D


def test_irqfd_and_resample() -> None:
    """An eventfd raises its line; a level-triggered one stays until EOI, which signals the second eventfd."""
    with machine() as m:
        m.gate64(0x43, f"mov al, 0x43\n out 0xe8, al\n mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n iretq")
        m.long(
            ENABLE_APIC_64
            + """
            mov esi, 0xfec00000
            mov dword ptr [rsi], 0x24
            mov dword ptr [rsi + 16], 0x8043
            out 0xe8, al
            again: sti
            hlt
            jmp again"""
        )
        fd, resample = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0)
        try:
            assert lib.core_irqfd_add(m.m, fd, resample, 10) == 0
            m.start()
            m.run_until_out(1)
            for n in range(5):
                os.eventfd_write(fd, 1)
                m.run_until_out(n + 2)
                assert os.eventfd_read(resample) == 1
            assert lib.core_irqfd_remove(m.m, fd, 10) == 0
            assert lib.core_irqfd_remove(m.m, fd, 10) == -errno.ENOENT
        finally:
            os.close(fd)
            os.close(resample)


def test_many_machines_in_one_process() -> None:
    """Ten machines run at once, each with its own engine, and none sees another."""
    machines = [machine() for _ in range(10)]
    made = [manager.__enter__() for manager in machines]
    try:
        for number, m in enumerate(made):
            m.long(f"mov rcx, 100000\n again: dec rcx\n jnz again\n mov al, {number}\n out 0xe8, al\n hlt")
        for m in made:
            m.start()
        assert [m.run_until_out()[0] for m in made] == list(range(10))
    finally:
        for manager in machines:
            manager.__exit__(None, None, None)
