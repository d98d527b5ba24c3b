"""Guest memory as the configuration asks for it: plain, preallocated, in huge pages, or in a file."""

from __future__ import annotations

from typing import Any

from aioemu.config import MachineConfig
from aioemu.errors import ConfigError
from aioemu.machine.board import Board
from aioemu.machine.objects import Objects
from aioemu.memory.guest import GuestMemory, RamBackend


def make_memory(machine: Any, config: MachineConfig, board: Board, objects: Objects) -> GuestMemory:
    """The machine's RAM where its board puts it. ConfigError or HostError."""
    options = config.memory
    backend = RamBackend(prealloc=options.prealloc, path=options.path)
    if options.backend is not None:
        backend = _backend(objects, options.backend, options.size_bytes)
    return GuestMemory(machine, board.ram(options.size_bytes), backend)


def _backend(objects: Objects, name: str, size_bytes: int) -> RamBackend:
    """The object's wishes; it stays as long as the machine."""
    if not objects.names().get(name, "").startswith("memory-backend-"):
        raise ConfigError(f"memory-backend={name}: no such -object memory-backend-*", "-machine")
    held, _ = objects.use(name, "memory")
    if held.properties.size != size_bytes:
        raise ConfigError(f"memory-backend={name}: its size is not that of -m", "-object")
    backend: RamBackend = held.made
    return backend
