"""The monitor on machines as they are built: every query and report answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from aioemu.config import AccelOptions, MachineConfig, MachineOptions, RingbufOptions
from aioemu.errors import MonitorError
from aioemu.machine.machine import Machine
from aioemu.protocol.hmp.interpreter import Interpreter
from aioemu.protocol.hub import LocalCaller, MonitorHub


@pytest.fixture(params=["none", "q35", "microvm"])
async def hub(request: pytest.FixtureRequest) -> AsyncIterator[MonitorHub]:
    config = MachineConfig(
        name="real",
        uuid=UUID(int=5),
        machine=MachineOptions(request.param),
        accel=(AccelOptions("qtest"),),
        chardevs=(RingbufOptions(id="ring"),),
    )
    machine = Machine(config)
    await machine.open()
    made = MonitorHub(machine)
    yield made
    made.close()
    machine.close()


async def test_every_query_without_arguments_answers(hub: MonitorHub) -> None:
    """No listed query needs anything that the machine does not have, but for a balloon and places for processors."""
    missing = {"query-balloon": "No balloon device", "query-cpu-model-expansion": "Parameter 'type' is missing"}
    if hub.machine.config.machine.type != "q35":
        missing["query-hotpluggable-cpus"] = "does not support hot-plugging"
    names = [each["name"] for each in await hub.execute("query-commands")]
    for name in names:
        if name in missing:
            with pytest.raises(MonitorError, match=missing[name]):
                await hub.execute(name)
        elif name.startswith("query-"):
            assert await hub.execute(name) is not None, name

    assert await hub.execute("query-uuid") == {"UUID": str(UUID(int=5))}
    assert await hub.execute("query-name") == {"name": "real"}


async def test_every_report_has_text(hub: MonitorHub) -> None:
    """Each `info` of the list prints something, or honestly nothing; none fails inside."""
    interpreter = Interpreter(LocalCaller(hub))
    for each in interpreter.info:
        text = await interpreter.run(f"info {each.names}")
        assert "internal error" not in text, each.names
        assert "unknown command" not in text, each.names


async def test_life_by_commands(hub: MonitorHub) -> None:
    """cont, stop, reset and quit move the machine and are told as events, each before its command returns."""
    seen: list[str] = []
    hub.listeners.append(lambda event: seen.append(event["event"]))

    for name, event in (("cont", "RESUME"), ("stop", "STOP"), ("system_reset", "RESET"), ("quit", "SHUTDOWN")):
        await hub.execute(name)
        assert seen[-1] == event
    assert (await hub.execute("query-status"))["status"] == "shutdown"


async def test_whole_object_tree_can_be_walked(hub: MonitorHub) -> None:
    """Every object is listed and every property read."""
    todo = ["/"]
    seen = 0
    while todo:
        path = todo.pop()
        for each in await hub.execute("qom-list", {"path": path}):
            seen += 1
            value = await hub.execute("qom-get", {"path": path, "property": each["name"]})
            if each["type"].startswith("child<"):
                todo.append(value)
    assert seen > 5
