"""The state a vCPU starts in, said in the processor's own terms and for no accelerator in particular.

The machine turns a BootEntry into registers. What is not named here (other general registers, debug registers,
floating point, MSRs) has its reset value. Application processors are not covered: they wait for their SIPI.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

CR0_PE, CR0_ET, CR0_PG = 1 << 0, 1 << 4, 1 << 31
CR0_RESET = 0x60000010  # CD, NW, ET (SDM 3A table 9-1)
CR4_PAE = 1 << 5
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
RFLAGS_FIXED = 0x2  # bit 1 always reads as one; interrupts are off

FLAT_LIMIT = 0xFFFFFFFF
REAL_LIMIT = 0xFFFF
CODE_RX, DATA_RW = 0xB, 0x3  # segment types (SDM 3A 3.4.5.1), accessed
LDT, BUSY_TSS = 0x2, 0xB  # system types (SDM 3A 3.5)


class BootMode(Enum):
    """What the processor is in at the first instruction."""

    PVH32 = "pvh32"  # 32-bit protected, no paging, rbx = hvm_start_info
    LONG64 = "long64"  # 64-bit, 4 GiB mapped one to one, rsi = boot_params
    PROTECTED32 = "protected32"  # 32-bit protected, no paging; rsi = boot_params, or rax and rbx as multiboot says
    REAL16 = "real16"  # as after reset, at another place


class Segment(Struct, frozen=True):
    """A segment register with its hidden part; `limit` is in bytes, `granularity` only fills the descriptor's bit."""

    selector: int
    base: int
    limit: int
    kind: int  # the descriptor's 4-bit type
    code_or_data: bool = True  # the S bit
    dpl: int = 0
    present: bool = True
    available: bool = False
    long: bool = False  # L
    default_big: bool = False  # D/B
    granularity: bool = False  # G

    @property
    def unusable(self) -> bool:
        return not self.present


class DescriptorTable(Struct, frozen=True):
    """GDTR or IDTR."""

    base: int
    limit: int


class BootEntry(Struct, frozen=True):
    """The boot processor at its first instruction."""

    mode: BootMode
    rip: int
    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: DescriptorTable
    idt: DescriptorTable
    cr0: int
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    rax: int = 0
    rbx: int = 0
    rsi: int = 0
    rbp: int = 0
    rsp: int = 0
    rflags: int = RFLAGS_FIXED


NO_LDT = Segment(0, 0, 0, LDT, code_or_data=False, present=False)


def real16_entry(segment: int, offset: int) -> BootEntry:
    """Real mode at segment:offset, every other register as after reset (SDM 3A table 9-1)."""
    data = Segment(0, 0, REAL_LIMIT, DATA_RW)
    code = Segment(segment, segment << 4, REAL_LIMIT, CODE_RX)
    return BootEntry(
        BootMode.REAL16,
        rip=offset,
        cs=code,
        ds=data,
        es=data,
        fs=data,
        gs=data,
        ss=data,
        tr=Segment(0, 0, REAL_LIMIT, BUSY_TSS, code_or_data=False),
        ldt=NO_LDT,
        gdt=DescriptorTable(0, REAL_LIMIT),
        idt=DescriptorTable(0, REAL_LIMIT),
        cr0=CR0_RESET,
    )


def flat_entry(mode: BootMode, rip: int, gdt: DescriptorTable, code_selector: int, data_selector: int) -> BootEntry:
    """Flat 32- or 64-bit segments over a GDT in memory; the caller adds the registers that its protocol names."""
    long = mode is BootMode.LONG64
    data = Segment(data_selector, 0, FLAT_LIMIT, DATA_RW, default_big=True, granularity=True)
    code = Segment(code_selector, 0, FLAT_LIMIT, CODE_RX, long=long, default_big=not long, granularity=True)
    return BootEntry(
        mode,
        rip=rip,
        cs=code,
        ds=data,
        es=data,
        fs=data,
        gs=data,
        ss=data,
        tr=Segment(0, 0, 0x67, BUSY_TSS, code_or_data=False),  # the PVH ABI names this limit; KVM needs a busy TSS
        ldt=NO_LDT,
        gdt=gdt,
        idt=DescriptorTable(0, 0),
        cr0=CR0_PE | CR0_ET,
    )
