"""Character devices: which there are, adding and removing them, what a ring buffer holds."""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum

from aioemu.chardev import Chardev, RingbufChardev
from aioemu.config import PtyOptions
from aioemu.errors import EmuError, MonitorError
from aioemu.protocol.commands.chardev_types import ChardevBackend, ChardevBackendKind
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class ChardevInfo(Record):
    """A chardev, what it leads to, and whether anybody uses it."""

    label: str
    filename: str
    frontend_open: bool


class ChardevBackendInfo(Record):
    """A kind of back end."""

    name: str


class ChardevId(Record):
    """Which chardev."""

    id: str


class ChardevAdd(Record):
    """A new chardev's id and back end."""

    id: str
    backend: ChardevBackend


class ChardevReturn(Record):
    """The name of the pseudo terminal, where one was made."""

    pty: str | None = None


class DataFormat(StrEnum):
    """How bytes are put into a string."""

    UTF8 = "utf8"
    BASE64 = "base64"


class RingbufWrite(Record):
    """What to put into which ring buffer."""

    device: str
    data: str
    format: DataFormat = DataFormat.UTF8


class RingbufRead(Record):
    """How much to take from which ring buffer."""

    device: str
    size: int
    format: DataFormat = DataFormat.UTF8


@command("query-chardev")
def query_chardev(machine: Machine) -> list[ChardevInfo]:
    """List the chardevs."""
    return [
        ChardevInfo(label=each.label, filename=each.filename, frontend_open=each.frontend_open)
        for each in machine.chardevs.query()
    ]


@command("query-chardev-backends")
def query_chardev_backends(machine: Machine) -> list[ChardevBackendInfo]:
    """List the kinds of back ends."""
    return [ChardevBackendInfo(name=each.value) for each in ChardevBackendKind]


@command("chardev-add")
async def chardev_add(machine: Machine, args: ChardevAdd) -> ChardevReturn:
    """Make a chardev."""
    if args.id in machine.chardevs:
        raise MonitorError(f"Chardev with id '{args.id}' already exists")
    try:
        chardev = machine.chardevs.add(args.backend.branch.data.options(args.id))
    except EmuError as exc:
        raise MonitorError(f"Failed to add chardev '{args.id}': {exc}") from exc
    try:
        await chardev.open()
    except BaseException as exc:
        machine.chardevs.remove(args.id)
        if isinstance(exc, EmuError):
            raise MonitorError(f"Failed to add chardev '{args.id}': {exc}") from exc
        raise
    if isinstance(chardev.options, PtyOptions):
        return ChardevReturn(pty=chardev.filename.removeprefix("pty:"))
    return ChardevReturn()


@command("chardev-change")
async def chardev_change(machine: Machine, args: ChardevAdd) -> ChardevReturn:
    """Give a chardev another back end; one that somebody uses keeps the one it has."""
    before = _chardev(machine, args.id)
    if next(each for each in machine.chardevs.query() if each.label == args.id).frontend_open:
        raise MonitorError("Chardev user does not support chardev hotswap")
    options = before.options
    machine.chardevs.remove(args.id)
    try:
        return await chardev_add.handler(machine, args)  # type: ignore[no-any-return]
    except MonitorError:
        await machine.chardevs.add(options).open()  # as it was
        raise


@command("chardev-remove")
def chardev_remove(machine: Machine, args: ChardevId) -> None:
    """End a chardev that nobody uses."""
    _chardev(machine, args.id)
    machine.chardevs.remove(args.id)


@command("chardev-send-break")
def chardev_send_break(machine: Machine, args: ChardevId) -> None:
    """Send a line break where the line has such a thing."""
    _chardev(machine, args.id).send_break()


@command("ringbuf-write")
def ringbuf_write(machine: Machine, args: RingbufWrite) -> None:
    """Put bytes into a ring buffer."""
    ring = _ring(machine, args.device)
    if args.format is DataFormat.UTF8:
        ring.inject(args.data.encode())
        return
    try:
        ring.inject(base64.b64decode(args.data, validate=True))
    except (binascii.Error, ValueError) as exc:
        raise MonitorError("Base64 data contains invalid characters") from exc


@command("ringbuf-read")
def ringbuf_read(machine: Machine, args: RingbufRead) -> str:
    """Take bytes out of a ring buffer; what is no text is replaced, unless base64 is asked for."""
    ring = _ring(machine, args.device)
    if args.size <= 0:
        raise MonitorError("size must be greater than zero")
    data = ring.read(args.size)
    return base64.b64encode(data).decode() if args.format is DataFormat.BASE64 else data.decode(errors="replace")


def _chardev(machine: Machine, chardev_id: str) -> Chardev:
    if chardev_id not in machine.chardevs:
        raise MonitorError(f"Chardev '{chardev_id}' not found")
    return machine.chardevs.get(chardev_id)


def _ring(machine: Machine, chardev_id: str) -> RingbufChardev:
    if chardev_id not in machine.chardevs:
        raise MonitorError(f"Device '{chardev_id}' not found")
    chardev = machine.chardevs.get(chardev_id)
    if not isinstance(chardev, RingbufChardev):
        raise MonitorError(f"{chardev_id} is not a ringbuf device")
    return chardev


COMMANDS = (
    query_chardev,
    query_chardev_backends,
    chardev_add,
    chardev_change,
    chardev_remove,
    chardev_send_break,
    ringbuf_write,
    ringbuf_read,
)
