"""The software CPU: the engine package where it is installed, else the stock library, which is slower."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aioemu._core import ffi, lib
from aioemu.accel.base import ChipNeeds
from aioemu.accel.cpuid import Leaf
from aioemu.errors import AccelError
from aioemu.log import Log

MAX_LEAVES = 64  # the engine answers about thirty


def find_engine() -> Path | None:
    """The engine package's library, where it is installed."""
    try:
        engine: Any = import_module("aioemu_engine")
    except ImportError:
        return None
    library = Path(engine.library_path())
    return library if library.exists() else None


def find_stock() -> Path | None:
    """The library in the wheel of Unicorn, found without loading it."""
    spec = find_spec("unicorn")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "lib" / "libunicorn.so.2"
    return library if library.exists() else None


def supported_leaves() -> Sequence[Leaf]:
    """Every CPUID leaf that the software CPU can give a guest."""
    entries = ffi.new("core_cpuid[]", MAX_LEAVES)
    count = lib.core_tcg_supported_cpuid(entries, MAX_LEAVES)
    if count < 0:
        raise AccelError(f"tcg: no CPUID: {os.strerror(-count)}")
    return [Leaf(e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx) for e in entries[0:count]]


class Tcg:
    """The software CPU. AccelError when no engine is installed."""

    name = "tcg"

    def __init__(self, log: Log) -> None:
        library = find_engine()
        if library is None:
            library = find_stock()
            if library is None:
                raise AccelError("the software CPU is not installed: `make engine`, or `pip install ./engine`")
            log.warning("tcg: no engine package: the stock library is several times slower (`make engine`)")
        self.library = library

    def attach(self, machine: Any, needs: ChipNeeds) -> None:
        rc = lib.core_tcg_attach(machine, os.fsencode(self.library), int(lib.CORE_TCG_PIT) if needs.pit else 0)
        if rc < 0:
            raise AccelError(f"{self.library}: the software CPU does not start: {os.strerror(-rc)}")

    def supported(self) -> Sequence[Leaf]:
        return supported_leaves()

    def close(self) -> None:
        """The library stays loaded for the process."""
