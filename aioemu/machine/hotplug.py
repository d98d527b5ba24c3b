"""Devices that come and go while the guest runs: into and out of root ports, and on the buses of other devices.

A root port's device goes when the guest has let go of it; a port of a virtio-serial device goes at once. One device a
root port, as function 0. What a device takes of host and machine, its kit gives back (`machine/kit.py`): nothing here
knows a model. What the guest does with a slot is the slot's business (`devices/pci/hotplug.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aioemu.config import DeviceOptions
from aioemu.config.grammar import did_you_mean
from aioemu.devices.properties import Live, describe_live
from aioemu.errors import ConfigError, EmuError, GuestError
from aioemu.log import Event

if TYPE_CHECKING:
    from aioemu.devices.catalog import DeviceType
    from aioemu.devices.pci.bridge import RootPort
    from aioemu.devices.virtio.device import VirtioDevice
    from aioemu.machine.machine import Machine
    from aioemu.machine.site import Site

STAYS = frozenset(("pcie-root-port",))  # PCI functions that cannot be behind a root port
AT_ONCE = frozenset(("virtio-serial-bus",))  # buses without a slot that the guest watches
FIXED_BUSES = {"ISA": "isa.0", "virtio-bus": "virtio-mmio-bus"}
DELETED, REFUSED = "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"
Tell = Callable[..., None]  # (event, **data)


def describe_place(number: int, *, several: bool) -> dict[str, Live]:
    """Where a PCI function is: device and function number, and whether there are more at the device."""
    addr = f"{number >> 3:02x}.{number & 7:x}"
    return {"addr": Live("str", lambda: addr), "multifunction": Live("bool", lambda: several)}


class HotPlug:
    """Adds to and removes from one machine's site; events go to `tell`."""

    def __init__(self, site: Site, tell: Tell) -> None:
        self._site = site
        self._tell = tell

    def names(self) -> Mapping[str, str]:
        """Every device by id or generated name, and its model."""
        return dict(self._site.drivers)

    def path(self, name: str) -> str:
        """Where a device is in the object tree."""
        if name not in self._site.devices:
            raise ConfigError(f"Device '{name}' not found{did_you_mean(name, self._site.devices)}")
        plugged = self._site.plugged.get(name)
        return plugged.path if plugged is not None else f"/machine/peripheral/{name}"

    def describe(self, name: str) -> Mapping[str, Live]:
        """What can be read, and perhaps set, of a device: the properties of -device, and those of what it does."""
        plugged = self._site.plugged[name]
        found = describe_live(plugged.properties)
        can_go = plugged.kind.bus in AT_ONCE or ("PCI" in plugged.kind.bus and plugged.kind.name not in STAYS)
        for about, value in (("realized", True), ("hotplugged", plugged.hot), ("hotpluggable", can_go)):
            found[about] = Live("bool", lambda value=value: value)  # type: ignore[misc]
        found |= self._place(name, plugged.kind)
        if "bootindex" in found:
            found["bootindex"] = Live(
                "int32",
                lambda: self._site.boot_order.get(name, -1),
                lambda index: self._site.set_boot_index(name, index),
                "place in the boot order, -1: none",
            )
        own = getattr(self._site.devices[name], "live", None)
        return {**found, **(own() if own is not None else {})}

    def _place(self, name: str, kind: DeviceType) -> dict[str, Live]:
        """Where a PCI function is."""
        for bus in self._site.buses.values() if "PCI" in kind.bus else ():
            for number, function in bus.functions.items():
                if function.name == name:
                    return describe_place(number, several=function.has_siblings)
        return {}

    def add(self, driver: str, name: str | None, bus: str | None, values: Mapping[str, Any]) -> None:
        """Plug in a device. EmuError when that cannot be."""
        from aioemu.devices.catalog import find_device

        kind = find_device(driver)
        props = dict(values)
        options = DeviceOptions(driver, name, bus, None, props)
        if kind.bus in AT_ONCE:
            self._site.add(options)
            return
        port = self._port(FIXED_BUSES.get(kind.bus, bus))
        addr = props.pop("addr", None)
        if addr is not None and str(addr).removeprefix("0x").strip("0") not in ("", "."):
            raise ConfigError(f"Property 'addr' doesn't take value '{addr}': only function 0 can be plugged in")
        if driver in STAYS:
            raise ConfigError(f"Device '{driver}' can not be hotplugged on this machine")
        self._site.add(options)
        port.express.announce()

    def add_own(self, name: str, device: VirtioDevice, bus: str) -> None:
        """Plug a device that a program made into a root port."""
        port = self._port(bus)
        self._site.plug_own(name, device, bus=bus)
        port.express.announce()

    def remove(self, name: str) -> None:
        """Ask the guest to let the device go; DEVICE_DELETED says when it did. EmuError when it cannot be asked."""
        kind = self._kind(name)
        if kind is not None and kind.bus in AT_ONCE:
            self._drop(name)
            return
        port = self._port(self._bus_of(name, kind))

        def released() -> None:
            self._drop(name)
            port.express.announce()

        now_ns = self._site.timers.now_ns()
        if not port.express.ask_to_remove(released, lambda: self._tell_of(name, REFUSED), now_ns):
            raise EmuError(f"Device {name} is already in the process of unplug")

    async def wait_settled(self, name: str) -> None:
        """Until the guest is done with bringing the device in: while it is at it, it cannot be asked for it."""
        kind = self._kind(name)
        if kind is not None and kind.bus in AT_ONCE:
            return
        express = self._port(self._bus_of(name, kind)).express
        while express.is_busy:
            settled = asyncio.Event()
            express.settled.append(settled.set)
            await settled.wait()

    def _drop(self, name: str) -> None:
        from aioemu.devices.virtio.device import VirtioDevice

        for child in self._site.behind(name):
            self._drop(child)
        path = self.path(name)
        behind_function = isinstance(self._site.devices[name], VirtioDevice)  # a transport and what it carries are two
        self._site.remove(name)
        if behind_function:
            self._tell(DELETED, path=f"{path}/virtio-backend")
        self._tell_at(path, name, DELETED)

    def _tell_of(self, name: str, event: str) -> None:
        self._tell_at(self.path(name), name, event)

    def _tell_at(self, path: str, name: str, event: str) -> None:
        """An event about a device; one without an id is known by its path alone."""
        known = {"device": name} if path.endswith(f"/{name}") else {}
        self._tell(event, path=path, **known)

    def _kind(self, name: str) -> DeviceType | None:
        plugged = self._site.plugged.get(name)
        return plugged.kind if plugged is not None else None

    def _bus_of(self, name: str, kind: DeviceType | None) -> str:
        for bus in self._site.buses.values():
            if any(function.name == name for function in bus.functions.values()):
                return bus.name
        return FIXED_BUSES.get(kind.bus if kind is not None else "", "virtio-mmio-bus")

    def _port(self, bus: str | None) -> RootPort:
        from aioemu.devices.pci.bridge import RootPort

        buses = self._site.buses
        if bus is None and not buses:
            raise ConfigError("No 'PCI' bus found")
        name = next(iter(buses)) if bus is None else bus
        if name not in buses and name not in FIXED_BUSES.values():
            raise ConfigError(f"Bus '{name}' not found{did_you_mean(name, buses)}")
        bridge = buses[name].bridge if name in buses else None
        if not isinstance(bridge, RootPort):
            raise ConfigError(f"Bus '{name}' does not support hotplugging")
        return bridge


async def unplug(machine: Machine, name: str, timeout: float | None) -> None:
    """Ask for a device and wait until it has gone. GuestError: the guest keeps it; TimeoutError: it is silent."""
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    path = machine.devices.path(name)

    def look(event: Event) -> None:
        if event.fields.get("path") == path and not answer.done() and event.name in (DELETED, REFUSED):
            answer.set_result(event.name == DELETED)

    stop = machine.events.subscribe(look)
    try:
        async with asyncio.timeout(timeout):
            await machine.devices.wait_settled(name)
            machine.devices.remove(name)
            if not await answer:
                raise GuestError(f"the guest does not let {name} go")
    finally:
        stop()
