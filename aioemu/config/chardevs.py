"""Character devices as frozen data: one class per back end, named as `-chardev` and QMP name them.

The parser that builds them is in chardev_options; the back ends that serve them are in aioemu.chardev.
"""

from __future__ import annotations

from msgspec import Struct

RINGBUF_DEFAULT_BYTES = 64 << 10  # what `-chardev ringbuf` without size= means


class UnixAddress(Struct, frozen=True):
    """A unix stream socket; `abstract` names live in the kernel's own name space, without a file."""

    path: str
    abstract: bool = False
    tight: bool = True


class TcpAddress(Struct, frozen=True):
    """A TCP host and port; `to` is the last port a listener may try."""

    host: str
    port: str
    to: int | None = None
    ipv4: bool | None = None
    ipv6: bool | None = None


class FdAddress(Struct, frozen=True):
    """A socket the launcher passed by inheritance: a number, or a name given to `getfd`."""

    fd: str


SocketAddress = UnixAddress | TcpAddress | FdAddress


class ChardevOptions(Struct, frozen=True, kw_only=True):
    """What every back end has: its id, a log of everything it writes, and whether front ends share it."""

    id: str
    logfile: str | None = None
    logappend: bool = False
    mux: bool = False


class NullOptions(ChardevOptions, frozen=True, kw_only=True):
    """Swallows output, never gives input."""


class StdioOptions(ChardevOptions, frozen=True, kw_only=True):
    """The process's standard input and output; `signal` leaves Ctrl-C to the terminal."""

    signal: bool = True


class FileOptions(ChardevOptions, frozen=True, kw_only=True):
    """Output to a file, input from another one where given."""

    path: str
    append: bool = False
    input_path: str | None = None


class PipeOptions(ChardevOptions, frozen=True, kw_only=True):
    """A pair of FIFOs `path`.in and `path`.out, or `path` alone: a FIFO for output, a device for both ways."""

    path: str


class SerialOptions(ChardevOptions, frozen=True, kw_only=True):
    """A host terminal device."""

    path: str


class PtyOptions(ChardevOptions, frozen=True, kw_only=True):
    """A new pseudo terminal, with a link to it at `path` where given."""

    path: str | None = None


class SocketOptions(ChardevOptions, frozen=True, kw_only=True):
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


class RingbufOptions(ChardevOptions, frozen=True, kw_only=True):
    """The last `size_bytes` of output, kept in memory and read by `ringbuf-read`."""

    size_bytes: int = RINGBUF_DEFAULT_BYTES


class ConsoleOptions(ChardevOptions, frozen=True, kw_only=True):
    """Output kept from byte 0 for the program that embeds the machine (`vm.console`); `vc` is its QEMU name."""


class HubOptions(ChardevOptions, frozen=True, kw_only=True):
    """One front end on several back ends: output goes to all, input comes from each."""

    chardevs: tuple[str, ...]
