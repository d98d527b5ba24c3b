"""The software processor under the core, as a guest sees it: modes, ports, memory, interrupts, timers."""

from __future__ import annotations

import errno
import time

from aioemu._core import ffi, lib
from tests.core.tcg_machine import CODE, LAPIC, RAM_SIZE, machine, needs_engine

pytestmark = needs_engine

ENABLE_APIC = f"mov dword ptr [{LAPIC + 0xF0}], 0x1ff\n mov dword ptr [{LAPIC + 0x350}], 0x10000\n"
EOI = f"mov dword ptr [{LAPIC + 0xB0}], 0\n"
ENABLE_APIC_64 = f"mov edi, {LAPIC}\n mov dword ptr [rdi + 0xf0], 0x1ff\n mov dword ptr [rdi + 0x350], 0x10000\n"


def test_library_that_is_none_is_refused() -> None:
    """A path that is no library, and a library that is no engine, are named by their errno; the machine stays free."""
    m = lib.core_machine_new(1)
    try:
        assert lib.core_tcg_attach(m, b"/nonexistent.so", 0) == -errno.ELIBACC
        assert lib.core_tcg_attach(m, b"libm.so.6", 0) == -errno.ELIBBAD
        assert lib.core_none_attach(m) == 0
    finally:
        lib.core_machine_free(m)


def test_real_mode() -> None:
    """16-bit code in a segment, as after a start-up IPI."""
    with machine() as m:
        m.real("mov ax, cs\n out 0xe8, ax\n hlt")
        m.start()
        assert m.run_until_out() == [0x1000]


def test_protected_mode_and_cpuid() -> None:
    """32-bit code; CPUID says hypervisor, TSC deadline, no AVX, and the rates of the counter and the APIC timer."""
    with machine() as m:
        m.flat("""
            mov eax, 1
            cpuid
            mov eax, ecx
            out 0xe8, eax
            mov eax, 0x15
            cpuid
            out 0xe8, eax
            mov eax, ebx
            out 0xe8, eax
            mov eax, ecx
            out 0xe8, eax
            hlt""")
        m.start()
        features, denominator, numerator, crystal = m.run_until_out(4)
        present = {bit for bit in range(32) if features >> bit & 1}
        assert {20, 24, 31} <= present
        assert not {21, 28} & present
        assert (denominator, numerator, crystal) == (1, 1, 10**9)


def test_long_mode_and_state() -> None:
    """64-bit registers go in and out; the state read back is the state the guest has."""
    with machine() as m:
        m.long("add rax, rbx\n out 0xe8, al\n hlt")
        state = m.state()
        state.gpr[0], state.gpr[3] = 0xFFFFFFFF00000000, 0x00000000FFFFFF05
        m.set_state(state)
        m.start()
        assert m.run_until_out() == [5]
        m.run_until(lambda: lib.core_vcpu_exits(m.m, 0, lib.CORE_EXIT_HLT) > 0)
        m.pause()
        after = m.state()
        assert after.gpr[0] == 0xFFFFFFFFFFFFFF05
        assert (after.halted, after.cs.l, after.efer, after.cr3) == (1, 1, 0x500, 0x1000)


def test_string_io_goes_one_by_one() -> None:
    """REP OUTSB and REP INSW are as many port accesses as elements."""
    with machine() as m:
        m.flat(f"""
            cld
            mov esi, {CODE + 0x100}
            mov ecx, 5
            mov edx, 0xe8
            rep outsb
            mov edi, 0x20000
            mov ecx, 3
            rep insw
            mov al, 0xff
            out dx, al
            hlt""")
        m.put(CODE + 0x100, b"hello")
        m.reply = 0xBEEF
        m.start()
        assert bytes(m.run_until_out(6)[:5]) == b"hello"
        assert m.ram[0x20000:0x20006] == b"\xef\xbe" * 3


def test_every_hole_reads_ones_and_loses_writes() -> None:
    """Memory above RAM and unclaimed ports answer all ones at every width, and a misaligned access too."""
    with machine() as m:
        m.long(f"""
            mov ebx, {RAM_SIZE}
            mov qword ptr [rbx], 0
            mov rax, [rbx + 3]
            inc rax
            out 0xe8, eax
            mov ebx, 0xfffff000
            movzx eax, word ptr [rbx + 0xffd]
            out 0xe8, eax
            mov dx, 0x7777
            in eax, dx
            out 0xe8, eax
            hlt""")
        m.start()
        assert m.run_until_out(3) == [0, 0xFFFF, 0xFFFFFFFF]


def test_access_that_straddles_the_end_of_ram() -> None:
    """The bytes in RAM are RAM's, the others all ones."""
    with machine() as m:
        m.put(RAM_SIZE - 2, b"\x34\x12")
        m.flat(f"mov eax, [{RAM_SIZE - 2}]\n out 0xe8, eax\n hlt")
        m.start()
        assert m.run_until_out() == [0xFFFF1234]


def test_unknown_msr_faults() -> None:
    """RDMSR and WRMSR of what does not exist are #GP; those Linux reads unconditionally are there."""
    with machine() as m:
        m.gate64(13, "mov al, 13\n out 0xe8, al\n add qword ptr [rsp + 8], 2\n add rsp, 8\n iretq")
        m.long("""
            mov ecx, 0x12345
            rdmsr
            mov ecx, 0x12345
            wrmsr
            mov ecx, 0x1b
            rdmsr
            out 0xe8, eax
            mov ecx, 0x10a
            rdmsr
            out 0xe8, al
            hlt""")
        m.start()
        out = m.run_until_out(4)
        assert out[:3] == [13, 13, 0xFEE00900]
        assert out[3] & 1


def test_msrs_from_the_host() -> None:
    """Those the engine keeps, those the core keeps, and the count that tells where a refusal was."""
    with machine() as m:
        msrs = ffi.new("core_msr[]", [(0xC0000082, 0x1234), (0x277, 0x0007040600070406), (0x48, 1), (0x9999, 0)])
        assert lib.core_vcpu_set_msrs(m.m, 0, msrs, 4) == 3
        got = ffi.new("core_msr[]", [(0xC0000082, 0), (0x277, 0), (0x48, 0)])
        assert lib.core_vcpu_get_msrs(m.m, 0, got, 3) == 3
        assert [msr.data for msr in got] == [0x1234, 0x0007040600070406, 1]


def test_interrupt_wakes_a_halted_processor() -> None:
    """A line raised by another thread wakes HLT and is delivered once per edge."""
    with machine() as m:
        m.gate64(0x41, f"mov al, 0x41\n out 0xe8, al\n mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n iretq")
        m.long(ENABLE_APIC_64 + "mov al, 1\n out 0xe8, al\n again: sti\n hlt\n jmp again")
        m.start()
        m.run_until_out(1)
        for n in range(100):
            assert lib.core_msi_send(m.m, 0xFEE00000, 0x41) == 0
            m.run_until_out(n + 2)
        assert m.out == [1] + [0x41] * 100


def test_interrupt_reaches_a_busy_processor() -> None:
    """A guest that never leaves its loop takes an interrupt too, and the loop is not disturbed."""
    with machine() as m:
        m.gate64(0x41, f"push rdi\n mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n out 0xe8, al\n pop rdi\n iretq")
        m.long(
            ENABLE_APIC_64
            + """
            xor eax, eax
            out 0xe8, al
            sti
            mov ecx, 0
            again: inc rcx
            mov rdx, rcx
            cmp rdx, rcx
            jne bad
            jmp again
            bad: mov al, 0xff
            out 0xe8, al
            hlt"""
        )
        m.start()
        m.run_until_out(1)
        for n in range(50):
            lib.core_msi_send(m.m, 0xFEE00000, 0x41)
            m.run_until_out(n + 2)
        assert m.out == [0] * 51


def test_apic_timer_ticks_at_its_rate() -> None:
    """A periodic timer of 1 ms gives a hundred ticks in about 100 ms, halted in between."""
    with machine() as m:
        m.gate64(0x42, f"inc r8\n mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n iretq")
        m.long(
            ENABLE_APIC_64
            + """
            mov dword ptr [rdi + 0x3e0], 0xb
            mov dword ptr [rdi + 0x320], 0x20042
            mov dword ptr [rdi + 0x380], 1000000
            again: sti
            hlt
            cmp r8, 100
            jb again
            out 0xe8, al
            cli
            hlt"""
        )
        started = time.monotonic()
        m.start()
        m.run_until_out(1)
        assert time.monotonic() - started >= 0.0985


def test_tsc_deadline_wakes_in_time() -> None:
    """The guest's counter is past the deadline when the interrupt comes, and the machine's clock is the counter."""
    with machine() as m:
        m.gate64(0x42, f"mov edi, {LAPIC}\n mov dword ptr [rdi + 0xb0], 0\n iretq")
        m.long(
            ENABLE_APIC_64
            + """
            mov dword ptr [rdi + 0x320], 0x40042
            mfence
            rdtsc
            shl rdx, 32
            or rax, rdx
            lea rbx, [rax + 5000000]
            mov rax, rbx
            mov rdx, rbx
            shr rdx, 32
            mov ecx, 0x6e0
            wrmsr
            sti
            hlt
            cli
            rdtsc
            shl rdx, 32
            or rax, rdx
            sub rax, rbx
            out 0xe8, eax
            hlt"""
        )
        m.start()
        late = m.run_until_out(1)[0]
        assert late < 5 * 10**9


def test_8259_and_8254_as_a_pc_starts() -> None:
    """Line 0 through the 8259 and LINT0 in virtual wire mode: what a guest without APIC code sees."""
    with machine() as m:
        m.gate64(0x20, "mov al, 0x20\n out 0x20, al\n inc r8\n iretq")
        m.long("""
            mov al, 0x11
            out 0x20, al
            mov al, 0x20
            out 0x21, al
            mov al, 4
            out 0x21, al
            mov al, 1
            out 0x21, al
            mov al, 0xfe
            out 0x21, al
            mov al, 0x34
            out 0x43, al
            mov al, 0xa9
            out 0x40, al
            mov al, 0x04
            out 0x40, al
            again: sti
            hlt
            cmp r8, 10
            jb again
            out 0xe8, al
            cli
            hlt""")
        m.start()
        m.run_until_out(1)


def test_nmi_reaches_a_processor_with_interrupts_off() -> None:
    """NMI wakes HLT with IF=0, and a second one waits for IRET."""
    with machine() as m:
        m.gate64(2, "mov al, 2\n out 0xe8, al\n iretq")
        m.long("mov al, 1\n out 0xe8, al\n cli\n again: hlt\n jmp again")
        m.start()
        m.run_until_out(1)
        for n in range(3):
            assert lib.core_vcpu_inject_nmi(m.m, 0) == 0
            m.run_until_out(n + 2)
        assert m.out == [1, 2, 2, 2]
