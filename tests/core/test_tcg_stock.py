"""The software processor on the stock Unicorn library: what its adapter does where the engine has exports."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from aioemu._core import ffi, lib
from aioemu.accel.tcg import find_stock
from tests.core.tcg_machine import CODE, LAPIC, Machine, assemble, machine
from tests.core.test_tcg_smp import with_others

STOCK = find_stock()
pytestmark = pytest.mark.skipif(STOCK is None, reason="the unicorn wheel is not installed")
EOI = f"mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n"
ENABLE_APIC = f"mov edi, {LAPIC}\n mov dword ptr [rdi + 0xf0], 0x1ff\n mov dword ptr [rdi + 0x350], 0x10000\n"


def stock(vcpus: int = 1) -> AbstractContextManager[Machine]:
    return machine(vcpus, library=STOCK)


def test_modes() -> None:
    """Real mode, flat 32-bit and long mode run, and a state that goes in comes out."""
    with stock() as m:
        m.real("mov ax, cs\n out 0xe8, ax\n hlt")
        m.start()
        assert m.run_until_out() == [0x1000]
    with stock() as m:
        m.flat("mov eax, 0x12345678\n out 0xe8, eax\n hlt")
        m.start()
        assert m.run_until_out() == [0x12345678]
    with stock() as m:
        m.long("add rax, rbx\n mov rcx, rax\n shr rcx, 32\n mov eax, ecx\n out 0xe8, eax\n hlt")
        state = m.state()
        state.gpr[0], state.gpr[3] = 0x100000000, 0x200000000
        m.set_state(state)
        m.start()
        assert m.run_until_out() == [3]
        m.run_until(lambda: lib.core_vcpu_exits(m.m, 0, lib.CORE_EXIT_HLT) > 0)
        m.pause()
        assert (m.state().halted, m.state().cs.l, m.state().gpr[0]) == (1, 1, 3)


def test_cpuid_says_what_the_library_can() -> None:
    """No XSAVE, no TSC deadline, no FSGSBASE here; the stated clock rates stay."""
    with stock() as m:
        m.flat("""
            mov eax, 1
            cpuid
            mov eax, ecx
            out 0xe8, eax
            mov eax, 7
            xor ecx, ecx
            cpuid
            mov eax, ebx
            out 0xe8, eax
            mov eax, 0x15
            cpuid
            mov eax, ecx
            out 0xe8, eax
            hlt""")
        m.start()
        features, structured, crystal = m.run_until_out(3)
        assert not {24, 26} & {bit for bit in range(32) if features >> bit & 1}
        assert (structured, crystal) == (0, 10**9)


def test_faults_and_software_interrupts_reach_their_handlers() -> None:
    """#DE without, #GP with an error code, INT n behind the instruction, INT n refused by the gate's level."""
    with stock() as m:
        m.gate64(0, "mov al, 0\n out 0xe8, al\n add qword ptr [rsp], 2\n iretq")
        m.gate64(13, "pop rax\n out 0xe8, eax\n add qword ptr [rsp], 2\n iretq")
        m.gate64(14, "pop rax\n mov rax, cr2\n out 0xe8, eax\n add qword ptr [rsp], 2\n iretq")
        m.gate64(0x30, "mov al, 0x30\n out 0xe8, al\n iretq")
        m.long("""
            xor edx, edx
            xor ecx, ecx
            div ecx
            mov ax, 0x1230
            mov ds, eax
            int 0x30
            mov rbx, 0x7fff00000000
            mov eax, [rbx]
            int 0x31
            mov al, 0xff
            out 0xe8, al
            hlt""")
        m.start()
        assert m.run_until_out(6) == [0, 0x1230, 0x30, 0x0, 0x31 * 8 + 2, 0xFF]


def test_protected_mode_interrupt() -> None:
    """A 32-bit gate, and IRET back."""
    with stock() as m:
        handler = 0x30000
        m.put(handler, assemble("mov al, 0x41\n out 0xe8, al\n iret", handler, 32))
        m.put(
            0x5000 + 8 * 0x41, ((handler & 0xFFFF) | 8 << 16 | 0x8E << 40 | (handler >> 16) << 48).to_bytes(8, "little")
        )
        m.flat("mov al, 1\n out 0xe8, al\n int 0x41\n mov al, 2\n out 0xe8, al\n hlt")
        m.put(0x4000, b"".join(x.to_bytes(8, "little") for x in (0, 0xCF9B000000FFFF, 0xCF93000000FFFF)))
        m.start()
        assert m.run_until_out(3) == [1, 0x41, 2]


def test_real_mode_interrupt() -> None:
    """Through the vector table, as firmware does."""
    with stock() as m:
        m.put(0x30000, assemble("mov al, 0x21\n out 0xe8, al\n iret", 0, 16))
        m.put(4 * 0x21, (0x3000 << 16).to_bytes(4, "little"))
        m.real("int 0x21\n mov al, 2\n out 0xe8, al\n hlt")
        m.start()
        assert m.run_until_out(2) == [0x21, 2]


def test_interrupts_halted_and_busy() -> None:
    """An MSI wakes HLT, and reaches a loop that never leaves."""
    with stock() as m:
        m.gate64(0x41, "mov al, 0x41\n out 0xe8, al\n" + EOI + "iretq")
        m.long(ENABLE_APIC + "mov al, 1\n out 0xe8, al\n sti\n hlt\n again: jmp again")
        m.start()
        m.run_until_out(1)
        for n in range(20):
            lib.core_msi_send(m.m, 0xFEE00000, 0x41)
            m.run_until_out(n + 2)
        assert m.out == [1] + [0x41] * 20


def test_timer_and_nmi() -> None:
    """The APIC timer's ticks wake HLT; an NMI gets through with interrupts off."""
    with stock() as m:
        m.gate64(0x42, "inc r8\n" + EOI + "iretq")
        m.gate64(2, "mov al, 2\n out 0xe8, al\n iretq")
        m.long(
            ENABLE_APIC
            + """
            mov dword ptr [rdi + 0x3e0], 0xb
            mov dword ptr [rdi + 0x320], 0x20042
            mov dword ptr [rdi + 0x380], 500000
            again: sti
            hlt
            cmp r8, 20
            jb again
            cli
            mov al, 1
            out 0xe8, al
            off: hlt
            jmp off"""
        )
        m.start()
        m.run_until_out(1)
        lib.core_vcpu_inject_nmi(m.m, 0)
        assert m.run_until_out(2) == [1, 2]


def test_syscall_and_sysret() -> None:
    """SYSCALL from ring 3 enters by LSTAR with the flags masked, SYSRET goes back."""
    with stock() as m:
        m.put(
            0x30000, assemble("mov rbx, rcx\n pushfq\n pop rax\n out 0xe8, eax\n mov rcx, rbx\n sysretq", 0x30000, 64)
        )
        m.put(
            0x38000, assemble("mov eax, 5\n syscall\n mov edi, 1\n mov [0x20000], edi\n again: jmp again", 0x38000, 64)
        )
        # every page for the user too
        m.long("""
            mov ecx, 0xc0000080
            rdmsr
            or eax, 1
            wrmsr
            mov ecx, 0xc0000081
            xor eax, eax
            mov edx, 0x00100008
            wrmsr
            mov ecx, 0xc0000082
            mov eax, 0x30000
            xor edx, edx
            wrmsr
            mov ecx, 0xc0000084
            mov eax, 0x200
            wrmsr
            or qword ptr [0x1000], 4
            or qword ptr [0x2000], 4
            or qword ptr [0x100000], 4
            mov rax, cr3
            mov cr3, rax
            mov ecx, 0x38000
            mov r11d, 0x202
            sysretq""")
        gdt = (0, 0xAF9B000000FFFF, 0xCF93000000FFFF, 0xCFF3000000FFFF, 0xAFFB000000FFFF)
        m.put(0x4000, b"".join(x.to_bytes(8, "little") for x in gdt))
        m.start()
        assert m.run_until_out()[0] & 0x200 == 0
        m.run_until(lambda: m.u64(0x20000) & 0xFFFFFFFF == 1)


def test_pause_is_exact() -> None:
    """Stops lose and double nothing."""
    with stock() as m:
        m.long("mov ebx, 0x20000\n again: inc rcx\n inc qword ptr [rbx]\n jmp again")
        m.start()
        for _ in range(100):
            m.pause()
            assert m.state().gpr[1] - m.u64(0x20000) in (0, 1)
            before = m.u64(0x20000)
            m.resume()
            m.run_until_changed(0x20000, before)


def test_code_that_changes() -> None:
    """The guest's own stores into code, and the host's, are what runs next."""
    with stock() as m:
        m.put(0x30000, b"\xb0\x01\xc3")
        m.long("""
            mov ecx, 1000
            more: mov eax, 0
            inc dword ptr [rip + more + 1]
            dec ecx
            jnz more
            mov eax, [rip + more + 1]
            out 0xe8, eax
            mov ebx, 0x30000
            again: call rbx
            out 0xe8, al
            jmp again""")
        m.start()
        assert m.run_until_out()[0] == 1000
        for n in range(1, 30):
            m.put(0x30000, bytes([0xB0, n, 0xC3]))
            seen = len(m.out)
            m.run_until_out(seen + 2)
            assert m.out[-1] == n


def test_triple_fault_and_reset() -> None:
    """Shutdown, and a new life after reset."""
    with stock() as m:
        m.long("lidt [rip + nothing]\n ud2\n nothing: .word 0\n .quad 0")
        m.start()
        assert m.run_until_stop().value == lib.CORE_STOP_SHUTDOWN
        m.run_until(lambda: bool(lib.core_machine_is_paused(m.m)))
        assert lib.core_machine_reset(m.m) == 0
        m.flat("mov al, 1\n out 0xe8, al\n hlt")
        m.resume()
        assert m.run_until_out() == [1]


def test_jump_into_no_memory_stops_the_machine_only() -> None:
    """The library cannot fetch from a device: the machine shuts down."""
    with stock() as m:
        m.long(f"mov eax, {LAPIC}\n jmp rax")
        m.start()
        m.run_until(lambda: bool(m.stops))


def test_processors_start_and_share() -> None:
    """INIT, SIPI, turns by slices, and a lock."""
    with stock(3) as m:
        body = """
            mov r9d, 300
            next: lock inc dword ptr [0x20000]
            dec r9d
            jnz next
            out 0xe8, al
            cli
            hlt
        """
        with_others(m, body, body)
        m.start()
        m.run_until_out(3)
        assert m.u64(0x20000) == 900


def test_what_it_cannot_do_is_refused() -> None:
    """Single step and breakpoints are errors, not silence."""
    with stock() as m:
        m.long("hlt", CODE)
        assert lib.core_vcpu_debug(m.m, 0, 1, ffi.NULL, 0) < 0
