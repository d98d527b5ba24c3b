"""Interrupts by message: the MSI and MSI-X capabilities (PCI 3.0, 6.8).

The MSI-X table is native (`core/msix.c`): `notify` may come from any thread, and masked vectors wait in the table's own
pending bits. The guest may write any address and data; what they hit is the interrupt controllers' business.
"""

from __future__ import annotations

from typing import Any

from aioemu._core import ffi, lib
from aioemu.bus.deferred import ALL_ONES, Answer
from aioemu.bus.registers import Reg, bit, field
from aioemu.bus.state import Bytes
from aioemu.bus.wires import MsiSink, NotConnected
from aioemu.devices.native import load_chip, save_chip
from aioemu.devices.pci.capabilities import Capability
from aioemu.errors import StateError

ENTRY_BYTES = 16
MAX_VECTORS = 2048


class MsixControl(Reg):
    """Table size, function mask, enable."""

    width, writable, fixed = 2, 0xC000, True
    table_size, masked, enabled = field(10, 0), bit(14), bit(15)


class MsixTableAt(Reg):
    width, writable, fixed = 4, 0, True


class MsixPendingAt(Reg):
    width, writable, fixed = 4, 0, True


class MsixTable:
    """The table and pending bits, to be placed in a BAR."""

    def __init__(self, vectors: int, pba_offset: int) -> None:
        self.size = pba_offset + (vectors + 63) // 64 * 8
        self.chip = ffi.gc(lib.core_msix_new(vectors, pba_offset), lib.core_chip_free)
        if self.chip == ffi.NULL:
            raise ValueError(f"MSI-X: no table of {vectors} vectors with pending bits at {pba_offset:#x}")

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        """The table hands nothing over."""
        return ALL_ONES


class Msix(Capability):
    """MSI-X with `vectors` vectors; put `table` at the start of BAR `bar`."""

    layout = {**Capability.layout, 2: MsixControl, 4: MsixTableAt, 8: MsixPendingAt}
    state = {"table_state": Bytes(MAX_VECTORS * (ENTRY_BYTES + 1))}
    name, number, length = "msix", 0x11, 12
    msix_control: int

    def __init__(self, vectors: int, bar: int, table_offset: int = 0, pba_offset: int | None = None) -> None:
        pba = pba_offset if pba_offset is not None else table_offset + max(0x800, vectors * ENTRY_BYTES)
        self.vectors = vectors
        self.table_offset = table_offset
        self.table = MsixTable(vectors, pba - table_offset)
        self.tuning = {
            "msix_control": {"reset": vectors - 1},
            "msix_table_at": {"reset": table_offset | bar},
            "msix_pending_at": {"reset": pba | bar},
        }

    @property
    def enabled(self) -> bool:
        return bool(self.msix_control & MsixControl.enabled)

    def notify(self, vector: int) -> bool:
        """Interrupt the guest by `vector`; False when MSI-X is off or has no such vector."""
        return int(lib.core_msix_notify(self.table.chip, vector)) == 0

    def write_msix_control(self, value: int) -> None:
        self._control(value)

    def on_reset(self) -> None:
        lib.core_chip_reset(self.table.chip)

    @property
    def table_state(self) -> bytes:
        return save_chip(self.table.chip)

    @table_state.setter
    def table_state(self, state: bytes) -> None:
        load_chip(self.table.chip, state, "MSI-X")

    def check(self, registers: Any, fields: Any) -> None:
        scratch = MsixTable(self.vectors, self.vectors * ENTRY_BYTES)
        load_chip(scratch.chip, fields["table_state"], "MSI-X")

    def loaded(self) -> None:
        self._control(self.msix_control)

    def _control(self, value: int) -> None:
        enabled, masked = value & MsixControl.enabled, value & MsixControl.masked
        lib.core_msix_control(self.table.chip, bool(enabled), bool(masked))


class MsiControl(Reg):
    """64-bit addresses, masks per vector, and how many vectors are used."""

    width, writable, reset, fixed = 2, 0x0071, 0x0180, True
    enabled, capable, used = bit(0), field(3, 1), field(6, 4)


class MsiAddress(Reg):
    width, writable = 4, 0xFFFFFFFC


class MsiUpperAddress(Reg):
    width = 4


class MsiData(Reg):
    width = 2


class MsiMask(Reg):
    width = 4


class MsiPending(Reg):
    width, writable = 4, 0


class Msi(Capability):
    """MSI with 1, 2, 4 ... 32 vectors, 64-bit addresses and masks."""

    layout = {
        **Capability.layout,
        0x02: MsiControl,
        0x04: MsiAddress,
        0x08: MsiUpperAddress,
        0x0C: MsiData,
        0x10: MsiMask,
        0x14: MsiPending,
    }
    name, number, length = "msi", 0x05, 0x18
    msi_control: int
    msi_address: int
    msi_upper_address: int
    msi_data: int
    msi_mask: int
    msi_pending: int

    def __init__(self, vectors: int = 1) -> None:
        order = vectors.bit_length() - 1
        if vectors != 1 << order or order > 5:
            raise ValueError(f"MSI: {vectors} vectors")
        self.sink: MsiSink = NotConnected()
        self.vectors = vectors
        self.tuning = {
            "msi_control": {"reset": MsiControl.reset | order << 1},
            "msi_mask": {"writable": (1 << vectors) - 1},
        }

    @property
    def enabled(self) -> bool:
        return bool(self.msi_control & MsiControl.enabled)

    def notify(self, vector: int) -> bool:
        """Interrupt the guest by `vector`; False when MSI is off. Reactor thread only."""
        if not self.enabled or not 0 <= vector < self.vectors:
            return False
        if self.msi_mask >> vector & 1:
            self.set_bits("msi_pending", 1 << vector)
            return True
        low = (1 << min(MsiControl.used.of(self.msi_control), self.vectors.bit_length() - 1)) - 1
        address = self.msi_upper_address << 32 | self.msi_address
        self.sink.send(address, (self.msi_data & ~low) | (vector & low))
        return True

    def write_msi_control(self, value: int) -> None:
        self._flush()

    def write_msi_mask(self, value: int) -> None:
        self._flush()

    def check(self, registers: Any, fields: Any) -> None:
        if registers["msi_pending"] >> self.vectors:
            raise StateError("MSI: a vector is pending that there is not")

    def _flush(self) -> None:
        """Send what waits for vectors that are not masked any more."""
        ready = self.msi_pending & ~self.msi_mask if self.enabled else 0
        self.clear_bits("msi_pending", ready)
        for vector in range(self.vectors):
            if ready >> vector & 1:
                self.notify(vector)
