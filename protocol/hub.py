"""A machine's monitors together: one registry, one set of descriptors, every event to every client.

    hub = MonitorHub(machine); hub.attach(chardev, mode="control"); ... await hub.execute("query-status"); hub.close()

In-process callers get the same commands, checks and answers as clients, without a socket in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

import aioemu
from aioemu.chardev import Chardev
from aioemu.core.fds import FdTable
from aioemu.errors import EmuError, MonitorError
from aioemu.log import Event, Log
from aioemu.protocol.monitor import QmpMonitor
from aioemu.protocol.python_names import wire_arguments
from aioemu.protocol.registry import Command, EventClass, Registry
from aioemu.protocol.session import Capability
from aioemu.protocol.throttle import Throttle
from aioemu.protocol.turns import Turns

EventListener = Callable[[dict[str, Any]], None]


class MonitorHub:
    """Serves one machine. `registry` may be given to serve fewer or further commands."""

    def __init__(self, machine: Any, registry: Registry | None = None) -> None:
        self.machine = machine
        self.registry = registry if registry is not None else Registry(machine)
        self.package = f"aioemu-{aioemu.__version__}"
        self.loop = asyncio.get_running_loop()
        self.log = Log("monitor", getattr(machine, "name", ""))
        self.fds: FdTable = getattr(machine, "fds", None) or FdTable()  # one a machine, whoever passed them
        self.sessions: set[QmpMonitor] = set()
        self.turns = Turns(self.loop)
        self.listeners: list[EventListener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._throttle = Throttle(self.loop)
        self._unsubscribe = machine.events.subscribe(self._happened)
        self.spawn(self._prepare())

    # ---- clients ---------------------------------------------------------------------------------------------------

    def attach(self, chardev: Chardev, mode: str = "control", pretty: bool = False) -> None:
        """Serve QMP ("control") or the text monitor ("readline") on a chardev, to each client of its own."""
        if mode == "control":
            chardev.serve(lambda channel: QmpMonitor(self, channel, pretty))
        else:
            from aioemu.protocol.hmp.terminal import HmpMonitor  # most programs talk QMP

            chardev.serve(lambda channel: HmpMonitor(self, channel))

    def attach_configured(self) -> None:
        """Serve every monitor of the machine's configuration."""
        for each in self.machine.config.monitors:
            self.attach(self.machine.chardevs.claim(each.chardev, focus=False), each.mode, each.pretty)

    async def execute(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a command from inside the program; the answer as plain objects. MonitorError as a client would get it."""
        result = await self.run(self._find(name), arguments or {})
        if isinstance(result, bytes):
            return msgspec.json.decode(result)
        return {} if result is None else msgspec.to_builtins(result)

    async def call(self, name: str, keywords: dict[str, Any]) -> Any:
        """The same with arguments by Python's names."""
        return await self.execute(name, wire_arguments(self._find(name), keywords))

    async def run(self, command: Command, arguments: dict[str, Any]) -> Any:
        """The same; the answer as the handler gave it."""
        try:
            result = command.call(self.machine, LocalCaller(self), arguments)
            return await result if command.is_async else result
        except EmuError as exc:
            raise self.explain(exc, command.name) from exc

    def _find(self, name: str) -> Command:
        command = self.registry.commands.get(name)
        if command is None:
            raise MonitorError(f"The command {name} has not been found", "CommandNotFound")
        return command

    def close(self) -> None:
        """Stop serving; clients' connections are the chardevs' to close."""
        self._unsubscribe()
        self._throttle.close()
        for task in tuple(self._tasks):
            task.cancel()
        self.fds.close()

    async def _prepare(self) -> None:
        await asyncio.sleep(0)  # whoever waits for a greeting has it first
        for _ in self.registry.prepare():
            await asyncio.sleep(0)

    # ---- for the monitors ------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a command that takes its time; it ends by itself, or with the hub."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def explain(self, exc: Exception, name: str) -> MonitorError:
        """What a client is told of a failure. What is no EmuError is a fault of ours: it is logged whole."""
        if isinstance(exc, MonitorError):
            return exc
        if isinstance(exc, EmuError):
            return MonitorError(str(exc))
        self.log.error("%s: %r", name, exc)
        return MonitorError(f"{name}: internal error: {exc!r}")

    # ---- events ----------------------------------------------------------------------------------------------------

    def _happened(self, event: Event) -> None:
        if not self.sessions and not self.listeners:
            return
        known = self.registry.events.get(event.name)
        if known is None:
            return
        try:
            data = msgspec.to_builtins(known.data(event.fields))
        except (TypeError, ValueError) as exc:
            self.log.error("event %s: %s", event.name, exc)
            return
        if known.limited:
            key = (event.name, data.get(known.key))
            self._throttle.pass_on(key, lambda: self._tell(known, data))
        else:
            self._tell(known, data)

    def _tell(self, known: EventClass, data: dict[str, Any]) -> None:
        now = time.time_ns() // 1000
        stamp = {"seconds": now // 1_000_000, "microseconds": now % 1_000_000}
        fields: dict[str, Any] = {"timestamp": stamp, "event": known.name}
        if data:
            fields["data"] = data
        for session in tuple(self.sessions):
            session.tell(fields)
        for listener in tuple(self.listeners):
            listener(fields)


class LocalCaller:
    """A caller inside the program: it has nothing to negotiate and passes descriptors by number."""

    def __init__(self, hub: MonitorHub) -> None:
        self.hub = hub

    def take_fd(self) -> int:
        raise MonitorError("No file descriptor supplied via SCM_RIGHTS")

    def negotiate(self, enable: list[Capability]) -> None:
        raise MonitorError("Capabilities negotiation is already complete, command ignored", "CommandNotFound")
