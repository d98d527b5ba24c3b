"""The software CPU: the engine package where it is installed, else the stock library, which is slower."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from aioemu._core import ffi, lib
from aioemu.accel.base import ChipNeeds
from aioemu.accel.cpuid import Leaf
from aioemu.errors import AccelError
from aioemu.log import Log

MAX_LEAVES = 64  # the engine answers about thirty


def find_engine() -> str:
    """Path of the engine's library. AccelError when it is not installed."""
    try:
        engine: Any = import_module("aioemu_engine")
    except ImportError as exc:
        raise AccelError("the software CPU is not installed: `make engine`, or `pip install ./engine`") from exc
    return str(engine.library_path())


class Tcg:
    """The software CPU. AccelError when no engine is installed."""

    name = "tcg"

    def __init__(self, log: Log) -> None:
        self.library = find_engine()

    def attach(self, machine: Any, needs: ChipNeeds) -> None:
        rc = lib.core_tcg_attach(machine, os.fsencode(self.library), int(lib.CORE_TCG_PIT) if needs.pit else 0)
        if rc < 0:
            raise AccelError(f"{self.library}: the software CPU does not start: {os.strerror(-rc)}")

    def supported(self) -> Sequence[Leaf]:
        entries = ffi.new("core_cpuid[]", MAX_LEAVES)
        count = lib.core_tcg_supported_cpuid(entries, MAX_LEAVES)
        if count < 0:
            raise AccelError(f"{self.library}: no CPUID: {os.strerror(-count)}")
        return [Leaf(e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx) for e in entries[0:count]]

    def close(self) -> None:
        """The library stays loaded for the process."""
