"""Guests that mean harm: the machine shuts down or idles as hardware would; the process and other machines go on."""

from __future__ import annotations

import random

import pytest

from aioemu._core import lib
from tests.core.tcg_machine import CODE, LAPIC, RAM_SIZE, machine, needs_engine
from tests.core.test_tcg_host import cpu_time
from tests.core.test_tcg_smp import with_others

pytestmark = needs_engine

FATAL = {
    "no IDT": "lidt [rip + nothing]\n ud2\n nothing: .word 0\n .quad 0",
    "garbage IDT": f"lidt [rip + table]\n int3\n table: .word 0xffff\n .quad {RAM_SIZE - 64}",
    "IDT in no memory": "lidt [rip + table]\n int3\n table: .word 0xffff\n .quad 0xd0000000",
    "garbage CR3": "mov rax, 0x7ffff000\n mov cr3, rax\n nop",
    "CR3 in MMIO": f"mov eax, {LAPIC}\n mov cr3, rax\n nop",
    "CR3 at all ones": "mov rax, 0xffffff000\n mov cr3, rax\n nop",
    "garbage GDT": "lgdt [rip + table]\n push 0x1238\n push 0\n retfq\n table: .word 0xffff\n .quad 0x123456789",
    "garbage TSS": "mov ax, 0x20\n ltr ax\n ud2",
    "stack nowhere": "mov rsp, 0x7fff00000000\n push rax",
    "jump to no page": "mov rax, 0x7fff00000000\n jmp rax",
    "jump to a non-canonical address": "mov rax, 0x8000000000000000\n jmp rax",
    "unknown instruction": "ud2",
    "self triple fault": "lidt [rip + nothing]\n int3\n nothing: .word 0\n .quad 0",
}


@pytest.mark.parametrize("name", FATAL)
def test_triple_fault_shuts_down(name: str) -> None:
    """What leaves the processor no way to report its fault ends in shutdown, and the machine can be reset."""
    with machine() as m:
        m.long(FATAL[name])
        m.start()
        assert m.run_until_stop().value == lib.CORE_STOP_SHUTDOWN
        m.run_until(lambda: bool(lib.core_machine_is_paused(m.m)))
        assert lib.core_machine_reset(m.m) == 0
        m.flat("mov al, 1\n out 0xe8, al\n hlt")
        m.resume()
        assert m.run_until_out() == [1]


@pytest.mark.parametrize("target", [RAM_SIZE, LAPIC, 0xFEC00000, 0xE0000000, 0xFFFFFFF0])
def test_jump_into_no_memory(target: int) -> None:
    """Code fetched from a hole or a device is whatever it answers: no crash, and no hang of the process."""
    with machine() as m:
        m.gate64(6, "mov al, 6\n out 0xe8, al\n cli\n hlt")
        m.gate64(14, "mov al, 14\n out 0xe8, al\n cli\n hlt")
        m.gate64(13, "mov al, 13\n out 0xe8, al\n cli\n hlt")
        m.long(f"mov eax, {target}\n jmp rax")
        m.start()
        m.run_until(lambda: bool(m.out or m.stops))


def test_running_off_the_end_of_ram() -> None:
    """The last instruction of RAM is followed by the hole's bytes."""
    with machine() as m:
        m.gate64(6, "mov al, 6\n out 0xe8, al\n cli\n hlt")
        m.gate64(14, "mov al, 14\n out 0xe8, al\n cli\n hlt")
        m.gate64(13, "mov al, 13\n out 0xe8, al\n cli\n hlt")
        m.put(RAM_SIZE - 16, b"\x90" * 16)
        m.long(f"mov eax, {RAM_SIZE - 16}\n jmp rax")
        m.start()
        m.run_until(lambda: bool(m.out or m.stops))


def test_page_that_writes_itself() -> None:
    """A loop that increments its own immediate runs what it wrote, a hundred thousand times."""
    with machine() as m:
        m.long("""
            mov ecx, 100000
            again: mov eax, 0
            inc dword ptr [rip + again + 1]
            dec ecx
            jnz again
            mov eax, [rip + again + 1]
            out 0xe8, eax
            hlt""")
        m.start()
        assert m.run_until_out() == [100000]


def test_ipi_flood() -> None:
    """One processor floods all with interrupts and illegal messages; the machine can still be paused and reset."""
    with machine(4) as m:
        m.gate64(0x60, f"mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n inc qword ptr [0x20000]\n iretq")
        m.gate64(2, "inc qword ptr [0x20008]\n iretq")
        flood = """
            sti
            again: mov dword ptr [rdi + 0x300], 0x84060
            mov dword ptr [rdi + 0x300], 0xc4400
            mov dword ptr [rdi + 0x300], 0x84005
            mov dword ptr [rdi + 0x300], 0x84700
            jmp again
        """
        with_others(m, flood, flood)
        m.start()
        m.run_until(lambda: m.u64(0x20000) > 500 and m.u64(0x20008) > 500)
        for _ in range(10):
            m.pause()
            m.resume()


def test_init_flood_on_itself() -> None:
    """A processor that keeps sending INIT to the others, which never get anywhere, stops nobody."""
    with machine(2) as m:
        with_others(m, "again: mov dword ptr [rdi + 0x300], 0xc4500\n inc qword ptr [0x20000]\n jmp again", "hlt")
        m.start()
        m.run_until(lambda: m.u64(0x20000) > 20_000)
        m.pause()
        assert m.state(1).uninitialized


def test_interrupt_storm_by_level() -> None:
    """A level that nobody clears interrupts for ever, the guest's own trouble: pause still works."""
    with machine() as m:
        m.gate64(0x43, f"inc qword ptr [0x20000]\n mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n iretq")
        m.long(f"""
            mov edi, {LAPIC}
            mov dword ptr [rdi + 0xf0], 0x1ff
            mov esi, 0xfec00000
            mov dword ptr [rsi], 0x24
            mov dword ptr [rsi + 16], 0x8043
            sti
            again: jmp again""")
        lib.core_irq_set(m.m, 10, 1)
        m.start()
        m.run_until(lambda: m.u64(0x20000) > 5000)
        m.pause()
        lib.core_irq_set(m.m, 10, 0)
        m.resume()
        m.pause()


def test_timer_flood_is_bounded() -> None:
    """A periodic timer of one tick cannot make the host serve more than the floor allows."""
    with machine() as m:
        m.gate64(0x42, f"inc qword ptr [0x20000]\n mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n iretq")
        m.long(f"""
            mov edi, {LAPIC}
            mov dword ptr [rdi + 0xf0], 0x1ff
            mov dword ptr [rdi + 0x350], 0x10000
            mov dword ptr [rdi + 0x3e0], 0xb
            mov dword ptr [rdi + 0x320], 0x20042
            mov dword ptr [rdi + 0x380], 1
            again: sti
            hlt
            jmp again""")
        m.start()
        before = lib.core_clock_ns(m.m)
        m.run_until(lambda: m.u64(0x20000) > 1000)
        assert lib.core_clock_ns(m.m) - before >= 1000 * 50_000


def test_waiting_for_nothing_costs_nothing() -> None:
    """Application processors that were never started, and a halted first one, use no CPU time."""
    with machine(8) as m:
        m.long("out 0xe8, al\n cli\n again: hlt\n jmp again")
        m.start()
        m.run_until_out(1)
        tid = lib.core_vcpu_thread_id(m.m, 0)
        m.idle(0.1)
        before = cpu_time(tid)
        m.idle(0.5)
        assert cpu_time(tid) - before <= 2


@pytest.mark.parametrize("seed", range(12))
def test_random_code_never_takes_the_process_down(seed: int) -> None:
    """Pages of random bytes as code, with every exception leading into more of them, run for a while."""
    noise = random.Random(seed)
    with machine(2) as m:
        for vector in range(32):
            at = noise.randrange(0x40000, 0x80000)
            low = (at & 0xFFFF) | 8 << 16 | 0x8E << 40 | (at >> 16 & 0xFFFF) << 48
            m.put(0x5000 + 16 * vector, low.to_bytes(8, "little") + bytes(8))
        m.long("nop")
        m.put(0x40000, noise.randbytes(0x40000))
        m.put(CODE, noise.randbytes(4096))
        m.start()
        m.run_until_quiet(0.15)
        m.pause()


def test_another_machine_goes_on_beside_a_dying_one() -> None:
    """Shutdowns of one machine, over and over, disturb nothing in its neighbour."""
    with machine() as good, machine() as bad:
        good.long("again: inc qword ptr [0x20000]\n jmp again")
        good.start()
        bad.long("ud2")
        bad.start()
        for _ in range(20):
            assert bad.run_until_stop().value == lib.CORE_STOP_SHUTDOWN
            bad.run_until(lambda: bool(lib.core_machine_is_paused(bad.m)))
            assert lib.core_machine_reset(bad.m) == 0
            bad.long("ud2")
            bad.resume()
        before = good.u64(0x20000)
        good.run_until(lambda: good.u64(0x20000) > before + 1000)
