"""Back ends of chardevs as chardev-add takes them (QAPI char.json, sockets.json), and as our own options."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from aioemu.config import (
    ChardevOptions,
    FdAddress,
    FileOptions,
    HubOptions,
    NullOptions,
    PipeOptions,
    PtyOptions,
    RingbufOptions,
    SerialOptions,
    SocketOptions,
    StdioOptions,
    TcpAddress,
    UnixAddress,
)
from aioemu.config.chardevs import RINGBUF_DEFAULT_BYTES, SocketAddress
from aioemu.errors import MonitorError
from aioemu.protocol.schema import Record, UInt16, Union


class SocketAddressType(StrEnum):
    """Kinds of stream sockets."""

    INET = "inet"
    UNIX = "unix"
    FD = "fd"


class InetSocketAddress(Record):
    """A TCP host and port; `to` is the last port a listener may try."""

    host: str
    port: str
    to: UInt16 | None = None
    ipv4: bool | None = None
    ipv6: bool | None = None

    def options(self) -> SocketAddress:
        return TcpAddress(self.host, self.port, self.to, self.ipv4, self.ipv6)


class UnixSocketAddress(Record):
    """A path, or a name in the kernel's name space."""

    path: str
    abstract: bool | None = None
    tight: bool | None = None

    def options(self) -> SocketAddress:
        return UnixAddress(self.path, bool(self.abstract), self.tight is not False)


class FdSocketAddress(Record):
    """A descriptor: its number, or the name given to getfd."""

    str_: str = msgspec.field(name="str")

    def options(self) -> SocketAddress:
        return FdAddress(self.str_)


class InetSocketAddressWrapper(Record):
    """Its place in the union."""

    data: InetSocketAddress


class UnixSocketAddressWrapper(Record):
    """Its place in the union."""

    data: UnixSocketAddress


class FdSocketAddressWrapper(Record):
    """Its place in the union."""

    data: FdSocketAddress


class SocketAddressLegacy(Union, kw_only=True):
    """The address of a socket."""

    tag = "type"
    cases: ClassVar = {
        SocketAddressType.INET: InetSocketAddressWrapper,
        SocketAddressType.UNIX: UnixSocketAddressWrapper,
        SocketAddressType.FD: FdSocketAddressWrapper,
    }

    type: SocketAddressType


class ChardevCommon(Record):
    """What every back end has: a copy of its output in a file."""

    logfile: str | None = None
    logappend: bool | None = None

    def options(self, chardev_id: str) -> ChardevOptions:
        return NullOptions(id=chardev_id, logfile=self.logfile, logappend=bool(self.logappend))


class ChardevFile(ChardevCommon, kw_only=True):
    """Output to a file, input from another."""

    in_: str | None = msgspec.field(name="in", default=None)
    out: str
    append: bool | None = None

    def options(self, chardev_id: str) -> ChardevOptions:
        return FileOptions(
            id=chardev_id,
            logfile=self.logfile,
            logappend=bool(self.logappend),
            path=self.out,
            append=bool(self.append),
            input_path=self.in_,
        )


class ChardevHostdev(ChardevCommon, kw_only=True):
    """A host device by its path."""

    device: str

    def options(self, chardev_id: str) -> ChardevOptions:
        return SerialOptions(id=chardev_id, logfile=self.logfile, logappend=bool(self.logappend), path=self.device)


class ChardevPipe(ChardevHostdev, kw_only=True):
    """A pair of FIFOs."""

    def options(self, chardev_id: str) -> ChardevOptions:
        return PipeOptions(id=chardev_id, logfile=self.logfile, logappend=bool(self.logappend), path=self.device)


class ChardevSocket(ChardevCommon, kw_only=True):
    """A stream socket, listening or connecting."""

    addr: SocketAddressLegacy
    server: bool | None = None
    wait: bool | None = None
    nodelay: bool | None = None
    telnet: bool | None = None
    reconnect: int | None = None
    reconnect_ms: int | None = None

    def options(self, chardev_id: str) -> ChardevOptions:
        if self.reconnect is not None and self.reconnect_ms is not None:
            raise MonitorError("'reconnect' and 'reconnect-ms' are mutually exclusive")
        return SocketOptions(
            id=chardev_id,
            logfile=self.logfile,
            logappend=bool(self.logappend),
            address=self.addr.branch.data.options(),
            server=self.server is not False,
            wait=bool(self.wait),
            telnet=bool(self.telnet),
            nodelay=bool(self.nodelay),
            reconnect_ms=self.reconnect_ms or (self.reconnect or 0) * 1000,
        )


class ChardevPty(ChardevCommon, kw_only=True):
    """A new pseudo terminal, with a link to it at `path`."""

    path: str | None = None

    def options(self, chardev_id: str) -> ChardevOptions:
        return PtyOptions(id=chardev_id, logfile=self.logfile, logappend=bool(self.logappend), path=self.path)


class ChardevStdio(ChardevCommon, kw_only=True):
    """The process's standard input and output."""

    signal: bool | None = None

    def options(self, chardev_id: str) -> ChardevOptions:
        return StdioOptions(
            id=chardev_id, logfile=self.logfile, logappend=bool(self.logappend), signal=self.signal is not False
        )


class ChardevHub(ChardevCommon, kw_only=True):
    """Several back ends as one."""

    chardevs: list[str]

    def options(self, chardev_id: str) -> ChardevOptions:
        return HubOptions(
            id=chardev_id, logfile=self.logfile, logappend=bool(self.logappend), chardevs=tuple(self.chardevs)
        )


class ChardevRingbuf(ChardevCommon, kw_only=True):
    """The last bytes of output, in memory."""

    size: int | None = None

    def options(self, chardev_id: str) -> ChardevOptions:
        size = RINGBUF_DEFAULT_BYTES if self.size is None else self.size
        if size <= 0 or size & (size - 1):
            raise MonitorError("size of ringbuf chardev must be power of two")
        return RingbufOptions(id=chardev_id, logfile=self.logfile, logappend=bool(self.logappend), size_bytes=size)


class ChardevBackendKind(StrEnum):
    """Kinds of back ends."""

    FILE = "file"
    SERIAL = "serial"
    PIPE = "pipe"
    SOCKET = "socket"
    PTY = "pty"
    NULL = "null"
    HUB = "hub"
    STDIO = "stdio"
    RINGBUF = "ringbuf"
    MEMORY = "memory"


class CommonWrapper(Record):
    """Its place in the union."""

    data: ChardevCommon


class FileWrapper(Record):
    """Its place in the union."""

    data: ChardevFile


class HostdevWrapper(Record):
    """Its place in the union."""

    data: ChardevHostdev


class PipeWrapper(Record):
    """Its place in the union."""

    data: ChardevPipe


class SocketWrapper(Record):
    """Its place in the union."""

    data: ChardevSocket


class PtyWrapper(Record):
    """Its place in the union."""

    data: ChardevPty


class HubWrapper(Record):
    """Its place in the union."""

    data: ChardevHub


class StdioWrapper(Record):
    """Its place in the union."""

    data: ChardevStdio


class RingbufWrapper(Record):
    """Its place in the union."""

    data: ChardevRingbuf


class ChardevBackend(Union, kw_only=True):
    """A back end of one kind."""

    tag = "type"
    cases: ClassVar = {
        ChardevBackendKind.FILE: FileWrapper,
        ChardevBackendKind.SERIAL: HostdevWrapper,
        ChardevBackendKind.PIPE: PipeWrapper,
        ChardevBackendKind.SOCKET: SocketWrapper,
        ChardevBackendKind.PTY: PtyWrapper,
        ChardevBackendKind.NULL: CommonWrapper,
        ChardevBackendKind.HUB: HubWrapper,
        ChardevBackendKind.STDIO: StdioWrapper,
        ChardevBackendKind.RINGBUF: RingbufWrapper,
        ChardevBackendKind.MEMORY: RingbufWrapper,
    }

    type: ChardevBackendKind
