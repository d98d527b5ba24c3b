"""Exceptions are delivered by the CPU itself, in every mode, and what cannot be delivered is a shutdown."""

from __future__ import annotations

import pytest

from guest import (
    CS,
    GDT,
    HALT,
    IDT,
    IST1,
    KCS,
    KDS,
    LIB,
    RAX,
    RBX,
    RCX,
    RSP,
    SHUTDOWN,
    SS,
    STACK,
    UCS,
    UDS,
    USER_STACK,
    Machine,
    Segment,
    Table,
    assemble,
    check,
    handler,
)

START = 0x100000


@pytest.mark.parametrize(
    ("source", "vector", "error", "rip"),
    [
        ("xor eax, eax\ndiv eax", 0, None, START + 2),
        ("int3", 3, None, START + 1),
        ("nop\nud2", 6, None, START + 1),
        ("int 0x80", 0x80, None, START + 2),
        ("mov ax, 0x1238\nmov ds, ax", 13, 0x1238, START + 4),
        ("mov rax, 0x40000000\nmov al, [rax]", 14, 0, START + 7),
        ("mov rax, 0x40000000\nmov [rax], al", 14, 2, START + 7),
        ("mov rax, 0x4000000000000000\nmov al, [rax]", 13, 0, START + 10),
        ("mov rax, 0x40000000\njmp rax", 14, 16, 0x40000000),
        ("mov ecx, 0x12345\nrdmsr", 13, 0, START + 5),
        ("mov eax, 0x80000000\nmov cr0, rax", 13, 0, START + 5),
    ],
)
def test_kernel_exception_frame(source: str, vector: int, error: int | None, rip: int) -> None:
    """The handler finds SS:RSP, RFLAGS, CS:RIP and, where there is one, the error code."""
    with Machine() as machine:
        handler(machine, vector, "hlt")
        machine.long(source)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        frame = [machine.u64(state.gpr[RSP] + 8 * i) for i in range(6)]
        if error is not None:
            assert frame.pop(0) == error
        assert frame[:2] == [rip, KCS]
        assert frame[3:5] == [STACK, KDS]
        assert (state.seg[CS].selector, state.seg[SS].selector) == (KCS, KDS)


def test_page_fault_sets_cr2_and_returns() -> None:
    """A handler may map the page and retry: the instruction then completes, and a second fault is no double fault."""
    fix = "mov rcx, cr2\nadd rsp, 8\nmov rbx, 0x3200\nmov qword ptr [rbx], 0x87\ninc rdx\niretq"
    with Machine() as machine:
        handler(machine, 14, fix)
        touch = "mov al, [rdi]\n"
        machine.long(f"xor edx, edx\nmov rdi, 0x8000000\n{touch}mov qword ptr [0x3200], 0\ninvlpg [rdi]\n{touch}hlt")
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RCX], state.cr2, state.gpr[2]) == (0x8000000, 0x8000000, 2)


@pytest.mark.parametrize(("ist", "stack"), [(0, STACK), (1, IST1)])
def test_exception_from_user_mode_switches_stacks(ist: int, stack: int) -> None:
    """Ring 3 faults on the TSS's stack or the gate's IST, and IRETQ goes back to ring 3."""
    with Machine() as machine:
        handler(machine, 6, "mov rbx, rsp\nadd qword ptr [rsp], 2\niretq", ist=ist)
        handler(machine, 13, "hlt")
        machine.long("ud2\nmov ax, cs\nhlt", user=True)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert state.gpr[RBX] == stack - 40
        assert state.gpr[RAX] & 0xFFFF == UCS
        assert machine.u64(state.gpr[RSP]) == 0
        assert machine.u64(state.gpr[RSP] + 8) == START + 5


def test_software_interrupt_obeys_the_gate() -> None:
    """INT from ring 3 through a ring-0 gate is #GP with the vector's error code; through a ring-3 gate it works."""
    with Machine() as machine:
        handler(machine, 0x40, "hlt")
        handler(machine, 13, "mov rbx, [rsp]\nhlt")
        machine.long("int 0x40", user=True)
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RBX] == 0x40 * 8 + 2
        handler(machine, 0x40, "mov rbx, 77\nhlt", dpl=3)
        machine.long("int 0x40", user=True)
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RBX] == 77


def test_fault_while_delivering_is_a_double_fault() -> None:
    """#PF on the stack of a #PF handler's delivery reaches vector 8, on its own stack, with error code 0."""
    with Machine() as machine:
        handler(machine, 14, "hlt")
        handler(machine, 8, "mov rbx, [rsp]\nmov rcx, 88\nhlt", ist=1)
        machine.long("mov rsp, 0x40000000\nmov al, [0x50000000]")
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[RCX]) == (0, 88)


def test_triple_fault_is_a_shutdown_that_a_reset_ends() -> None:
    """With no way to deliver, the CPU shuts down, stays so, and runs again after a reset."""
    with Machine() as machine:
        machine.long("ud2")
        for _ in range(3):
            assert machine.vcpu.run().reason == SHUTDOWN
        assert machine.vcpu.state().shutdown == 1
        check(LIB.aioemu_x86_reset(machine.vcpu.handle, 0))
        machine.long("mov eax, 5\nhlt")
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RAX] == 5


def test_single_step_trap() -> None:
    """RFLAGS.TF traps after each instruction with DR6.BS."""
    with Machine() as machine:
        handler(machine, 1, "inc rbx\nmov rcx, dr6\niretq")
        on, off = "pushfq\nor qword ptr [rsp], 0x100\npopfq\n", "pushfq\nand qword ptr [rsp], ~0x100\npopfq\n"
        machine.long(f"{on}nop\nnop\nnop\n{off}hlt")
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert state.gpr[RBX] in (6, 7)
        assert state.gpr[RCX] & 0x4000


def test_hardware_breakpoint() -> None:
    """DR0/DR7 stop at an instruction with #DB before it runs; RF lets it pass."""
    with Machine() as machine:
        handler(machine, 1, "inc rbx\nmov rcx, dr6\nor qword ptr [rsp+16], 0x10000\niretq")
        machine.long("lea rax, [rip+there]\nmov dr0, rax\nmov eax, 2\nmov dr7, rax\nnop\nthere: mov edx, 9\nhlt")
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[RCX] & 15, state.gpr[2]) == (1, 1, 9)


def test_syscall_and_sysret() -> None:
    """SYSCALL saves RIP and RFLAGS, masks flags, loads the flat segments; SYSRET goes back to ring 3."""
    kernel = "mov r8, rcx\nmov r9, r11\npushfq\npop r10\nmov ax, cs\nmov bx, ss\nsysretq"
    with Machine() as machine:
        machine.put(0x210000, assemble(kernel, 0x210000))
        handler(machine, 6, "hlt")
        machine.long("stc\nstd\nmov rdx, rsp\nsyscall\nafter: mov r12w, cs\nmov r13w, ss\nud2", user=True)
        state = machine.vcpu.state()
        state.lstar, state.fmask = 0x210000, 0x700
        state.star = (KCS << 32) | (0x10 << 48)
        machine.vcpu.set(state)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert state.gpr[8] == START + 7
        assert state.gpr[9] & 0xCD5 == 0x401
        assert state.gpr[10] & 0xCD5 == 0x001
        assert (state.gpr[RAX] & 0xFFFF, state.gpr[RBX] & 0xFFFF) == (KCS, KDS)
        assert (state.gpr[12] & 0xFFFF, state.gpr[13] & 0xFFFF) == (UCS, UDS)


def test_syscall_is_undefined_without_sce() -> None:
    """EFER.SCE clear: #UD."""
    with Machine() as machine:
        handler(machine, 6, "mov ebx, 6\nhlt")
        machine.long("syscall")
        state = machine.vcpu.state()
        state.efer &= ~1
        machine.vcpu.set(state)
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RBX] == 6


def protected(machine: Machine, source: str) -> None:
    """Start in 32-bit protected mode without paging, IDT of 8-byte gates."""
    machine.put(START, assemble(source, START, 32))
    machine.put64(GDT, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
    state = machine.vcpu.state()
    state.cr0, state.cr4, state.efer = 0x11, 0, 0
    for i in range(6):
        state.seg[i] = Segment(0, 0xFFFFFFFF, KDS, 0xC093)
    state.seg[CS] = Segment(0, 0xFFFFFFFF, KCS, 0xC09B)
    state.gdt, state.idt = Table(GDT, 0x17), Table(IDT, 0x7FF)
    state.rip, state.gpr[RSP], state.rflags, state.halted = START, STACK, 2, 0
    machine.vcpu.set(state)


def test_protected_mode_exception_and_return() -> None:
    """32-bit gates, frames and IRET; the error code is 32 bits."""
    at = 0x220000
    with Machine() as machine:
        machine.put(at, assemble("pop ebx\nadd dword ptr [esp], 2\niret", at, 32))
        machine.put64(IDT + 8 * 13, (at & 0xFFFF) | KCS << 16 | 0x8E00 << 32 | (at >> 16) << 48)
        protected(machine, "mov ax, 0x1238\nmov ds, ax\nmov ecx, 7\nhlt")
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX], state.gpr[RCX], state.gpr[RSP]) == (0x1238, 7, STACK)


def test_real_mode_interrupt_and_return() -> None:
    """INT uses the vector table at IDTR, a 16-bit frame, and IRET."""
    with Machine() as machine:
        machine.put(0x9000, assemble("mov bx, 0x77\niret", 0x9000, 16))
        machine.put(0x21 * 4, (0x9000).to_bytes(4, "little"))
        machine.real("int 0x21\nmov cx, 3\nhlt")
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RBX] & 0xFFFF, state.gpr[RCX] & 0xFFFF, state.gpr[RSP]) == (0x77, 3, 0x7000)


def test_real_to_long_mode_by_the_guest_itself() -> None:
    """A boot loader's way: PE, far jump, PAE, LME, PG, far jump, 64-bit code."""
    source = """
        lgdt [gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        .byte 0xea
        .word protected, 8
    gdtr: .word 0x27
        .long 0x4000
    .code32
    protected:
        mov ax, 0x10
        mov ds, ax
        mov ss, ax
        mov eax, 0x20
        mov cr4, eax
        mov eax, 0x1000
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        .byte 0xea
        .long long
        .word 0x18
    .code64
    long: mov rax, 0x1122334455667788
        hlt
    """
    with Machine() as machine:
        machine.put64(0x1000, 0x2007)
        machine.put64(0x2000, 0x3007)
        machine.put64(0x3000, *[(i << 21) | 0x87 for i in range(8)])
        machine.put64(GDT, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF)
        machine.real(source)
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert state.gpr[RAX] == 0x1122334455667788
        assert state.efer & 0x500 == 0x500


def test_power_on_state_and_startup_ipi() -> None:
    """Reset starts at fffffff0; SIPI starts in real mode at its vector's page; INIT keeps the FPU."""
    with Machine() as machine:
        state = machine.vcpu.state()
        assert (state.rip, state.seg[CS].base, state.seg[CS].selector) == (0xFFF0, 0xFFFF0000, 0xF000)
        assert (state.cr0, state.cr4, state.efer, state.rflags, state.xcr0) == (0x60000010, 0, 0, 2, 1)
        machine.put(0x9000, assemble("mov ax, cs\nhlt", 0, 16))
        state.fxsave[160] = 0x5A
        machine.vcpu.set(state)
        check(LIB.aioemu_x86_reset(machine.vcpu.handle, 1))
        check(LIB.aioemu_x86_sipi(machine.vcpu.handle, 9))
        assert machine.vcpu.run().reason == HALT
        state = machine.vcpu.state()
        assert (state.gpr[RAX] & 0xFFFF, state.fxsave[160]) == (0x900, 0x5A)


def test_injected_exception_and_interrupt() -> None:
    """The host may deliver an event before the next instruction; a second one has to wait."""
    with Machine() as machine:
        handler(machine, 18, "mov ebx, 18\nhlt")
        handler(machine, 0x50, "mov ebx, 0x50\nhlt")
        machine.long("mov ecx, 1\nhlt")
        check(LIB.aioemu_x86_inject(machine.vcpu.handle, 18, 0, 0))
        assert LIB.aioemu_x86_inject(machine.vcpu.handle, 18, 0, 0) < 0
        machine.vcpu.run()
        assert (machine.vcpu.state().gpr[RBX], machine.vcpu.state().gpr[RCX]) == (18, 0)
        check(LIB.aioemu_x86_inject(machine.vcpu.handle, 0x50, 0, 1))
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RBX] == 0x50


def test_user_stack_is_left_alone() -> None:
    """Nothing of a ring-3 fault is pushed on the ring-3 stack."""
    with Machine() as machine:
        handler(machine, 6, "hlt")
        machine.long("ud2", user=True)
        machine.vcpu.run()
        assert machine.ram[USER_STACK - 64 : USER_STACK] == bytes(64)
