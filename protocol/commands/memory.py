"""The guest's memory: how much there is, and copies of it in files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ClassVar

from aioemu.config import MemoryOptions
from aioemu.errors import HostError, MonitorError
from aioemu.protocol.machine import Machine, Memory, Objects, VirtualMemory
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record, Size, UInt16, Union

PIECE_BYTES = 4 << 20  # copied in one go between two looks at the loop
ADDRESS_LIMIT = 1 << 64
RAM_IDS = {"none": "ram", "microvm": "microvm.ram"}  # what a board's own memory is called; else pc.ram


class MemoryInfo(Record):
    """Memory that was there at start, and memory plugged since."""

    base_memory: Size
    plugged_memory: Size | None = None


class MemoryDeviceKind(StrEnum):
    """Kinds of pluggable memory."""

    DIMM = "dimm"


class PcDimmDeviceInfo(Record):
    """A memory module."""

    addr: int
    size: int
    slot: int
    node: int
    memdev: str
    hotplugged: bool
    hotpluggable: bool
    id: str | None = None


class PcDimmDeviceInfoWrapper(Record):
    """Its place in the union."""

    data: PcDimmDeviceInfo


class MemoryDeviceInfo(Union, kw_only=True):
    """A pluggable piece of memory."""

    tag = "type"
    cases: ClassVar = {MemoryDeviceKind.DIMM: PcDimmDeviceInfoWrapper}

    type: MemoryDeviceKind


class Pmemsave(Record):
    """Which guest-physical memory, and where to."""

    val: int
    size: int
    filename: str


class Memsave(Record):
    """Which memory as a processor sees it, and where to."""

    val: int
    size: int
    filename: str
    cpu_index: int | None = None


class PhysicalMachine(Machine):
    """A machine whose memory can be read."""

    memory: Memory


class VirtualMachine(Machine):
    """A machine whose memory can be read as its processors see it."""

    virtual: VirtualMemory


@command("query-memory-size-summary")
def query_memory_size_summary(machine: Machine) -> MemoryInfo:
    """Say how much memory there is."""
    return MemoryInfo(base_memory=machine.config.memory.size_bytes, plugged_memory=0)


@command("query-memory-devices")
def query_memory_devices(machine: Machine) -> list[MemoryDeviceInfo]:
    """List pluggable memory: there is none yet."""
    return []


class HostMemPolicy(StrEnum):
    """Which of the host's nodes memory comes from."""

    DEFAULT = "default"
    PREFERRED = "preferred"
    BIND = "bind"
    INTERLEAVE = "interleave"


class Memdev(Record):
    """A memory back end."""

    size: Size
    merge: bool
    dump: bool
    prealloc: bool
    share: bool
    host_nodes: list[UInt16]
    policy: HostMemPolicy
    id: str | None = None
    reserve: bool | None = None


class ObjectsMachine(Machine):
    """A machine that tells its objects."""

    objects: Objects


@command("query-memdev", needs=("objects",))
def query_memdev(machine: ObjectsMachine) -> list[Memdev]:
    """List the memory back ends, the machine's own included."""
    found = [
        _memdev(name, machine.objects.find(name).values())
        for name, kind in machine.objects.names().items()
        if kind.startswith("memory-backend-")
    ]
    config = machine.config
    board = config.machine.type or "q35"
    if config.memory.backend is None and (board != "none" or config.memory.size_bytes != MemoryOptions().size_bytes):
        plain = {"merge": True, "dump": True, "prealloc": config.memory.prealloc, "share": True}
        found.append(_memdev(RAM_IDS.get(board, "pc.ram"), {**plain, "size": config.memory.size_bytes}))
    return found


def _memdev(name: str, values: Mapping[str, Any]) -> Memdev:
    flags = {key: bool(values[key]) for key in ("merge", "dump", "prealloc", "share")}
    return Memdev(id=name, size=values["size"], host_nodes=[], policy=HostMemPolicy.DEFAULT, reserve=False, **flags)


@command("pmemsave", needs=("memory",))
async def pmemsave(machine: PhysicalMachine, args: Pmemsave) -> None:
    """Write guest-physical memory into a file."""
    await _save(args.val, args.size, args.filename, machine.memory.read)


@command("memsave", needs=("virtual", "vcpus"))
async def memsave(machine: VirtualMachine, args: Memsave) -> None:
    """Write memory, as a processor sees it, into a file."""
    vcpu = args.cpu_index or 0
    if not 0 <= vcpu < machine.config.smp.cpus:
        raise MonitorError("Parameter 'cpu-index' expects a CPU number")
    await _save(args.val, args.size, args.filename, lambda address, size: machine.virtual.read(vcpu, address, size))


async def _save(address: int, size: int, path: str, read: Callable[[int, int], bytes]) -> None:
    if address < 0 or size < 0 or address + size > ADDRESS_LIMIT:
        raise MonitorError(f"Invalid addr 0x{address & (ADDRESS_LIMIT - 1):016x}/size {size} specified")
    read(address, min(size, 1)), read(address + max(size - 1, 0), min(size, 1))  # before a file is touched
    try:
        with await asyncio.to_thread(open, path, "wb") as file:
            for start in range(0, size, PIECE_BYTES):
                piece = read(address + start, min(PIECE_BYTES, size - start))
                await asyncio.to_thread(file.write, piece)
    except OSError as exc:
        raise HostError(f"Could not open '{path}'", exc.errno) from exc


COMMANDS = (query_memory_size_summary, query_memory_devices, query_memdev, pmemsave, memsave)
