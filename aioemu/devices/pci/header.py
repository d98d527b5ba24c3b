"""Configuration space headers, types 0 and 1 (PCI 3.0, 6.1; PCI-to-PCI Bridge 1.2, 3.2), as register maps."""

from __future__ import annotations

from aioemu.bus.layout import Layout
from aioemu.bus.registers import Reg, bit, field


class VendorId(Reg):
    width, writable, fixed = 2, 0, True


class DeviceId(Reg):
    width, writable, fixed = 2, 0, True


class Command(Reg):
    """What the function may do."""

    width, writable = 2, 0x0547
    io, memory, master, parity, serr, intx_off = bit(0), bit(1), bit(2), bit(6), bit(8), bit(10)


class Status(Reg):
    """What happened; errors never do."""

    width, kind, clear = 2, "w1c", 0xF900
    intx, capabilities = bit(3), bit(4)


class RevisionId(Reg):
    writable, fixed = 0, True


class ClassCode(Reg):
    """Programming interface, subclass, base class."""

    count, writable, fixed = 3, 0, True


class CacheLineSize(Reg):
    """Kept for the guest; nothing depends on it."""


class HeaderType(Reg):
    writable, fixed = 0, True
    multifunction, layout = bit(7), field(6, 0)


class Bar(Reg):
    """Where the function's registers are; sizing works by the bits that cannot be written."""

    width, count, writable, fixed = 4, 6, 0, True


class SubsystemVendorId(Reg):
    width, writable, fixed = 2, 0, True


class SubsystemId(Reg):
    width, writable, fixed = 2, 0, True


class CapabilitiesPointer(Reg):
    writable, fixed = 0, True


class InterruptLine(Reg):
    """Kept for the guest."""


class InterruptPin(Reg):
    writable, fixed = 0, True


COMMON: Layout = {
    0x00: VendorId,
    0x02: DeviceId,
    0x04: Command,
    0x06: Status,
    0x08: RevisionId,
    0x09: ClassCode,
    0x0C: CacheLineSize,
    0x0E: HeaderType,
    0x34: CapabilitiesPointer,
    0x3C: InterruptLine,
    0x3D: InterruptPin,
}
TYPE_0: Layout = {**COMMON, 0x10: Bar, 0x2C: SubsystemVendorId, 0x2E: SubsystemId}


class BridgeBar(Reg):
    name, width, count, writable, fixed = "bar", 4, 2, 0, True


class PrimaryBus(Reg):
    """The bus on this side."""


class SecondaryBus(Reg):
    """The bus behind the bridge."""


class SubordinateBus(Reg):
    """The last bus behind the bridge."""


class SecondaryLatency(Reg):
    writable, fixed = 0, True


class IoBase(Reg):
    writable, reset = 0xF0, 0x01


class IoLimit(Reg):
    writable, reset = 0xF0, 0x01


class SecondaryStatus(Reg):
    width, kind, clear = 2, "w1c", 0xF900


class MemoryBase(Reg):
    width, writable = 2, 0xFFF0


class MemoryLimit(Reg):
    width, writable = 2, 0xFFF0


class PrefetchBase(Reg):
    width, writable, reset = 2, 0xFFF0, 1


class PrefetchLimit(Reg):
    width, writable, reset = 2, 0xFFF0, 1


class PrefetchBaseUpper(Reg):
    width = 4


class PrefetchLimitUpper(Reg):
    width = 4


class IoBaseUpper(Reg):
    width = 2


class IoLimitUpper(Reg):
    width = 2


class BridgeControl(Reg):
    """Bit 6 resets what is behind the bridge."""

    width, writable = 2, 0x005F
    secondary_reset = bit(6)


TYPE_1: Layout = {
    **COMMON,
    0x10: BridgeBar,
    0x18: PrimaryBus,
    0x19: SecondaryBus,
    0x1A: SubordinateBus,
    0x1B: SecondaryLatency,
    0x1C: IoBase,
    0x1D: IoLimit,
    0x1E: SecondaryStatus,
    0x20: MemoryBase,
    0x22: MemoryLimit,
    0x24: PrefetchBase,
    0x26: PrefetchLimit,
    0x28: PrefetchBaseUpper,
    0x2C: PrefetchLimitUpper,
    0x30: IoBaseUpper,
    0x32: IoLimitUpper,
    0x3E: BridgeControl,
}
