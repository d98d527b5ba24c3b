"""BMI, ADX, MOVBE, CRC32 and counts of bits answer what the host's processor answers, without an FPU too."""

from __future__ import annotations

import ctypes
import mmap
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest import HALT, RAX, RBX, RCX, RDX, Machine, assemble

CASES = 120
CODE = 0x100000
C, P, A, Z, S, O = 0x1, 0x4, 0x10, 0x40, 0x80, 0x800  # noqa: E741 - the flags' names in the manual
ALL = C | P | A | Z | S | O
LOGIC = C | Z | S | O  # the others are undefined
REGISTERS = (RAX, RBX, RCX, RDX)
NEEDS = {"bmi1", "bmi2", "adx", "movbe", "sse4_2", "popcnt", "abm"}
TASK_SWITCHED, WITHOUT_FXSR = 0x8001003B, 0x20  # CR0 with TS, CR4 without OSFXSR
OPERATIONS = {
    "andn {a}, {b}, {c}": LOGIC,
    "bextr {a}, {b}, {c}": C | Z | O,
    "blsi {a}, {b}": LOGIC,
    "blsr {a}, {b}": LOGIC,
    "blsmsk {a}, {b}": LOGIC,
    "bzhi {a}, {b}, {c}": LOGIC,
    "mulx {a}, {c}, {b}": ALL,
    "pdep {a}, {b}, {c}": ALL,
    "pext {a}, {b}, {c}": ALL,
    "rorx {a}, {b}, 13": ALL,
    "sarx {a}, {b}, {c}": ALL,
    "shlx {a}, {b}, {c}": ALL,
    "shrx {a}, {b}, {c}": ALL,
    "adcx {a}, {b}": ALL,
    "adox {a}, {b}": ALL,
    "adcx {a}, {b}; adox {a}, {c}; adcx {c}, {b}": ALL,
    "crc32 {a}, {b}": ALL,
    "popcnt {a}, {b}": ALL,
    "tzcnt {a}, {b}": C | Z,
    "lzcnt {a}, {b}": C | Z,
    "bswap {a}": ALL,
}
NAMES = {64: ("rax", "rbx", "rcx"), 32: ("eax", "ebx", "ecx")}
NATIVE = """
    push rbx
    mov r9, rdi
    mov rax, [r9]
    mov rbx, [r9 + 8]
    mov rcx, [r9 + 16]
    mov rdx, [r9 + 24]
    push qword ptr [r9 + 32]
    popfq
    {}
    mov [r9], rax
    mov [r9 + 8], rbx
    mov [r9 + 16], rcx
    mov [r9 + 24], rdx
    pushfq
    pop qword ptr [r9 + 32]
    pop rbx
    ret
"""

pytestmark = pytest.mark.skipif(
    not set(Path("/proc/cpuinfo").read_text().split()) >= NEEDS, reason="the host's processor has not all of them"
)


def values(dice: random.Random) -> Iterator[int]:
    """Edges of operands, and of what is counted in them; anything else."""
    edges = (
        0,
        1,
        31,
        32,
        33,
        63,
        64,
        65,
        0x2000,
        0x2010,
        0x4000,
        0x3F01,
        0x80000000,
        0xFFFFFFFF,
        1 << 63,
        (1 << 64) - 1,
    )
    while True:
        yield dice.choice(edges) if dice.random() < 0.5 else dice.getrandbits(64)


class Host:
    """The instruction on the processor that runs the test."""

    def __init__(self, text: str) -> None:
        code = assemble(NATIVE.format(text), 0)
        self.page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.page.write(code)
        at = ctypes.addressof(ctypes.c_uint8.from_buffer(self.page))
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(at)

    def __call__(self, given: list[int]) -> list[int]:
        words = (ctypes.c_uint64 * 5)(*given)
        self.call(ctypes.addressof(words))
        return list(words)


@pytest.mark.parametrize("fpu", [True, False], ids=["fpu", "no-fpu"])
@pytest.mark.parametrize("bits", NAMES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_results_and_flags_are_the_processors(operation: str, bits: int, fpu: bool) -> None:
    """Registers and defined flags, from any operands; whether an FPU's state may be used or not, it is left alone."""
    text = operation.format(**dict(zip("abc", NAMES[bits], strict=True)))
    host, dice, defined = Host(text), random.Random(text), OPERATIONS[operation]
    operand = values(dice)
    with Machine() as machine:
        machine.long(text + "\nhlt")
        for _ in range(CASES):
            given = [next(operand) for _ in REGISTERS] + [2 | dice.getrandbits(12) & ALL]
            state = machine.vcpu.state()
            for register, value in zip(REGISTERS, given, strict=False):
                state.gpr[register] = value
            state.rip, state.rflags, state.halted = CODE, given[4], 0
            if not fpu:
                state.cr0, state.cr4 = TASK_SWITCHED, WITHOUT_FXSR
            machine.vcpu.set(state)
            before = bytes(machine.vcpu.state().fxsave)
            assert machine.vcpu.run().reason == HALT
            state = machine.vcpu.state()
            found = [state.gpr[register] for register in REGISTERS]
            want = host(given)
            assert found == want[:4], (text, [hex(each) for each in given])
            assert state.rflags & defined == want[4] & defined, (text, [hex(each) for each in given])
            assert bytes(state.fxsave) == before
