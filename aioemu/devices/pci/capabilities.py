"""Capabilities: groups of registers chained through configuration space (PCI 3.0, 6.7).

Each is a register group with an id and a pointer to the next; the function that has them lays out the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from aioemu.bus.registers import Reg, RegisterGroup, bit, field

FIRST, LIMIT = 0x40, 0x100  # the device's part of the first 256 bytes


class CapId(Reg):
    writable, fixed = 0, True


class CapNext(Reg):
    writable, fixed = 0, True


class Capability(RegisterGroup):
    """The head of any capability. `length` is what it takes in configuration space."""

    layout = {0: CapId, 1: CapNext}
    cap_id: int
    name: ClassVar[str] = ""
    number: ClassVar[int] = 0
    length: ClassVar[int] = 4

    def attached(self, function: object) -> None:
        """The function that has this capability exists now."""


def chain(capabilities: Sequence[Capability]) -> dict[str, tuple[int, RegisterGroup]]:
    """Place capabilities one behind the other, on four-byte boundaries, and link them."""
    places: dict[str, tuple[int, RegisterGroup]] = {}
    at = FIRST
    for position, capability in enumerate(capabilities):
        after = (at + capability.length + 3) & ~3
        if after > LIMIT:
            raise ValueError(f"{capability.name}: no room in configuration space")
        following = after if position + 1 < len(capabilities) else 0
        head = {"cap_id": {"reset": capability.number}, "cap_next": {"reset": following}}
        capability.tuning = {**capability.tuning, **head}
        name = capability.name if capability.name not in places else f"{capability.name}{position}"
        places[name] = (at, capability)
        at = after
    return places


class PmCapabilities(Reg):
    width, reset, writable, fixed = 2, 0x0003, 0, True  # version 1.2, D0 and D3hot


class PmControl(Reg):
    """Only the state is kept: a function here costs nothing in D0."""

    width, reset, writable = 2, 0x0008, 0x0003  # no soft reset: registers survive D3hot
    state = field(1, 0)


class PowerManagement(Capability):
    """PCI power management (PCI PM 1.2, 3.2)."""

    layout = {**Capability.layout, 2: PmCapabilities, 4: PmControl}
    name, number, length = "pm", 0x01, 8


class ExpressFlags(Reg):
    """Version, device or port type, slot implemented."""

    width, writable, fixed = 2, 0, True


class DeviceCapabilities(Reg):
    width, reset, writable, fixed = 4, 0x0000_8000, 0, True  # role based errors, 128 byte payloads


class DeviceControl(Reg):
    width, writable, reset = 2, 0x7FFF, 0x2810


class DeviceStatus(Reg):
    width, kind, clear = 2, "w1c", 0x000F


class LinkCapabilities(Reg):
    """2.5 GT/s, one lane."""

    width, reset, writable, fixed = 4, 0x0000_0011, 0, True


class LinkControl(Reg):
    width, writable = 2, 0x03FB


class LinkStatus(Reg):
    width, reset, writable = 2, 0x0011, 0


class SlotCapabilities(Reg):
    width, writable, fixed = 4, 0, True


class SlotControl(Reg):
    width, writable = 2, 0x1FFF


class SlotStatus(Reg):
    """Presence, and events of a slot that can be plugged while running."""

    width, kind, clear = 2, "w1c", 0x011F
    present = bit(6)


class RootControl(Reg):
    width, writable = 2, 0x001F


class RootStatus(Reg):
    width, kind, clear = 4, "w1c", 0x0001_0000


class DeviceCapabilities2(Reg):
    width, writable, fixed = 4, 0, True


class DeviceControl2(Reg):
    width, writable = 2, 0x07FF


class LinkCapabilities2(Reg):
    width, reset, writable, fixed = 4, 0x0000_0002, 0, True


class LinkControl2(Reg):
    width, writable, reset = 2, 0xFFFF, 1


ENDPOINT, ROOT_PORT, INTEGRATED_ENDPOINT = 0x0, 0x4, 0x9


class Express(Capability):
    """PCI Express (PCIe 2.0, 7.8), version 2. Slot and root registers are there for every type, as the layout wants."""

    layout = {
        **Capability.layout,
        0x02: ExpressFlags,
        0x04: DeviceCapabilities,
        0x08: DeviceControl,
        0x0A: DeviceStatus,
        0x0C: LinkCapabilities,
        0x10: LinkControl,
        0x12: LinkStatus,
        0x14: SlotCapabilities,
        0x18: SlotControl,
        0x1A: SlotStatus,
        0x1C: RootControl,
        0x20: RootStatus,
        0x24: DeviceCapabilities2,
        0x28: DeviceControl2,
        0x2C: LinkCapabilities2,
        0x30: LinkControl2,
    }
    name, number, length = "express", 0x10, 0x3C
    slot_status: int
    link_status: int

    def __init__(self, port_type: int = ENDPOINT, slot_number: int | None = None, link_port: int = 0) -> None:
        slot = slot_number is not None
        self.tuning = {
            "express_flags": {"reset": 2 | port_type << 4 | (1 << 8 if slot else 0)},
            "link_capabilities": {"reset": 0x11 | (link_port & 0xFF) << 24},
            "slot_capabilities": {"reset": (slot_number or 0) << 19},
        }
