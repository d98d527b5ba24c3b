"""virtio-mmio, version 2 (Virtio 1.2, 4.2): a virtio device as one block of registers and one interrupt line.

All registers are served in C; only the status and writes to the configuration come here. Left out: the legacy layout,
and shared memory, of which there is none.
"""

from __future__ import annotations

from typing import Any

from aioemu._core import ffi, lib
from aioemu.bus.deferred import ALL_ONES, Answer
from aioemu.bus.state import State
from aioemu.devices.virtio.device import VirtioDevice
from aioemu.errors import EmuError

REGISTER_BYTES = 0x200
CONFIG_AT = 0x100
NOTIFY_AT = 0x50


def make_face(device: VirtioDevice, kind: int) -> Any:
    """The device's registers as a chip that a bus can place; it keeps the device's chip alive."""
    owner = device.chip

    def free(face: Any) -> None:
        lib.core_chip_free(face)
        assert owner is not None

    face = lib.core_virtio_face_new(device.chip, kind)
    if face == ffi.NULL:
        raise EmuError("virtio: out of memory")
    return ffi.gc(face, free)


def answer(device: VirtioDevice, reg: int, config_offset: int, size: int, value: int) -> Answer:
    """Do what a face hands over: only writes are."""
    if reg == lib.CORE_VIRTIO_STATUS:
        device.handle_status(value)
    elif reg == lib.CORE_VIRTIO_QUEUE_OFF:
        device.handle_queue_off(value == 1)
    else:
        device.handle_config(config_offset, size, value)
    return 0


class VirtioMmio:
    """The transport: place it, wire `device.chip` to a line, and bind its notifications to `device.notified`."""

    size = REGISTER_BYTES

    def __init__(self, device: VirtioDevice) -> None:
        self.device = device
        self.chip = make_face(device, lib.CORE_VIRTIO_MMIO)

    def handle(self, reg: int, offset: int, size: int, is_write: bool, value: int) -> Answer:
        return answer(self.device, reg, offset - CONFIG_AT, size, value) if is_write else ALL_ONES

    def reset(self) -> None:
        """Power-on state of the device."""
        self.device.reset()

    def save(self) -> State:
        """The device's state: the transport has none."""
        return self.device.save()

    def load(self, state: Any) -> None:
        """Take over a saved state, or StateError and nothing changed."""
        self.device.load(state)
