"""The events of the protocol.

Names, members and limits are QAPI's (run-state.json, qdev.json, misc.json, char.json, job.json of QEMU 10.0). A machine
records events under these names with these members; what it records under other names is not for clients.
"""

from __future__ import annotations

from enum import StrEnum

from aioemu.blockdev.jobs import JobStatus
from aioemu.protocol.commands.dump import DumpQueryResult
from aioemu.protocol.registry import EventClass
from aioemu.protocol.schema import Record, UInt64
from aioemu.protocol.socket_types import SocketAddress


class ShutdownCause(StrEnum):
    """Why a machine ends or starts over."""

    NONE = "none"
    HOST_ERROR = "host-error"
    HOST_QMP_QUIT = "host-qmp-quit"
    HOST_QMP_SYSTEM_RESET = "host-qmp-system-reset"
    HOST_SIGNAL = "host-signal"
    HOST_UI = "host-ui"
    GUEST_SHUTDOWN = "guest-shutdown"
    GUEST_RESET = "guest-reset"
    GUEST_PANIC = "guest-panic"
    SUBSYSTEM_RESET = "subsystem-reset"
    SNAPSHOT_LOAD = "snapshot-load"


class GuestPanicAction(StrEnum):
    """What followed a guest's panic."""

    PAUSE = "pause"
    POWEROFF = "poweroff"
    RUN = "run"


class WatchdogAction(StrEnum):
    """What a watchdog does when nobody feeds it."""

    RESET = "reset"
    SHUTDOWN = "shutdown"
    POWEROFF = "poweroff"
    PAUSE = "pause"
    DEBUG = "debug"
    NONE = "none"
    INJECT_NMI = "inject-nmi"


class Shutdown(Record):
    """The machine ends, or stands still where it was asked to."""

    guest: bool
    reason: ShutdownCause


class Powerdown(Record):
    """The power button was pressed; the guest may take notice."""


class Reset(Record):
    """The machine was reset."""

    guest: bool
    reason: ShutdownCause


class Stop(Record):
    """The guest stands still."""


class Resume(Record):
    """The guest runs again."""


class GuestPanicked(Record):
    """The guest's kernel gave up."""

    action: GuestPanicAction


class GuestCrashloaded(Record):
    """The guest's kernel gave up, and a crash kernel takes over."""

    action: GuestPanicAction


class GuestPvshutdown(Record):
    """The guest has ended, and said so by the panic device."""


class Watchdog(Record):
    """A watchdog fired."""

    action: WatchdogAction


class RtcChange(Record):
    """The guest set its clock."""

    offset: int
    qom_path: str


class BalloonChange(Record):
    """The guest has given or taken memory."""

    actual: UInt64


class VserportChange(Record):
    """The guest opened or closed a virtio serial port."""

    id: str
    open: bool


class DeviceDeleted(Record):
    """A device is gone for good."""

    path: str
    device: str | None = None


class DeviceUnplugGuestError(Record):
    """The guest refused to let a device go."""

    path: str
    device: str | None = None


class IoOperationType(StrEnum):
    """What failed."""

    READ = "read"
    WRITE = "write"


class BlockErrorAction(StrEnum):
    """What followed a disk's error."""

    IGNORE = "ignore"
    REPORT = "report"
    STOP = "stop"


class BlockIoError(Record, kw_only=True):
    """A disk failed."""

    qom_path: str
    device: str
    node_name: str | None = None
    operation: IoOperationType
    action: BlockErrorAction
    nospace: bool | None = None
    reason: str


class BlockImageCorrupted(Record, kw_only=True):
    """An image contradicts itself; (fatal): it was open for writing, is marked as corrupt and changes no more."""

    device: str
    node_name: str | None = None
    msg: str
    offset: int | None = None
    size: int | None = None
    fatal: bool


class JobStatusChange(Record):
    """A job went from one state to another."""

    id: str
    status: JobStatus


class NetdevStreamConnected(Record):
    """The connection of a `stream` back end is there."""

    netdev_id: str
    addr: SocketAddress


class NetdevStreamDisconnected(Record):
    """The connection of a `stream` back end is over."""

    netdev_id: str


class DumpCompleted(Record):
    """A dump of the guest's memory has ended."""

    result: DumpQueryResult
    error: str | None = None


class NicRxFilterChanged(Record, kw_only=True):
    """What a card's driver wants to receive has changed; told once, until query-rx-filter was asked."""

    name: str | None = None
    path: str


EVENTS: tuple[EventClass, ...] = (
    EventClass("SHUTDOWN", Shutdown),
    EventClass("POWERDOWN", Powerdown),
    EventClass("RESET", Reset),
    EventClass("STOP", Stop),
    EventClass("RESUME", Resume),
    EventClass("GUEST_PANICKED", GuestPanicked),
    EventClass("GUEST_CRASHLOADED", GuestCrashloaded),
    EventClass("GUEST_PVSHUTDOWN", GuestPvshutdown),
    EventClass("WATCHDOG", Watchdog, needs=("watchdog",), limited=True),
    EventClass("RTC_CHANGE", RtcChange, needs=("rtc",), limited=True),
    EventClass("BALLOON_CHANGE", BalloonChange, needs=("find_balloon",), limited=True),
    EventClass("VSERPORT_CHANGE", VserportChange, needs=("devices",), limited=True, key="id"),
    EventClass("DUMP_COMPLETED", DumpCompleted, needs=("dumper",)),
    EventClass("DEVICE_DELETED", DeviceDeleted, needs=("devices",)),
    EventClass("DEVICE_UNPLUG_GUEST_ERROR", DeviceUnplugGuestError, needs=("devices",)),
    EventClass("BLOCK_IO_ERROR", BlockIoError, needs=("drives",)),
    EventClass("BLOCK_IMAGE_CORRUPTED", BlockImageCorrupted, needs=("drives",)),
    EventClass("JOB_STATUS_CHANGE", JobStatusChange, needs=("drives",)),
    EventClass("NIC_RX_FILTER_CHANGED", NicRxFilterChanged, needs=("nics",)),
    EventClass("NETDEV_STREAM_CONNECTED", NetdevStreamConnected, needs=("nics",)),
    EventClass("NETDEV_STREAM_DISCONNECTED", NetdevStreamDisconnected, needs=("nics",)),
)
