"""Commands by what they do to the machine, over the wire and in process."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import pytest

from aioemu.errors import MonitorError
from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.events import EVENTS
from aioemu.protocol.registry import Registry
from tests.protocol.rig import FakeMachine, Rig


async def test_what_a_machine_lacks_is_not_listed(tmp_path: Path) -> None:
    """A command whose part of the machine is missing is neither listed nor described nor found."""

    def prepare(machine: FakeMachine) -> None:
        machine.objects = None  # type: ignore[assignment]

    rig = Rig(tmp_path, prepare=prepare)
    names = {each["name"] for each in await rig.hub.execute("query-commands")}
    schema = {each["name"] for each in await rig.hub.execute("query-qmp-schema")}

    assert "object-add" not in names | schema
    assert "query-status" in names & schema
    with pytest.raises(MonitorError) as refused:
        await rig.hub.execute("object-add", {"qom-type": "iothread", "id": "a"})
    assert refused.value.error_class == "CommandNotFound"
    await rig.close()


async def test_schema_names_everything_it_refers_to(rig: Rig) -> None:
    """Every type that the schema refers to is in it once, and nothing is in it that nothing refers to."""
    entities = await rig.hub.execute("query-qmp-schema")
    names = [each["name"] for each in entities]
    used: set[str] = set()
    for each in entities:
        used |= {each[key] for key in ("arg-type", "ret-type", "element-type") if key in each}
        used |= {inner["type"] for key in ("members", "variants") for inner in each.get(key, ()) if "type" in inner}

    assert len(names) == len(set(names))
    assert used == {each["name"] for each in entities if each["meta-type"] not in ("command", "event")}
    assert {each["name"] for each in entities if each["meta-type"] == "command"} == {
        each["name"] for each in await rig.hub.execute("query-commands")
    }


def test_declarations_are_whole() -> None:
    """Every command and event has a documented type, and optional members of answers are left out, never null."""
    names = [each.name for each in COMMANDS]
    assert len(names) == len(set(names))
    for command in COMMANDS:
        assert command.doc.endswith("."), command.name
        assert command.arguments.record.__doc__, command.name
        assert command.returns is not None
    for event in EVENTS:
        assert event.record.__doc__, event.name


async def test_in_process_is_the_same_as_over_the_wire(rig: Rig) -> None:
    """`execute` takes and gives the objects of the wire, errors included."""
    client = await rig.negotiated()

    for name, arguments in (
        ("query-status", {}),
        ("query-cpus-fast", {}),
        ("query-version", {}),
        ("qom-list", {"path": "/"}),
        ("query-machines", {"compat-props": True}),
        ("query-qmp-schema", {}),
        ("human-monitor-command", {"command-line": "info status"}),
    ):
        assert {"return": await rig.hub.execute(name, arguments)} == await client.command(name, **arguments)
    with pytest.raises(MonitorError, match=r"^Parameter 'path' is missing$"):
        await rig.hub.execute("qom-list")


async def test_listener_in_process_gets_events(rig: Rig) -> None:
    """A program gets the events that clients get."""
    seen: list[Any] = []
    rig.hub.listeners.append(seen.append)

    await rig.hub.execute("cont")

    assert [each["event"] for each in seen] == ["RESUME"]


async def test_private_events_stay_private(rig: Rig) -> None:
    """What the machine records under a name of its own, or beyond an event's members, does not reach clients."""
    client = await rig.negotiated()
    rig.machine.log.event("vcpu-stopped", vcpu=0)
    rig.machine.log.event("GUEST_PANICKED", action="pause", kind="crash")

    assert (await client.message())["data"] == {"action": "pause"}


async def test_limited_events_come_once_a_second_and_the_last_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a burst of BALLOON_CHANGE the first and the last are sent."""
    monkeypatch.setattr("aioemu.protocol.throttle.INTERVAL_S", 0.05)
    rig = Rig(tmp_path, prepare=lambda machine: setattr(machine, "find_balloon", lambda: None))
    await rig.serve()
    client = await rig.negotiated()
    for actual in range(10):
        rig.machine.log.event("BALLOON_CHANGE", actual=actual)

    assert [(await client.message())["data"]["actual"] for _ in range(2)] == [0, 9]
    rig.machine.powerdown()
    assert (await client.message())["event"] == "POWERDOWN"
    await rig.close()


async def test_chardevs_come_and_go(rig: Rig) -> None:
    """chardev-add makes one, query-chardev lists it, chardev-remove ends it; a monitor's own is busy."""
    backend = {"type": "ringbuf", "data": {"size": 16}}
    assert await rig.hub.execute("chardev-add", {"id": "ring", "backend": backend}) == {}
    listed = {each["label"]: each for each in await rig.hub.execute("query-chardev")}
    assert listed["ring"] == {"label": "ring", "filename": "ringbuf", "frontend-open": False}
    with pytest.raises(MonitorError, match=r"^Chardev 'qmp' is busy$"):
        await rig.hub.execute("chardev-remove", {"id": "qmp"})

    await rig.hub.execute(
        "ringbuf-write", {"device": "ring", "data": base64.b64encode(b"\xff" * 20).decode(), "format": "base64"}
    )
    assert await rig.hub.execute("ringbuf-read", {"device": "ring", "size": 4, "format": "base64"}) == "/////w=="
    assert await rig.hub.execute("ringbuf-read", {"device": "ring", "size": 100}) == "\ufffd" * 12
    assert await rig.hub.execute("chardev-remove", {"id": "ring"}) == {}


async def test_a_chardev_that_cannot_open_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    """A failed chardev-add frees the id."""
    bad = {"type": "file", "data": {"out": str(tmp_path / "no" / "file")}}
    with pytest.raises(MonitorError, match=r"^Failed to add chardev 'f': .*No such file or directory"):
        await rig.hub.execute("chardev-add", {"id": "f", "backend": bad})

    good = {"type": "file", "data": {"out": str(tmp_path / "file")}}
    assert await rig.hub.execute("chardev-add", {"id": "f", "backend": good}) == {}


async def test_pty_says_its_name(rig: Rig) -> None:
    """chardev-add of a pty answers which."""
    answer = await rig.hub.execute("chardev-add", {"id": "p", "backend": {"type": "pty", "data": {}}})

    assert os.path.exists(answer["pty"])


async def test_pmemsave_writes_what_is_there(rig: Rig, tmp_path: Path) -> None:
    """The file holds guest memory; beyond it nothing is written, and negative sizes are refused."""
    path = tmp_path / "memory"
    await rig.hub.execute("pmemsave", {"val": 16, "size": 1000, "filename": str(path)})
    assert path.read_bytes() == rig.machine.memory.read(16, 1000)

    for val, size in ((0, 1 << 40), (-1, 5), (0, -5), ((1 << 63) - 1, 1)):
        with pytest.raises(MonitorError):
            await rig.hub.execute("pmemsave", {"val": val, "size": size, "filename": str(tmp_path / "other")})
    assert not (tmp_path / "other").exists()


async def test_actions_nmi_and_objects_reach_the_machine(rig: Rig) -> None:
    """Only what was given changes; the machine gets what the client said."""
    await rig.hub.execute("set-action", {"reboot": "shutdown"})
    await rig.hub.execute("inject-nmi")
    await rig.hub.execute("object-add", {"qom-type": "iothread", "id": "io0", "poll-max-ns": 5})

    assert rig.machine.actions == {"reboot": "shutdown"}
    assert rig.machine.nmis == 1
    assert rig.machine.objects.made == {"io0": ("iothread", {"poll-max-ns": 5})}


async def test_cpus_carry_their_threads(rig: Rig) -> None:
    """query-cpus-fast has the host thread that can be pinned."""
    [cpu] = await rig.hub.execute("query-cpus-fast")

    assert cpu == {
        "cpu-index": 0,
        "qom-path": "/machine/unattached/device[0]",
        "thread-id": os.getpid(),
        "props": {"socket-id": 0, "core-id": 0},
        "target": "x86_64",
    }


async def test_object_tree_by_paths(rig: Rig) -> None:
    """Absolute and unique partial paths work; ambiguous and unknown ones are told apart."""
    assert {each["name"] for each in await rig.hub.execute("qom-list", {"path": "/"})} >= {
        "type",
        "machine",
        "chardevs",
    }
    assert await rig.hub.execute("qom-get", {"path": "device[0]", "property": "thread-id"}) == os.getpid()
    assert (
        await rig.hub.execute("qom-get", {"path": "unattached", "property": "device[0]"})
        == "/machine/unattached/device[0]"
    )
    with pytest.raises(MonitorError) as unknown:
        await rig.hub.execute("qom-list", {"path": "/nope"})
    assert unknown.value.error_class == "DeviceNotFound"
    with pytest.raises(MonitorError, match="ambiguous"):
        await rig.hub.execute("qom-list", {"path": ""})
    with pytest.raises(MonitorError, match="not writable"):
        await rig.hub.execute("qom-set", {"path": "/machine", "property": "kernel", "value": "x"})


async def test_fault_of_ours_is_an_answer_not_a_hang(rig: Rig) -> None:
    """A bug in a command is answered and logged; the session goes on."""

    def broken() -> None:
        raise ZeroDivisionError

    rig.machine.inject_nmi = broken  # type: ignore[method-assign]
    client = await rig.negotiated()

    assert "internal error" in (await client.command("inject-nmi"))["error"]["desc"]
    assert "return" in await client.command("query-status")


async def test_registry_may_be_smaller(tmp_path: Path) -> None:
    """A program may serve a choice of commands."""
    machine = FakeMachine()
    registry = Registry(machine, [each for each in COMMANDS if each.name.startswith("query-")], EVENTS)

    assert "quit" not in registry.commands
    await asyncio.sleep(0)


async def test_types_are_those_that_can_be_made(rig: Rig) -> None:
    """device-list-properties knows exactly the models and properties of -device; kinds lead up to object."""
    from aioemu.devices.catalog import DEVICES
    from aioemu.devices.pci.place import PciPlace

    models = await rig.hub.execute("qom-list-types", {"implements": "device"})
    assert {each["name"] for each in models} >= {each.name for each in DEVICES}
    for each in DEVICES:
        listed = await rig.hub.execute("device-list-properties", {"typename": each.name})
        place = PciPlace.__dataclass_fields__ if "PCI" in each.bus else ()
        assert [one["name"].replace("-", "_") for one in listed] == [*each.properties.__dataclass_fields__, *place]
    every = await rig.hub.execute("qom-list-types", {"abstract": True})
    assert {each.get("parent", "object") for each in every} <= {each["name"] for each in every}
    for name, message in (("nope", "Device 'nope' not found"), ("pci-device", "expects a non-abstract device type")):
        with pytest.raises(MonitorError, match=message):
            await rig.hub.execute("device-list-properties", {"typename": name})
