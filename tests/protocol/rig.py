"""A machine for the monitor's seam, and a client that sends bytes: no guest, no accelerator, the real chardevs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aioemu.chardev import Chardevs
from aioemu.config import MachineConfig, SocketOptions, UnixAddress
from aioemu.errors import EmuError, GuestError
from aioemu.log import EventLog, Log
from aioemu.machine.runstate import Cause, RunState
from aioemu.protocol.hub import MonitorHub

TIMEOUT_S = 10.0  # of any one wait: only a bug takes that long


@dataclass
class FakeAccelerator:
    name: str = "tcg"


@dataclass
class FakeVcpu:
    index: int
    thread_id: int
    qom_path: str
    topology: dict[str, int]


class FakeMemory:
    """64 KiB of RAM from 0 on."""

    def __init__(self) -> None:
        self.bytes = bytearray(i & 0xFF for i in range(1 << 16))

    def read(self, address: int, size: int) -> bytes:
        if address < 0 or address + size > len(self.bytes):
            raise GuestError(f"no memory at {address:#x}")
        return bytes(self.bytes[address : address + size])


@dataclass
class FakeObjects:
    made: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def types(self) -> tuple[str, ...]:
        return ("iothread", "rng-random")

    async def add(self, kind: str, object_id: str, values: dict[str, Any]) -> None:
        if object_id in self.made:
            raise EmuError(f"attempt to add duplicate property '{object_id}' to object (type 'container')")
        self.made[object_id] = (kind, values)

    def names(self) -> dict[str, str]:
        return {name: kind for name, (kind, _) in self.made.items()}

    async def remove(self, object_id: str) -> None:
        if self.made.pop(object_id, None) is None:
            raise EmuError(f"object '{object_id}' not found")


class FakeMachine:
    """Run states and events as a machine has them, without anything that runs."""

    def __init__(self, config: MachineConfig | None = None) -> None:
        self.config = config if config is not None else MachineConfig(name="fake")
        self.name = self.config.name or "aioemu"
        self.events = EventLog()
        self.log = Log("machine", self.name, self.events)
        self.chardevs = Chardevs()
        self.state = RunState.PRELAUNCH
        self.accelerator = FakeAccelerator()
        self.vcpus = [FakeVcpu(0, os.getpid(), "/machine/unattached/device[0]", {"socket-id": 0, "core-id": 0})]
        self.memory = FakeMemory()
        self.objects = FakeObjects()
        self.nmis = 0
        self.actions: dict[str, str] = {}
        self.gate: asyncio.Event | None = None  # while set and closed, `pause` takes its time
        self.preconfig = False
        self.ended: asyncio.Future[Cause] = asyncio.get_running_loop().create_future()

    @property
    def running(self) -> bool:
        return self.state is RunState.RUNNING

    async def leave_preconfig(self) -> None:
        raise EmuError("The command is permitted only before machine initialization")

    async def resume(self) -> None:
        if self.state.needs_reset:
            raise EmuError("Resetting the Virtual Machine is required")
        if not self.running:
            self.state = RunState.RUNNING
            self.log.event("RESUME")

    async def pause(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.running:
            self.state = RunState.PAUSED
            self.log.event("STOP")

    async def reset(self) -> None:
        self.log.event("RESET", guest=False, reason=Cause.HOST_QMP_SYSTEM_RESET.value)

    def powerdown(self) -> None:
        self.log.event("POWERDOWN")

    async def quit(self) -> None:
        self.log.event("SHUTDOWN", guest=False, reason=Cause.HOST_QMP_QUIT.value)
        if not self.ended.done():
            self.ended.set_result(Cause.HOST_QMP_QUIT)

    def inject_nmi(self) -> None:
        self.nmis += 1

    def set_actions(self, **actions: str) -> None:
        self.actions.update(actions)


class Rig:
    """A fake machine with a hub that serves QMP at `path`."""

    def __init__(
        self, folder: Path, config: MachineConfig | None = None, prepare: Callable[[FakeMachine], object] = id
    ):
        self.machine = FakeMachine(config)
        prepare(self.machine)
        self.hub = MonitorHub(self.machine)
        self.folder = folder
        self.path = str(folder / "qmp.sock")
        self._clients: list[Client] = []

    async def serve(self, name: str = "qmp", mode: str = "control", pretty: bool = False) -> str:
        """Serve one more monitor; its path."""
        path = str(self.folder / f"{name}.sock")
        chardev = self.machine.chardevs.add(SocketOptions(id=name, address=UnixAddress(path), server=True))
        await chardev.open()
        self.hub.attach(self.machine.chardevs.claim(name), mode, pretty)
        return path

    async def client(self, path: str | None = None) -> Client:
        """A client that has connected and read the greeting line, raw."""
        reader, writer = await asyncio.open_unix_connection(path or self.path, limit=1 << 26)
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def negotiated(self, *enable: str) -> Client:
        """A client past its negotiation."""
        client = await self.client()
        await client.message()
        reply = await client.command("qmp_capabilities", **({"enable": list(enable)} if enable else {}))
        assert reply == {"return": {}}
        return client

    async def close(self) -> None:
        for client in self._clients:
            client.writer.close()
        self.machine.chardevs.close()
        self.hub.close()
        await asyncio.sleep(0)


class Client:
    """Sends bytes, reads lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), TIMEOUT_S)

    async def message(self) -> Any:
        line = await self.line()
        assert line.endswith(b"\r\n"), line
        return json.loads(line)

    async def messages(self, count: int) -> list[Any]:
        return [await self.message() for _ in range(count)]

    async def command(self, name: str, **arguments: Any) -> Any:
        """Send a command; the next message, event or not."""
        await self.send(json.dumps({"execute": name, "arguments": arguments}).encode())
        return await self.message()

    async def ask(self, raw: bytes) -> Any:
        await self.send(raw)
        return await self.message()

    async def at_end(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), TIMEOUT_S) == b""
