"""The state of a chip that lives in the native core, as bytes."""

from __future__ import annotations

from typing import Any

from aioemu._core import ffi, lib
from aioemu.errors import StateError


def save_chip(chip: Any) -> bytes:
    """A native chip's own state."""
    size = lib.core_chip_state_size(chip)
    buffer = ffi.new("uint8_t[]", size + 1)
    lib.core_chip_save(chip, buffer, size)
    return bytes(ffi.buffer(buffer, size))


def load_chip(chip: Any, state: bytes, where: str) -> None:
    """Give a native chip its state; StateError when it cannot be one."""
    if lib.core_chip_load(chip, state, len(state)) < 0:
        raise StateError(f"{where}: not a state of this chip")
