"""AArch64: exceptions, interrupt lines, timers and calls as a machine without EL2 and EL3 needs them."""

from __future__ import annotations

import ctypes as c
import random
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from guest import HALT, KICK, LIB, A64State, Machine, check

AS = "aarch64-linux-gnu-as"
pytestmark = pytest.mark.skipif(not shutil.which(AS), reason=f"needs {AS} (binutils-aarch64-linux-gnu)")

START, VECTORS, STACK, DEVICE = 0x100000, 0x200000, 0x80000, 0x40000000
SYNC, IRQ = 0x200, 0x280
EL1H = 5


def sysreg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


VBAR_EL1, ESR_EL1, FAR_EL1 = sysreg(3, 0, 12, 0, 0), sysreg(3, 0, 5, 2, 0), sysreg(3, 0, 6, 0, 0)
CNTFRQ_EL0, MPIDR_EL1, CNTV_CVAL = sysreg(3, 3, 14, 0, 0), sysreg(3, 0, 0, 0, 5), sysreg(3, 3, 14, 3, 2)


def code(source: str) -> bytes:
    with tempfile.TemporaryDirectory() as where:
        text, obj, out = (Path(where) / name for name in ("a.s", "a.o", "a.bin"))
        text.write_text(source + "\n")
        subprocess.run([AS, "-o", obj, text], check=True)
        subprocess.run(["aarch64-linux-gnu-objcopy", "-O", "binary", obj, out], check=True)
        return out.read_bytes()


class Arm(Machine):
    """An AArch64 engine; the vectors at VECTORS."""

    arch = 2

    def get(self) -> A64State:
        out = A64State(size=c.sizeof(A64State))
        check(LIB.aioemu_a64_get_state(self.vcpu.handle, c.byref(out)))
        return out

    def set(self, state: A64State) -> None:
        check(LIB.aioemu_a64_set_state(self.vcpu.handle, c.byref(state)))

    def reg(self, encoding: int) -> int:
        out = c.c_uint64()
        check(LIB.aioemu_a64_get_sysreg(self.vcpu.handle, encoding, c.byref(out)))
        return out.value

    def start(self, source: str, **vectors: str) -> None:
        """Start at EL1 with the MMU off; vectors by name: sync, irq."""
        self.put(START, code(source))
        for name, text in vectors.items():
            self.put(VECTORS + {"sync": SYNC, "irq": IRQ, "lower": 0x400}[name], code(text))
        check(LIB.aioemu_a64_reset(self.vcpu.handle))
        check(LIB.aioemu_a64_set_sysreg(self.vcpu.handle, VBAR_EL1, VECTORS))
        state = self.get()
        state.pc, state.pstate, state.sp_el1 = START, 0x3C0 | EL1H, STACK
        self.set(state)


def test_runs_and_halts() -> None:
    """Power-on is EL1 with interrupts masked; WFI halts behind itself."""
    with Arm() as machine:
        assert machine.get().pstate == 0x3C0 | EL1H
        machine.start("mov x0, #5\nadd x1, x0, #1\nwfi\nmov x1, #9")
        assert machine.vcpu.run().reason == HALT
        state = machine.get()
        assert (state.x[0], state.x[1], state.pc, state.halted) == (5, 6, START + 12, 1)


@pytest.mark.parametrize(
    ("source", "klass"),
    [("svc #0x1234", 0x15), ("brk #7", 0x3C), (".word 0", 0x00), ("mrs x0, s3_7_c15_c15_7", 0x00)],
)
def test_synchronous_exception(source: str, klass: int) -> None:
    """SVC, BRK, undefined instructions: ESR, ELR, SPSR and the vector."""
    with Arm() as machine:
        machine.start(f"nop\n{source}\nwfi", sync="mov x5, #1\nwfi")
        assert machine.vcpu.run().reason == HALT
        state = machine.get()
        assert state.x[5] == 1
        assert machine.reg(ESR_EL1) >> 26 == klass
        assert state.elr_el1 == START + (8 if klass == 0x15 else 4)
        assert state.spsr_el1 == 0x3C0 | EL1H


@pytest.mark.parametrize("word", [0x6ECE1FE7, 0x4E5B2C6E])
def test_unallocated_encoding_the_emulator_gives_up_on(word: int) -> None:
    """Unallocated FP16 vector forms, on which the emulator asserts: an undefined instruction, in its place, EL0 too."""
    with Arm() as machine:
        machine.start(
            f"mov x0, #(3 << 20)\nmsr cpacr_el1, x0\nisb\nmov x1, #1\n.word {word}\nwfi", sync="mov x5, #1\nwfi"
        )
        assert machine.vcpu.run().reason == HALT
        state = machine.get()
        assert (state.x[1], state.x[5], state.elr_el1) == (1, 1, START + 16)
        assert machine.reg(ESR_EL1) == 0x2000000


def test_return_to_el0_and_back() -> None:
    """ERET to EL0, whose SVC takes the lower-EL vector; SP_EL0 is its own."""
    source = f"""
        ldr x0, ={START + 28}
        msr elr_el1, x0
        mov x0, #0x3c0
        msr spsr_el1, x0
        mov x1, #0x70000
        msr sp_el0, x1
        eret
        mov x2, sp
        svc #0
        .ltorg
    """
    with Arm() as machine:
        machine.start(source, lower="mov x3, #3\nwfi")
        assert machine.vcpu.run().reason == HALT
        state = machine.get()
        assert (state.x[2], state.x[3], state.sp_el0) == (0x70000, 3, 0x70000)


def test_interrupt_line_is_a_level() -> None:
    """Masked it only wakes WFI; unmasked it interrupts until the device drops it."""
    line = LIB.aioemu_a64_set_line
    drops: list[int] = []

    def mmio_write(_: object, gpa: int, size: int, value: int) -> None:
        drops.append(gpa)
        if len(drops) == 3:
            line(machine.vcpu.handle, 0, 0)

    with Arm(mmio_write=mmio_write) as machine:
        machine.start(
            f"wfi\nmov x1, #1\nldr x9, ={DEVICE}\nmsr daifclr, #2\nnop\nb end\nend: wfi\nb end\n.ltorg",
            irq="add x2, x2, #1\nstr w2, [x9]\neret",
        )
        assert machine.vcpu.run().reason == HALT
        assert LIB.aioemu_vcpu_has_work(machine.vcpu.handle) == 0
        line(machine.vcpu.handle, 0, 1)
        assert LIB.aioemu_vcpu_has_work(machine.vcpu.handle) == 1
        assert machine.vcpu.run().reason == HALT
        state = machine.get()
        assert (state.x[1], state.x[2], state.irq) == (1, 3, 0)


def test_virtual_timer_is_told_and_told_apart() -> None:
    """CVAL and CTL writes reach the machine; ISTATUS follows its counter; CNTFRQ is the configured one."""
    now = [1000]
    calls: list[tuple[int, int, int]] = []
    options: dict[str, Any] = {
        "counter": lambda _: now[0],
        "a64_timer": lambda _, timer, ctl, cval: calls.append((timer, ctl, cval)),
        "counter_hz": 25_000_000,
    }
    source = """
        mrs x0, cntfrq_el0
        mrs x1, cntvct_el0
        add x2, x1, #500
        msr cntv_cval_el0, x2
        mov x3, #1
        msr cntv_ctl_el0, x3
        mrs x4, cntv_ctl_el0
        mov x5, #-10
        msr cntv_tval_el0, x5
        mrs x6, cntv_ctl_el0
        wfi
    """
    with Arm(**options) as machine:
        machine.start(source)
        assert machine.vcpu.run().reason == HALT
        state = machine.get()
        assert [state.x[i] for i in (0, 1, 4, 6)] == [25_000_000, 1000, 1, 5]
        assert calls == [(1, 0, 1500), (1, 1, 1500), (1, 1, 990)]
        assert machine.reg(CNTV_CVAL) == 990


@pytest.mark.parametrize(("instruction", "kind"), [("hvc #3", 2), ("smc #3", 3)])
def test_calls_reach_the_machine(instruction: str, kind: int) -> None:
    """PSCI: the callback gets and changes x0; refused, the instruction was undefined."""
    seen: list[tuple[int, int, int]] = []

    def call(_: object, what: int, immediate: int, x: Any) -> int:
        seen.append((what, immediate, x[0]))
        x[0] = 0x99
        return 0 if x[1] else -1

    with Arm(a64_call=call) as machine:
        source = f"mov x0, #8\nmov x1, #1\n{instruction}\nmov x2, x0\nmov x1, #0\n{instruction}\nwfi"
        machine.start(source, sync="mov x5, #1\nwfi")
        assert machine.vcpu.run().reason == HALT
        state = machine.get()
        assert (state.x[2], state.x[5], state.elr_el1) == (0x99, 1, START + 20)
        assert seen[0] == (kind, 3, 8)
        assert machine.reg(ESR_EL1) >> 26 == 0


def test_call_without_a_machine_is_undefined() -> None:
    """No callback: HVC is an undefined instruction."""
    with Arm() as machine:
        machine.start("hvc #0", sync="mov x5, #1\nwfi")
        assert machine.vcpu.run().reason == HALT
        assert machine.get().x[5] == 1


def test_rewritten_code_is_executed_as_written() -> None:
    """A JIT's store, cache maintenance and branch: 10,000 rounds, 0 stale."""
    source = """
        ldr x9, =0x300000
        movz w10, #0x0000
        movk w10, #0x5280, lsl #16
        ldr w11, =0xd65f03c0
        str w11, [x9, #4]
        mov w12, #10000
    again:
        and w13, w12, #0xffff
        orr w14, w10, w13, lsl #5
        str w14, [x9]
        ic ivau, x9
        dsb ish
        isb
        blr x9
        cmp w0, w13
        cinc x15, x15, ne
        subs w12, w12, #1
        b.ne again
        wfi
        .ltorg
    """
    with Arm() as machine:
        machine.start(source)
        assert machine.vcpu.run().reason == HALT
        assert machine.get().x[15] == 0


def test_device_access_and_exact_state() -> None:
    """Loads and stores outside RAM arrive with their size; the callback sees its instruction's PC."""
    log: list[tuple[Any, ...]] = []

    def mmio_read(_: object, gpa: int, size: int) -> int:
        log.append(("r", gpa - DEVICE, size, machine.get().pc - START))
        return 0x1122334455667788

    def mmio_write(_: object, gpa: int, size: int, value: int) -> None:
        log.append(("w", gpa - DEVICE, size, value))

    with Arm(mmio_read=mmio_read, mmio_write=mmio_write) as machine:
        machine.start("movz x9, #0x4000, lsl #16\nldr x1, [x9]\nldrh w2, [x9, #4]\nmov w3, #7\nstrb w3, [x9, #1]\nwfi")
        assert machine.vcpu.run().reason == HALT
        assert log == [("r", 0, 8, 4), ("r", 4, 2, 8), ("w", 1, 1, 7)]
        assert machine.get().x[2] == 0x7788


def test_state_round_trip_and_refusals() -> None:
    """What get gives set takes; EL2, EL3 and impossible modes are refused; so are x86 calls."""
    with Arm() as machine:
        machine.start("fmov d3, #1.5\nmov x7, #7\nwfi")
        machine.vcpu.run()
        before = machine.get()
        assert before.v[3][0] == 0x3FF8000000000000
        machine.set(before)
        assert bytes(machine.get()) == bytes(before)
        for pstate in (0x3C9, 0x3CD, 1 << 32, 0x13):
            before.pstate = pstate
            assert LIB.aioemu_a64_set_state(machine.vcpu.handle, c.byref(before)) < 0
        assert LIB.aioemu_x86_reset(machine.vcpu.handle, 0) < 0
        assert LIB.aioemu_a64_set_sysreg(machine.vcpu.handle, 0x3FFF, 0) < 0


def test_each_vcpu_has_its_affinity() -> None:
    """MPIDR_EL1 counts the vCPUs."""
    with Arm(vcpus=3) as machine:
        for i, vcpu in enumerate(machine.vcpus):
            machine.vcpu = vcpu
            machine.start("mrs x0, mpidr_el1\nwfi")
            assert vcpu.run().reason == HALT
            assert machine.get().x[0] & 0xFFFFFF == i


def test_stop_is_exact() -> None:
    """Kicked over and over, a counter in a register and one in memory stay in step."""
    with Arm() as machine:
        body = "again: ldr x1, [x9]\nadd x1, x1, #1\nstr x1, [x9]\nadd x2, x2, #1\nb again\n.ltorg"
        machine.start(f"ldr x9, =0x300000\n{body}")
        for _ in range(2000):
            machine.vcpu.kick()
            assert machine.vcpu.run().reason == KICK
        state = machine.get()
        assert state.x[2] == machine.u64(0x300000)


@pytest.mark.parametrize("seed", range(20))
def test_random_code(seed: int) -> None:
    """Random words as EL1 code: an endless guest or a halt, never our end."""
    rng = random.Random(seed)
    with Arm() as machine:
        machine.start("nop")
        machine.put(START, rng.randbytes(1 << 16))
        for vector in range(0, 0x800, 0x80):
            machine.put(VECTORS + vector, code("mrs x0, elr_el1\nadd x0, x0, #4\nmsr elr_el1, x0\neret"))
        timer = threading.Timer(0.3, machine.vcpu.kick)
        timer.start()
        assert machine.vcpu.run().reason in (KICK, HALT)
        timer.cancel()
