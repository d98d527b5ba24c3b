"""Devices come and go through root ports: the registers as a guest's driver uses them, and stock Linux itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from aioemu.accel.tcg import find_engine
from aioemu.api import Machine as Vm
from aioemu.config import AccelOptions, DeviceOptions, MachineConfig, MachineOptions
from aioemu.errors import MonitorError
from aioemu.images import PROMPT, debian_guest
from aioemu.machine.hotplug import unplug
from aioemu.machine.machine import Machine
from tests.machine.hotslot import (
    BLINKING,
    EVENTS_ON,
    LINK_ACTIVE,
    LINK_CHANGED,
    LNKSTA,
    OFF,
    ON,
    PRESENCE_CHANGED,
    PRESENT,
    PRESSED,
    SLTCTL,
    SLTSTA,
    Bench,
)

ADD = {"driver": "pvpanic-pci", "id": "p0", "bus": "port0"}


@pytest.fixture
def cold() -> tuple[DeviceOptions, ...]:
    """What is there from the start."""
    return ()


@pytest.fixture
async def bench(cold: tuple[DeviceOptions, ...]) -> AsyncIterator[Bench]:
    config = MachineConfig(
        machine=MachineOptions("q35"),
        accel=(AccelOptions("qtest"),),
        devices=(DeviceOptions("pcie-root-port", "port0"), DeviceOptions("isa-debug-exit", "exit0"), *cold),
    )
    machine = Machine(config)
    await machine.open()
    made = Bench(machine)
    yield made
    made.hub.close()
    machine.close()


async def test_device_comes_and_the_guest_is_told(bench: Bench) -> None:
    """It answers behind the port, presence and link are up, and their change interrupts until it is cleared."""
    assert bench.slot == 0xFFFFFFFF
    bench.write(SLTCTL, EVENTS_ON | OFF)
    assert not bench.interrupting()

    await bench.hub.execute("device_add", ADD)
    assert bench.slot == 0x00111B36
    assert bench.read(SLTSTA) == PRESENT | PRESENCE_CHANGED | LINK_CHANGED
    assert bench.read(LNKSTA) & LINK_ACTIVE
    assert bench.interrupting()
    bench.write(SLTSTA, PRESENCE_CHANGED | LINK_CHANGED)
    assert bench.read(SLTSTA) == PRESENT
    assert not bench.interrupting()
    assert {each["name"] for each in await bench.hub.execute("qom-list", {"path": "/machine/peripheral"})} >= {"p0"}


async def test_a_silent_guest_is_asked_again_after_five_seconds(bench: Bench) -> None:
    """Who was not answered may press the button again; not while the guest is at it, and one that left is told once."""
    await bench.hub.execute("device_add", ADD)
    bench.write(SLTCTL, EVENTS_ON | ON)
    clock = bench.machine.clock
    clock.own()
    start = clock.now_ns()
    await bench.hub.execute("device_del", {"id": "p0"})
    bench.write(SLTSTA, PRESSED)
    clock.advance(start + 4_999_999_999)
    with pytest.raises(MonitorError, match="Device p0 is already in the process of unplug"):
        await bench.hub.execute("device_del", {"id": "p0"})

    clock.advance(start + 5_000_000_000)
    await bench.hub.execute("device_del", {"id": "p0"})
    assert bench.read(SLTSTA) & PRESSED
    bench.write(SLTCTL, EVENTS_ON | BLINKING)
    clock.advance(start + 20_000_000_000)
    with pytest.raises(MonitorError, match="Hot-unplug failed: guest is busy"):
        await bench.hub.execute("device_del", {"id": "p0"})
    bench.write(SLTCTL, EVENTS_ON | OFF)
    assert bench.events == [("DEVICE_DELETED", "p0")]


async def test_device_goes_when_the_guest_lets_it(bench: Bench) -> None:
    """The button is pressed, the indicator blinks, goes off, and only then the device is gone; its id is free again."""
    await bench.hub.execute("device_add", ADD)
    bench.write(SLTSTA, PRESENCE_CHANGED | LINK_CHANGED)
    bench.write(SLTCTL, EVENTS_ON | ON)

    await bench.monitor.run("device_del p0")
    assert bench.read(SLTSTA) == PRESENT | PRESSED
    assert bench.interrupting()
    with pytest.raises(MonitorError, match="Device p0 is already in the process of unplug"):
        await bench.hub.execute("device_del", {"id": "/machine/peripheral/p0"})
    bench.write(SLTSTA, PRESSED)
    bench.write(SLTCTL, EVENTS_ON | BLINKING)
    assert bench.slot == 0x00111B36
    assert bench.events == []

    bench.write(SLTCTL, EVENTS_ON | OFF)
    assert bench.events == [("DEVICE_DELETED", "p0")]
    assert bench.slot == 0xFFFFFFFF
    assert bench.read(SLTSTA) == PRESENCE_CHANGED | LINK_CHANGED
    assert not bench.read(LNKSTA) & LINK_ACTIVE
    assert await bench.monitor.run("device_add pvpanic-pci,id=p0,bus=port0") == ""
    assert bench.slot == 0x00111B36


async def test_refusal_is_an_event(bench: Bench) -> None:
    """An indicator that stops blinking and stays on keeps the device; it can be asked for again."""
    await bench.hub.execute("device_add", ADD)
    bench.write(SLTCTL, ON)
    for _ in range(2):
        await bench.hub.execute("device_del", {"id": "p0"})
        bench.write(SLTCTL, BLINKING)
        bench.write(SLTCTL, ON)

    assert bench.events == [("DEVICE_UNPLUG_GUEST_ERROR", "p0")] * 2
    assert bench.slot == 0x00111B36


@pytest.mark.parametrize("end", [ON, OFF])
async def test_unplugging_what_is_just_coming(bench: Bench, end: int) -> None:
    """Who awaits an unplug waits until the guest is done with bringing the device in, and asks for it then."""
    await bench.hub.execute("device_add", ADD)
    bench.write(SLTCTL, EVENTS_ON | BLINKING)
    with pytest.raises(MonitorError, match="guest is busy"):
        await bench.hub.execute("device_del", {"id": "p0"})
    with pytest.raises(TimeoutError):
        await unplug(bench.machine, "p0", 0.01)
    going = asyncio.ensure_future(unplug(bench.machine, "p0", 10))
    await asyncio.sleep(0)
    assert not bench.read(SLTSTA) & PRESSED
    bench.write(SLTCTL, EVENTS_ON | end)
    while not going.done() and not bench.read(SLTSTA) & PRESSED:
        await asyncio.sleep(0)
    if end == ON:
        bench.write(SLTCTL, EVENTS_ON | BLINKING)
        bench.write(SLTCTL, EVENTS_ON | OFF)
    await going
    assert bench.slot == 0xFFFFFFFF


async def test_reset_ends_what_was_asked_for(bench: Bench) -> None:
    """A guest that never answers loses the device with the next reset."""
    await bench.hub.execute("device_add", ADD)
    bench.write(SLTCTL, ON)
    await bench.hub.execute("device_del", {"id": "p0"})
    await bench.hub.execute("system_reset")

    assert ("DEVICE_DELETED", "p0") in bench.events
    assert bench.read(SLTSTA) == 0
    assert "p0" not in await bench.monitor.run("info qtree")


@pytest.mark.parametrize("cold", [(DeviceOptions("pvpanic-pci", "p0", bus="port0"),)])
async def test_device_that_was_there_from_the_start_is_asked_for_too(bench: Bench) -> None:
    """Its slot has no events and its indicator on, so that it goes by the same steps as any other."""
    assert bench.slot == 0x00111B36
    assert bench.read(SLTSTA) == PRESENT
    assert bench.read(SLTCTL) == ON
    await bench.hub.execute("device_del", {"id": "p0"})
    assert bench.slot == 0x00111B36
    bench.write(SLTCTL, OFF)

    assert bench.events == [("DEVICE_DELETED", "p0")]
    assert bench.slot == 0xFFFFFFFF


@pytest.mark.parametrize("seed", range(8))
async def test_any_guest_is_survived(bench: Bench, seed: int) -> None:
    """Whatever a guest writes to the port, commands work or say why; the slot is never half empty."""
    dice = random.Random(seed)
    for _ in range(300):
        action = dice.randrange(8)
        with suppress(MonitorError):
            if action == 0:
                await bench.hub.execute("device_add", ADD)
            elif action == 1:
                await bench.hub.execute("device_del", {"id": "p0"})
            elif action < 5:
                bench.write(dice.choice((SLTCTL, SLTSTA)), dice.getrandbits(16))
            else:
                bench.config_write(dice.randrange(0, 0x100, 2), 2, dice.getrandbits(16))
        present = bool(bench.read(SLTSTA) & PRESENT)
        assert present == bool(bench.read(LNKSTA) & LINK_ACTIVE) == ("p0" in bench.machine.site.devices)
    await bench.hub.execute("system_reset")
    with suppress(MonitorError):
        await bench.hub.execute("device_add", ADD)
    bench.config_write(0x18, 4, 0x00020200)

    assert bench.slot == 0x00111B36


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"driver": "nope"}, "'nope' is not a valid device model name"),
        ({"driver": "pvpanic-pci"}, "Bus 'pcie.0' does not support hotplugging"),
        ({"driver": "pvpanic-pci", "bus": "nope"}, "Bus 'nope' not found"),
        ({**ADD, "id": "exit0"}, "Duplicate device ID 'exit0'"),
        ({**ADD, "id": "1"}, "Parameter 'id' expects an identifier"),
        ({**ADD, "nope": 1}, "nope"),
        ({**ADD, "events": "x"}, "events"),
        ({**ADD, "addr": "1.0"}, "addr"),
        ({**ADD, "driver": "pcie-root-port"}, "can not be hotplugged"),
        ({"bus": "port0"}, "Parameter 'driver' is missing"),
    ],
)
async def test_what_cannot_be_added_changes_nothing(bench: Bench, arguments: dict[str, object], message: str) -> None:
    """The error names it, the slot stays empty, the guest hears nothing."""
    with pytest.raises(MonitorError, match=message):
        await bench.hub.execute("device_add", dict(arguments))

    assert bench.slot == 0xFFFFFFFF
    assert bench.read(SLTSTA) == 0


async def test_what_cannot_be_removed_is_named(bench: Bench) -> None:
    """Unknown devices are DeviceNotFound; the board's buses let nothing go; a slot takes one device."""
    with pytest.raises(MonitorError) as caught:
        await bench.hub.execute("device_del", {"id": "nope"})
    assert caught.value.error_class == "DeviceNotFound"
    for name in ("exit0", "port0"):
        with pytest.raises(MonitorError, match="does not support hotplugging"):
            await bench.hub.execute("device_del", {"id": name})
    await bench.hub.execute("device_add", ADD)
    with pytest.raises(MonitorError, match="no free slot"):
        await bench.hub.execute("device_add", {**ADD, "id": "p1"})


@pytest.mark.guest
@pytest.mark.timeout(300)
@pytest.mark.skipif(find_engine() is None, reason="needs the CPU engine")
async def test_linux_takes_and_gives_devices() -> None:
    """Debian's kernel finds a device that is plugged in, lets it go when asked, and takes it again."""
    image = debian_guest()
    append = f"{image.append} loglevel=7"
    keywords: dict[str, Any] = {
        "machine": "q35",
        "accel": "tcg",
        "memory": "256M",
        "kernel": image.vmlinux,
        "initrd": image.initrd,
    }
    async with Vm(append=append, devices=["pcie-root-port,id=port0,slot=3"], **keywords) as vm:
        await vm.console.expect(PROMPT, 120)
        for _ in range(2):
            await vm.qmp("device_add", **ADD)
            await vm.console.expect(r"pci 0000:01:00.0: \[1b36:0011\]", 60)
            await vm.console.send("cat /sys/bus/pci/devices/0000:01:00.0/device\n")
            await vm.console.expect("0x0011", 60)
            gone = asyncio.ensure_future(vm.events.wait("DEVICE_DELETED", 60))
            await vm.qmp("device_del", id="p0")
            assert (await gone).fields["device"] == "p0"
            await vm.console.send("ls /sys/bus/pci/devices/0000:01:00.0\n")
            await vm.console.expect("No such file", 60)
