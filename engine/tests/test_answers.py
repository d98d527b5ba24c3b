"""What the machine answers: ports, devices, MSRs, CR8, CPUID, the time stamp counter."""

from __future__ import annotations

import ctypes as c
from typing import Any

import pytest

from guest import HALT, LIB, PD, RAX, RBX, RCX, RDX, TSS, Machine, X86State, check, handler

DEVICE = 0x1000000


def test_port_access_sizes_and_order() -> None:
    """IN and OUT of 1, 2, 4 bytes, immediate and DX, and string forms element by element."""
    log: list[tuple[Any, ...]] = []

    def pio_read(_: object, port: int, size: int) -> int:
        log.append(("r", port, size))
        return 0x11223344

    def pio_write(_: object, port: int, size: int, value: int) -> None:
        log.append(("w", port, size, value))

    source = """
        mov dx, 0x3f8
        mov eax, 0x89abcdef
        out dx, al
        out 0x42, ax
        out dx, eax
        xor eax, eax
        in al, dx
        mov ebx, eax
        in eax, dx
        mov rsi, offset text
        mov ecx, 3
        rep outsb
        mov rdi, 0x300000
        mov ecx, 2
        rep insw
        hlt
        text: .ascii "abc"
    """
    with Machine(pio_read=pio_read, pio_write=pio_write) as machine:
        machine.long(source)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[RAX]) == (0x44, 0x11223344)
        assert log == [
            ("w", 0x3F8, 1, 0xEF),
            ("w", 0x42, 2, 0xCDEF),
            ("w", 0x3F8, 4, 0x89ABCDEF),
            ("r", 0x3F8, 1),
            ("r", 0x3F8, 4),
            *[("w", 0x3F8, 1, byte) for byte in b"abc"],
            ("r", 0x3F8, 2),
            ("r", 0x3F8, 2),
        ]
        assert machine.u64(0x300000) == 0x33443344


@pytest.mark.parametrize(
    ("bitmap", "iopl", "allowed"),
    [(b"\xff\xff", 0, False), (b"\xfe\xff", 0, True), (b"\xff\xff", 3, True), (None, 0, False)],
)
def test_port_permission_in_ring_3(bitmap: bytes | None, iopl: int, allowed: bool) -> None:
    """Ring 3 may use a port if IOPL allows or its bit in the TSS is clear; otherwise #GP, and no device sees it."""
    seen: list[int] = []
    with Machine(pio_write=lambda _, port, size, value: seen.append(port)) as machine:
        handler(machine, 13, "mov rbx, 13\nhlt")
        handler(machine, 6, "mov rbx, 6\nhlt")
        machine.long("out 0x80, al\nud2", user=True)
        state = machine.vcpu.state()
        state.rflags |= iopl << 12
        if bitmap is None:
            state.tr.limit = 0x60
        else:
            machine.put(TSS + 0x68 + 0x10, bitmap)
        machine.vcpu.set(state)
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RBX] == (6 if allowed else 13)
        assert seen == ([0x80] if allowed else [])


def test_device_access_sizes_and_misalignment() -> None:
    """Each access arrives once with its size; a misaligned one byte by byte, and no neighbour is touched."""
    log: list[tuple[Any, ...]] = []

    def mmio_read(_: object, gpa: int, size: int) -> int:
        log.append(("r", gpa - DEVICE, size))
        return 0x8877665544332211 >> 8 * (gpa & 7)

    def mmio_write(_: object, gpa: int, size: int, value: int) -> None:
        log.append(("w", gpa - DEVICE, size, value))

    source = f"""
        mov rdi, {DEVICE}
        mov rax, 0x0102030405060708
        mov [rdi], al
        mov [rdi+2], ax
        mov [rdi+4], eax
        mov [rdi+8], rax
        mov bl, [rdi]
        mov bx, [rdi+2]
        mov ebx, [rdi+4]
        mov rcx, [rdi+8]
        mov edx, [rdi+1]
        mov [rdi+3], ax
        hlt
    """
    with Machine(mmio_read=mmio_read, mmio_write=mmio_write) as machine:
        machine.long(source)
        machine.put64(PD + 8 * (DEVICE >> 21), DEVICE | 0x87)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RCX], state.gpr[RDX]) == (0x8877665544332211, 0x55443322)
        aligned = [(0, 1, 8), (2, 2, 0x0708), (4, 4, 0x05060708), (8, 8, 0x0102030405060708)]
        assert log == [
            *[("w", *one) for one in aligned],
            *[("r", offset, size) for offset, size, _ in aligned],
            *[("r", offset, 1) for offset in (1, 2, 3, 4)],
            ("w", 3, 1, 8),
            ("w", 4, 1, 7),
        ]


def test_no_callbacks_read_as_open_bus() -> None:
    """Without callbacks ports and devices read as ones and writes are lost."""
    with Machine() as machine:
        machine.long(f"mov rdi, {DEVICE}\nmov rbx, [rdi]\nmov [rdi], rbx\nin eax, 0x80\nout 0x80, eax\nhlt")
        machine.put64(PD + 8 * (DEVICE >> 21), DEVICE | 0x87)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[RAX]) == ((1 << 64) - 1, 0xFFFFFFFF)


def test_msrs_of_the_machine() -> None:
    """MSRs the engine does not keep go to the callbacks; their refusal is #GP(0) at the instruction."""
    written: list[tuple[int, int]] = []

    def msr_read(_: object, msr: int, value: Any) -> int:
        value[0] = 0x1234500006789 + msr
        return 0 if msr in (0x1B, 0x803) else -1

    def msr_write(_: object, msr: int, value: int) -> int:
        written.append((msr, value))
        return -1 if msr == 0x999 else 0

    with Machine(msr_read=msr_read, msr_write=msr_write) as machine:
        handler(machine, 13, "inc r15\nadd rsp, 8\nadd qword ptr [rsp], 2\niretq")
        machine.long("mov ecx, 0x803\nrdmsr\nmov ebx, eax\nwrmsr\nmov ecx, 0x999\nrdmsr\nwrmsr\nhlt")
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[RDX], state.gpr[15]) == (0x6789 + 0x803, 0x12345, 2)
        assert written[0] == (0x803, 0x1234500006F8C)


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        (0xC0000080, 1 << 40),
        (0xC0000080, 0),
        (0xC0000082, 1 << 60),
        (0xC0000100, 0x800000000000),
        (0x277, 0x0707070707070702),
        (0x176, 1 << 63 | 1),
    ],
)
def test_values_no_cpu_takes_are_refused(msr: int, value: int) -> None:
    """Reserved EFER bits, LME while paging, non-canonical bases, unknown memory types: #GP and nothing changed."""
    with Machine() as machine:
        handler(machine, 13, "mov ebx, 13\nhlt")
        machine.long(f"mov ecx, {msr}\nmov eax, {value & 0xFFFFFFFF}\nmov edx, {value >> 32}\nwrmsr\nhlt")
        before = machine.vcpu.state()
        machine.vcpu.run()
        after = machine.vcpu.state()
        assert after.gpr[RBX] == 13
        assert (after.efer, after.lstar, after.pat) == (before.efer, before.lstar, before.pat)


def test_cr8_is_the_machines() -> None:
    """MOV CR8 reads and writes the controller's priority."""
    written: list[int] = []
    with Machine(cr8_read=lambda _: 9, cr8_write=lambda _, value: written.append(value)) as machine:
        machine.long("mov rbx, cr8\nmov eax, 5\nmov cr8, rax\nhlt")
        machine.vcpu.run()
        assert (machine.vcpu.state().gpr[RBX], written) == (9, [5])


def test_cpuid_is_filtered_by_the_machine() -> None:
    """The callback sees the engine's answer and may change it; the model offers only what the state can carry."""
    seen: dict[int, list[int]] = {}

    def cpuid(_: object, leaf: int, subleaf: int, regs: Any) -> None:
        seen[leaf] = list(regs[:4])
        regs[2] |= 1 << 31

    with Machine(cpuid=cpuid) as machine:
        machine.long("mov eax, 1\ncpuid\nmov r8, rcx\nmov eax, 0x80000001\ncpuid\nmov eax, 7\nxor ecx, ecx\ncpuid\nhlt")
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[8] >> 31 & 1
        assert seen[1][2] & (1 << 19 | 1 << 20) == 1 << 19 | 1 << 20  # SSE4.1, SSE4.2
        assert not seen[1][2] & 1 << 28  # AVX
        assert not seen[0x80000001][2] & 1 << 2  # SVM
        assert not seen[7][1] & 1 << 14  # MPX


def test_time_stamp_counter_is_the_machines_clock() -> None:
    """RDTSC, RDTSCP and the MSR read the callback's clock plus an offset the guest may write."""
    with Machine(counter=lambda _: 1_000_000) as machine:
        machine.long("rdtsc\nmov ebx, eax\nmov ecx, 0x10\nmov eax, 5\nxor edx, edx\nwrmsr\nrdtscp\nmov esi, eax\nhlt")
        machine.vcpu.run()
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[6]) == (1_000_000, 5)
        assert state.tsc_offset == 5 - 1_000_000 + (1 << 64)


def test_state_round_trip() -> None:
    """What get gives, set takes, and get gives again; a guest's FPU and SSE registers are in it."""
    with Machine() as machine:
        machine.long("fld1\nfldpi\nmov eax, 0x1f80\npush rax\nldmxcsr [rsp]\nmovd xmm3, eax\nhlt")
        machine.vcpu.run()
        before = machine.vcpu.state()
        assert int.from_bytes(bytes(before.fxsave[160 + 48 : 160 + 52]), "little") == 0x1F80
        assert bytes(before.fxsave[32:42]) == bytes.fromhex("35c26821a2da0fc90040")  # pi on top
        assert bytes(before.fxsave[48:58]) == bytes.fromhex("0000000000000080ff3f")
        machine.vcpu.set(before)
        after = machine.vcpu.state()
        assert bytes(before) == bytes(after)


def test_impossible_states_are_refused() -> None:
    """Paging without protection, long mode without PAE, reserved EFER bits: -EINVAL, nothing changed."""
    with Machine() as machine:
        machine.long("hlt")
        for change in ({"cr0": 0x80000000}, {"cr4": 0}, {"efer": 1 << 30}, {"efer": 0x100}, {"size": 8}):
            state = machine.vcpu.state()
            for name, value in change.items():
                setattr(state, name, value)
            assert LIB.aioemu_x86_set_state(machine.vcpu.handle, c.byref(state)) < 0
        assert machine.vcpu.run().reason == HALT


def test_translate_follows_the_page_tables() -> None:
    """As the debugger needs it, without touching accessed bits."""
    out = c.c_uint64()
    with Machine() as machine:
        machine.long("hlt")
        machine.put64(PD + 8 * 40, 0x400000 | 0x81)
        check(LIB.aioemu_vcpu_translate(machine.vcpu.handle, (40 << 21) + 0x1234, c.byref(out)))
        assert out.value == 0x401234
        assert machine.u64(PD + 8 * 40) == 0x400081
        assert LIB.aioemu_vcpu_translate(machine.vcpu.handle, 1 << 40, c.byref(out)) < 0


def test_structure_size_is_the_librarys() -> None:
    """The header's structure and this file's are the same."""
    with Machine() as machine:
        assert machine.vcpu.state().size == c.sizeof(X86State)
