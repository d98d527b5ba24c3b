"""A machine for the engine's tests: RAM, one or more vCPUs, and small guests written in assembler.

Talks to the engine only through aioemu_engine.h (here as ctypes). Not modelled: any device; a test gives callbacks.
"""

from __future__ import annotations

import ctypes as c
import mmap
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

PAGE = 4096
RAM_SIZE = 16 << 20
KICK, HALT, SHUTDOWN, YIELD, DEBUG, ERROR = range(1, 7)
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
ES, CS, SS, DS, FS, GS = range(6)

MMIO_READ = c.CFUNCTYPE(c.c_uint64, c.c_void_p, c.c_uint64, c.c_uint)
MMIO_WRITE = c.CFUNCTYPE(None, c.c_void_p, c.c_uint64, c.c_uint, c.c_uint64)
PIO_READ = c.CFUNCTYPE(c.c_uint32, c.c_void_p, c.c_uint16, c.c_uint)
PIO_WRITE = c.CFUNCTYPE(None, c.c_void_p, c.c_uint16, c.c_uint, c.c_uint32)
INTERRUPT = c.CFUNCTYPE(c.c_int, c.c_void_p)
MSR_READ = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_uint32, c.POINTER(c.c_uint64))
MSR_WRITE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_uint32, c.c_uint64)
CR8_READ = c.CFUNCTYPE(c.c_uint8, c.c_void_p)
CR8_WRITE = c.CFUNCTYPE(None, c.c_void_p, c.c_uint8)
CPUID = c.CFUNCTYPE(None, c.c_void_p, c.c_uint32, c.c_uint32, c.POINTER(c.c_uint32))
COUNTER = c.CFUNCTYPE(c.c_uint64, c.c_void_p)
A64_CALL = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int, c.c_uint16, c.POINTER(c.c_uint64))
A64_TIMER = c.CFUNCTYPE(None, c.c_void_p, c.c_int, c.c_uint32, c.c_uint64)


class Callbacks(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("mmio_read", MMIO_READ),
        ("mmio_write", MMIO_WRITE),
        ("pio_read", PIO_READ),
        ("pio_write", PIO_WRITE),
        ("interrupt", INTERRUPT),
        ("msr_read", MSR_READ),
        ("msr_write", MSR_WRITE),
        ("cr8_read", CR8_READ),
        ("cr8_write", CR8_WRITE),
        ("cpuid", CPUID),
        ("counter", COUNTER),
        ("a64_call", A64_CALL),
        ("a64_timer", A64_TIMER),
    ]


CALLBACK_TYPES: dict[str, Any] = {field[0]: field[1] for field in Callbacks._fields_[1:]}


class Config(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("arch", c.c_uint32),
        ("code_cache_bytes", c.c_uint32),
        ("cpu_model", c.c_char_p),
        ("counter_hz", c.c_uint64),
        ("yield_on_pause", c.c_uint32),
        ("reserved", c.c_uint32),
        ("callbacks", Callbacks),
    ]


class Exit(c.Structure):
    _fields_ = [("reason", c.c_uint32), ("reserved", c.c_uint32), ("address", c.c_uint64), ("message", c.c_char_p)]


class Segment(c.Structure):
    _fields_ = [("base", c.c_uint64), ("limit", c.c_uint32), ("selector", c.c_uint16), ("rights", c.c_uint16)]


class Table(c.Structure):
    _fields_ = [("base", c.c_uint64), ("limit", c.c_uint32), ("reserved", c.c_uint32)]


class X86State(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("gpr", c.c_uint64 * 16),
        ("rip", c.c_uint64),
        ("rflags", c.c_uint64),
        ("seg", Segment * 6),
        ("ldt", Segment),
        ("tr", Segment),
        ("gdt", Table),
        ("idt", Table),
        *[(name, c.c_uint64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "xcr0")],
        ("dr", c.c_uint64 * 8),
        *[(name, c.c_uint64) for name in ("efer", "star", "lstar", "cstar", "fmask", "kernel_gs_base")],
        *[(name, c.c_uint64) for name in ("sysenter_cs", "sysenter_esp", "sysenter_eip")],
        *[(name, c.c_uint64) for name in ("pat", "misc_enable", "tsc_aux", "tsc_offset", "mtrr_def_type")],
        ("mtrr_fixed", c.c_uint64 * 11),
        ("mtrr_base", c.c_uint64 * 8),
        ("mtrr_mask", c.c_uint64 * 8),
        ("pkru", c.c_uint32),
        *[(name, c.c_uint8) for name in ("interrupt_shadow", "nmi_blocked", "nmi_requested", "interrupt_requested")],
        *[(name, c.c_uint8) for name in ("halted", "shutdown", "a20_masked")],
        ("reserved", c.c_uint8 * 5),
        ("fxsave", c.c_uint8 * 512),
    ]


class A64State(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("x", c.c_uint64 * 31),
        *[(name, c.c_uint64) for name in ("pc", "pstate", "sp_el0", "sp_el1", "elr_el1", "spsr_el1")],
        ("halted", c.c_uint8),
        ("irq", c.c_uint8),
        ("fiq", c.c_uint8),
        ("reserved", c.c_uint8 * 5),
        ("fpcr", c.c_uint32),
        ("fpsr", c.c_uint32),
        ("v", (c.c_uint64 * 2) * 32),
    ]


def find_library() -> Path:
    """The library under test: AIOEMU_ENGINE_LIBRARY, or the installed package's."""
    given = os.environ.get("AIOEMU_ENGINE_LIBRARY")
    if given:
        return Path(given)
    import aioemu_engine

    return aioemu_engine.library_path()


LIB = c.CDLL(str(find_library()))
LIB.aioemu_engine_version.restype = c.c_char_p
for _name, _types in {
    "aioemu_engine_create": [c.POINTER(Config), c.POINTER(c.c_void_p)],
    "aioemu_engine_destroy": [c.c_void_p],
    "aioemu_engine_map": [c.c_void_p, c.c_uint64, c.c_uint64, c.c_void_p, c.c_uint32],
    "aioemu_engine_unmap": [c.c_void_p, c.c_uint64, c.c_uint64],
    "aioemu_engine_dma_written": [c.c_void_p, c.c_uint64, c.c_uint64],
    "aioemu_engine_has_code": [c.c_void_p, c.c_uint64, c.c_uint64],
    "aioemu_engine_dirty_log_start": [c.c_void_p],
    "aioemu_engine_dirty_log_stop": [c.c_void_p],
    "aioemu_engine_dirty_log_fetch": [c.c_void_p, c.c_uint64, c.c_uint64, c.POINTER(c.c_uint64)],
    "aioemu_vcpu_create": [c.c_void_p, c.c_void_p, c.POINTER(c.c_void_p)],
    "aioemu_vcpu_run": [c.c_void_p, c.POINTER(Exit)],
    "aioemu_vcpu_kick": [c.c_void_p],
    "aioemu_vcpu_request_interrupt": [c.c_void_p],
    "aioemu_vcpu_cancel_interrupt": [c.c_void_p],
    "aioemu_vcpu_request_nmi": [c.c_void_p],
    "aioemu_vcpu_has_work": [c.c_void_p],
    "aioemu_vcpu_set_step": [c.c_void_p, c.c_int],
    "aioemu_vcpu_breakpoint": [c.c_void_p, c.c_uint64, c.c_int],
    "aioemu_vcpu_translate": [c.c_void_p, c.c_uint64, c.POINTER(c.c_uint64)],
    "aioemu_x86_get_state": [c.c_void_p, c.POINTER(X86State)],
    "aioemu_x86_set_state": [c.c_void_p, c.POINTER(X86State)],
    "aioemu_x86_reset": [c.c_void_p, c.c_int],
    "aioemu_x86_sipi": [c.c_void_p, c.c_uint8],
    "aioemu_x86_inject": [c.c_void_p, c.c_uint8, c.c_uint32, c.c_uint32],
    "aioemu_a64_get_state": [c.c_void_p, c.POINTER(A64State)],
    "aioemu_a64_set_state": [c.c_void_p, c.POINTER(A64State)],
    "aioemu_a64_get_sysreg": [c.c_void_p, c.c_uint32, c.POINTER(c.c_uint64)],
    "aioemu_a64_set_sysreg": [c.c_void_p, c.c_uint32, c.c_uint64],
    "aioemu_a64_reset": [c.c_void_p],
    "aioemu_a64_set_line": [c.c_void_p, c.c_int, c.c_int],
}.items():
    getattr(LIB, _name).argtypes = _types


def check(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def assemble(source: str, address: int, bits: int = 64) -> bytes:
    """Machine code of GNU assembler (Intel syntax) text that will lie at address."""
    head = f".intel_syntax noprefix\n.code{bits}\n.text\n.globl _start\n_start:\n"
    with tempfile.TemporaryDirectory() as where:
        text, obj, out = (Path(where) / name for name in ("a.s", "a.o", "a.bin"))
        text.write_text(head + source + "\n")
        subprocess.run(["as", "--64", "-o", obj, text], check=True)
        subprocess.run(["ld", "-Ttext", hex(address), "--oformat", "binary", "-o", out, obj], check=True)
        return out.read_bytes()


class Vcpu:
    """One vCPU, by its handle."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def run(self) -> Exit:
        out = Exit()
        check(LIB.aioemu_vcpu_run(self.handle, c.byref(out)))
        return out

    def state(self) -> X86State:
        out = X86State(size=c.sizeof(X86State))
        check(LIB.aioemu_x86_get_state(self.handle, c.byref(out)))
        return out

    def set(self, state: X86State) -> None:
        check(LIB.aioemu_x86_set_state(self.handle, c.byref(state)))

    def kick(self) -> None:
        LIB.aioemu_vcpu_kick(self.handle)


class Machine:
    """An x86 engine with RAM at 0 and its first vCPU."""

    arch = 1

    def __init__(self, vcpus: int = 1, **options: Any) -> None:
        self.ram = mmap.mmap(-1, RAM_SIZE)
        self._view = (c.c_uint8 * RAM_SIZE).from_buffer(self.ram)
        callbacks = {name: options.pop(name) for name in list(options) if name in CALLBACK_TYPES}
        self._keep = {name: CALLBACK_TYPES[name](call) for name, call in callbacks.items()}
        config = Config(size=c.sizeof(Config), arch=self.arch, **options)
        config.callbacks = Callbacks(size=c.sizeof(Callbacks), **self._keep)
        engine = c.c_void_p()
        check(LIB.aioemu_engine_create(c.byref(config), c.byref(engine)))
        self.engine = engine.value
        check(LIB.aioemu_engine_map(self.engine, 0, RAM_SIZE, c.addressof(self._view), 0))
        self.vcpus = [self._vcpu() for _ in range(vcpus)]
        self.vcpu = self.vcpus[0]

    def _vcpu(self) -> Vcpu:
        handle = c.c_void_p()
        check(LIB.aioemu_vcpu_create(self.engine, None, c.byref(handle)))
        assert handle.value
        return Vcpu(handle.value)

    def host(self, gpa: int) -> int:
        return c.addressof(self._view) + gpa

    def close(self) -> None:
        LIB.aioemu_engine_destroy(self.engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, gpa: int, data: bytes) -> None:
        self.ram[gpa : gpa + len(data)] = data
        LIB.aioemu_engine_dma_written(self.engine, gpa, len(data))

    def u64(self, gpa: int) -> int:
        return int.from_bytes(self.ram[gpa : gpa + 8], "little")

    def put64(self, gpa: int, *values: int) -> None:
        for i, value in enumerate(values):
            self.put(gpa + 8 * i, (value & (1 << 64) - 1).to_bytes(8, "little"))

    def real(self, source: str, address: int = 0x8000) -> None:
        """Start the vCPU in real mode at address."""
        self.put(address, assemble(source, address, 16))
        state = self.vcpu.state()
        state.seg[CS].selector, state.seg[CS].base = 0, 0
        state.rip, state.gpr[RSP] = address, 0x7000
        state.halted = state.shutdown = 0
        self.vcpu.set(state)

    def long(self, source: str, address: int = 0x100000, user: bool = False, vcpu: Vcpu | None = None) -> None:
        """Start a vCPU in long mode, 2 MiB identity pages (all user), an empty IDT at IDT, a TSS."""
        self.put(address, assemble(source, address))
        long_mode(self, vcpu or self.vcpu, address, user)


PML4, PDPT, PD, GDT, IDT, TSS = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000
STACK, USER_STACK, IST1 = 0x20000, 0x30000, 0x28000
KCS, KDS, UDS, UCS = 0x08, 0x10, 0x18 | 3, 0x20 | 3


def long_mode(machine: Machine, vcpu: Vcpu, address: int, user: bool = False) -> None:
    machine.put64(PML4, PDPT | 7)
    machine.put64(PDPT, PD | 7)
    machine.put64(PD, *[(i << 21) | 0x87 for i in range(RAM_SIZE >> 21)])
    machine.put64(GDT, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)
    machine.put64(TSS + 4, STACK)
    machine.put64(TSS + 0x24, IST1)
    machine.put(TSS + 0x66, (0x68).to_bytes(2, "little"))
    state = vcpu.state()
    state.cr3, state.cr4, state.cr0, state.efer = PML4, 0x620, 0x80010033, 0xD01
    for i in range(6):
        state.seg[i] = Segment(0, 0xFFFFFFFF, UDS if user else KDS, 0xC0F3 if user else 0xC093)
    state.seg[CS] = Segment(0, 0xFFFFFFFF, UCS if user else KCS, 0xA0FB if user else 0xA09B)
    state.gdt, state.idt = Table(GDT, 0x27), Table(IDT, 0xFFF)
    state.tr = Segment(TSS, 0x2067, 0x28, 0x008B)
    state.star = (KCS << 32) | (0x10 << 48)
    state.halted = state.shutdown = 0
    state.rip, state.gpr[RSP], state.rflags = address, USER_STACK if user else STACK, 2
    vcpu.set(state)


def gate(machine: Machine, vector: int, handler: int, ist: int = 0, dpl: int = 0, kind: int = 0xE) -> None:
    """An IDT entry of long mode."""
    low = (handler & 0xFFFF) | KCS << 16 | ist << 32 | (0x80 | dpl << 5 | kind) << 40 | (handler >> 16 & 0xFFFF) << 48
    machine.put64(IDT + 16 * vector, low, handler >> 32)


def handler(machine: Machine, vector: int, source: str, **options: int) -> int:
    """Put a handler for vector into memory and the IDT; returns where."""
    at = 0x200000 + vector * 0x100
    machine.put(at, assemble(source, at))
    gate(machine, vector, at, **options)
    return at


Callback = Callable[..., Any]
