"""Several processors in turn on one thread: start-up, fairness, memory order, code that another one changes."""

from __future__ import annotations

import pytest

from aioemu._core import ffi, lib
from tests.core.tcg_machine import AP_CODE, LAPIC, Machine, assemble, machine, needs_engine

pytestmark = needs_engine

START_OTHERS = f"""
    mov edi, {LAPIC}
    mov dword ptr [rdi + 0xf0], 0x1ff
    mov dword ptr [rdi + 0x300], 0xc4500
    mov dword ptr [rdi + 0x300], 0xc4600 + {AP_CODE >> 12}
"""
# real mode to long mode by the tables and descriptors of Machine.long, then to `ap64` with the APIC id in ebx
AP_START = """
    cli
    xor ax, ax
    mov ds, ax
    lgdt [descriptor - _start + 0x8000]
    mov eax, 0x620
    mov cr4, eax
    mov eax, 0x1000
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80000011
    mov cr0, eax
    ljmp 8, 0x9000
    descriptor: .word 0x17
    .long 0x4000
"""
AP_ENTRY = 0x9000


def with_others(m: Machine, source: str, others: str) -> None:
    """vCPU 0 runs `source` after it has started the others, which run `others` with their APIC id in ebx."""
    m.put(AP_CODE, assemble(AP_START, AP_CODE & 0xFFF, 16))
    head = f"""
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov edi, {LAPIC}
        mov dword ptr [rdi + 0xf0], 0x1ff
        mov ebx, [rdi + 0x20]
        shr ebx, 24
        mov esp, ebx
        shl esp, 12
        add esp, 0x80000
        lidt [{0xA000}]
    """
    m.put(0xA000, (0xFFF).to_bytes(2, "little") + (0x5000).to_bytes(8, "little"))
    m.put(AP_ENTRY, assemble(head + others, AP_ENTRY, 64))
    m.long(START_OTHERS + source)


@pytest.mark.parametrize("vcpus", [2, 8])
def test_all_processors_start(vcpus: int) -> None:
    """INIT and SIPI to all but self: each starts once, in real mode at its vector, and gets to long mode."""
    with machine(vcpus) as m:
        with_others(m, "hlt", "mov eax, ebx\n out 0xe8, eax\n cli\n hlt")
        m.start()
        assert sorted(m.run_until_out(vcpus - 1)) == list(range(1, vcpus))
        m.pause()
        assert all(not m.state(vcpu).uninitialized for vcpu in range(vcpus))


def test_processor_waits_for_its_start() -> None:
    """Before SIPI an application processor does not run, and a SIPI without INIT does nothing to one that runs."""
    with machine(2) as m:
        assert m.state(1).uninitialized
        with_others(
            m,
            f"""
            mov ecx, 3
            more: mov dword ptr [rdi + 0x300], 0xc4600 + {AP_CODE >> 12}
            pause
            dec ecx
            jnz more
            hlt""",
            "lock inc dword ptr [0x20000]\n mov eax, [0x20000]\n out 0xe8, eax\n cli\n hlt",
        )
        m.start()
        m.run_until_out(1)
        m.idle(0.1)
        assert m.out == [1]


def test_a_spinning_processor_lets_the_others_run() -> None:
    """A turn ends by PAUSE or by its slice: four counters without any cooperation all advance, and about equally."""
    with machine(4) as m:
        count = "again: inc qword ptr [0x20000 + rbx * 8]\n jmp again"
        with_others(m, "xor ebx, ebx\n" + count, count)
        m.start()
        m.run_until(lambda: all(m.u64(0x20000 + 8 * i) > 5_000_000 for i in range(4)))
        m.pause()
        counts = [m.u64(0x20000 + 8 * i) for i in range(4)]
        assert max(counts) < 5 * min(counts)


def test_ticket_lock_under_contention() -> None:
    """Four processors, a fair lock with PAUSE, 20,000 critical sections each: none lost."""
    with machine(4) as m:
        body = """
            mov r9d, 20000
            next: mov eax, 1
            lock xadd dword ptr [0x20000], eax
            wait: cmp eax, [0x20040]
            je got
            pause
            jmp wait
            got: mov rcx, [0x20080]
            inc rcx
            mov [0x20080], rcx
            inc dword ptr [0x20040]
            dec r9d
            jnz next
            mov eax, 1
            out 0xe8, eax
            cli
            hlt
        """
        with_others(m, body, body)
        m.start()
        m.run_until_out(4)
        assert m.u64(0x20080) == 80_000


def test_ipi_ping_pong() -> None:
    """Two halted processors wake each other ten thousand times: no wake-up is lost."""
    with machine(2) as m:
        eoi = f"mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n"
        m.gate64(0x50, eoi + "inc dword ptr [0x20000]\n mov dword ptr [rdi + 0x300], 0xc4051\n iretq")
        m.gate64(0x51, eoi + "inc dword ptr [0x20004]\n mov dword ptr [rdi + 0x300], 0xc4050\n iretq")
        with_others(
            m,
            """
            wait: cmp dword ptr [0x20008], 1
            jne wait
            mov dword ptr [rdi + 0x300], 0xc4050
            again: sti
            hlt
            cmp dword ptr [0x20004], 10000
            jb again
            out 0xe8, al
            cli
            hlt""",
            "mov dword ptr [0x20008], 1\n again: sti\n hlt\n jmp again",
        )
        m.start()
        m.run_until_out(1)


def test_code_changed_by_another_processor() -> None:
    """What one processor writes into a function is what the other's next call runs, 2,000 times."""
    with machine(2) as m:
        m.put(0x30000, b"\xb8\x00\x00\x00\x00\xc3")
        with_others(
            m,
            """
            mov ecx, 0
            next: inc ecx
            mov [0x30001], ecx
            mov [0x20000], ecx
            wait: cmp [0x20004], ecx
            je ok
            pause
            jmp wait
            ok: cmp ecx, 2000
            jb next
            mov eax, [0x20008]
            out 0xe8, eax
            cli
            hlt""",
            """
            mov esi, 0x30000
            again: mov ecx, [0x20000]
            cmp ecx, [0x20004]
            je idle
            call rsi
            cmp eax, ecx
            je same
            inc dword ptr [0x20008]
            same: mov [0x20004], ecx
            idle: pause
            jmp again""",
        )
        m.start()
        assert m.run_until_out(1) == [0]


def test_pause_and_state_of_every_processor() -> None:
    """A paused machine shows each processor between two instructions; a written register is what it goes on with."""
    with machine(3) as m:
        loop = "again: inc rcx\n mov [0x20000 + rbx * 8], rcx\n jmp again"
        with_others(m, "xor ebx, ebx\n" + loop, loop)
        m.start()
        m.run_until(lambda: all(m.u64(0x20000 + 8 * i) > 1000 for i in range(3)))
        for _ in range(20):
            m.pause()
            for vcpu in range(3):
                assert m.state(vcpu).gpr[1] - m.u64(0x20000 + 8 * vcpu) in (0, 1)
            m.resume()
        m.pause()
        state = m.state(2)
        state.gpr[1] = 1 << 60
        m.set_state(state, 2)
        m.resume()
        m.run_until(lambda: m.u64(0x20010) > 1 << 60)


def test_a_stop_names_its_processor() -> None:
    """A triple fault on the second processor stops the machine and says which it was."""
    with machine(2) as m:
        with_others(m, "again: pause\n jmp again", "lidt [0x30000]\n ud2")
        m.start()
        stop = m.run_until_stop()
        assert (stop.value, stop.vcpu) == (lib.CORE_STOP_SHUTDOWN, 1)


def test_reset_brings_all_back_to_the_start() -> None:
    """After a reset only the first processor runs, from its power-on state, and the others wait for SIPI again."""
    with machine(2) as m:
        with_others(m, "again: pause\n jmp again", "mov eax, ebx\n out 0xe8, eax\n again: pause\n jmp again")
        m.start()
        m.run_until_out(1)
        m.pause()
        assert lib.core_machine_reset(m.m) == 0
        state = m.state(0)
        assert (state.cs.base + state.rip, state.cr0 & 1) == (0xFFFFFFF0, 0)
        assert m.state(1).uninitialized
        with_others(m, "hlt", "mov eax, 77\n out 0xe8, eax\n cli\n hlt")
        m.resume()
        m.run_until_out(2)
        assert m.out == [1, 77]


def test_exit_counters_are_each_processors_own() -> None:
    """Port writes are counted where they were done."""
    with machine(2) as m:
        with_others(m, "mov ecx, 3\n more: out 0xe8, al\n loop more\n hlt", "cli\n hlt")
        m.start()
        m.run_until_out(3)
        m.run_until(lambda: lib.core_vcpu_exits(m.m, 1, lib.CORE_EXIT_HLT) > 0)
        assert lib.core_vcpu_exits(m.m, 0, lib.CORE_EXIT_PIO_WRITE) == 3
        assert lib.core_vcpu_exits(m.m, 1, lib.CORE_EXIT_PIO_WRITE) == 0
        assert ffi.string(lib.core_accel_name(m.m)) == b"tcg"
