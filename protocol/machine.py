"""What the monitor needs of a machine, and no more: the seam between the protocol and everything below it.

`Machine` is the least; the further classes describe attributes that a machine may have or lack (None), and the
commands that need one are listed only where it is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from aioemu.chardev import Chardevs
from aioemu.config import MachineConfig
from aioemu.log import EventLog


class Accelerator(Protocol):
    """What runs the processors."""

    @property
    def name(self) -> str:
        """ "kvm", "tcg", "qtest" or "none"."""


class Machine(Protocol):
    """A machine that can be looked at and controlled. Its events are recorded under QMP's names in `events`."""

    config: MachineConfig
    events: EventLog
    chardevs: Chardevs
    preconfig: bool  # the guest waits for leave_preconfig

    @property
    def state(self) -> StrEnum:
        """Its run state, by query-status' names."""

    @property
    def running(self) -> bool: ...

    @property
    def accelerator(self) -> Accelerator: ...

    async def resume(self) -> None:
        """Let the guest run; RESUME is recorded before this returns. EmuError when only a reset would help."""

    async def leave_preconfig(self) -> None:
        """What --preconfig waited for. EmuError where nothing waits for it."""

    async def pause(self) -> None:
        """Return when the guest stands still; STOP is recorded before that."""

    async def reset(self) -> None:
        """Reset, or end where -no-reboot says so; RESET or SHUTDOWN is recorded before this returns."""

    def powerdown(self) -> None:
        """Press the power button; POWERDOWN is recorded."""

    async def quit(self) -> None:
        """End it: SHUTDOWN is recorded, whoever waits for the machine's end goes on."""


class Vcpu(Protocol):
    """One virtual processor (attribute `vcpus`: a sequence of these)."""

    index: int
    thread_id: int  # of the host thread that runs it
    qom_path: str
    topology: Mapping[str, int]  # socket-id, core-id, ... as in query-cpus-fast


class Memory(Protocol):
    """Guest memory by address (attribute `memory`)."""

    size_bytes: int

    def read(self, address: int, size: int) -> bytes:
        """Guest-physical memory. EmuError beyond what there is."""


class VirtualMemory(Protocol):
    """Guest memory as a vCPU sees it (attribute `virtual`)."""

    def read(self, vcpu: int, address: int, size: int) -> bytes:
        """EmuError where nothing is mapped."""


class Registers(Protocol):
    """A vCPU's registers as text (attribute `registers`)."""

    def __call__(self, vcpu: int) -> str: ...


class LiveProperty(Protocol):
    """What can be read, and perhaps set, of something that runs."""

    kind: str
    about: str

    def read(self) -> Any: ...

    @property
    def write(self) -> Callable[[Any], None] | None:
        """Sets it, or None where it cannot be set."""


class HeldObject(Protocol):
    """One object: its type, what it was made of, what can be seen of it."""

    @property
    def kind(self) -> Any:
        """Its type, which has a `name`."""

    def values(self) -> Mapping[str, Any]:
        """What it was made of, by the names of -object."""

    def live(self) -> Mapping[str, LiveProperty]:
        """What can be read and set while it is there."""


class Objects(Protocol):
    """Objects of `-object` by id (attribute `objects`): iothreads, memory back ends, entropy ..."""

    def types(self) -> Sequence[str]:
        """The types that `add` takes."""

    def names(self) -> Mapping[str, str]:
        """Every object's id and type."""

    def find(self, name: str) -> HeldObject:
        """One of them."""

    def add(self, kind: str, object_id: str, values: Mapping[str, Any]) -> Awaitable[None]:
        """Make one; EmuError when it cannot be."""

    def remove(self, object_id: str) -> Awaitable[None]:
        """End one; EmuError when it is unknown or in use."""


class IoThread(Protocol):
    """A thread that serves devices (attribute `iothreads`: by id)."""

    thread_id: int
    properties: Any  # poll_max_ns and so on, as attributes


class Devices(Protocol):
    """Devices that come and go (attribute `devices`); DEVICE_DELETED and DEVICE_UNPLUG_GUEST_ERROR are recorded."""

    def names(self) -> Mapping[str, str]:
        """Every device by id or generated name, and its model."""

    def path(self, name: str) -> str:
        """Where one is in the object tree: by its id, or by a number if it has none."""

    def describe(self, name: str) -> Mapping[str, LiveProperty]:
        """What can be read, and perhaps set, of one: the properties of -device, and those of what it does."""

    def add(self, driver: str, name: str | None, bus: str | None, values: Mapping[str, Any]) -> None:
        """Plug one in; EmuError when that cannot be."""

    def remove(self, name: str) -> None:
        """Ask the guest to let one go; EmuError when it cannot be asked."""


class OnBoard(Protocol):
    """A part that the board has anyway (`onboard()` lists them, outer ones first)."""

    path: str
    type: str
    properties: Mapping[str, LiveProperty]


class Balloon(Protocol):
    """A balloon in the guest (`find_balloon()` gives the first, or None)."""

    @property
    def actual_bytes(self) -> int:
        """What the guest has, as it says."""

    def set_target(self, target_bytes: int) -> None:
        """Ask it to have so much."""


class Dumper(Protocol):
    """Writes core files of the guest (attribute `dumper`), one at a time; DUMP_COMPLETED is recorded."""

    status: str  # DumpStatus
    completed: int  # bytes of memory
    total: int

    def start(self, fd: int, begin: int, length: int | None) -> Coroutine[Any, Any, None]:
        """Begin; what is returned does it and closes the descriptor. EmuError when it cannot be."""


class PciPlace(Protocol):
    """One PCI function as the guest has set it up (`pci_places()` lists them)."""

    bus: int
    slot: int
    function: int
    device: Any  # with `identity` and `pin`
    name: str
    description: str
    irq: int
    regions: Sequence[tuple[int, str, int, int, bool]]  # BAR, io/mem32/mem64, address or -1, size, prefetchable
    behind: int | None


class Keys(Protocol):
    """Fingers on the keyboard (attribute `keyboard`): keys by their set 1 numbers, bit 7 for those behind 0xE0."""

    def press(self, numbers: Sequence[int], hold_ms: int) -> None:
        """Press keys together, hold them, let go. EmuError for a number that is no key, and when too much waits."""

    def move(self, keys: Sequence[tuple[int, bool]]) -> None:
        """Let each key go down (True) or up. The same errors."""


class QomProperty(Protocol):
    """A typed property of a QOM object."""

    type: str  # bool, int, uint8 ... uint64, size, string, or an enumeration's name
    description: str | None
    default: Any

    def read(self) -> Any: ...

    @property
    def write(self) -> Callable[[Any], None] | None:
        """Sets it, or None where it cannot be set."""


class QomObject(Protocol):
    """A node of the object tree (attribute `qom` is its root)."""

    type: str

    def properties(self) -> Mapping[str, QomProperty]: ...

    def children(self) -> Mapping[str, QomObject]: ...


class TextReport(Protocol):
    """A report for people (attributes `mtree`, `qtree`, `irqs`)."""

    def __call__(self) -> str: ...


class UserNetwork(Protocol):
    """A guest's network behind a NAT (attribute `user_networks`: by the ids of their back ends)."""

    @property
    def connections(self) -> str:
        """Connections and forwarded ports as a table."""

    def add_hostfwd(self, rule: str) -> None:
        """Forward a port of the host's. ConfigError names what is wrong with the rule."""

    def remove_hostfwd(self, source: str) -> bool:
        """End that; False where there is none. ConfigError for what is no rule."""


Nmi = Callable[[], None]  # attribute `inject_nmi`: to every vCPU
SetActions = Callable[..., None]  # attribute `set_actions`: keywords reboot, shutdown, panic, watchdog
