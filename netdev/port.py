"""One end of a wire, owned from Python: a NIC, a tap, a link's end, a peer of the program's own; two are joined.

Frames pass natively (`core/port.h` says who may call what, and from where); here are joining, carrier and counters. Not
trusted: what the frames hold. Reactor thread only. A port that is closed while joined is parted first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from aioemu._core import ffi, lib
from aioemu.errors import EmuError, HostError

HEADER_BYTES = 12  # of a frame, as virtio lays it out (Virtio 1.2, 5.1.6)
FRAME_BYTES = 65535 + 14 + 8  # the largest frame that passes
TAKES = {"csum": 1, "tso4": 2, "tso6": 4, "ecn": 8, "ufo": 16, "uso": 32}  # offloads, as core_port_takes


def _text(string: Any) -> str:
    raw = ffi.string(string)
    return raw if isinstance(raw, str) else raw.decode("ascii")


DROPS = tuple(_text(lib.core_drop_name(index)) for index in range(lib.CORE_DROP_COUNT))


@dataclass(frozen=True, slots=True)
class Counters:
    """Frames and bytes one way, and what was lost on it, by reason; only reasons that happened are listed."""

    frames: int = 0
    bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """All that were lost."""
        return sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class PortStats:
    """What a port passed on to its peer (`sent`), and what it took from it (`received`)."""

    sent: Counters
    received: Counters


class Port:
    """A native port, freed with this unless it is not `owned`. `kind` is what it is: "tap", "virtio-net", ..."""

    def __init__(self, ptr: Any, keep: object = None, *, owned: bool = True) -> None:
        if ptr == ffi.NULL:
            raise HostError("make a network port")
        self.ptr = ptr
        self.peer: Port | None = None
        self._last_stats = PortStats(Counters(), Counters())
        self.closers: list[Callable[[], None]] = []  # called before the port goes: who watches it
        self._keep = keep  # what the native port points to, or is a part of
        self._owned = owned
        self.kind = _text(lib.core_port_kind(ptr))

    @property
    def owner(self) -> object:
        """What the port is a part of: its link, its switch."""
        return self._keep

    def join(self, other: Port) -> None:
        """Wire this port to another one; EmuError when one of them is wired already."""
        self.check_open()
        other.check_open()
        if lib.core_port_join(self.ptr, other.ptr) < 0:
            raise EmuError(f"{self.kind} and {other.kind}: one end of the wire is taken")
        self.peer, other.peer = other, self

    def part(self) -> None:
        """Take the wire away; when this returns, no frame is on its way any more."""
        if self.peer is not None:
            lib.core_port_part(self.ptr)
            self.peer.peer, self.peer = None, None

    @property
    def is_up(self) -> bool:
        """This end's own state, as `set_up` left it; a closed one is down."""
        return self.ptr != ffi.NULL and bool(lib.core_port_is_up(self.ptr))

    def set_up(self, up: bool) -> None:
        """Plug this end in or out: the other end sees its carrier come or go before this returns."""
        self.check_open()
        lib.core_port_set_up(self.ptr, up)

    @property
    def carrier(self) -> bool:
        """There is another end, and it is up."""
        return self.ptr != ffi.NULL and bool(lib.core_port_carrier(self.ptr))

    @property
    def takes(self) -> frozenset[str]:
        """The offloads that this end understands."""
        bits = 0 if self.ptr == ffi.NULL else int(lib.core_port_takes(self.ptr))
        return frozenset(name for name, bit in TAKES.items() if bits & bit)

    def drive(self, io: Any) -> None:
        """Do the port's own work in this io context from now on."""
        self.check_open()
        rc = lib.core_port_drive(self.ptr, io)
        if rc < 0:
            raise HostError(f"{self.kind}: move to another io context", -rc)

    def check_open(self) -> None:
        """EmuError when it was closed."""
        if self.ptr == ffi.NULL:
            raise EmuError(f"this {self.kind} port was closed")

    @property
    def stats(self) -> PortStats:
        """All counters so far; of a closed port, as they were."""
        if self.ptr == ffi.NULL:
            return self._last_stats
        counts: Any = ffi.new("core_port_counts *")
        lib.core_port_stats(self.ptr, counts)
        return PortStats(
            Counters(int(counts.out_frames), int(counts.out_bytes), _drops(counts.drop_out)),
            Counters(int(counts.in_frames), int(counts.in_bytes), _drops(counts.drop_in)),
        )

    def close(self) -> None:
        """Part and free; may be called twice."""
        if self.ptr != ffi.NULL:
            while self.closers:
                self.closers.pop()()
            self.part()
            self._last_stats = self.stats
            if self._owned:
                lib.core_port_free(self.ptr)
            self.ptr = ffi.NULL


class HasPort(Protocol):
    """A NIC or a back end: its port is there once it is built."""

    @property
    def port(self) -> Port: ...


class Box(Port):
    """A port for a program: what arrives waits in a bounded box (`fd` is readable meanwhile), `send` sends.

    A full box drops and counts; with `waits` the sender waits instead. `takes` are the offloads that the program
    understands.
    """

    def __init__(self, frames: int = 1024, *, takes: frozenset[str] = frozenset(), waits: bool = False) -> None:
        super().__init__(lib.core_box_new(frames, sum(TAKES[name] for name in takes), waits))
        self.fd = int(lib.core_box_fd(self.ptr))
        self._frame = ffi.new("uint8_t[]", FRAME_BYTES)
        self._header = ffi.new("uint8_t[]", HEADER_BYTES)

    @property
    def waiting(self) -> int:
        """Frames in the box."""
        return 0 if self.ptr == ffi.NULL else int(lib.core_box_waiting(self.ptr))

    def take(self) -> bytes | None:
        """The oldest frame."""
        found = self.take_with_header()
        return None if found is None else found[1]

    def take_with_header(self) -> tuple[bytes, bytes] | None:
        """The oldest frame's header and the frame."""
        size = 0 if self.ptr == ffi.NULL else lib.core_box_take(self.ptr, self._header, self._frame, FRAME_BYTES)
        if size <= 0:
            return None
        return bytes(ffi.buffer(self._header, HEADER_BYTES)), bytes(ffi.buffer(self._frame, size))

    def send(self, frame: bytes | bytearray | memoryview, header: bytes | None = None) -> bool:
        """Give the peer a frame; False when it takes none now, or this was closed."""
        if header is not None and len(header) != HEADER_BYTES:
            raise ValueError(f"a frame's header has {HEADER_BYTES} bytes")
        if self.ptr == ffi.NULL:
            return False
        given = ffi.NULL if header is None else ffi.from_buffer("uint8_t[]", header)
        source = ffi.from_buffer("uint8_t[]", frame)
        return bool(lib.core_box_send(self.ptr, given, source, len(frame)))


def _drops(counts: Any) -> dict[str, int]:
    return {name: int(counts[i]) for i, name in enumerate(DROPS) if counts[i]}
