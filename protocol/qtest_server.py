"""qtest on a chardev, driving a machine that has no processor of its own (accel qtest).

Memory is RAM where there is some and registers elsewhere. Where no processor runs the client owns the clock; beside
one that runs (-accel kvm or tcg) it may look and touch, but not turn the clock. Not here: which interrupt lines can be
watched, which is the machine's to say (attribute `qtest_lines`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from aioemu.bus.wires import MMIO, PIO
from aioemu.chardev import Chardev, Event
from aioemu.errors import EmuError, GuestError, HostError
from aioemu.protocol.qtest import QtestSession

if TYPE_CHECKING:
    from aioemu.config import QtestOptions
    from aioemu.machine.machine import Machine

READ_BYTES = 64 << 10
OUTPUT_LIMIT = 32 << 20  # of unread replies: no more commands are read
ACCESS_BYTES = 8  # widest register access
UNMANNED = ("qtest", "none")  # accelerators without a processor: time is the client's

Tell = Callable[[str, str], None]


class MachineTarget:
    """A machine as a test drives it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        if machine.accelerator.name in UNMANNED and not machine.clock.owned:
            machine.clock.own()

    def read_port(self, port: int, size: int) -> int:
        return self.machine.native.router.read(PIO, port, size)

    def write_port(self, port: int, size: int, value: int) -> None:
        self.machine.native.router.write(PIO, port, size, value)

    def read_memory(self, address: int, size: int) -> bytes:
        try:
            return self.machine.memory.read(address, size)
        except GuestError:
            parts = (
                self.machine.native.router.read(MMIO, at, width).to_bytes(width, "little")
                for at, width in _accesses(address, size)
            )
            return b"".join(parts)

    def write_memory(self, address: int, data: bytes) -> None:
        try:
            self.machine.memory.write(address, data)
        except GuestError:
            for at, width in _accesses(address, len(data)):
                value = int.from_bytes(data[at - address : at - address + width], "little")
                self.machine.native.router.write(MMIO, at, width, value)

    def now_ns(self) -> int:
        return self.machine.clock.now_ns()

    def next_deadline_ns(self) -> int | None:
        return self.machine.clock.next_deadline_ns()

    def advance(self, to_ns: int) -> int:
        if not self.machine.clock.owned:
            raise EmuError(f"the clock is the guest's: -accel {self.machine.accelerator.name} is not -accel qtest")
        return self.machine.clock.advance(to_ns)

    def lines(self, path: str, outputs: bool) -> Callable[[], Sequence[bool]] | None:
        watch = getattr(self.machine, "qtest_lines", None)
        return watch(path, outputs) if watch is not None else None

    def set_line(self, path: str, name: str, number: int, level: int) -> None:
        raise EmuError(f"set_irq_in: device {path} has no inputs that can be driven")


class QtestFrontend:
    """A front end of a chardev that speaks qtest."""

    def __init__(self, chardev: Chardev, machine: Machine, tell: Tell | None = None) -> None:
        self.chardev = chardev
        self._session = QtestSession(MachineTarget(machine), tell)
        self._output = bytearray()
        self._blocked = False

    def receive(self, data: bytes) -> None:
        """Carry out the lines of (data)."""
        self._output += self._session.feed(data)
        self._flush()

    def can_receive(self) -> int:
        """Nothing while the client does not read."""
        return READ_BYTES if len(self._output) <= OUTPUT_LIMIT else 0

    def event(self, event: Event) -> None:
        """Forget what a client that left did not read."""
        if event is Event.CLOSED:
            self._output.clear()
            self._blocked = False

    def writable(self) -> None:
        """Go on writing, then reading."""
        self._blocked = False
        self._flush()
        self.chardev.accept_input()

    def _flush(self) -> None:
        while self._output and not self._blocked:
            part = bytes(self._output[:65536])
            sent = self.chardev.write(part)
            self._blocked = sent < len(part)
            del self._output[:sent]


def serve(chardev: Chardev, machine: Machine, tell: Tell | None = None) -> None:
    """Speak qtest on (chardev): one client after the other, one state; (tell) hears each line and its reply."""
    chardev.connect(QtestFrontend(chardev, machine, tell))


def serve_configured(machine: Machine, options: QtestOptions) -> Callable[[], None]:
    """`-qtest` and `-qtest-log`; the answer closes the log."""
    log = _open_log(options.log)

    def tell(line: str, reply: str) -> None:
        if log is not None:
            log.write(f"[R] {line}\n" + "".join(f"[S] {each}\n" for each in reply.splitlines()))

    try:
        serve(machine.chardevs.claim(options.chardev), machine, tell)
    except BaseException:
        _close_log(log)
        raise
    return lambda: _close_log(log)


def _open_log(path: str | None) -> IO[str] | None:
    if path is None or path == "none":
        return None
    try:
        return open(path, "w", buffering=1, encoding="latin-1", errors="replace")
    except OSError as exc:
        raise HostError(f"-qtest-log {path}", exc.errno) from exc


def _close_log(log: IO[str] | None) -> None:
    if log is not None:
        log.close()


def _accesses(address: int, size: int) -> list[tuple[int, int]]:
    """How a block of registers is touched: naturally aligned, at most ACCESS_BYTES wide."""
    accesses = []
    while size:
        width = min(ACCESS_BYTES, address & -address if address else ACCESS_BYTES)
        while width > size:
            width >>= 1
        accesses.append((address, width))
        address += width
        size -= width
    return accesses
