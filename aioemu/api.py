"""Embedding: a virtual machine as an asynchronous context manager in your own event loop.

    async with aioemu.Machine(kernel="vmlinuz", initrd="initrd.gz", append="console=ttyS0") as vm:
        await vm.console.expect("login:", timeout=60)

Keywords mean what the command's options mean. Entering builds and starts the machine; leaving ends it and frees every
file descriptor, thread, mapping and task, whatever happened inside. What fails inside carries a report of the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from msgspec.structs import replace

from aioemu.bus.deferred import Deferred
from aioemu.bus.router import IrqSource, RawRange, Region
from aioemu.bus.wires import MMIO, PIO, Placeable
from aioemu.chardev import Console, ConsoleChardev
from aioemu.config import ConsoleOptions, MachineConfig, QtestOptions
from aioemu.config.keywords import build_config
from aioemu.errors import EmuError
from aioemu.log import Event, EventLog
from aioemu.machine.hotplug import unplug
from aioemu.machine.machine import Machine as _Machine
from aioemu.machine.report import format_registers
from aioemu.machine.runstate import Cause, ExitStatus, RunState

if TYPE_CHECKING:
    from aioemu.devices.virtio.device import VirtioDevice
    from aioemu.machine.nics import Nic
    from aioemu.netdev.link import Link
    from aioemu.protocol.calls import Calls
    from aioemu.protocol.hub import MonitorHub

__all__ = [
    "Deferred",
    "Events",
    "ExitStatus",
    "Machine",
    "RawRange",
    "RunState",
]

CONSOLE_ID = "console"  # the chardev behind `vm.console` when the configuration names no serial port
REPORT_CONSOLE_BYTES = 2000
REPORT_EVENTS = 20


class Events:
    """What happens to a machine, by QMP's names: a history, and a stream of what is to come."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    @property
    def history(self) -> list[Event]:
        """The last events, oldest first."""
        return list(self._log)

    def subscribe(self, tell: Callable[[Event], None]) -> Callable[[], None]:
        """Call `tell` with each event from now on; the answer ends that."""
        return self._log.subscribe(tell)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        stop = self._log.subscribe(queue.put_nowait)
        try:
            while True:
                yield await queue.get()
        finally:
            stop()

    async def wait(self, name: str, timeout: float | None = None) -> Event:
        """The next event called `name`. TimeoutError when it does not come within `timeout` seconds."""
        found: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

        def look(event: Event) -> None:
            if event.name == name and not found.done():
                found.set_result(event)

        stop = self._log.subscribe(look)
        try:
            return await asyncio.wait_for(found, timeout)
        finally:
            stop()


class Machine:
    """One virtual machine. See `aioemu.config.keywords.build_config` for the keywords."""

    def __init__(self, config: MachineConfig | None = None, **keywords: Any) -> None:
        base = config if config is not None else MachineConfig()
        self.config = _with_console(build_config(base, **keywords))
        self._log = EventLog()
        self.events = Events(self._log)
        self._machine: _Machine | None = None
        self._hub: MonitorHub | None = None
        self._closed = False
        self._placements: list[tuple[Placeable, int, int, str]] = []
        self._plugged: dict[str, VirtioDevice] = {}

    @classmethod
    def from_config(cls, config: MachineConfig) -> Self:
        """The machine that a whole configuration describes (what the command line builds)."""
        machine = cls(config)
        machine.config = config  # as it is: no console is added
        return machine

    async def __aenter__(self) -> Self:
        await self.open()
        try:
            await self.machine.start()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, Exception):
            exc.add_note(self.report())
        self.close()

    async def open(self) -> None:
        """Build the machine without starting it; `async with` does this."""
        if self._machine is not None:
            raise EmuError("this machine is open already")
        machine = _Machine(self.config, self._log)
        machine.own_devices = self._plugged
        await machine.open()
        try:
            for device, space, base, name in self._placements:
                machine.kit.place(name, device, (space, base))
            if self.config.monitors:
                self._hub = _make_hub(machine)
                self._hub.attach_configured()
            if self.config.qtest is not None:
                _serve_qtest(machine, self.config.qtest)
        except BaseException:
            machine.close()
            raise
        self._machine = machine

    def close(self) -> None:
        """End it and free everything; `async with` does this. May be called again."""
        if self._hub is not None:
            self._hub.close()
            self._hub = None
        if self._machine is not None:
            self._machine.close()
            self._closed = True

    @property
    def is_open(self) -> bool:
        """Built, and not closed."""
        return self._machine is not None and not self._closed

    @property
    def machine(self) -> _Machine:
        """The machine below: boards, chips, the native core. EmuError before it is open."""
        if self._machine is None:
            raise EmuError("this machine is not open: enter `async with`, or await open()")
        return self._machine

    # ---- life --------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> RunState:
        """Where it is in its life, by query-status' names."""
        return self.machine.state

    @property
    def accelerator(self) -> str:
        """What runs its processors: "kvm", "tcg", "qtest" or "none"."""
        return self.machine.accelerator.name

    async def pause(self) -> None:
        """Return when no vCPU runs and no virtual time passes."""
        await self.machine.pause()

    async def resume(self) -> None:
        """Let the guest go on."""
        await self.machine.resume()

    async def reset(self) -> None:
        """Reset it; it goes on running if it ran."""
        await self.machine.reset()

    def powerdown(self) -> None:
        """Press the power button: an operating system in the guest shuts down."""
        self.machine.powerdown()

    async def quit(self) -> None:
        """End it now, whatever the guest does."""
        await self.machine.quit(Cause.HOST_QMP_QUIT)

    async def wait(self) -> ExitStatus:
        """Until the guest's life has ended, and how."""
        return await self.machine.wait()

    async def qmp(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command without a socket: `await vm.qmp("device_add", driver="pvpanic-pci", id="p0")`.

        Keywords are the command's arguments, `_` for `-`. MonitorError is what a client would be answered.
        """
        return await self._monitors().call(command, arguments)

    @property
    def monitor(self) -> Calls:
        """The monitor's commands as typed methods: `(await vm.monitor.query_status()).running`."""
        from aioemu.protocol.calls import Calls  # as the monitors, only where it is used

        return Calls(self._monitors())

    def _monitors(self) -> MonitorHub:
        if self._hub is None:
            self._hub = _make_hub(self.machine)
        return self._hub

    # ---- inside ------------------------------------------------------------------------------------------------------

    @property
    def console(self) -> Console:
        """The first serial port: all output from byte 0, `expect`, `send`."""
        for chardev_id in self.config.serials:
            if chardev_id is not None and chardev_id in self.machine.chardevs:
                chardev = self.machine.chardevs.get(chardev_id)
                if isinstance(chardev, ConsoleChardev):
                    return chardev.console
        raise EmuError("no serial port of this machine leads to a console")

    def place(
        self, device: Placeable, *, mmio: int | None = None, port: int | None = None, name: str | None = None
    ) -> None:
        """Put a device of your own at a memory address or an I/O port: before entering, or while the machine runs."""
        if (mmio is None) == (port is None):
            raise ValueError("place: give mmio= or port=")
        space, base = (PIO, port) if port is not None else (MMIO, mmio)
        assert base is not None
        label = name or f"{type(device).__name__}-{base:x}"
        if self._machine is None:
            self._placements.append((device, space, base, label))
        else:
            self._machine.kit.place(label, device, (space, base))

    def plug(self, device: VirtioDevice, name: str | None = None, bus: str | None = None) -> None:
        """Plug in a virtio device of your own, by PCI or in a virtio-mmio slot. While the guest runs: into a root port,
        `bus`, and the guest is told."""
        label = name or f"{type(device).__name__.lower()}{len(self._plugged)}"
        if label in self._plugged:
            raise ValueError(f"plug: there is a device called {label}")
        if self._machine is not None and bus is not None:
            self._machine.devices.add_own(label, device, bus)
        elif self._machine is not None:
            self._machine.site.plug_own(label, device)
        self._plugged[label] = device

    async def unplug(self, name: str, timeout: float | None = None) -> None:
        """Return when the guest has let the device `name` go and nothing of it is left. GuestError: the guest refused;
        TimeoutError: it did not answer, and the device goes whenever it does."""
        await unplug(self.machine, name, timeout)
        self._plugged.pop(name, None)

    @property
    def nic(self) -> Sequence[Nic]:
        """The network cards, in the order they are made; they may be named, and linked, before the machine is open."""
        if self._machine is None:
            from aioemu.machine.nic_promise import NicsToBe

            return cast("Sequence[Nic]", NicsToBe(lambda: self.machine.nics.cards))
        return self.machine.nics.cards

    def link(self, name: str) -> Link:
        """The link that a card is on, by the id of card or back end; put between the two where there is none."""
        found = self.machine.links.find(name)
        if found is None:
            raise EmuError(f"no network card or back end called {name} is joined to anything")
        return found

    def irq(self, gsi: int) -> IrqSource:
        """A source of interrupt line `gsi`; lines with several sources are their OR."""
        return self.machine.kit.irq(gsi)

    @property
    def regions(self) -> list[Region]:
        """What is on the bus."""
        return self.machine.native.router.regions

    def read_memory(self, address: int, size: int) -> bytes:
        """Copy out of guest RAM."""
        return self.machine.memory.read(address, size)

    def write_memory(self, address: int, data: bytes) -> None:
        """Copy into guest RAM."""
        self.machine.memory.write(address, data)

    def registers(self, vcpu: int = 0) -> dict[str, int]:
        """A vCPU's registers; while it stands still."""
        return self.machine.native.registers(vcpu)

    def exits(self) -> dict[str, int]:
        """User-space exits so far, by kind."""
        return self.machine.native.exits()

    def report(self) -> str:
        """What to know when something failed: state, exit reason, registers, the last events, the console's tail."""
        if self._machine is None:
            return "the machine was never open"
        machine = self._machine
        lines = [f"machine {machine.name}: {machine.state.value}, exit: {machine.exit_status or 'none'}"]
        lines += self._register_lines()
        lines += [f"event {event}" for event in self.events.history[-REPORT_EVENTS:]]
        lines += self._console_lines()
        return "\n".join(lines)

    def _register_lines(self) -> list[str]:
        try:
            return format_registers(self.registers())
        except EmuError:
            return ["registers: the vCPU runs, or is gone"]

    def _console_lines(self) -> list[str]:
        try:
            return ["console:", self.console.tail(REPORT_CONSOLE_BYTES)]
        except EmuError:
            return []


def _make_hub(machine: _Machine) -> MonitorHub:
    """The monitors' side of a machine, loaded only where there is one: it costs 20 ms of imports."""
    from aioemu.protocol.hub import MonitorHub

    return MonitorHub(machine)


def _serve_qtest(machine: _Machine, options: QtestOptions) -> None:
    """Loaded only where a test drives the machine."""
    from aioemu.protocol.qtest_server import serve_configured

    machine.kit.closers.append(serve_configured(machine, options))


def _with_console(config: MachineConfig) -> MachineConfig:
    """An embedded machine has a console on its first serial port, unless the configuration says otherwise."""
    if config.serials:
        return config
    console = ConsoleOptions(id=CONSOLE_ID)
    return replace(config, chardevs=(*config.chardevs, console), serials=(CONSOLE_ID,))
