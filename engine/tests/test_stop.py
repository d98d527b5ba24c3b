"""Stops from other threads fall between two instructions and are never lost."""

from __future__ import annotations

import ctypes as c
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guest import DEBUG, HALT, KICK, LIB, RAX, RBP, RBX, YIELD, Machine, long_mode

STOPS = 20_000
COUNTER = 0x300000


@pytest.fixture(autouse=True)
def quick_threads() -> Iterator[None]:
    """Let the thread that stops and the one that runs change places often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Machine, int], int]:
    """Run a machine until it was stopped so often by a thread that does nothing else."""
    here = Path(__file__).parent
    made = tmp_path_factory.mktemp("storm") / "storm.so"
    flags = ["-O1", "-shared", "-fPIC", "-pthread", f"-I{here.parent / 'include'}"]
    subprocess.run(["cc", *flags, "-o", str(made), str(here / "storm.c")], check=True)
    library = c.CDLL(str(made))
    library.storm.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p, c.c_int]
    run, kick = (c.cast(entry, c.c_void_p) for entry in (LIB.aioemu_vcpu_run, LIB.aioemu_vcpu_kick))
    return lambda machine, stops: int(library.storm(machine.vcpu.handle, run, kick, stops))


def test_no_stop_doubles_a_read_modify_write(storm: Callable[[Machine, int], int]) -> None:
    """20,000 asynchronous stops on inc [mem]: a register and two memory words count in step at each of 40 ends."""
    with Machine() as machine:
        machine.long(f"mov rdi, {COUNTER}\nagain: inc rax\ninc qword ptr [rdi]\nadd qword ptr [rdi+8], 2\njmp again")
        for _ in range(40):
            assert storm(machine, STOPS // 40) == 0
            count, memory, double = machine.vcpu.state().gpr[RAX], machine.u64(COUNTER), machine.u64(COUNTER + 8)
            assert count == memory == double // 2
        assert count > STOPS // 2


def test_stops_do_not_disturb_string_instructions() -> None:
    """REP MOVSB goes on where it was stopped: every byte once."""
    size = 64 << 10
    copy = f"mov rsi, {0x400000}\nmov rdi, {0x500000}\nmov rcx, {size}\nrep movsb\n"
    source = f"mov rbx, 200\nnext: {copy}dec rbx\njnz next\nhlt"
    with Machine() as machine:
        machine.put(0x400000, bytes(range(256)) * (size // 256))
        machine.long(source)
        done = threading.Event()

        def kicker() -> None:
            while not done.is_set():
                machine.vcpu.kick()

        thread = threading.Thread(target=kicker)
        thread.start()
        while (reason := machine.vcpu.run().reason) == KICK:
            pass
        done.set()
        thread.join()
        assert reason == HALT
        assert machine.ram[0x500000 : 0x500000 + size] == bytes(range(256)) * (size // 256)


def test_kick_before_run_is_kept_and_counts_once() -> None:
    """However often a stopped vCPU is kicked, the next run alone returns for it."""
    with Machine() as machine:
        machine.long("mov rax, 1\nhlt")
        for _ in range(5):
            machine.vcpu.kick()
        assert machine.vcpu.run().reason == KICK
        assert machine.vcpu.state().gpr[RAX] == 0
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RAX] == 1


def test_halted_vcpu_stays_halted_until_there_is_work() -> None:
    """Running a halted vCPU returns at once and executes nothing."""
    with Machine() as machine:
        machine.long("hlt\nmov rax, 1\nhlt")
        for _ in range(3):
            assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RAX] == 0


def test_kick_from_a_callback_ends_the_run_after_the_instruction() -> None:
    """A device that stops the CPU from its port write sees the write completed, not repeated."""
    writes: list[int] = []

    def pio_write(_: object, port: int, size: int, value: int) -> None:
        writes.append(value)
        machine.vcpu.kick()

    with Machine(pio_write=pio_write) as machine:
        machine.long("mov al, 7\nout 0x80, al\njmp next\nnext: mov al, 8\nout 0x80, al\njmp end\nend: hlt")
        assert machine.vcpu.run().reason == KICK
        assert writes == [7]
        assert machine.vcpu.run().reason == KICK
        assert writes == [7, 8]
        assert machine.vcpu.run().reason == HALT


def test_callback_sees_the_exact_state_of_its_instruction() -> None:
    """In a callback the program counter is the access's own, also in the middle of a block."""
    seen: list[tuple[int, int, int]] = []

    def mmio_write(_: object, gpa: int, size: int, value: int) -> None:
        state = machine.vcpu.state()
        seen.append((state.rip, state.gpr[RBX], state.rflags & 1))

    with Machine(mmio_write=mmio_write) as machine:
        machine.put(0x3008, (0x80000000 | 0x83).to_bytes(8, "little"))
        source = "mov rdi, 0x1000000\nmov rbx, 5\nstc\nwrite: mov [rdi], rbx\nmov rbx, 6\nclc\nhlt"
        machine.long(source)
        machine.put64(0x3000 + 8 * 8, 0x1000000 | 0x83)
        assert machine.vcpu.run().reason == HALT
        assert seen == [(0x100000 + 15, 5, 1)]


def test_pause_yields_where_asked() -> None:
    """With yield_on_pause a spin-wait hint returns to the caller, who lets another vCPU run."""
    with Machine(yield_on_pause=1) as machine:
        machine.long("inc rax\npause\ninc rax\nhlt")
        assert machine.vcpu.run().reason == YIELD
        assert machine.vcpu.state().gpr[RAX] == 1
        assert machine.vcpu.run().reason == HALT


def test_step_executes_one_instruction_per_run() -> None:
    """A debugger's step ends after each instruction; taking it off runs on."""
    with Machine() as machine:
        machine.long("mov rax, 1\nmov rbx, 2\nmov rbp, 3\nhlt")
        LIB.aioemu_vcpu_set_step(machine.vcpu.handle, 1)
        for want in ((1, 0, 0), (1, 2, 0), (1, 2, 3)):
            assert machine.vcpu.run().reason == DEBUG
            state = machine.vcpu.state()
            assert (state.gpr[RAX], state.gpr[RBX], state.gpr[RBP]) == want
        LIB.aioemu_vcpu_set_step(machine.vcpu.handle, 0)
        assert machine.vcpu.run().reason == HALT


def test_breakpoint_stops_before_its_instruction() -> None:
    """The run ends with the program counter at the breakpoint, and goes on once it is removed."""
    with Machine() as machine:
        machine.long("nop\nnop\nmov rax, 1\nhlt")
        assert LIB.aioemu_vcpu_breakpoint(machine.vcpu.handle, 0x100002, 1) == 0
        out = machine.vcpu.run()
        assert (out.reason, out.address) == (DEBUG, 0x100002)
        assert machine.vcpu.state().gpr[RAX] == 0
        assert LIB.aioemu_vcpu_breakpoint(machine.vcpu.handle, 0x100002, 0) == 0
        assert machine.vcpu.run().reason == HALT


def test_vcpus_take_turns_on_one_engine() -> None:
    """Two vCPUs have their own registers and one memory; one may not start while the other runs."""
    with Machine(vcpus=2) as machine:
        first, second = machine.vcpus
        machine.long("mov rax, 1\nlock inc qword ptr [0x300000]\nhlt")
        long_mode(machine, second, 0x100000)
        assert first.run().reason == HALT
        assert second.run().reason == HALT
        assert machine.u64(COUNTER) == 2
        assert first.state().gpr[RAX] == second.state().gpr[RAX] == 1
