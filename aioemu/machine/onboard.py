"""What a board has without being asked, as the object tree shows it: chipset, bridges, legacy chips.

Looked at when a client asks. A chip's path stays the same as long as the machine lives. Not here: devices of `-device`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioemu.devices.properties import Live
from aioemu.machine.hotplug import describe_place

if TYPE_CHECKING:
    from aioemu.devices.pci.function import PciFunction
    from aioemu.machine.site import Site

UNATTACHED = "/machine/unattached/device[{}]"
NS = 1_000_000_000
# the chips of a kit by QEMU's names of their types, and what is inside each
CHIPS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "i8042": ("i8042", {"ps2kbd": "ps2-kbd"}),
    "port92": ("port92", {}),
}
BRIDGES = {0x0600: "mch", 0x0601: "ICH9-LPC"}


class OnBoard(Struct, frozen=True):
    """One part: where it is in the tree, its type, its properties."""

    path: str
    type: str
    properties: Mapping[str, Live]


def list_parts(site: Site, vcpus: int) -> list[OnBoard]:
    """Every part of the board, an outer one before what is inside it."""
    parts: list[OnBoard] = []
    numbers = iter(range(vcpus, vcpus + 1000))
    host = next(iter(site.buses.values()), None)
    lpc = None
    if host is not None:
        parts += [
            OnBoard("/machine/q35", "q35-pcihost", _fixed(realized=True)),
            OnBoard(f"/machine/q35/{host.name}", "PCIE", _fixed(realized=True, hotplug_handler="")),
        ]
        for devfn, function in sorted(host.functions.items()):
            if function.name in site.drivers:
                continue
            kind = BRIDGES.get(function.identity.class_code >> 8, "pci-device")
            path = "/machine/q35/mch" if kind == "mch" else UNATTACHED.format(next(numbers))
            parts.append(OnBoard(path, kind, _pci(function, devfn)))
            if kind == "ICH9-LPC":
                lpc = path
                parts.append(OnBoard(f"{path}/isa.0", "ISA", _fixed(realized=True)))
    chips = site.kit.chips
    if "rtc" in chips:
        path = f"{lpc}/rtc" if lpc is not None else UNATTACHED.format(next(numbers))
        parts.append(OnBoard(path, "mc146818rtc", {**_fixed(realized=True), "date": time_property(chips["rtc"])}))
    parts += _interrupt_chips(site, numbers)
    for name in chips:
        if name.startswith("serial") and name not in site.drivers:
            parts += _serial(site, name, UNATTACHED.format(next(numbers)))
        elif name in CHIPS:
            kind, inside = CHIPS[name]
            path = UNATTACHED.format(next(numbers))
            parts.append(OnBoard(path, kind, _fixed(realized=True)))
            parts += [OnBoard(f"{path}/{each}", what, _fixed(realized=True)) for each, what in inside.items()]
    return parts


def rtc_path(site: Site, vcpus: int) -> str:
    """Where the clock chip is."""
    return next((each.path for each in list_parts(site, vcpus) if each.type == "mc146818rtc"), "")


def time_property(rtc: Any) -> Live:
    """The guest's date as C's `struct tm` has it: years since 1900, months from 0."""

    def read() -> dict[str, int]:
        now = datetime.fromtimestamp(rtc.guest_seconds, UTC)
        days = {"tm_year": now.year - 1900, "tm_mon": now.month - 1, "tm_mday": now.day}
        return {**days, "tm_hour": now.hour, "tm_min": now.minute, "tm_sec": now.second}

    return Live("struct tm", read)


def _interrupt_chips(site: Site, numbers: Iterator[int]) -> Iterator[OnBoard]:
    needs = site.board.needs
    if site.buses:
        yield OnBoard("/machine/q35/ioapic", "ioapic", _fixed(realized=True))
    else:
        yield OnBoard(UNATTACHED.format(next(numbers)), "ioapic", _fixed(realized=True))
    for kind in (*("isa-i8259",) * 2 * needs.pic, *("isa-pit",) * needs.pit):
        yield OnBoard(UNATTACHED.format(next(numbers)), kind, _fixed(realized=True))


def _serial(site: Site, name: str, path: str) -> Iterator[OnBoard]:
    number = int(name.removeprefix("serial"))
    serials = site.kit.config.serials
    chardev = serials[number] if number < len(serials) else None
    yield OnBoard(path, "isa-serial", _fixed(realized=True, index=number, chardev=chardev or ""))
    yield OnBoard(f"{path}/serial", "serial", _fixed(realized=True, chardev=chardev or ""))


def _pci(function: PciFunction, devfn: int) -> dict[str, Live]:
    return {**_fixed(realized=True), **describe_place(devfn, several=function.has_siblings)}


def _fixed(**values: Any) -> dict[str, Live]:
    return {name.replace("_", "-"): _constant(value) for name, value in values.items()}


def _constant(value: Any) -> Live:
    return Live({bool: "bool", int: "uint32", str: "str"}[type(value)], lambda: value)
