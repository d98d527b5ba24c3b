"""What a board builds with: places to put chips, lines to wire them to, and the machine's few wishes they can make.

A kit belongs to one machine. Chips are reset, saved and loaded in the order they were added. What a device takes of the
machine while it is made is undone, the last first, when it goes: whoever takes something appends what gives it back to
`closers`, and need not know whether the device or the whole machine will go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakSet

from msgspec import Struct

from aioemu.bus.router import IrqSource, MessageSignals, Region, Router
from aioemu.bus.wires import Placeable
from aioemu.config import MachineConfig
from aioemu.errors import ConfigError
from aioemu.log import Log
from aioemu.machine.clock import VirtualClock
from aioemu.machine.drives import Drives
from aioemu.machine.iothread import IoThreads
from aioemu.machine.native import Native
from aioemu.machine.nics import Nics
from aioemu.memory.guest import GuestMemory


class Resettable(Protocol):
    """A chip with a power-on state."""

    def reset(self) -> None: ...


class Savable(Protocol):
    """A chip whose state can be kept."""

    def save(self) -> Any: ...
    def load(self, state: Any) -> None: ...


class Wishes(Struct, frozen=True):
    """What chips may ask of the machine: each returns at once, the machine acts when the guest has been answered."""

    reset: Callable[[], None]
    power_off: Callable[[], None]
    exit: Callable[[int], None]
    panicked: Callable[[str], None]
    io_error: Callable[[], None]


class PanicWires:
    """What the panic port's events do to the machine."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes

    def guest_panicked(self) -> None:
        self._wishes.panicked("panicked")

    def guest_crash_loaded(self) -> None:
        self._wishes.panicked("crash-loaded")

    def guest_shutdown(self) -> None:
        self._wishes.panicked("shutdown")


class Closers:
    """What is to be undone, by the device that it was done for ("": the machine itself)."""

    def __init__(self) -> None:
        self._all: list[tuple[str, Callable[[], object], bool]] = []  # owner, what to call, with the machine too
        self._owner = ""

    def append(self, close: Callable[[], object]) -> None:
        """Call `close` when the device that is being made goes, or the machine: for what is held of the host."""
        self._all.append((self._owner, close, True))

    def on_leave(self, close: Callable[[], object]) -> None:
        """Call `close` when the device that is being made goes, and the machine stays: for its place on the machine."""
        if self._owner:
            self._all.append((self._owner, close, False))

    @contextmanager
    def owner(self, name: str) -> Iterator[None]:
        """What is appended within is the device's; a device that cannot be made leaves nothing behind."""
        before, self._owner = self._owner, name
        try:
            yield
        except BaseException:
            self.release(name)
            raise
        finally:
            self._owner = before

    def release(self, name: str) -> None:
        """The device goes. What fails keeps nothing else from being undone, and is raised at the end."""
        mine = [close for owner, close, _ in self._all if owner == name]
        self._all = [each for each in self._all if each[0] != name]
        _call_all(mine)

    def close(self) -> None:
        """The machine goes."""
        mine, self._all = [close for _, close, always in self._all if always], []
        _call_all(mine)


def _call_all(closers: list[Callable[[], object]]) -> None:
    failed: Exception | None = None
    for close in reversed(closers):
        try:
            close()
        except Exception as exc:
            failed = failed or exc
    if failed is not None:
        raise failed


@dataclass(slots=True)
class Kit:
    """The parts of one machine while and after it is built."""

    config: MachineConfig
    native: Native
    memory: GuestMemory
    clock: VirtualClock
    wishes: Wishes
    log: Log
    connect_serial: Callable[[Any, int], None]
    iothreads: IoThreads
    nics: Nics
    drives: Drives
    chips: dict[str, Any] = field(default_factory=dict)
    closers: Closers = field(default_factory=Closers)
    flushers: list[Callable[[], None]] = field(default_factory=list)
    resumers: list[Callable[[], None]] = field(default_factory=list)
    sources: WeakSet[IrqSource] = field(default_factory=WeakSet)  # of interrupts, while their chips live

    @property
    def router(self) -> Router:
        return self.native.router

    @property
    def msi(self) -> MessageSignals:
        return MessageSignals(self.native.ptr)

    def irq(self, gsi: int) -> IrqSource:
        """A new source of the line `gsi`."""
        source = IrqSource(self.native.ptr, gsi)
        self.sources.add(source)
        return source

    def add(self, name: str, chip: Any) -> Any:
        """Own a chip: it is reset, saved and loaded with the machine. Names are unique."""
        if name in self.chips:
            raise ConfigError(f"two devices called {name}")
        self.chips[name] = chip
        self.closers.on_leave(lambda: self._disown(name))
        return chip

    def place(self, name: str, chip: Placeable, *places: tuple[int, int]) -> Any:
        """Own a chip and put it at each (space, base)."""
        self.add(name, chip)
        for space, base in places:
            self.map(name, chip, space, base)
        return chip

    def map(self, name: str, chip: Placeable, space: int, base: int, size: int = 0) -> Region:
        """Put a further part of a chip on the bus, without owning it a second time."""
        region = self.router.place(chip, space, base, size=size, name=name)
        self.closers.on_leave(lambda: self.router.remove(region))
        return region

    def notify(self, chip: Any, callback: Callable[[], None], name: str) -> None:
        """Call back on the loop when a native chip has news, until its device goes."""
        self.router.notify(chip, callback, name)
        self.closers.on_leave(lambda: self.router.forget(chip))

    def reset_chips(self) -> None:
        """Power-on state of all chips, in the order they were added."""
        for chip in self._of("reset"):
            chip.reset()

    def save_chips(self) -> dict[str, Any]:
        """The state of every chip that has one."""
        return {name: chip.save() for name, chip in self.chips.items() if hasattr(chip, "save")}

    def go_on(self) -> None:
        """The guest is about to run: what waited with it goes on."""
        for resume in self.resumers:
            resume()

    def flush(self) -> None:
        """The guest stands still: hand on what its chips still hold for the host."""
        for flush in self.flushers:
            flush()

    def close(self) -> None:
        """Let go of what chips hold of the host, the last made first."""
        self.closers.close()

    def _disown(self, name: str) -> None:
        del self.chips[name]

    def _of(self, method: str) -> Iterable[Any]:
        return [chip for chip in self.chips.values() if hasattr(chip, method)]
