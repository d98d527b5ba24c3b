"""No stale translation runs, whoever wrote the code and by whatever address."""

from __future__ import annotations

import ctypes as c
import threading

import pytest

from guest import HALT, KICK, LIB, PAGE, PD, RAM_SIZE, RAX, RBX, Machine, assemble, check, long_mode

CODE = 0x600000
ROUNDS = 10_000
# mov eax, imm32; ret
JIT = f"""
    mov rbp, {ROUNDS}
again:
    mov byte ptr [rdi], 0xb8
    mov dword ptr [rdi+1], ebp
    mov byte ptr [rdi+5], 0xc3
    call rsi
    cmp eax, ebp
    setne cl
    movzx ecx, cl
    add rbx, rcx
    dec rbp
    jnz again
    hlt
"""


@pytest.mark.parametrize("write_at", [CODE, CODE + (8 << 20)], ids=["same mapping", "second mapping"])
def test_jit_code_is_never_stale(write_at: int) -> None:
    """10,000 rewrites and calls, through the executed address or another mapping of its page: 0 old results."""
    with Machine() as machine:
        machine.long(f"mov rdi, {write_at}\nmov rsi, {CODE}\nxor ebx, ebx\n" + JIT)
        machine.put64(PD + 8 * (write_at >> 21), (CODE & -(2 << 20)) | 0x87)
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RBX] == 0


def test_code_may_change_itself_in_its_own_block() -> None:
    """A store into the very next instruction is executed as stored."""
    with Machine() as machine:
        machine.long("mov byte ptr [rip+target+1], 5\ntarget: mov eax, 1\nhlt")
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RAX] == 5


def test_data_on_a_code_page_becomes_fast_again() -> None:
    """Writing beside code keeps the code; writing the code drops it; has_code tells."""
    with Machine() as machine:
        machine.long(f"mov rdi, {CODE}\ncall rdi\nhlt")
        machine.put(CODE, assemble("mov eax, 1\nret", CODE))
        assert LIB.aioemu_engine_has_code(machine.engine, CODE, 1) == 0
        assert machine.vcpu.run().reason == HALT
        assert LIB.aioemu_engine_has_code(machine.engine, CODE, 1) == 1
        assert LIB.aioemu_engine_has_code(machine.engine, CODE + PAGE, PAGE) == 0
        machine.put(CODE, assemble("mov eax, 2\nret", CODE))
        long_mode(machine, machine.vcpu, 0x100000)
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RAX] == 2


def test_device_write_while_the_guest_runs_takes_effect() -> None:
    """A thread that writes code and then tells the guest is obeyed by the next call, hundreds of times."""
    flag, seen = 0x700000, 0x700008
    source = f"""
        mov rdi, {CODE}
        mov rsi, {flag}
    again:
        mov rbp, [rsi]
        cmp rbp, rbx
        je again
        mov rbx, rbp
        call rdi
        mov [rsi+8], rax
        jmp again
    """
    with Machine() as machine:
        machine.put(CODE, assemble("mov eax, 0\nret", CODE))
        machine.long(source)
        machine.put64(seen, 1 << 32)
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                assert machine.vcpu.run().reason == KICK

        thread = threading.Thread(target=run)
        thread.start()
        wrong = 0
        for i in range(1, 1001):
            machine.put(CODE + 1, i.to_bytes(4, "little"))
            machine.ram[flag : flag + 8] = i.to_bytes(8, "little")
            while (got := machine.u64(seen)) in (i - 1, 1 << 32) and thread.is_alive():
                pass
            wrong += got != i
        stop.set()
        machine.vcpu.kick()
        thread.join()
        assert wrong == 0


def test_one_dma_over_many_code_pages_drops_them_all() -> None:
    """More pages than the engine's short list holds: each new page is executed as written."""
    pages = 300
    call = "".join(f"call {CODE + i * PAGE}\nadd rbx, rax\n" for i in range(pages))
    with Machine() as machine:
        code = assemble("mov eax, 1\nret", CODE)
        for i in range(pages):
            machine.put(CODE + i * PAGE, code)
        machine.long(f"xor ebx, ebx\n{call}hlt")
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RBX] == pages
        for i in range(pages):
            at = CODE + i * PAGE + 1
            machine.ram[at : at + 4] = (2).to_bytes(4, "little")
        LIB.aioemu_engine_dma_written(machine.engine, CODE, pages * PAGE)
        long_mode(machine, machine.vcpu, 0x100000)
        assert machine.vcpu.run().reason == HALT
        assert machine.vcpu.state().gpr[RBX] == 2 * pages


def test_another_vcpus_code_is_dropped_too() -> None:
    """vCPU 1 executes what vCPU 0 has just written, not what it executed before."""
    with Machine(vcpus=2) as machine:
        writer, reader = machine.vcpus
        machine.put(CODE, assemble("mov eax, 1\nhlt", CODE))
        long_mode(machine, reader, CODE)
        assert reader.run().reason == HALT
        machine.long(f"mov rdi, {CODE + 1}\nmov byte ptr [rdi], 9\nhlt", vcpu=writer)
        assert writer.run().reason == HALT
        long_mode(machine, reader, CODE)
        assert reader.run().reason == HALT
        assert reader.state().gpr[RAX] == 9


def test_dirty_log_holds_exactly_what_was_written() -> None:
    """Guest stores (first and later ones) and announced device writes are logged until fetched; reads are not."""
    words = RAM_SIZE // PAGE // 64
    source = f"mov rdi, {CODE}\nmov [rdi], rax\nmov [rdi+8192], rax\nmov rax, [rdi+4096]\nhlt"

    def fetch() -> set[int]:
        bitmap = (c.c_uint64 * words)()
        check(LIB.aioemu_engine_dirty_log_fetch(machine.engine, 0, RAM_SIZE, bitmap))
        return {64 * i + bit for i, word in enumerate(bitmap) for bit in range(64) if word >> bit & 1}

    with Machine() as machine:
        machine.long(source)
        machine.vcpu.run()
        check(LIB.aioemu_engine_dirty_log_start(machine.engine))
        assert fetch() == set()
        for _ in range(3):
            long_mode(machine, machine.vcpu, 0x100000)
            fetch()
            assert machine.vcpu.run().reason == HALT
            assert fetch() - {PD // PAGE, 1, 2} == {CODE // PAGE, CODE // PAGE + 2}
        LIB.aioemu_engine_dma_written(machine.engine, 0x900FFF, 2)
        assert fetch() == {0x900, 0x901}
        LIB.aioemu_engine_dirty_log_stop(machine.engine)
        assert LIB.aioemu_engine_dirty_log_fetch(machine.engine, 0, PAGE, (c.c_uint64 * 1)()) < 0


def test_unmapped_ram_is_device_space_and_its_code_is_gone() -> None:
    """After unmapping, reads go to the device callback; other RAM mapped there is executed as it is."""
    reads: list[int] = []

    def mmio_read(_: object, gpa: int, size: int) -> int:
        reads.append(gpa)
        return 0x55

    extra = (c.c_uint8 * (3 * PAGE))()
    at = 0x1000000
    host = (c.addressof(extra) + PAGE - 1) & -PAGE
    with Machine(mmio_read=mmio_read) as machine:

        def entry() -> None:
            long_mode(machine, machine.vcpu, 0x100000)
            machine.put64(PD + 8 * (at >> 21), at | 0x87)

        machine.put(0x100000, assemble(f"mov rdi, {at}\nmov al, [rdi]\nhlt", 0x100000))
        c.memset(host, 0xAA, PAGE)
        check(LIB.aioemu_engine_map(machine.engine, at, PAGE, host, 0))
        assert LIB.aioemu_engine_map(machine.engine, at, PAGE, host, 0) < 0
        entry()
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RAX] & 0xFF == 0xAA
        check(LIB.aioemu_engine_unmap(machine.engine, at, PAGE))
        assert LIB.aioemu_engine_unmap(machine.engine, at, PAGE) < 0
        entry()
        machine.vcpu.run()
        assert machine.vcpu.state().gpr[RAX] & 0xFF == 0x55
        assert reads == [at]


def test_read_only_ram_gives_writes_to_the_device() -> None:
    """Flash: executed and read as RAM, a write reaches the callback and leaves the bytes alone."""
    writes: list[tuple[int, int, int]] = []
    extra = (c.c_uint8 * (2 * PAGE))()
    at = 0x1000000
    host = (c.addressof(extra) + PAGE - 1) & -PAGE
    with Machine(mmio_write=lambda _, gpa, size, value: writes.append((gpa, size, value))) as machine:
        check(LIB.aioemu_engine_map(machine.engine, at, PAGE, host, 1))
        machine.long(f"mov rdi, {at}\nmov dword ptr [rdi+8], 0x12345678\nmov eax, [rdi+8]\nhlt")
        machine.put64(PD + 8 * (at >> 21), at | 0x87)
        assert machine.vcpu.run().reason == HALT
        assert writes == [(at + 8, 4, 0x12345678)]
        assert machine.vcpu.state().gpr[RAX] == 0
