"""What to tell people when a vCPU stopped: the reason, its registers, and the bytes of the instruction it stood at."""

from __future__ import annotations

from aioemu.errors import EmuError
from aioemu.machine.native import GPR_NAMES, INSTRUCTION_BYTES, SEGMENTS, Native, Stop, StopKind
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


def format_registers(registers: dict[str, int]) -> list[str]:
    """Registers as `info registers` lays them out."""
    general = [f"{name.upper():<3}={registers[name]:016x}" for name in GPR_NAMES]
    lines = [" ".join(general[i : i + 4]) for i in range(0, 16, 4)]
    lines.append(f"RIP={registers['rip']:016x} RFL={registers['rflags']:08x} HLT={registers['halted']}")
    lines += [f"{name.upper():<3}={registers[name]:04x} {registers[f'{name}.base']:016x}" for name in SEGMENTS]
    lines.append(f"GDT={registers['gdt']:016x} IDT={registers['idt']:016x}")
    lines.append(" ".join(f"{name.upper()}={registers[name]:016x}" for name in ("cr0", "cr2", "cr3", "cr4")))
    lines.append(f"EFER={registers['efer']:016x}")
    return lines


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
