"""Whatever a guest does to its own CPU, this process and the other engines go on."""

from __future__ import annotations

import ctypes as c
import errno
import os
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from guest import (
    CS,
    HALT,
    IDT,
    KICK,
    LIB,
    PD,
    PML4,
    RAM_SIZE,
    RAX,
    RBX,
    SHUTDOWN,
    STACK,
    Machine,
    Segment,
    assemble,
    handler,
    long_mode,
)

START = 0x100000
LIMIT_S = 2.0


def run_for(machine: Machine, seconds: float = LIMIT_S) -> int:
    """Run until the guest ends or the time is over; the reason."""
    timer = threading.Timer(seconds, machine.vcpu.kick)
    timer.start()
    try:
        return int(machine.vcpu.run().reason)
    finally:
        timer.cancel()


@pytest.mark.parametrize(
    "source",
    [
        "mov rax, 0x0123456789abc000\nmov cr3, rax\nnop",
        "mov rax, 0xfffffffffffff000\nmov cr3, rax\nnop",
        "mov rax, 0xfee00000\nmov cr3, rax\nnop",
        "push 0\npush 0\nlidt [rsp]\nint3",
        "push -1\npush -1\nlidt [rsp]\nint3",
        "push 0\npush 0\nlgdt [rsp]\nmov ax, 0x10\nmov ss, ax\nud2",
        "mov ax, 0x28\nltr ax\nint3",
        "mov rsp, 0x8000000000000000\npush rax",
        "mov rsp, 1\nint3",
        "xor eax, eax\nmov ss, ax\niretq",
        "push -1\npush -1\npush -1\npush -1\npush -1\niretq",
        "push -1\npush -1\nretfq",
        "mov rax, 0x20\nmov cr4, rax\nmov rax, 0x60\nmov cr4, rax\nmov rax, ~0\nmov cr4, rax",
        "mov eax, 1\nmov cr0, rax\nmov cr3, rax\nud2",
        "mov ecx, 0xc0000080\nxor eax, eax\nxor edx, edx\nwrmsr",
        "mov rax, 0x00ffffffffffffff\nmov dr7, rax\nmov dr0, rax\nmov dr6, rax\nint1",
        "mov ecx, 0\nmov eax, ~0\nmov edx, ~0\nxsetbv",
        "vmcall\nvmrun\nrsm\nskinit",
        "mov rdi, cr3\nmov qword ptr [rdi], 0\nmov cr3, rdi\nnop",
        "lldt [rsp]\nsldt rax\nverr ax\nlar eax, eax\nlsl eax, eax\nud2",
    ],
)
def test_broken_tables_end_in_shutdown_or_go_on(source: str) -> None:
    """Garbage in CR3, IDT, GDT, TSS, stacks and MSRs: a shutdown, a halt or an endless guest, never our end."""
    with Machine() as machine:
        machine.long(source + "\nforever: jmp forever")
        assert run_for(machine, 0.3) in (SHUTDOWN, HALT, KICK)


def test_task_register_without_a_task_is_a_fault() -> None:
    """A ring-3 fault with no TSS to take a stack from is a shutdown."""
    with Machine() as machine:
        handler(machine, 6, "hlt")
        machine.long("ud2", user=True)
        state = machine.vcpu.state()
        state.tr = Segment(0, 0, 0, 0)
        machine.vcpu.set(state)
        assert run_for(machine) == SHUTDOWN


def test_gates_of_every_type_are_survived() -> None:
    """Each of the 256 values of a gate's type byte, with selectors and limits at random."""
    rng = random.Random(7)
    with Machine() as machine:
        for kind in range(256):
            for vector in (3, 8, 11, 12, 13, 14, 10):
                machine.put64(IDT + 16 * vector, rng.getrandbits(64) & ~(0xFF << 40) | kind << 40, rng.getrandbits(32))
            machine.long("int3\nhlt")
            assert run_for(machine, 0.2) in (SHUTDOWN, HALT, KICK)


def test_jump_into_a_device_reads_the_bus() -> None:
    """Code fetched from a device: each instruction read from it anew; open bus is FF FF, an undefined instruction."""
    program = assemble("mov eax, 0x1234\ninc eax\nhlt", 0)
    fetched: list[int] = []

    def mmio_read(_: object, gpa: int, size: int) -> int:
        fetched.append(gpa)
        offset = gpa - 0x1000000
        return int.from_bytes(program[offset : offset + size].ljust(size, b"\xff"), "little")

    with Machine(mmio_read=mmio_read) as machine:
        machine.long("mov rax, 0x1000000\njmp rax")
        machine.put64(PD + 8 * 8, 0x1000000 | 0x87)
        assert run_for(machine) == HALT
        assert machine.vcpu.state().gpr[RAX] == 0x1235
        assert min(fetched) == 0x1000000
    with Machine() as machine:
        handler(machine, 6, "mov rbx, [rsp]\nhlt")
        machine.long("mov rax, 0x1000000\njmp rax")
        machine.put64(PD + 8 * 8, 0x1000000 | 0x87)
        assert run_for(machine) == HALT
        assert machine.vcpu.state().gpr[RBX] == 0x1000000


def test_running_off_the_end_of_ram() -> None:
    """The last page is full of NOPs, one instruction crosses its end: the guest gets a fault, or runs on the bus."""
    end = RAM_SIZE
    with Machine() as machine:
        handler(machine, 6, "mov rbx, [rsp]\nhlt")
        machine.put(end - 4096, b"\x90" * 4096)
        machine.long(f"mov rax, {end - 4096}\njmp rax")
        machine.put64(PD + 8 * (end >> 21), end | 0x87)
        assert run_for(machine) == HALT
        assert machine.vcpu.state().gpr[RBX] == end
        machine.put(end - 1, b"\xff")
        long_mode(machine, machine.vcpu, START)
        machine.put64(PD + 8 * (end >> 21), end | 0x87)
        assert run_for(machine) == HALT
        assert machine.vcpu.state().gpr[RBX] == end - 1


def test_read_modify_write_of_a_device() -> None:
    """LOCK on a device register reads and writes it; nothing stops."""
    log: list[str] = []

    def mmio_read(*_: object) -> int:
        log.append("r")
        return 5

    def mmio_write(_: object, gpa: int, size: int, value: int) -> None:
        log.append(f"w{value}")

    locked = "lock inc dword ptr [rdi]\nmov eax, 9\nxchg [rdi], eax\nlock cmpxchg16b [rdi]\n"
    with Machine(mmio_read=mmio_read, mmio_write=mmio_write) as machine:
        machine.long(f"mov rdi, 0x1000000\n{locked}hlt")
        machine.put64(PD + 8 * 8, 0x1000000 | 0x87)
        assert run_for(machine) == HALT
        assert log[:4] == ["r", "w6", "r", "w9"]


def test_page_tables_in_a_device() -> None:
    """CR3 in device space: the walk reads it and finds nothing; the process lives."""
    states: list[int] = []

    def mmio_read(*_: object) -> int:
        states.append(machine.vcpu.state().rip)
        return 0x1000007

    with Machine(mmio_read=mmio_read) as machine:
        machine.long("mov rax, 0x1000000\nmov cr3, rax\nnop\nhlt")
        assert run_for(machine, 0.3) in (SHUTDOWN, HALT, KICK)
        assert states


def test_page_tables_in_read_only_memory() -> None:
    """Accessed bits that cannot be written are left alone; the walk goes on."""
    tables = (c.c_uint8 * (2 * 4096))()
    host = (c.addressof(tables) + 4095) & -4096
    at = 0x2000000
    with Machine() as machine:
        (c.c_uint64 * 1).from_address(host)[0] = 0x2007
        assert LIB.aioemu_engine_map(machine.engine, at, 4096, host, 1) == 0
        machine.long(f"mov eax, {at}\nmov cr3, rax\nmov ebx, 5\nhlt")
        assert run_for(machine) == HALT
        assert machine.vcpu.state().gpr[RBX] == 5
        assert (c.c_uint64 * 1).from_address(host)[0] == 0x2007


def test_debug_registers_of_one_vcpu_do_not_stop_another() -> None:
    """vCPU 0's hardware breakpoint is its own, whoever translated the code first."""
    with Machine(vcpus=2) as machine:
        handler(machine, 1, "inc rbp\nor qword ptr [rsp+16], 0x10000\niretq")
        source = "mov ecx, 100\nagain: nop\nthere: inc rbx\nloop again\nhlt"
        machine.long(source)
        for order in ((0, 1), (1, 0)):
            for i in order:
                vcpu = machine.vcpus[i]
                long_mode(machine, vcpu, START)
                state = vcpu.state()
                state.gpr[5] = state.gpr[RBX] = 0
                state.dr[0], state.dr[7] = START + 6, 0x402 if i == 0 else 0x400
                vcpu.set(state)
                assert vcpu.run().reason == HALT
                assert (vcpu.state().gpr[RBX], vcpu.state().gpr[5]) == (100, 100 if i == 0 else 0)


def test_no_memory_for_the_code_cache_is_an_error() -> None:
    """Under a limit on address space, creation fails with ENOMEM; the process goes on."""
    program = """
        import ctypes as c, resource, sys
        from guest import LIB, Callbacks, Config
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
        config = Config(size=c.sizeof(Config), arch=1)
        config.callbacks.size = c.sizeof(Callbacks)
        sys.exit(-LIB.aioemu_engine_create(c.byref(config), c.byref(c.c_void_p())))
    """
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=here, env=os.environ)
    assert done.returncode == errno.ENOMEM


def test_guest_that_rewrites_its_running_page() -> None:
    """Code that stores over itself all the time is slow, and right."""
    with Machine() as machine:
        body = "mov byte ptr [rip+patch+2], cl\npatch: .byte 0x83, 0xc0, 0\nadd ebx, 1\n"
        machine.long(f"mov ecx, 3000\nagain: {body}dec ecx\njnz again\nhlt")
        assert run_for(machine, 20) == HALT
        state = machine.vcpu.state()
        total = sum((i & 0xFF) - (256 if i & 0x80 else 0) for i in range(1, 3001))
        assert (state.gpr[RAX] & 0xFFFFFFFF, state.gpr[RBX]) == (total & 0xFFFFFFFF, 3000)


@pytest.mark.parametrize("seed", range(40))
def test_random_code_in_ring_0(seed: int) -> None:
    """Random bytes as kernel code, with working and with no exception handlers."""
    rng = random.Random(seed)
    with Machine(interrupt=lambda _: rng.randrange(256)) as machine:
        for vector in range(32) if seed % 2 else ():
            handler(machine, vector, "iretq" if vector not in (8, 10, 11, 12, 13, 14, 17) else "add rsp, 8\niretq")
        machine.put(0x400000, rng.randbytes(1 << 20))
        machine.long("mov rax, 0x400000\njmp rax")
        for _ in range(20):
            LIB.aioemu_vcpu_request_interrupt(machine.vcpu.handle)
            reason = run_for(machine, 0.05)
            assert reason in (SHUTDOWN, HALT, KICK)
            state = machine.vcpu.state()
            state.rip, state.halted, state.shutdown = 0x400000 + rng.randrange(1 << 20), 0, 0
            state.gpr[4], state.cr3, state.cr0, state.cr4, state.efer = STACK, PML4, 0x80010033, 0x620, 0xD01
            state.seg[CS] = Segment(0, 0xFFFFFFFF, 8, 0xA09B)
            machine.vcpu.set(state)


@pytest.mark.parametrize("seed", range(10))
def test_random_code_in_real_mode(seed: int) -> None:
    """Random bytes in real mode, whose vector table is random too."""
    rng = random.Random(seed)
    with Machine() as machine:
        machine.put(0, rng.randbytes(1 << 20))
        machine.real("nop", 0x8000)
        machine.put(0x8001, rng.randbytes(4096))
        assert run_for(machine, 0.3) in (SHUTDOWN, HALT, KICK)


def test_engines_are_independent() -> None:
    """Eight engines on eight threads, one of which triple-faults over and over, count to the same number."""
    totals: list[int] = []

    def work(bad: bool) -> None:
        with Machine() as machine:
            for _ in range(20):
                machine.long("ud2" if bad else "mov ecx, 20000\nagain: inc rbx\nloop again\nhlt")
                assert machine.vcpu.run().reason == (SHUTDOWN if bad else HALT)
            if not bad:
                totals.append(machine.vcpu.state().gpr[RBX])

    threads = [threading.Thread(target=work, args=(i == 3,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [400000] * 7


def test_code_cache_that_fills_again_and_again() -> None:
    """With room for a few blocks only, the guest runs slowly and rightly."""
    blocks = 2000
    body = "".join(f"add rbx, {i}\njmp b{i}\nb{i}:\n" for i in range(blocks))
    with Machine(code_cache_bytes=1 << 20) as machine:
        machine.long(f"mov ecx, 30\nagain:\n{body}dec ecx\njnz again\nhlt")
        assert run_for(machine, 30) == HALT
        assert machine.vcpu.state().gpr[RBX] == 30 * sum(range(blocks))
