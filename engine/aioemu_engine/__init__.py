"""Where the software CPU's library and header are installed; loading it is the caller's business (dlopen, ctypes)."""

from __future__ import annotations

from pathlib import Path

from aioemu_engine._version import PATCH_LEVEL, UNICORN_VERSION

__all__ = ["include_dir", "library_path", "version"]

_HERE = Path(__file__).resolve().parent


def library_path() -> Path:
    """The shared library; its interface is aioemu_engine.h."""
    return _HERE / "lib" / "libunicorn.so"


def include_dir() -> Path:
    """The folder that holds aioemu_engine.h."""
    return _HERE / "include"


def version() -> str:
    """Upstream release and patch series level, as aioemu_engine_version() of the library says it."""
    return f"{UNICORN_VERSION}+aioemu.{PATCH_LEVEL}"
