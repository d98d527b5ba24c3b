"""What is plugged in while the guest runs leaves nothing behind when it goes, whatever it is."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu._core import ffi, lib
from aioemu.accel.tcg import find_engine
from aioemu.api import Machine as Vm
from aioemu.bus.wires import MMIO
from aioemu.config import AccelOptions, DeviceOptions, MachineConfig, MachineOptions, NullOptions
from aioemu.devices.virtio.device import VirtioDevice
from aioemu.errors import ConfigError, EmuError, GuestError, MonitorError
from aioemu.images import PROMPT, debian_guest
from aioemu.machine.hotplug import unplug
from aioemu.machine.machine import Machine
from tests.machine.hotslot import BLINKING, ON, SLTCTL, Bench

CYCLES = 1100  # more than a machine has notifiers
ROUND = 100
RSS_BYTES = 4 << 20  # what a thousand cycles may leave with the allocator
MODELS: dict[str, dict[str, str]] = {
    "virtio-rng-pci": {},
    "virtio-balloon-pci": {},
    "virtio-serial-pci": {},
    "pvpanic-pci": {},
    "virtio-blk-pci": {"drive": "disk", "iothread": "io0"},
    "virtio-net-pci": {"netdev": "net0", "iothread": "io0"},
}
BAR = 0x4000_0000_00  # where the guest puts the registers


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    config = MachineConfig(
        machine=MachineOptions("q35"),
        accel=(AccelOptions("qtest"),),
        chardevs=(NullOptions(id="c0"),),
        devices=(DeviceOptions("pcie-root-port", "port0"),),
    )
    machine = Machine(config)
    await machine.open()
    made = Bench(machine)
    yield made
    made.hub.close()
    machine.close()


def held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def rss_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def drive(bench: Bench, model: str) -> None:
    """What a driver does first: decode BAR 4 and say that it is there."""
    if model.startswith("virtio"):
        bench.machine.native.router.write(0, bench._select(0x20, 2, 0), 4, BAR & 0xFFFFFFFF)
        bench.machine.native.router.write(0, bench._select(0x24, 2, 0), 4, BAR >> 32)
        bench.machine.native.router.write(0, bench._select(0x04, 2, 0), 2, 0x6)
        bench.machine.native.router.write(MMIO, BAR + 0x14, 1, 3)
        assert bench.machine.native.router.read(MMIO, BAR + 0x14, 1) == 3


@pytest.mark.parametrize("model", MODELS)
async def test_a_thousand_devices_come_and_go(bench: Bench, model: str) -> None:
    """Descriptors, threads, tasks, regions, chips and memory are afterwards what they were before."""
    gc.collect()  # what other tests have left goes now, and not while this one counts
    machine = bench.machine
    await bench.hub.execute("object-add", {"qom-type": "iothread", "id": "io0"})
    await bench.hub.execute("blockdev-add", {"driver": "null-co", "node-name": "disk", "size": 1 << 20})
    await bench.hub.execute("netdev_add", {"type": "hubport", "id": "net0", "hubid": 0})

    async def cycles(count: int) -> None:
        for number in range(count):
            given = {"driver": model, "id": "d", "bus": "port0", **MODELS[model]}
            await bench.hub.execute("device_add", given)
            if number % 10 == 0:
                drive(bench, model)
            if model == "virtio-serial-pci":
                await bench.hub.execute("device_add", {"driver": "virtserialport", "id": "p", "chardev": "c0"})
            await bench.release("d")
            await asyncio.sleep(0)  # a cancelled task ends
        bench.events.clear()

    await cycles(ROUND)
    before, rss = held(), rss_bytes()
    regions, chips = len(machine.native.router.regions), set(machine.kit.chips)
    tasks = len(asyncio.all_tasks())
    await cycles(CYCLES)

    assert held() == before
    assert len(asyncio.all_tasks()) == tasks
    assert len(machine.native.router.regions) == regions
    assert set(machine.kit.chips) == chips
    assert rss_bytes() - rss < RSS_BYTES
    await bench.hub.execute("blockdev-del", {"node-name": "disk"})  # nobody holds on to what it used
    await bench.hub.execute("netdev_del", {"id": "net0"})
    await bench.hub.execute("object-del", {"id": "io0"})


async def test_events_say_what_went(bench: Bench) -> None:
    """A virtio device is two objects, transport and back end; ports go before the device that carries them."""
    await bench.hub.execute("device_add", {"driver": "virtio-serial-pci", "id": "vs", "bus": "port0"})
    await bench.hub.execute("device_add", {"driver": "virtserialport", "id": "p", "bus": "vs.0", "chardev": "c0"})
    with pytest.raises(MonitorError, match="chardev 'c0' is in use"):
        await bench.hub.execute("device_add", {"driver": "virtserialport", "id": "q", "chardev": "c0"})
    paths: list[str] = []
    bench.hub.listeners.append(lambda e: paths.append(e["data"]["path"]))
    await bench.release("vs")

    assert bench.events == [("DEVICE_DELETED", "p"), ("DEVICE_DELETED", None), ("DEVICE_DELETED", "vs")]
    assert paths == [f"/machine/peripheral/{name}" for name in ("p", "vs/virtio-backend", "vs")]
    assert not bench.machine.chardevs.query()[0].frontend_open


async def test_port_goes_at_once(bench: Bench) -> None:
    """A port of a virtio-serial device needs no answer of the guest; its number and chardev are free again."""
    await bench.hub.execute("device_add", {"driver": "virtio-serial-pci", "id": "vs", "bus": "port0"})
    for _ in range(3):
        port = {"driver": "virtserialport", "id": "p", "chardev": "c0", "nr": 1}
        await bench.hub.execute("device_add", port)
        await bench.hub.execute("device_del", {"id": "p"})

    assert bench.events == [("DEVICE_DELETED", "p")] * 3


async def test_device_without_an_id_is_named_by_its_path(bench: Bench) -> None:
    """It is under peripheral-anon, device_del takes that path, and its event has no `device`."""
    await bench.hub.execute("device_add", {"driver": "virtio-rng-pci", "bus": "port0"})
    children = await bench.hub.execute("qom-list", {"path": "/machine/peripheral-anon"})
    names = [each["name"] for each in children if each["type"] == "child<virtio-rng-pci>"]
    assert names == ["device[0]"]
    await bench.release("/machine/peripheral-anon/device[0]")

    assert bench.events == [("DEVICE_DELETED", None)] * 2


async def test_what_cannot_be_made_leaves_nothing(bench: Bench) -> None:
    """A device that fails half-way gives back what it took: the next one finds chardev, slot and notifier free."""
    await bench.hub.execute("device_add", {"driver": "virtio-serial-pci", "id": "vs", "bus": "port0"})
    before = held()
    with pytest.raises(MonitorError, match="no free slot"):
        await bench.hub.execute("device_add", {"driver": "virtio-rng-pci", "id": "r", "bus": "port0"})
    with pytest.raises(MonitorError, match=r"Out-of-range port id specified, max\. allowed: 30"):
        await bench.hub.execute("device_add", {"driver": "virtserialport", "id": "p", "chardev": "c0", "nr": 99})
    await bench.hub.execute("device_add", {"driver": "virtserialport", "id": "p", "chardev": "c0", "nr": 1})

    assert held() == before


async def test_no_news_of_a_chip_that_went() -> None:
    """A notifier is free when its chip has gone; what it had to say is lost, also what was on its way."""
    machine = Machine(MachineConfig(machine=MachineOptions("none"), accel=(AccelOptions("qtest"),)))
    await machine.open()
    try:
        router = machine.native.router
        heard: list[int] = []
        chips = [ffi.gc(lib.core_uart_new(), lib.core_chip_free) for _ in range(2000)]
        for number, chip in enumerate(chips):
            router.notify(chip, lambda number=number: heard.append(number), "uart")  # type: ignore[misc]
            lib.core_uart_push(chip, 1)
            router.forget(chip)
        machine.native.drain()

        assert heard == []
    finally:
        machine.close()


class Greeter(VirtioDevice):
    """A device of a program, with a task of its own."""

    device_id = 42

    def __init__(self) -> None:
        super().__init__([8])
        self.ended = asyncio.Event()

    async def run(self) -> None:
        try:
            async for chain in self.queues[0]:
                chain.complete()
        finally:
            self.ended.set()


async def test_task_of_a_device_ends_with_it(bench: Bench) -> None:
    """`run` is cancelled when the device is unplugged, and nothing that it still does reaches the machine."""
    device = Greeter()
    bench.machine.devices.add_own("own", device, "port0")
    await asyncio.sleep(0)  # its task begins
    bench.machine.devices.remove("own")
    await asyncio.wait_for(device.ended.wait(), 5)
    device.fail()
    device.set_config(0, b"")

    assert device.closed
    assert bench.slot == 0xFFFFFFFF
    assert [name for name, _ in bench.events] == ["DEVICE_DELETED"] * 2


@pytest.mark.guest
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_engine() is None, reason="needs the CPU engine")
async def test_linux_uses_what_comes_and_lets_it_go() -> None:
    """Debian's kernel binds each device to its driver when it comes, and lets it go when asked, with messages by MSI-X
    and the rings in use."""
    kinds = ("rng", "balloon", "console", "blk", "net")
    image = debian_guest(modules=("virtio_pci", *(f"virtio_{kind}" for kind in kinds)))
    keywords: dict[str, Any] = {
        "machine": "q35",
        "accel": "tcg",
        "memory": "256M",
        "kernel": image.vmlinux,
        "initrd": image.initrd,
        "append": image.append,
    }
    models = {
        "virtio-rng-pci": "virtio_rng",
        "virtio-balloon-pci": "virtio_balloon",
        "virtio-serial-pci": "virtio_console",
        "virtio-blk-pci": "virtio_blk",
        "virtio-net-pci": "virtio_net",
    }
    ports = [f"pcie-root-port,id=port{n},slot={n + 1}" for n in range(len(models))]
    async with Vm(devices=ports, **keywords) as vm:
        await vm.console.expect(PROMPT, 120)
        await vm.qmp("blockdev-add", driver="null-co", node_name="disk", size=1 << 20)
        await vm.qmp("netdev_add", type="hubport", id="net0", hubid=0)
        for number, (model, driver) in enumerate(models.items()):
            more = {key: value for key, value in MODELS[model].items() if key != "iothread"}
            await vm.qmp("device_add", driver=model, id=f"d{number}", bus=f"port{number}", **more)
            await vm.console.send(f"until ls /sys/bus/virtio/drivers/{driver} | grep virtio; do sleep 0.1; done\n")
            await vm.console.expect(r"\nvirtio\d", 60)
        await asyncio.gather(*(vm.unplug(f"d{number}", timeout=120) for number in range(len(models))))
        await vm.console.send("ls /sys/bus/virtio/devices | wc -l\n")
        await vm.console.expect(r"\n0\r", 60)


async def test_unplug_says_why_not(bench: Bench) -> None:
    """A guest that refuses raises GuestError, one that is silent TimeoutError, and what is unknown is named."""
    await bench.hub.execute("device_add", {"driver": "virtio-rng-pci", "id": "r", "bus": "port0"})
    bench.write(SLTCTL, ON)
    with pytest.raises(TimeoutError):
        await unplug(bench.machine, "r", 0.01)
    with pytest.raises(EmuError, match="already in the process of unplug"):
        await unplug(bench.machine, "r", 1)
    bench.write(SLTCTL, BLINKING)
    bench.write(SLTCTL, ON)
    asked = asyncio.ensure_future(unplug(bench.machine, "r", 5))
    await asyncio.sleep(0)  # it has asked
    bench.write(SLTCTL, BLINKING)
    bench.write(SLTCTL, ON)
    with pytest.raises(GuestError, match="does not let r go"):
        await asked
    with pytest.raises(ConfigError, match="'x' not found"):
        await unplug(bench.machine, "x", 1)
