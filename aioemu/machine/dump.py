"""The guest's memory and processors as an ELF core file (`dump-guest-memory`), for gdb, crash and drgn.

One PT_LOAD for each range of physical memory, with p_paddr; notes say what each processor's registers are: NT_PRSTATUS
for debuggers, and QEMU's own with control registers and segments, by which tools walk the kernel's page tables. Pages
that were never touched become holes where the file can have them. Left out: virtual addresses (`paging`), compressed
formats, ELF32: the file is ELF64 whatever mode the guest is in. The machine stands still meanwhile.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aioemu._core import ffi, lib
from aioemu.blockdev.patience import in_own_thread
from aioemu.errors import EmuError, HostError
from aioemu.machine.native import Native
from aioemu.machine.runstate import RunState
from aioemu.memory.guest import GuestMemory
from aioemu.memory.ranges import RamRange

if TYPE_CHECKING:
    from aioemu.machine.machine import Machine

PIECE_BYTES = 1 << 20  # written in one go; progress is counted in these
ZEROES = bytes(PIECE_BYTES)
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
NOTE = struct.Struct("<III")
ET_CORE, EM_X86_64, PT_LOAD, PT_NOTE, NT_PRSTATUS = 4, 62, 1, 4, 1
IDENT = b"\x7fELF\x02\x01\x01"  # ELF64, little endian, version 1
GPR_ORDER = (15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7)  # user_regs_struct: r15 .. rdi, by hardware number
QEMU_GPR_ORDER = (0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)  # rax rbx rcx rdx rsi rdi rsp rbp r8 ..
QEMU_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr")
QEMU_NOTE_BYTES = 440
MSR_KERNEL_GS_BASE = 0xC0000102


class Dumper:
    """The dumps of one machine, one at a time."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.status = "none"  # DumpStatus
        self.completed = 0  # bytes of memory
        self.total = 0

    def start(self, fd: int, begin: int, length: int | None) -> Coroutine[Any, Any, None]:
        """Begin to write a core into `fd`; what is returned does it, and closes `fd`. EmuError, and `fd` untouched, if
        that cannot be. The guest stands still meanwhile, and goes on if it ran."""
        if self.status == "active":
            raise EmuError("There is a dump in process, please wait.")
        ranges = chosen(self._machine.memory.ranges, begin, length)
        self.status, self.completed, self.total = "active", 0, sum(each.size for each in ranges)
        return self._dump(fd, ranges)

    async def _dump(self, fd: int, ranges: Sequence[RamRange]) -> None:
        machine, error = self._machine, None
        was_running = machine.running
        try:
            try:
                await machine.pause(RunState.SAVE_VM)
                head = headers(machine.native, ranges)
            except BaseException:
                os.close(fd)
                raise
            await in_own_thread(self._write, fd, head, ranges)
            self.status = "completed"
        except EmuError as exc:
            self.status, error = "failed", exc
            raise
        finally:
            result = {"status": self.status, "completed": self.completed, "total": self.total}
            machine.emit("DUMP_COMPLETED", result=result, **({"error": str(error)} if error is not None else {}))
            if was_running and machine.state is RunState.SAVE_VM:
                await machine.resume()

    def _write(self, fd: int, head: bytes, ranges: Sequence[RamRange]) -> None:
        """Blocks, and closes `fd`, which is this thread's alone. HostError says what the host refused."""
        sparse = stat.S_ISREG(os.fstat(fd).st_mode)
        try:
            if sparse:
                os.ftruncate(fd, 0)
            _write_all(fd, head)
            for each in ranges:
                for piece in _pieces(self._machine.memory, each):
                    if sparse and piece == ZEROES[: len(piece)]:
                        os.lseek(fd, len(piece), os.SEEK_CUR)
                    else:
                        _write_all(fd, piece)
                    self.completed += len(piece)
            if sparse:
                os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
        except OSError as exc:
            raise HostError("dump: failed to save memory", exc.errno) from exc
        finally:
            os.close(fd)


def chosen(ranges: Sequence[RamRange], begin: int, length: int | None) -> list[RamRange]:
    """The memory from `begin` on, `length` bytes or all of it. EmuError when there is none."""
    end = max((each.end for each in ranges), default=0) if length is None else begin + length
    cut = [(max(each.start, begin), min(each.end, end)) for each in ranges]
    found = [RamRange(start, stop - start) for start, stop in cut if stop > start]
    if not found:
        raise EmuError("dump: no guest memory to dump")
    return found


def headers(native: Native, ranges: Sequence[RamRange]) -> bytes:
    """Everything before the memory itself; while the processors stand still."""
    notes = b"".join(_notes(native, vcpu) for vcpu in range(native.vcpu_count))
    count = 1 + len(ranges)
    at = EHDR.size + count * PHDR.size
    head = EHDR.pack(IDENT, ET_CORE, EM_X86_64, 1, 0, EHDR.size, 0, 0, EHDR.size, PHDR.size, count, 0, 0, 0)
    segments = [PHDR.pack(PT_NOTE, 0, at, 0, 0, len(notes), len(notes), 0)]
    at += len(notes)
    for each in ranges:
        segments.append(PHDR.pack(PT_LOAD, 0, at, 0, each.start, each.size, each.size, 0))
        at += each.size
    return b"".join((head, *segments, notes))


def _pieces(memory: GuestMemory, each: RamRange) -> Iterator[bytes]:
    for start in range(each.start, each.end, PIECE_BYTES):
        yield memory.read(start, min(PIECE_BYTES, each.end - start))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _notes(native: Native, vcpu: int) -> bytes:
    state: Any = ffi.new("core_cpu_state *")
    rc = lib.core_vcpu_get_state(native.ptr, vcpu, state)
    if rc < 0:
        raise HostError(f"registers of vCPU {vcpu}", -rc)
    return _note(b"CORE", NT_PRSTATUS, _prstatus(state, vcpu)) + _note(b"QEMU", 0, _qemu(state, _msr(native, vcpu)))


def _note(name: bytes, kind: int, content: bytes) -> bytes:
    name += bytes(1)
    head = NOTE.pack(len(name), len(content), kind)
    return b"".join((head, name, bytes(-len(name) % 4), content, bytes(-len(content) % 4)))


def _prstatus(s: Any, vcpu: int) -> bytes:
    """struct elf_prstatus of x86-64: the process is the processor."""
    general = [s.gpr[n] for n in GPR_ORDER]
    rest = [0, s.rip, s.cs.selector, s.rflags, s.gpr[4], s.ss.selector, s.fs.base, s.gs.base]
    rest += [s.ds.selector, s.es.selector, s.fs.selector, s.gs.selector]
    head = struct.pack("<IIIHxxQQIIII64x", 0, 0, 0, 0, 0, 0, vcpu + 1, 0, 0, 0)
    return head + struct.pack("<27Q", *general, *rest) + struct.pack("<Ixxxx", 0)


def _qemu(s: Any, kernel_gs_base: int) -> bytes:
    """QEMU's note of version 1: registers, segments with tables, control registers."""
    out = struct.pack("<II", 1, QEMU_NOTE_BYTES)
    out += struct.pack("<18Q", *(s.gpr[n] for n in QEMU_GPR_ORDER), s.rip, s.rflags)
    for name in QEMU_SEGMENTS:
        seg = getattr(s, name)
        flags = seg.type << 8 | seg.s << 12 | seg.dpl << 13 | seg.present << 15
        flags |= seg.avl << 20 | seg.l << 21 | seg.db << 22 | seg.g << 23
        out += struct.pack("<IIIIQ", seg.selector, seg.limit, flags, 0, seg.base)
    for limit, base in ((s.gdt_limit, s.gdt_base), (s.idt_limit, s.idt_base)):
        out += struct.pack("<IIIIQ", 0, limit, 0, 0, base)
    return out + struct.pack("<5QQ", s.cr0, 0, s.cr2, s.cr3, s.cr4, kernel_gs_base)


def _msr(native: Native, vcpu: int) -> int:
    asked: Any = ffi.new("core_msr *", {"index": MSR_KERNEL_GS_BASE})
    return int(asked.data) if lib.core_vcpu_get_msrs(native.ptr, vcpu, asked, 1) == 1 else 0
