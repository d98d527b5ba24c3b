"""Devices that come and go while the guest runs: into and out of root ports.

Which models can go again without a trace is listed here; the others stay for the machine's life. One device a port, as
function 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aioemu.config import DeviceOptions
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError, EmuError

if TYPE_CHECKING:
    from aioemu.devices.pci.bridge import RootPort
    from aioemu.devices.pci.bus import PciBus
    from aioemu.machine.site import Site

HOTPLUGGABLE = frozenset(("pvpanic-pci",))  # nothing of it stays behind on the host
Tell = Callable[..., None]  # (event, **data)


class HotPlug:
    """Adds to and removes from one machine's site; events go to `tell`."""

    def __init__(self, site: Site, tell: Tell) -> None:
        self._site = site
        self._tell = tell

    def names(self) -> Mapping[str, str]:
        """Every device by id or generated name, and its model."""
        return dict(self._site.drivers)

    def add(self, driver: str, name: str | None, bus: str | None, values: Mapping[str, Any]) -> None:
        """Plug in a device. EmuError when that cannot be."""
        from aioemu.devices.catalog import find_device

        find_device(driver)
        port = self._port(bus)
        props = dict(values)
        addr = props.pop("addr", None)
        if addr is not None and str(addr).removeprefix("0x").strip("0") not in ("", "."):
            raise ConfigError(f"Property 'addr' doesn't take value '{addr}': only function 0 can be plugged in")
        if driver not in HOTPLUGGABLE:
            raise ConfigError(f"Device '{driver}' can not be hotplugged on this machine")
        self._site.add(DeviceOptions(driver, name, bus, None, props))
        port.express.announce()

    def remove(self, name: str) -> None:
        """Ask the guest to let the device go; DEVICE_DELETED says when it did. EmuError when it cannot be asked."""
        bus, number = self._find(name)
        port = self._port(bus.name if bus is not None else "isa.0")
        if self._site.drivers[name] not in HOTPLUGGABLE:
            raise ConfigError(f"Device '{name}' can not be unplugged")
        path = f"/machine/peripheral/{name}"

        def released() -> None:
            assert bus is not None
            self._site.remove(name, bus, number)
            port.express.announce()
            self._tell("DEVICE_DELETED", device=name, path=path)

        port.express.released = released
        port.express.refused = lambda: self._tell("DEVICE_UNPLUG_GUEST_ERROR", device=name, path=path)
        if not port.express.ask_to_remove():
            raise EmuError(f"Device {name} is already in the process of unplug")

    def _find(self, name: str) -> tuple[PciBus | None, int]:
        device = self._site.devices[name]
        for bus in self._site.buses.values():
            for number, function in bus.functions.items():
                if function is device:
                    return bus, number
        return None, 0

    def _port(self, bus: str | None) -> RootPort:
        from aioemu.devices.pci.bridge import RootPort

        buses = self._site.buses
        name = next(iter(buses), "isa.0") if bus is None else bus
        if name not in buses and name != "isa.0":
            raise ConfigError(f"Bus '{name}' not found{did_you_mean(name, buses)}")
        bridge = buses[name].bridge if name in buses else None
        if not isinstance(bridge, RootPort):
            raise ConfigError(f"Bus '{name}' does not support hotplugging")
        return bridge
