"""Character devices as frozen data: one class per back end, named as `-chardev` and QMP name them.

The parser that builds them is in chardev_options; the back ends that serve them are in aioemu.chardev.
"""

from __future__ import annotations

from dataclasses import dataclass

RINGBUF_DEFAULT_BYTES = 64 << 10  # what `-chardev ringbuf` without size= means


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix stream socket; `abstract` names live in the kernel's own name space, without a file."""

    path: str
    abstract: bool = False
    tight: bool = True


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP host and port; `to` is the last port a listener may try."""

    host: str
    port: str
    to: int | None = None
    ipv4: bool | None = None
    ipv6: bool | None = None


@dataclass(frozen=True, slots=True)
class FdAddress:
    """A socket the launcher passed by inheritance: a number, or a name given to `getfd`."""

    fd: str


SocketAddress = UnixAddress | TcpAddress | FdAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class ChardevOptions:
    """What every back end has: its id, a log of everything it writes, and whether front ends share it."""

    id: str
    logfile: str | None = None
    logappend: bool = False
    mux: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NullOptions(ChardevOptions):
    """Swallows output, never gives input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioOptions(ChardevOptions):
    """The process's standard input and output; `signal` leaves Ctrl-C to the terminal."""

    signal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions(ChardevOptions):
    """Output to a file, input from another one where given."""

    path: str
    append: bool = False
    input_path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeOptions(ChardevOptions):
    """A pair of FIFOs `path`.in and `path`.out, or `path` alone: a FIFO for output, a device for both ways."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialOptions(ChardevOptions):
    """A host terminal device."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PtyOptions(ChardevOptions):
    """A new pseudo terminal, with a link to it at `path` where given."""

    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOptions(ChardevOptions):
    """A stream socket: listening (`server`) or connecting (again every `reconnect_ms`, 0: never again).

    `listen_if_free` is for `-qmp unix:PATH`: connect where somebody listens at PATH, else listen there.
    """

    address: SocketAddress
    server: bool = False
    wait: bool = False
    telnet: bool = False
    nodelay: bool = True
    reconnect_ms: int = 0
    listen_if_free: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RingbufOptions(ChardevOptions):
    """The last `size_bytes` of output, kept in memory and read by `ringbuf-read`."""

    size_bytes: int = RINGBUF_DEFAULT_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOptions(ChardevOptions):
    """Output kept from byte 0 for the program that embeds the machine (`vm.console`); `vc` is its QEMU name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions(ChardevOptions):
    """One front end on several back ends: output goes to all, input comes from each."""

    chardevs: tuple[str, ...]
