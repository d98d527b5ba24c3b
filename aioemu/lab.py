"""A lab: machines, links, switches, peers and captures in one block, gone without a trace when it is left.

    async with aioemu.Lab() as lab:
        a = lab.machine("a", ready=r"login:", kernel=...)
        b = lab.machine("b", ready=r"login:", kernel=...)
        link = lab.link(a.nic[0], b.nic[0])
        await lab.start()                       # all at once; returns when each is ready
        await link.impair(delay_ms=20, jitter_ms=2)
        async with lab.capture("lab.pcapng", link): ...

A link's ends are whatever has a port: NICs of machines (before or after they are built), back ends, switches, hubs, and
objects with `frame_received`. A machine that ended has lost its carrier as if it were switched off. Leaving the block
ends captures, links, machines and switches, in this order and whatever failed. Not here: topology files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace

from aioemu.api import Machine
from aioemu.config import DeviceOptions
from aioemu.errors import EmuError
from aioemu.log import Event, EventLog, Log
from aioemu.machine.nic_promise import NicToBe
from aioemu.netdev.capture import Capture
from aioemu.netdev.hub import Hub
from aioemu.netdev.link import Clockwork, Link
from aioemu.netdev.peer import Peer, Wire
from aioemu.netdev.port import HasPort, Port
from aioemu.netdev.switch import Switch

if TYPE_CHECKING:
    from aioemu.machine.nics import Nic
    from aioemu.netdev.registry import Netdev

Ready = str | Callable[[Machine], Awaitable[object]]
START_LIMIT_S = 120.0
NIC_DRIVERS = ("virtio-net", "e1000", "rtl8139")
FIRST_MAC = 0x525400A00000  # locally administered, beside the range of machines on their own


End = Port | Switch | Peer | HasPort


class Lab:
    """Everything made through it is closed with it. `name` is whose events the links' are."""

    def __init__(self, name: str = "lab") -> None:
        self.name = name
        self.events = EventLog()
        self.machines: dict[str, Machine] = {}
        self.links: dict[str, Link] = {}
        self.switches: dict[str, Switch] = {}
        self.wires: list[Wire] = []
        self.netdevs: list[Netdev] = []
        self.captures: list[Capture] = []
        self._log = Log("net", name, self.events)
        self._ready: dict[str, Ready | None] = {}
        self._macs = 0
        self._unjoined: list[tuple[Link, Port, NicToBe]] = []
        self._clockwork: Clockwork | None = None
        self._has_ended = False

    @property
    def clockwork(self) -> Clockwork:
        """The native thread of this lab's links and switches."""
        if self._has_ended:
            raise EmuError("this lab has ended")
        if self._clockwork is None:
            self._clockwork = Clockwork()
        return self._clockwork

    # ---- what there is -----------------------------------------------------------------------------------------------

    def machine(self, name: str, *, ready: Ready | None = None, **keywords: Any) -> Machine:
        """A machine of this lab (`aioemu.Machine`'s keywords); `start` starts it.

        It is ready when (ready), a pattern, has come on its console, or a coroutine function called with it returns.
        """
        if name in self.machines:
            raise EmuError(f"this lab has a machine called {name}")
        vm = Machine(name=name, **keywords)
        vm.config = replace(vm.config, devices=tuple(self._with_mac(device) for device in vm.config.devices))
        self.machines[name], self._ready[name] = vm, ready
        return vm

    def _with_mac(self, device: DeviceOptions) -> DeviceOptions:
        """Each machine by itself would give its first card the same address; here no two cards have the same."""
        if not device.driver.startswith(NIC_DRIVERS) or "mac" in device.props:
            return device
        self._macs += 1
        return replace(device, props={**device.props, "mac": (FIRST_MAC + self._macs).to_bytes(6, "big").hex(":")})

    def link(self, a: End, b: End, name: str | None = None, *, seed: int | None = None) -> Link:
        """A link between two ends. What is not built yet is joined by `start`."""
        label = name or f"link{len(self.links)}"
        if label in self.links:
            raise EmuError(f"this lab has a link called {label}")
        link = Link(label, self.clockwork, seed=seed, log=self._log)
        try:
            self._join(link, link.a, a)
            self._join(link, link.b, b)
        except BaseException:
            link.close()
            raise
        self.links[label] = link
        return link

    def switch(self, name: str | None = None, **options: Any) -> Switch:
        """A learning switch; a link to it takes a free port."""
        return self._add_switch(Switch, name or f"switch{len(self.switches)}", options)

    def hub(self, name: str | None = None, **options: Any) -> Switch:
        """A hub."""
        return self._add_switch(Hub, name or f"hub{len(self.switches)}", options)

    def _add_switch(self, kind: type[Switch], name: str, options: dict[str, Any]) -> Switch:
        if name in self.switches:
            raise EmuError(f"this lab has a switch called {name}")
        switch = self.switches[name] = kind(name, self.clockwork, **options)
        return switch

    async def netdev(self, kind: str, **options: Any) -> Netdev:
        """A back end of the host to link to: "tap", "user", "stream", ... with -netdev's options, `_` for `-`."""
        from aioemu.netdev.registry import NetContext, open_netdev

        context = NetContext(f"netdev{len(self.netdevs)}", self._log, lambda: self.clockwork.io, int)
        values = {name.replace("_", "-"): value for name, value in options.items()}
        netdev = await open_netdev(kind, values, context)
        self.netdevs.append(netdev)
        return netdev

    def wire(self, peer: Peer, **options: Any) -> Wire:
        """The port of a peer in Python, to link to or to join directly."""
        wire = Wire(peer, **options)
        self.wires.append(wire)
        return wire

    def capture(self, path: Any = None, *places: Link | Port | HasPort, **options: Any) -> Capture:
        """Record links, or ends (also named by what is joined there), from now on; all links where none is named."""
        capture = Capture(path, **options)
        self.captures = [*(each for each in self.captures if not each.is_closed), capture]
        for place in places or tuple(self.links.values()):
            capture.add(place)
        return capture

    # ---- joining -----------------------------------------------------------------------------------------------------

    def _join(self, link: Link, near: Port, far: End) -> None:
        if isinstance(far, Port):
            near.join(far)
        elif isinstance(far, Switch):
            near.join(far.free_port())
        elif isinstance(far, NicToBe):
            self._unjoined.append((link, near, far))
        elif callable(getattr(far, "frame_received", None)):
            near.join(self.wire(far))  # type: ignore[arg-type]
        elif hasattr(far, "port"):
            self._plug(link, near, far)  # type: ignore[arg-type]
        else:
            raise EmuError(f"a {type(far).__name__} is no end of a link: a card, a back end, a switch or a peer is")

    def _plug(self, link: Link, near: Port, far: HasPort) -> None:
        near.join(far.port)
        for vm in self.machines.values():
            if vm.is_open and far in vm.nic:
                self._follow(link, near, vm)

    def _follow(self, link: Link, near: Port, vm: Machine) -> None:
        """The link's other end has carrier while this machine lives: from its start, through pauses, to its end."""

        def look(event: Event) -> None:
            if event.name in ("RESUME", "SHUTDOWN"):
                link.set_alive(near, event.name == "RESUME")

        link.set_alive(near, vm.machine.running)
        vm.machine.links[link.name] = link
        link.closers.append(vm.events.subscribe(look))
        link.closers.append(lambda: vm.machine.links.pop(link.name, None))

    # ---- life --------------------------------------------------------------------------------------------------------

    async def start(self, timeout: float = START_LIMIT_S) -> None:
        """Build and start every machine that is not, and wait until all are ready. TimeoutError names who is not."""
        new = [(name, vm) for name, vm in self.machines.items() if not vm.is_open]
        for _, vm in new:
            await vm.open()
            for nic in vm.nic:
                self._drive(nic, vm.machine.native.io.ptr)
        unjoined, self._unjoined = self._unjoined, []
        for link, near, far in unjoined:
            self._plug(link, near, far.card_itself)
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for name, vm in new:
                group.create_task(self._bring_up(name, vm, timeout))
        self._log.event("lab-started", machines=len(new), seconds=round(time.monotonic() - started, 3))

    def _drive(self, nic: Nic, reactor_io: Any) -> None:
        """A card without an iothread of its own is served by the lab's thread: one wake-up for both ends of a link."""
        if nic.io == reactor_io:
            nic.io = self.clockwork.io
            if nic.back_end is not None:
                nic.back_end.netdev.port.drive(nic.io)

    async def _bring_up(self, name: str, vm: Machine, timeout: float) -> None:
        ready = self._ready[name]
        await vm.machine.start()
        if ready is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await (vm.console.expect(ready) if isinstance(ready, str) else ready(vm))
        except TimeoutError as exc:
            raise TimeoutError(f"{name} was not ready within {timeout:g} s\n{vm.report()}") from exc

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, Exception):
            for vm in self.machines.values():
                exc.add_note(vm.report())
        await self.close()

    async def close(self) -> None:
        """End everything, whatever fails; may be called again. HostError when a capture's file could not be written."""
        self._has_ended = True
        captures, self.captures = self.captures, []
        for capture in captures:
            capture.end()
        _close_all(self._log, [each.close for each in self.links.values()])
        _close_all(self._log, [each.close for each in self.machines.values()])
        _close_all(self._log, [each.close for each in self.switches.values()])
        _close_all(self._log, [each.close for each in self.wires])
        _close_all(self._log, [each.close for each in self.netdevs])
        self.netdevs.clear()
        if self._clockwork is not None:
            self._clockwork.close()
            self._clockwork = None
        for result in await _through(asyncio.gather(*(each.close() for each in captures), return_exceptions=True)):
            if isinstance(result, BaseException):
                raise result


async def _through(ending: asyncio.Future[list[BaseException | None]]) -> list[BaseException | None]:
    """What it comes to, also for one who is cancelled meanwhile: files are whole before the cancellation goes on."""
    try:
        return await asyncio.shield(ending)
    except asyncio.CancelledError:
        await asyncio.wait([ending])
        raise


def _close_all(log: Log, closers: Iterable[Callable[[], None]]) -> None:
    for close in closers:
        try:
            close()
        except Exception as exc:
            log.error("closing: %r", exc)
