"""What to tell people when a vCPU stopped: the reason, its registers, and the bytes of the instruction it stood at."""

from __future__ import annotations

from aioemu.errors import EmuError
from aioemu.machine.native import INSTRUCTION_BYTES, Native, Stop, StopKind
from aioemu.memory.guest import GuestMemory

_INTERNAL_ERRORS = {1: "an instruction that KVM cannot emulate", 2: "an exception during an exception", 3: "an event"}


def describe_stop(native: Native, memory: GuestMemory, stop: Stop) -> str:
    """Several lines; never fails, whatever state the guest is in."""
    lines = [f"vCPU {stop.vcpu} stopped: {_reason(stop)}"]
    try:
        registers = native.registers(stop.vcpu)
    except EmuError as exc:
        return f"{lines[0]}; {exc}"
    lines.extend(format_registers(registers))
    code = instruction_bytes(native, memory, stop.vcpu, registers["cs.base"] + registers["rip"])
    lines.append(f"code {code.hex(' ') if code else 'not readable'}")
    return "\n".join(lines)


def _reason(stop: Stop) -> str:
    if stop.kind is StopKind.INTERNAL_ERROR:
        return f"internal error {stop.detail} ({_INTERNAL_ERRORS.get(stop.detail, f'exit reason {stop.more}')})"
    if stop.kind is StopKind.FAIL_ENTRY:
        return f"the processor refused to enter the guest, hardware reason {stop.detail:#x}"
    if stop.kind is StopKind.HOST_ERROR:
        return f"the accelerator failed with errno {stop.detail}"
    if stop.kind is StopKind.HALTED:
        return "halted, and no interrupt controller could wake it"
    return f"{stop.kind.name.lower().replace('_', ' ')} {stop.detail:#x} at {stop.more:#x}"


ORDER = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
FLAGS = (("D", 10), ("O", 11), ("S", 7), ("Z", 6), ("A", 4), ("P", 2), ("C", 0))  # SDM vol. 1 3.4.3
EFER_LMA = 1 << 10
DPL_SHIFT, IS_MEMORY, IS_CODE, LONG, BIG = 13, 1 << 12, 1 << 11, 1 << 21, 1 << 22


def format_registers(registers: dict[str, int]) -> list[str]:
    """Registers as `info registers` lays them out: with 64 bits where the processor is in long mode."""
    wide = bool(registers["efer"] & EFER_LMA)
    names, digits = (ORDER, 16) if wide else (ORDER[:8], 8)
    general = [
        f"{(name if wide else name.replace('r', 'e', 1)).upper():<3}={registers[name]:0{digits}x}" for name in names
    ]
    lines = [" ".join(general[i : i + 4]) for i in range(0, len(general), 4)]
    flags = "".join(letter if registers["rflags"] >> bit & 1 else "-" for letter, bit in FLAGS)
    state = f"CPL={registers['ss.flags'] >> DPL_SHIFT & 3} II=0 A20=1 SMM=0 HLT={registers['halted']}"
    pointer, word = ("RIP", "RFL") if wide else ("EIP", "EFL")
    lines.append(f"{pointer}={registers['rip']:0{digits}x} {word}={registers['rflags']:08x} [{flags}] {state}")
    lines += [_segment(name, registers, digits) for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")]
    lines += [
        f"{name.upper()}=     {registers[name]:0{digits}x} {registers[f'{name}.limit']:08x}" for name in ("gdt", "idt")
    ]
    control = [f"CR0={registers['cr0']:08x}", *(f"{n.upper()}={registers[n]:0{digits}x}" for n in ("cr2", "cr3"))]
    lines.append(" ".join([*control, f"CR4={registers['cr4']:08x}"]))
    lines.append(f"EFER={registers['efer']:016x}")
    return lines


def _segment(name: str, registers: dict[str, int], digits: int) -> str:
    flags = registers[f"{name}.flags"]
    numbers = (
        f"{registers[name]:04x} {registers[f'{name}.base']:0{digits}x} {registers[f'{name}.limit']:08x} {flags:08x}"
    )
    what = f" DPL={flags >> DPL_SHIFT & 3} {_kind(flags)}" if registers["cr0"] & 1 and flags & 1 << 15 else ""
    return f"{name.upper():<3}={numbers}{what}"


def _kind(flags: int) -> str:
    """What a segment's attributes say: code (16, 32 or 64 bits), data, or a system segment, and what it allows."""
    if not flags & IS_MEMORY:
        return {0x2: "LDT", 0x9: "TSS64-avl", 0xB: "TSS64-busy"}.get(flags >> 8 & 15, "system")
    letters = ("C", "R", "A") if flags & IS_CODE else ("E", "W", "A")
    allowed = "".join(c if flags >> bit & 1 else "-" for c, bit in zip(letters, (10, 9, 8), strict=True))
    if flags & IS_CODE:
        return f"{'CS64' if flags & LONG else 'CS32' if flags & BIG else 'CS16'} [{allowed}]"
    return f"{'DS  ' if flags & BIG else 'DS16'} [{allowed}]"


def instruction_bytes(native: Native, memory: GuestMemory, vcpu: int, address: int) -> bytes:
    """The bytes at a virtual address, as far as they are mapped memory."""
    code = b""
    while len(code) < INSTRUCTION_BYTES:
        at = address + len(code)
        physical = native.translate(vcpu, at)
        if physical is None:
            break
        try:
            code += memory.read(physical, min(INSTRUCTION_BYTES - len(code), 4096 - at % 4096))
        except EmuError:
            break
    return code
