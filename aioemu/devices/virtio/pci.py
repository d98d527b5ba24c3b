"""virtio-pci, modern (Virtio 1.2, 4.1): a virtio device behind a PCI function.

BAR 4 has the registers, served in C, BAR 1 the MSI-X table; without MSI-X the pin is driven from C as well. Left out:
the transitional layout (ids 0x1000..0x103f), shared memory, and notification data.
"""

from __future__ import annotations

from typing import Any

from aioemu._core import ffi, lib
from aioemu.bus.deferred import ALL_ONES, Answer
from aioemu.bus.registers import Reg, access
from aioemu.bus.router import IrqSource
from aioemu.devices.pci.bars import BarSpec
from aioemu.devices.pci.capabilities import Capability, Express
from aioemu.devices.pci.function import Identity, PciFunction, Slot
from aioemu.devices.pci.header import Command
from aioemu.devices.pci.msi import Msix
from aioemu.devices.virtio.device import VirtioDevice
from aioemu.devices.virtio.mmio import answer, make_face

VENDOR, FIRST_MODERN_ID = 0x1AF4, 0x1040
SUBSYSTEM = 0x1100
MSIX_BAR, REGISTERS_BAR = 1, 4
BAR_BYTES, PAGE_BYTES = 0x4000, 0x1000
COMMON_AT, ISR_AT, CONFIG_AT, NOTIFY_AT = 0x0000, 0x1000, 0x2000, 0x3000
NOTIFY_STRIDE = 4
MAX_VECTORS = 2048
COMMON_CFG, NOTIFY_CFG, ISR_CFG, DEVICE_CFG, PCI_CFG = 1, 2, 3, 4, 5  # cfg_type


class CfgLength(Reg):
    writable, fixed = 0, True


class CfgType(Reg):
    writable, fixed = 0, True


class CfgBar(Reg):
    writable, fixed = 0, True


class CfgId(Reg):
    writable, fixed = 0, True


class CfgOffset(Reg):
    width, writable, fixed = 4, 0, True


class CfgBytes(Reg):
    width, writable, fixed = 4, 0, True


class NotifyMultiplier(Reg):
    width, writable, fixed, reset = 4, 0, True, NOTIFY_STRIDE


class VirtioCap(Capability):
    """struct virtio_pci_cap: where in BAR 4 a structure is (4.1.4)."""

    layout = {**Capability.layout, 2: CfgLength, 3: CfgType, 4: CfgBar, 5: CfgId, 8: CfgOffset, 12: CfgBytes}
    number, length = 0x09, 16
    name = "virtio"

    def __init__(self, kind: int, offset: int, size: int = PAGE_BYTES) -> None:
        self.tuning = {
            "cfg_length": {"reset": self.length},
            "cfg_type": {"reset": kind},
            "cfg_bar": {"reset": REGISTERS_BAR},
            "cfg_offset": {"reset": offset},
            "cfg_bytes": {"reset": size},
        }


class NotifyCap(VirtioCap):
    """With the distance from one queue's register to the next."""

    layout = {**VirtioCap.layout, 16: NotifyMultiplier}
    length = 20
    name = "virtio-notify"


class WindowBar(Reg):
    name = "window_bar"


class WindowOffset(Reg):
    width = 4


class WindowBytes(Reg):
    width = 4


class WindowData(Reg):
    width = 4


class WindowCap(Capability):
    """A way to the registers through configuration space, for firmware without memory decoding (4.1.4.9)."""

    layout = {
        **Capability.layout,
        2: CfgLength,
        3: CfgType,
        4: WindowBar,
        5: CfgId,
        8: WindowOffset,
        12: WindowBytes,
        16: WindowData,
    }
    number, length = 0x09, 20
    name = "virtio-window"
    window_bar: int
    window_offset: int
    window_bytes: int
    window_data: int

    def __init__(self) -> None:
        self.tuning = {"cfg_length": {"reset": self.length}, "cfg_type": {"reset": PCI_CFG}}
        self.registers_face: VirtioRegisters | None = None

    def read_window_data(self) -> int:
        face = self._reachable()
        return access(face, self.window_offset, self.window_bytes, False) if face is not None else 0

    def write_window_data(self, value: int) -> None:
        face = self._reachable()
        if face is not None:
            size = self.window_bytes
            access(face, self.window_offset, size, True, value & ((1 << (8 * size)) - 1))

    def _reachable(self) -> VirtioRegisters | None:
        """An access of 1, 2 or 4 bytes, aligned, within BAR 4; others are ignored."""
        size, offset = self.window_bytes, self.window_offset
        fits = self.window_bar == REGISTERS_BAR and size in (1, 2, 4) and offset % size == 0
        return self.registers_face if fits and offset + size <= BAR_BYTES else None


class VirtioExpress(Express):
    """An endpoint that can be reset alone (PCIe 2.0, 6.6.2)."""

    RESET_CAPABLE, INITIATE_RESET = 1 << 28, 1 << 15

    def __init__(self) -> None:
        super().__init__()
        self.tuning = {**self.tuning, "device_capabilities": {"reset": 0x8000 | self.RESET_CAPABLE}}
        self.function: VirtioPci | None = None

    def attached(self, function: object) -> None:
        assert isinstance(function, VirtioPci)
        self.function = function

    def write_device_control(self, value: int) -> None:
        if value & self.INITIATE_RESET and self.function is not None:
            self.function.reset()


class VirtioRegisters:
    """The four structures as one part of BAR 4."""

    size = BAR_BYTES

    def __init__(self, device: VirtioDevice) -> None:
        self.device = device
        self.chip = make_face(device, lib.CORE_VIRTIO_PCI)

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        return answer(self.device, reg, offset - CONFIG_AT, size, value) if is_write else ALL_ONES


class VirtioPci(PciFunction):
    """The function. `vectors` 0: no MSI-X, so the pin; by default one for each queue and one for the configuration."""

    def __init__(self, device: VirtioDevice, *, vectors: int | None = None, name: str = "") -> None:
        self.device = device
        self.face = VirtioRegisters(device)
        self.moved: Any = lambda base: None  # where the registers are now: for the accelerator's doorbells
        count = min(len(device.queues) + 1 if vectors is None else vectors, MAX_VECTORS)
        window = WindowCap()
        window.registers_face = self.face
        capabilities: list[Capability] = [
            VirtioCap(COMMON_CFG, COMMON_AT),
            VirtioCap(ISR_CFG, ISR_AT),
            VirtioCap(DEVICE_CFG, CONFIG_AT),
            NotifyCap(NOTIFY_CFG, NOTIFY_AT),
            window,
            VirtioExpress(),
        ]
        bars = [BarSpec(REGISTERS_BAR, "mem64", BAR_BYTES, [(0, self.face)], prefetch=True)]
        msix = Msix(count, MSIX_BAR) if count else None
        if msix is not None:
            capabilities.insert(0, msix)
            size = max(PAGE_BYTES, 1 << (msix.table.size - 1).bit_length())
            bars.append(BarSpec(MSIX_BAR, "mem32", size, [(0, msix.table)]))
        identity = Identity(
            VENDOR,
            FIRST_MODERN_ID + device.device_id,
            device.pci_class,
            1,
            subsystem_vendor=VENDOR,
            subsystem=SUBSYSTEM,
        )
        super().__init__(identity, bars=bars, capabilities=capabilities, pin=1, name=name)
        self._wire()

    def _wire(self) -> None:
        """From here on the device in C interrupts through this function."""
        table = self.msix.table.chip if self.msix is not None else ffi.NULL
        lib.core_virtio_wire_pci(self.device.chip, table, self.chip)

    def plugged(self, slot: Slot) -> None:
        self._wire()
        super().plugged(slot)
        if isinstance(self.intx_line, IrqSource):
            self.intx_line.wire(self.device.chip)

    def unplugged(self) -> None:
        self.device.reset()
        super().unplugged()
        lib.core_virtio_wire_pci(self.device.chip, ffi.NULL, ffi.NULL)  # the function may be gone before the device

    def bar_moved(self, index: int, base: int | None) -> None:
        if index == REGISTERS_BAR:
            self.moved(base)

    def on_reset(self) -> None:
        super().on_reset()
        self.device.reset()

    def _drive_intx(self) -> None:
        """The pin is driven in C."""
        lib.core_virtio_intx_off(self.device.chip, bool(self.command & Command.intx_off))

    # ---- state -------------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """The function's registers, and the device behind it."""
        return {**super().save(), "device": self.device.save()}

    def check_state(self, state: Any) -> Any:
        """StateError when one of both is not possible."""
        if isinstance(state, dict):
            self.device.check_state(state.get("device"))
            state = {key: value for key, value in state.items() if key != "device"}
        return super().check_state(state)

    def load(self, state: Any) -> None:
        """Take over a saved state, or StateError and nothing changed."""
        super().load(state)
        self.device.load(state["device"])
