"""What the options said so far, and what it comes to: a MachineConfig.

Readers fill the draft in the order of the command line; `finish` fills in what follows from several of them together
(default ports, the CPU topology) and checks that they fit. Merging is QEMU's: `-machine`, `-smp`, `-m` and `-boot` add
up, the last value of a key wins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aioemu.cli.ports import add_default_ports
from aioemu.cli.topology import make_memory, make_smp
from aioemu.config import (
    AccelOptions,
    Actions,
    BootOptions,
    ChardevOptions,
    CpuModel,
    DeviceOptions,
    GlobalOptions,
    LogOptions,
    MachineConfig,
    MachineOptions,
    MonitorOptions,
    OptionGroup,
    OptionValue,
    ProcessOptions,
    QtestOptions,
    RtcOptions,
    SmbiosOptions,
)
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from uuid import UUID

Values = dict[str, OptionValue]


@dataclass
class Draft:
    """A configuration in the making; fields are called as in MachineConfig."""

    machine_type: str | None = None
    machine_options: Values = field(default_factory=dict)
    machine_accel: list[str] = field(default_factory=list)
    accel: list[AccelOptions] = field(default_factory=list)
    cpu: CpuModel | None = None
    smp: Values = field(default_factory=dict)
    smp_where: str = "-smp"
    memory: Values = field(default_factory=dict)
    memory_where: str = "-m"
    mem_path: str | None = None
    mem_prealloc: bool = False
    kernel: str | None = None
    initrd: str | None = None
    append: str = ""
    firmware: str | None = None
    dtb: str | None = None
    boot: Values = field(default_factory=dict)
    name: str | None = None
    uuid: UUID | None = None
    devices: list[DeviceOptions] = field(default_factory=list)
    chardevs: dict[str, ChardevOptions] = field(default_factory=dict)
    serials: list[str | None] = field(default_factory=list)
    parallels: list[str | None] = field(default_factory=list)
    monitors: list[MonitorOptions] = field(default_factory=list)
    monitor_count: int = 0
    default_serial: bool = True
    default_monitor: bool = True
    groups: list[OptionGroup] = field(default_factory=list)
    globals: list[GlobalOptions] = field(default_factory=list)
    smbios: list[SmbiosOptions] = field(default_factory=list)
    rtc: RtcOptions = field(default_factory=RtcOptions)
    actions: dict[str, str] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)  # MachineConfig fields that one option sets whole
    process: dict[str, Any] = field(default_factory=dict)
    log_file: str | None = None
    log_items: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    qtest: str | None = None
    qtest_log: str | None = None
    warnings: list[str] = field(default_factory=list)

    def add_chardev(self, where: str, options: ChardevOptions) -> str:
        """Keep a chardev; returns its id."""
        if options.id in self.chardevs:
            raise ConfigError(f"{where}: Duplicate ID '{options.id}' for chardev", where)
        self.chardevs[options.id] = options
        return options.id

    def add_group(self, where: str, group: OptionGroup) -> None:
        """Keep a group for the part that reads it; ids are unique within an option."""
        if group.id is not None and any(g.option == group.option and g.id == group.id for g in self.groups):
            raise ConfigError(f"{where}: Duplicate ID '{group.id}' for {group.option}", where)
        self.groups.append(group)

    def finish(self) -> MachineConfig:
        """The configuration."""
        for option, given in (("-append", self.append), ("-initrd", self.initrd)):
            if given and self.kernel is None:
                raise ConfigError(f"{option} only allowed with -kernel option", option)
        if self.globals:
            self._check_globals()
        add_default_ports(self)
        self._check_chardevs()
        return MachineConfig(
            name=self.name,
            uuid=self.uuid,
            machine=MachineOptions(self.machine_type or MachineOptions().type, self.machine_options),
            accel=self._accel(),
            cpu=self.cpu,
            smp=make_smp(self.smp_where, self.smp),
            memory=make_memory(self),
            boot=BootOptions(self.kernel, self.initrd, self.append, self.firmware, self.dtb, self.boot),
            devices=tuple(self.devices),
            chardevs=tuple(self.chardevs.values()),
            serials=tuple(self.serials),
            parallels=tuple(self.parallels),
            monitors=tuple(self.monitors),
            objects=self._take("object"),
            netdevs=self._take("netdev"),
            nics=self._take("nic"),
            nets=self._take("net"),
            drives=self._take("drive"),
            blockdevs=self._take("blockdev"),
            groups=tuple(g for g in self.groups if g.option not in _OWN_FIELDS),
            globals=tuple(self.globals),
            smbios=tuple(self.smbios),
            rtc=self.rtc,
            actions=Actions(**self.actions),
            log=LogOptions(self.log_file, tuple(self.log_items), tuple(self.traces)),
            qtest=QtestOptions(self.qtest, self.qtest_log) if self.qtest is not None else None,
            process=ProcessOptions(**self.process),
            **self.flags,
        )

    def _take(self, option: str) -> tuple[OptionGroup, ...]:
        return tuple(g for g in self.groups if g.option == option)

    def _accel(self) -> tuple[AccelOptions, ...]:
        if self.accel and self.machine_accel:
            raise ConfigError("-accel and -machine accel= cannot be used together", "-accel")
        return tuple(self.accel) or tuple(AccelOptions(name) for name in self.machine_accel)

    def _check_globals(self) -> None:
        """A default for what is not there is said to have no effect; one that its device does not have is an error."""
        import dataclasses

        from aioemu.devices.catalog import DEVICES  # loads every device there is
        from aioemu.devices.pci.place import PLACE_NAMES

        known = {each.name: each for each in DEVICES}
        for each in self.globals:
            shown, found = f"{each.driver}.{each.property}={each.value}", known.get(each.driver)
            if found is None:
                self.warnings.append(f"-global {shown}: no effect: there is no device of this name")
                continue
            names = {*(field.name for field in dataclasses.fields(found.properties)), *PLACE_NAMES}
            if each.property.replace("-", "_") not in names:
                message = f"Property '{each.driver}.{each.property}' not found"
                raise ConfigError(f"can't apply global {shown}: {message}", "-global")

    def _check_chardevs(self) -> None:
        """Whatever names a chardev names one that is there."""
        for monitor in self.monitors:
            if monitor.chardev not in self.chardevs:
                raise ConfigError(f'-mon chardev={monitor.chardev}: chardev "{monitor.chardev}" not found', "-mon")
        for option, ids in (("-serial", self.serials), ("-parallel", self.parallels)):
            for chardev_id in ids:
                if chardev_id is not None and chardev_id not in self.chardevs:
                    raise ConfigError(f'{option} chardev:{chardev_id}: chardev "{chardev_id}" not found', option)


_OWN_FIELDS = frozenset(("object", "netdev", "nic", "net", "drive", "blockdev"))
