"""Guest memory as the configuration asks for it: plain, preallocated, in huge pages, or in a file."""

from __future__ import annotations

from typing import Any

from aioemu.config import MachineConfig, OptionGroup
from aioemu.config.grammar import parse_bool, parse_size
from aioemu.errors import ConfigError
from aioemu.machine.board import Board
from aioemu.memory.guest import GuestMemory, RamBackend

HUGE_PAGE_BYTES = 2 << 20  # what hugetlb=on means without hugetlbsize= on x86


def make_memory(machine: Any, config: MachineConfig, board: Board) -> GuestMemory:
    """The machine's RAM where its board puts it. ConfigError or HostError."""
    options = config.memory
    backend = RamBackend(prealloc=options.prealloc, path=options.path)
    if options.backend is not None:
        backend = _backend(config, options.backend)
    return GuestMemory(machine, board.ram(options.size_bytes), backend)


def _backend(config: MachineConfig, name: str) -> RamBackend:
    group = next((g for g in config.objects if g.id == name), None)
    if group is None or not (group.type or "").startswith("memory-backend-"):
        raise ConfigError(f"memory-backend={name}: no such -object memory-backend-*", "-machine")
    size = parse_size(str(group.values.get("size", config.memory.size_bytes)))
    if size != config.memory.size_bytes:
        raise ConfigError(f"memory-backend={name}: its size is not that of -m", "-object")
    huge = HUGE_PAGE_BYTES if _on(group, "hugetlb") else 0
    if huge and "hugetlbsize" in group.values:
        huge = parse_size(str(group.values["hugetlbsize"])) or 0
    path = group.values.get("mem-path")
    return RamBackend(prealloc=_on(group, "prealloc"), hugepage_bytes=huge, path=str(path) if path else None)


def _on(group: OptionGroup, key: str) -> bool:
    value = group.values.get(key, False)
    on = value if isinstance(value, bool) else parse_bool(str(value))
    if on is None:
        raise ConfigError(f"-object {group.id}: {key}={value}: on or off", "-object")
    return on
