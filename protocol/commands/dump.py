"""The guest as a core file (QAPI dump.json)."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from contextlib import suppress
from enum import StrEnum
from typing import Any

from aioemu.blockdev.patience import in_own_thread
from aioemu.errors import EmuError, HostError, MonitorError
from aioemu.protocol.machine import Dumper, Machine
from aioemu.protocol.monitor import Caller
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class DumpGuestMemoryFormat(StrEnum):
    """How the file is laid out."""

    ELF = "elf"


class DumpStatus(StrEnum):
    """How the last dump went, or goes."""

    NONE = "none"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


class DumpGuestMemory(Record):
    """Where to (`file:PATH` or `fd:NAME`), which part of memory, and whether to wait for the end."""

    paging: bool
    protocol: str
    detach: bool | None = None
    begin: int | None = None
    length: int | None = None
    format: DumpGuestMemoryFormat | None = None


class DumpQueryResult(Record):
    """How far a dump is, in bytes of memory."""

    status: DumpStatus
    completed: int
    total: int


class DumpGuestMemoryCapability(Record):
    """What can be written."""

    formats: list[DumpGuestMemoryFormat]


class DumpMachine(Machine):
    """A machine that writes core files."""

    dumper: Dumper


@command("dump-guest-memory", needs=("dumper",))
async def dump_guest_memory(machine: DumpMachine, args: DumpGuestMemory, monitor: Caller) -> None:
    """Write memory and registers into an ELF core, while the guest stands still; DUMP_COMPLETED is the end."""
    if args.paging:
        raise MonitorError("Parameter 'paging' does not accept value 'true': addresses are physical")
    for given, other, name in ((args.begin, args.length, "length"), (args.length, args.begin, "begin")):
        if given is not None and other is None:
            raise MonitorError(f"Parameter '{name}' is missing")
    if min(args.begin or 0, args.length or 0) < 0:
        raise MonitorError("Invalid parameter 'length'" if (args.begin or 0) >= 0 else "Invalid parameter 'begin'")
    fd = await _open(args.protocol, monitor)
    try:
        work = machine.dumper.start(fd, args.begin or 0, args.length)
    except EmuError:
        os.close(fd)
        raise
    if args.detach:
        monitor.hub.spawn(_detached(work))
    else:
        await work


@command("query-dump", needs=("dumper",))
def query_dump(machine: DumpMachine) -> DumpQueryResult:
    """Say how the last dump goes, or went."""
    dumper = machine.dumper
    return DumpQueryResult(status=DumpStatus(dumper.status), completed=dumper.completed, total=dumper.total)


@command("query-dump-guest-memory-capability", needs=("dumper",))
def query_dump_guest_memory_capability(machine: DumpMachine) -> DumpGuestMemoryCapability:
    """List the formats."""
    return DumpGuestMemoryCapability(formats=list(DumpGuestMemoryFormat))


async def _detached(work: Coroutine[Any, Any, None]) -> None:
    with suppress(EmuError):  # the event has it
        await work


async def _open(protocol: str, monitor: Caller) -> int:
    """The file, or the descriptor that a client passed; a FIFO waits for its reader without holding anybody up."""
    kind, _, name = protocol.partition(":")
    if kind == "fd":
        return monitor.hub.fds.take(name)
    if kind != "file" or not name:
        raise MonitorError("parameter 'protocol' must start with 'file:' or 'fd:'")
    try:
        return await in_own_thread(monitor.hub.fds.open, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as exc:
        raise HostError(f"Could not create '{name}'", exc.errno) from exc


COMMANDS = (dump_guest_memory, query_dump, query_dump_guest_memory_capability)
