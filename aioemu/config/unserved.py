"""Refuses what a configuration asks for and no part of the machine serves: nothing is ignored in silence.

Each part that learns an option adds its name to the `served` set of the machine that is built.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from aioemu.config.model import MachineConfig
from aioemu.errors import ConfigError


def refuse_unserved(config: MachineConfig, served: Container[str]) -> None:
    """ConfigError for the first thing asked for whose name is not in `served` (`object:TYPE`, `netdev:TYPE`)."""
    for name, shown in wanted(config):
        if name not in served:
            raise ConfigError(f"{shown}: not available in this version", shown.split(" ", 1)[0])


def wanted(config: MachineConfig) -> Iterator[tuple[str, str]]:
    """What a configuration asks for beyond board and devices: the name it is served by, and how to show it."""
    for group in config.objects:
        yield f"object:{group.type}", f"-object {group.type},id={group.id}"
    for group in config.netdevs:
        yield f"netdev:{group.type}", f"-netdev {group.type},id={group.id}"
    for groups in (config.nics, config.nets, config.drives, config.blockdevs, config.groups):
        for group in groups:
            if group.type != "none":
                what = ",".join(part for part in (group.type, f"id={group.id}" if group.id else None) if part)
                yield group.option, f"-{group.option} {what or _first(group.values)}".rstrip()
    single = {
        "bios": config.boot.firmware,
        "dtb": config.boot.dtb,
        "gdb": config.gdb,
        "incoming": config.incoming,
        "loadvm": config.loadvm,
        "qtest": config.qtest.chardev if config.qtest is not None else None,
        "snapshot": "" if config.snapshot else None,
    }
    yield from ((name, f"-{name} {value}".rstrip()) for name, value in single.items() if value is not None)


def _first(values: object) -> str:
    """One key and value, to know the group by."""
    items = list(values.items()) if isinstance(values, dict) else []
    return f"{items[0][0]}={items[0][1]}" if items else ""
