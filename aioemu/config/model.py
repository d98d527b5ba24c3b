"""What a machine is, as frozen data: the one object that the command line and Python both build.

Nothing here opens a file, asks the host or knows a board: names and values are carried as given and
checked where they are used (a board checks its options, a device its properties). Groups that belong
to parts with their own grammar (netdevs, block nodes, objects) are carried whole, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from aioemu.config.chardevs import ChardevOptions

if TYPE_CHECKING:
    from uuid import UUID  # importing it costs a start several milliseconds

MIB = 1 << 20
DEFAULT_MEMORY_BYTES = 128 * MIB  # what `-m` absent means to every launcher written for QEMU
OptionValue = Any  # str from the command line; bool, int, float, list, dict or None from JSON and Python


class MachineOptions(Struct, frozen=True):
    """`-machine`: the board's name and its own options, untyped until the board reads them."""

    type: str = "q35"
    options: Mapping[str, OptionValue] = field(default_factory=dict)


class AccelOptions(Struct, frozen=True):
    """`-accel`: one accelerator to try; the machine takes the first that works."""

    name: str
    options: Mapping[str, OptionValue] = field(default_factory=dict)


class CpuModel(Struct, frozen=True):
    """`-cpu`: model and features in the order they apply (`+x` is `("x", "on")`, `-x` is `("x", "off")`)."""

    name: str = "max"
    features: tuple[tuple[str, str], ...] = ()


class Smp(Struct, frozen=True):
    """`-smp`: processor counts, always whole: sockets x dies x cores x threads == maxcpus >= cpus."""

    cpus: int = 1
    sockets: int = 1
    dies: int = 1
    cores: int = 1
    threads: int = 1
    maxcpus: int = 1


class MemoryOptions(Struct, frozen=True):
    """`-m`: boot memory, and room for more (`max_bytes` 0: none). `backend` names an -object memory-backend-*."""

    size_bytes: int = DEFAULT_MEMORY_BYTES
    slots: int = 0
    max_bytes: int = 0
    backend: str | None = None
    prealloc: bool = False
    path: str | None = None


class BootOptions(Struct, frozen=True):
    """What runs first: a kernel with its initrd and command line, or firmware; `options` is `-boot`."""

    kernel: str | None = None
    initrd: str | None = None
    append: str = ""
    firmware: str | None = None
    dtb: str | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)


class DeviceOptions(Struct, frozen=True):
    """`-device`: a driver and where it sits; `props` are the driver's own, strings or JSON values."""

    driver: str
    id: str | None = None
    bus: str | None = None
    addr: str | None = None
    props: Mapping[str, OptionValue] = field(default_factory=dict)


class OptionGroup(Struct, frozen=True):
    """One -object, -netdev, -nic, -net, -drive, -blockdev, ... whole, for the part that knows its meaning.

    `type` is the implied first key's value (qom-type, type, driver) where the option has one; `values`
    holds every other key but `id`, nested as JSON where dotted keys or JSON said so.
    """

    option: str
    type: str | None
    id: str | None
    values: Mapping[str, OptionValue] = field(default_factory=dict)


class MonitorOptions(Struct, frozen=True):
    """One monitor on a chardev: `mode` is "control" (QMP) or "readline" (text)."""

    chardev: str
    mode: str = "readline"
    pretty: bool = False
    id: str | None = None


class GlobalOptions(Struct, frozen=True):
    """`-global driver.property=value`: a default for every device of that driver."""

    driver: str
    property: str
    value: str


class SmbiosOptions(Struct, frozen=True):
    """`-smbios`: a binary table (`file`) or the fields of one type."""

    type: int | None = None
    file: str | None = None
    values: Mapping[str, OptionValue] = field(default_factory=dict)


class RtcOptions(Struct, frozen=True):
    """`-rtc`: `base` is "utc", "localtime" or an ISO date; `clock` is "host", "rt" or "vm"."""

    base: str = "utc"
    clock: str = "host"
    driftfix: str = "none"


class Actions(Struct, frozen=True):
    """`-action`: what follows a guest's reboot, shutdown, panic or a fired watchdog."""

    reboot: str = "reset"  # or "shutdown" (-no-reboot)
    shutdown: str = "poweroff"  # or "pause" (-no-shutdown)
    panic: str = "shutdown"  # or "pause", "exit-failure", "none"
    watchdog: str = "reset"  # or "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none"


class LogOptions(Struct, frozen=True):
    """`-D`, `-d`, `-trace`: where the log goes, which items and which trace patterns are on."""

    file: str | None = None
    items: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()


class QtestOptions(Struct, frozen=True):
    """`-qtest`: the chardev that the protocol is spoken on, and the file its log goes to."""

    chardev: str
    log: str | None = None


class ProcessOptions(Struct, frozen=True):
    """What concerns the process and not the machine; a program that embeds machines leaves it alone."""

    daemonize: bool = False
    pidfile: str | None = None
    ready_fd: int | None = None
    runas: str | None = None
    chroot: str | None = None
    exit_with_parent: bool = False
    process_name: str | None = None


class MachineConfig(Struct, frozen=True):
    """A whole machine. Empty `accel` means: measure and choose. Chardev ids tie serials and monitors to chardevs."""

    name: str | None = None
    uuid: UUID | None = None
    machine: MachineOptions = MachineOptions()
    accel: tuple[AccelOptions, ...] = ()
    cpu: CpuModel | None = None  # None: the board's and accelerator's default
    smp: Smp = Smp()
    memory: MemoryOptions = MemoryOptions()
    boot: BootOptions = BootOptions()
    devices: tuple[DeviceOptions, ...] = ()
    chardevs: tuple[ChardevOptions, ...] = ()
    serials: tuple[str | None, ...] = ()  # chardev ids in port order; None: this port is absent
    parallels: tuple[str | None, ...] = ()
    monitors: tuple[MonitorOptions, ...] = ()
    debugcon: str | None = None  # chardev id of the debug console at port 0xe9
    gdb: str | None = None
    objects: tuple[OptionGroup, ...] = ()
    netdevs: tuple[OptionGroup, ...] = ()
    nics: tuple[OptionGroup, ...] = ()
    nets: tuple[OptionGroup, ...] = ()
    drives: tuple[OptionGroup, ...] = ()
    blockdevs: tuple[OptionGroup, ...] = ()
    groups: tuple[OptionGroup, ...] = ()  # any further option that a later part reads (-fw_cfg, -numa, ...)
    globals: tuple[GlobalOptions, ...] = ()
    smbios: tuple[SmbiosOptions, ...] = ()
    rtc: RtcOptions = RtcOptions()
    actions: Actions = Actions()
    paused: bool = False  # -S
    preconfig: bool = False  # the guest waits for x-exit-preconfig
    nodefaults: bool = False
    nographic: bool = False
    display: str = "none"
    vga: str | None = None
    snapshot: bool = False  # disks keep their contents: writes go to temporary files
    escape: int = 1  # -echr: the control character before the commands of a muxed terminal
    incoming: str | None = None
    loadvm: str | None = None
    log: LogOptions = LogOptions()
    qtest: QtestOptions | None = None
    process: ProcessOptions = ProcessOptions()

    @property
    def no_reboot(self) -> bool:
        return self.actions.reboot == "shutdown"

    @property
    def no_shutdown(self) -> bool:
        return self.actions.shutdown == "pause"

    def chardev(self, chardev_id: str) -> ChardevOptions | None:
        """The chardev called `chardev_id`, or None."""
        return next((c for c in self.chardevs if c.id == chardev_id), None)

    def groups_of(self, option: str) -> tuple[OptionGroup, ...]:
        """The carried groups of one option, for example "fw_cfg"."""
        return tuple(g for g in self.groups if g.option == option)
