"""Objects come and go while the machine runs, are kept by who uses them, and show what they are."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu.config import AccelOptions, DeviceOptions, MachineConfig, MachineOptions, OptionGroup
from aioemu.errors import ConfigError, MonitorError
from aioemu.machine.machine import Machine
from aioemu.machine.served import SERVED
from aioemu.protocol.commands.objects import ObjectType
from tests.machine.hotslot import Bench


def config(*objects: OptionGroup, **more: Any) -> MachineConfig:
    port = DeviceOptions("pcie-root-port", "port0")
    return MachineConfig(
        machine=MachineOptions("q35"), accel=(AccelOptions("qtest"),), devices=(port,), objects=objects, **more
    )


def iothread(name: str, **values: str) -> OptionGroup:
    return OptionGroup("object", "iothread", name, {key.replace("_", "-"): value for key, value in values.items()})


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    machine = Machine(config(iothread("io0", poll_max_ns="1000")))
    await machine.open()
    made = Bench(machine)
    yield made
    made.hub.close()
    machine.close()


async def test_iothreads_come_and_go(bench: Bench) -> None:
    """-object and object-add make the same: query-iothreads has the host's thread, object-del ends it."""
    await bench.hub.execute("object-add", {"qom-type": "iothread", "id": "io1", "poll-max-ns": 5})
    found = {each["id"]: each for each in await bench.hub.execute("query-iothreads")}
    assert {name: each["poll-max-ns"] for name, each in found.items()} == {"io0": 1000, "io1": 5}
    tasks = os.listdir("/proc/self/task")
    assert all(str(each["thread-id"]) in tasks for each in found.values())
    await bench.hub.execute("object-del", {"id": "io1"})

    assert str(found["io1"]["thread-id"]) not in os.listdir("/proc/self/task")
    assert [each["id"] for each in await bench.hub.execute("query-iothreads")] == ["io0"]


async def test_properties_are_read_and_set(bench: Bench) -> None:
    """qom-get and qom-set take an object's properties; a value out of range, or of another type, changes nothing."""
    path = {"path": "/objects/io0"}
    await bench.hub.execute("qom-set", {**path, "property": "poll-grow", "value": 4})
    assert await bench.hub.execute("qom-get", {**path, "property": "poll-grow"}) == 4
    for value in (-1, 1 << 63, "x", None):
        with pytest.raises(MonitorError):
            await bench.hub.execute("qom-set", {**path, "property": "poll-grow", "value": value})
    with pytest.raises(MonitorError, match=r"Property 'iothread.thread-id' is not writable"):
        await bench.hub.execute("qom-set", {**path, "property": "thread-id", "value": 1})

    [info] = await bench.hub.execute("query-iothreads")
    assert info["poll-grow"] == 4


async def test_what_is_used_stays(bench: Bench) -> None:
    """An object cannot go as long as a device has it, and can when the device has gone."""
    await bench.hub.execute("object-add", {"qom-type": "rng-random", "id": "r", "filename": "/dev/urandom"})
    await bench.hub.execute("device_add", {"driver": "virtio-rng-pci", "id": "d", "bus": "port0", "rng": "r"})
    with pytest.raises(MonitorError, match="object 'r' is in use, can not be deleted"):
        await bench.hub.execute("object-del", {"id": "r"})
    await bench.release("d")
    await bench.hub.execute("object-del", {"id": "r"})

    with pytest.raises(MonitorError, match="Device 'r' not found"):
        await bench.hub.execute("device_add", {"driver": "virtio-rng-pci", "id": "d", "bus": "port0", "rng": "r"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"qom-type": "nope", "id": "x"}, "Parameter 'qom-type' does not accept value 'nope'"),
        ({"qom-type": "iothread", "id": "1x"}, "Parameter 'id' expects an identifier"),
        (
            {"qom-type": "iothread", "id": "io0"},
            "attempt to add duplicate property 'io0' to object",
        ),
        ({"qom-type": "iothread", "id": "x", "nope": 1}, "Parameter 'nope' is unexpected"),
        (
            {"qom-type": "memory-backend-ram", "id": "x", "size": "4096"},
            "Invalid parameter type for 'size'",
        ),
        ({"qom-type": "iothread", "id": "x", "poll-max-ns": -1}, "poll-max-ns"),
        ({"qom-type": "iothread"}, "Parameter 'id' is missing"),
        ({"id": "x"}, "Parameter 'qom-type' is missing"),
        ({"qom-type": "memory-backend-ram", "id": "x"}, "Parameter 'size' is missing"),
        ({"qom-type": "memory-backend-file", "id": "x", "size": 4096}, "Parameter 'mem-path' is missing"),
        ({"qom-type": "rng-random", "id": "x", "filename": "/nonexistent/x"}, "No such file"),
    ],
)
async def test_what_cannot_be_made_is_said(bench: Bench, arguments: dict[str, object], message: str) -> None:
    """The error names it, and no such object is there afterwards."""
    gc.collect()  # what other tests left goes now, not while this one counts
    before = os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")
    with pytest.raises(MonitorError, match=message):
        await bench.hub.execute("object-add", arguments)

    assert (os.listdir("/proc/self/fd"), os.listdir("/proc/self/task")) == before
    assert [each["name"] for each in await bench.hub.execute("qom-list", {"path": "/objects"})] == ["type", "io0"]


async def test_memory_of_a_back_end(tmp_path: Path) -> None:
    """-machine memory-backend= takes the object's wishes, query-memdev lists it, and it cannot go."""
    values = {"size": "64M", "mem-path": str(tmp_path / "ram")}
    base = config(OptionGroup("object", "memory-backend-file", "m", values))
    memory = type(base.memory)(size_bytes=64 << 20, backend="m")
    machine = Machine(config(*base.objects, memory=memory))
    await machine.open()
    bench = Bench(machine)
    try:
        [info] = await bench.hub.execute("query-memdev")
        assert (info["id"], info["size"], info["prealloc"]) == ("m", 64 << 20, False)
        assert (tmp_path / "ram").stat().st_size == 64 << 20
        with pytest.raises(MonitorError, match="in use"):
            await bench.hub.execute("object-del", {"id": "m"})
    finally:
        bench.hub.close()
        machine.close()


@pytest.mark.parametrize("values", [{"poll_max_ns": "-1"}, {"poll_max_ns": str(1 << 63)}, {"colour": "red"}])
async def test_a_property_that_cannot_be_is_refused(values: dict[str, str]) -> None:
    """An unknown property of -object, or a number out of its range, is the option's fault."""
    machine = Machine(config(iothread("x", **values)))
    with pytest.raises(ConfigError) as caught:
        await machine.open()
    assert caught.value.option == "-object"


async def test_balloon_is_found_where_it_is(bench: Bench) -> None:
    """Without one: DeviceNotActive. With one: the target reaches the guest, the figures are properties."""
    with pytest.raises(MonitorError) as caught:
        await bench.hub.execute("balloon", {"value": 1 << 20})
    assert caught.value.error_class == "DeviceNotActive"
    await bench.hub.execute("device_add", {"driver": "virtio-balloon-pci", "id": "b", "bus": "port0"})
    with pytest.raises(MonitorError, match="Parameter 'value' expects a size"):
        await bench.hub.execute("balloon", {"value": 0})
    await bench.hub.execute("balloon", {"value": 100 << 20})
    size = bench.machine.memory.size_bytes
    assert await bench.hub.execute("query-balloon") == {"actual": size}
    assert bench.machine.site.devices["b"].config[:4] == ((size - (100 << 20)) >> 12).to_bytes(4, "little")
    path = {"path": "/machine/peripheral/b"}
    await bench.hub.execute("qom-set", {**path, "property": "guest-stats-polling-interval", "value": 2})
    with pytest.raises(MonitorError, match="timer value must be greater than zero"):
        await bench.hub.execute("qom-set", {**path, "property": "guest-stats-polling-interval", "value": -1})

    assert await bench.hub.execute("qom-get", {**path, "property": "guest-stats-polling-interval"}) == 2
    stats = await bench.hub.execute(
        "qom-get", {"path": "/machine/peripheral/b/virtio-backend", "property": "guest-stats"}
    )
    assert stats["last-update"] == 0
    assert stats["stats"]["stat-free-memory"] == (1 << 64) - 1


async def test_memory_without_an_object_is_listed(bench: Bench) -> None:
    """The board's own memory is a back end like the others, called as QEMU calls it; objects come besides."""
    await bench.hub.execute("object-add", {"qom-type": "memory-backend-ram", "id": "m", "size": 1 << 20})
    found = {each["id"]: each["size"] for each in await bench.hub.execute("query-memdev")}
    assert found == {"m": 1 << 20, "pc.ram": bench.machine.memory.size_bytes}

    assert "memory backend: pc.ram" in await bench.monitor.run("info memdev")


async def test_managers_learn_what_there_is(bench: Bench) -> None:
    """query-pci nests what is behind bridges under them; a chardev in use keeps its back end; there is no screen."""
    await bench.hub.execute("device_add", {"driver": "virtio-rng-pci", "id": "d", "bus": "port0"})
    [root] = await bench.hub.execute("query-pci")
    [port] = [each for each in root["devices"] if each["qdev_id"] == "port0"]
    assert port["pci_bridge"]["bus"] == {
        "number": 0,
        "secondary": 2,
        "subordinate": 2,
        **{f"{kind}_range": {"base": 0, "limit": 0} for kind in ("io", "memory", "prefetchable")},
    }
    [device] = port["pci_bridge"]["devices"]
    assert (device["qdev_id"], device["bus"], device["id"]["vendor"]) == ("d", 2, 0x1AF4)
    assert device["class_info"]["class"] == 0x00FF
    assert "d" not in {each["qdev_id"] for each in root["devices"]}

    with pytest.raises(MonitorError, match="There is no console to take a screendump from"):
        await bench.hub.execute("screendump", {"filename": "/tmp/x"})
    assert "no console" in await bench.monitor.run("screendump /tmp/x")
    assert {each["name"] for each in await bench.hub.execute("query-cpu-definitions")} == {
        "base",
        "host",
        "max",
        "qemu64",
    }


async def test_chardevs_change(bench: Bench, tmp_path: Path) -> None:
    """One that nobody uses gets another back end, or keeps the one it has where that fails; one in use keeps it."""
    null = {"type": "null", "data": {}}
    await bench.hub.execute("chardev-add", {"id": "c", "backend": null})
    file = {"type": "file", "data": {"out": str(tmp_path / "out")}}
    assert await bench.hub.execute("chardev-change", {"id": "c", "backend": file}) == {}
    assert [each["filename"] for each in await bench.hub.execute("query-chardev") if each["label"] == "c"] == ["file"]
    bad = {"type": "file", "data": {"out": "/nonexistent/x"}}
    with pytest.raises(MonitorError, match="Failed to add chardev 'c'"):
        await bench.hub.execute("chardev-change", {"id": "c", "backend": bad})
    assert [each["filename"] for each in await bench.hub.execute("query-chardev") if each["label"] == "c"] == ["file"]
    await bench.hub.execute("device_add", {"driver": "virtio-serial-pci", "id": "vs", "bus": "port0"})
    await bench.hub.execute("device_add", {"driver": "virtserialport", "id": "p", "chardev": "c"})

    with pytest.raises(MonitorError, match="Chardev user does not support chardev hotswap"):
        await bench.hub.execute("chardev-change", {"id": "c", "backend": null})


async def test_types_are_the_schemas(bench: Bench) -> None:
    """What object-add takes, what -object help lists and what can be made are the same types; text is read as text."""
    assert [each.value for each in ObjectType] == sorted(bench.machine.objects.types())
    assert {f"object:{each.value}" for each in ObjectType} == {each for each in SERVED if each.startswith("object:")}

    assert await bench.monitor.run("object_add memory-backend-ram,id=m,size=2M") == ""
    assert bench.machine.objects.find("m").values()["size"] == 2 << 20
    assert "Parameter 'id' is missing" in await bench.monitor.run("object_add iothread")
