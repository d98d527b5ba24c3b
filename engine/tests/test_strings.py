"""REP MOVS and REP STOS: whole runs at once, and still one element after the other in everything a guest can see."""

from __future__ import annotations

import random

import pytest

from guest import DEBUG, HALT, LIB, PAGE, PD, RAM_SIZE, RAX, RCX, RDI, RSI, Machine, handler

AREA, SIZE = 0x400000, 6 * PAGE
SUFFIX = {1: "b", 2: "w", 4: "d", 8: "q"}
CASES = 150
UNMAPPED = 0xA00000  # a page of 2 MiB that the tests take away
PAGE_FAULT = 14


def expected(memory: bytearray, what: str, width: int, source: int, target: int, count: int, step: int) -> None:
    """The same by the book (SDM vol. 2): element by element, `step` bytes on each time."""
    pattern = (0x1122334455667788).to_bytes(8, "little")[:width]
    for _ in range(count):
        memory[target : target + width] = memory[source : source + width] if what == "movs" else pattern
        source, target = source + step, target + step


def program(what: str, width: int, source: int, target: int, count: int, back: bool = False) -> str:
    return f"""
        mov rsi, {source}
        mov rdi, {target}
        mov rcx, {count}
        mov rax, 0x1122334455667788
        {"std" if back else "cld"}
        rep {what}{SUFFIX[width]}
        hlt
    """


@pytest.mark.parametrize("what", ["movs", "stos"])
def test_any_run_does_what_single_elements_would(what: str) -> None:
    """Random widths, places, overlaps, counts and directions: memory and registers as the manual says."""
    dice = random.Random(what)
    with Machine() as machine:
        for _ in range(CASES):
            width, back = dice.choice((1, 2, 4, 8)), dice.random() < 0.2
            count = dice.choice((0, 1, 2, dice.randrange(SIZE // 3 // width)))
            low = count * width if back else 0
            source = low + dice.randrange(SIZE - 16 - count * width)
            near = source + dice.randrange(-40, 40)
            target = near if dice.random() < 0.5 else low + dice.randrange(SIZE - 16 - count * width)
            target = min(max(target, low), SIZE - 16 - (0 if back else count * width))
            memory = bytearray(dice.randbytes(SIZE))
            machine.put(AREA, bytes(memory))
            machine.long(program(what, width, AREA + source, AREA + target, count, back))
            assert machine.vcpu.run().reason == HALT
            step = -width if back else width
            expected(memory, what, width, source, target, count, step)
            state = machine.vcpu.state()
            assert machine.ram[AREA : AREA + SIZE] == bytes(memory), (width, back, count, source, target)
            assert (state.gpr[RCX], state.gpr[RDI]) == (0, AREA + target + step * count)
            assert state.gpr[RSI] == AREA + source + (step * count if what == "movs" else 0)


@pytest.mark.parametrize("what", ["movs", "stos"])
def test_a_fault_in_a_run_leaves_it_where_it_happened(what: str) -> None:
    """Registers point at the element that faulted, and everything before it is done."""
    target, count = UNMAPPED - PAGE - 24, 2 * PAGE // 8
    with Machine() as machine:
        machine.long(program(what, 8, AREA, target, count))
        machine.put64(PD + 8 * (UNMAPPED >> 21), 0)
        machine.put(AREA, bytes(range(256)) * (2 * PAGE // 256))
        handler(machine, PAGE_FAULT, "mov rax, cr2\nhlt")
        assert machine.vcpu.run().reason == HALT
        state, done = machine.vcpu.state(), (UNMAPPED - target) // 8
        assert (state.gpr[RDI], state.gpr[RCX], state.gpr[RAX]) == (UNMAPPED, count - done, UNMAPPED)
        assert machine.u64(UNMAPPED - 8) == (machine.u64(AREA + 8 * done - 8) if what == "movs" else 0x1122334455667788)


def test_a_run_over_code_is_obeyed() -> None:
    """A function overwritten by a run, after it was called, is what the next call runs."""
    code = 0x600000
    with Machine() as machine:
        machine.put(code, bytes.fromhex("b801000000c3"))  # mov eax, 1; ret
        machine.put(AREA, bytes.fromhex("b802000000c3") + bytes(PAGE - 6))
        run = program("movs", 1, AREA, code, PAGE).replace("hlt", "")
        machine.long(f"mov rbp, {code}\ncall rbp\n{run}\ncall rbp\nhlt")
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RAX] == 2


def test_a_run_into_a_device_is_one_write_an_element() -> None:
    """Where memory ends, each element reaches the device with its own width and address."""
    writes: list[tuple[int, int, int]] = []
    with Machine(mmio_write=lambda _, gpa, size, value: writes.append((gpa, size, value))) as machine:
        machine.long(program("stos", 4, 0, RAM_SIZE - 8, 5))
        machine.put64(PD + 8 * (RAM_SIZE >> 21), RAM_SIZE | 0x87)
        assert machine.vcpu.run().reason == HALT
        assert writes == [(RAM_SIZE + 4 * i, 4, 0x55667788) for i in range(3)]
        assert machine.u64(RAM_SIZE - 8) == 0x5566778855667788


def test_single_steps_stop_after_each_element() -> None:
    """Stepping sees every iteration."""
    with Machine() as machine:
        machine.long(f"mov rdi, {AREA}\nmov rcx, 4\nrep stosb\nhlt")
        LIB.aioemu_vcpu_set_step(machine.vcpu.handle, 1)
        seen = []
        for _ in range(6):
            assert machine.vcpu.run().reason == DEBUG
            seen.append(machine.vcpu.state().gpr[RCX])
        assert seen == [0, 4, 3, 2, 1, 0]
