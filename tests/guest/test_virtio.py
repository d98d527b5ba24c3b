"""Debian's kernel drives the virtio devices over both transports, with split and packed rings, on the software CPU."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from aioemu.api import Machine
from aioemu.config import ConsoleOptions, MachineConfig
from aioemu.devices.virtio.balloon import VirtioBalloon
from aioemu.devices.virtio.device import RING_PACKED, VirtioDevice
from aioemu.images import PROMPT, debian_guest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]

LIMIT_S = 60.0
TRANSPORTS = {"microvm": ("device", "virtio_mmio"), "q35": ("pci", "virtio_pci")}
every_transport = pytest.mark.parametrize("board", list(TRANSPORTS))
every_ring = pytest.mark.parametrize("ring", ["packed=off", "packed=on", "event_idx=off,indirect_desc=off"])


def machine(board: str, devices: list[str], modules: list[str], rc: str | None, **keywords: Any) -> Machine:
    """A machine with these devices, `{}` being the transport's part of a name."""
    transport, module = TRANSPORTS[board]
    guest = debian_guest(modules=[module, *modules], rc=rc)
    return Machine(
        MachineConfig(**keywords),
        machine=board,
        accel="tcg",
        memory="256M",
        kernel=guest.vmlinux,
        initrd=guest.initrd,
        append=guest.append,
        devices=[device.format(transport) for device in devices],
    )


async def output(vm: Machine) -> str:
    """Run to the guest's end; what it printed."""
    await asyncio.wait_for(vm.wait(), LIMIT_S)
    return vm.console.text


@every_transport
@every_ring
async def test_rng(board: str, ring: str) -> None:
    """/dev/hwrng is the device's, gives what is asked for, and by interrupts."""
    rc = "dd if=/dev/hwrng bs=4096 count=16 2>/dev/null | wc -c; cat /sys/class/misc/hw_random/rng_current"
    async with machine(board, [f"virtio-rng-{{}},id=r,{ring}"], ["virtio-rng"], rc) as vm:
        device: VirtioDevice = vm.machine.site.devices["r"]
        accepted: list[int] = []
        device.on_running = lambda running: accepted.append(device.features)
        text = await output(vm)
        assert bool(accepted[0] & RING_PACKED) is (ring == "packed=on")
    assert "65536" in text
    assert "virtio_rng.0" in text


async def test_rng_by_pin() -> None:
    """Without MSI-X the device interrupts by its pin."""
    rc = "dd if=/dev/hwrng bs=4096 count=4 2>/dev/null | wc -c; grep virtio /proc/interrupts"
    async with machine("q35", ["virtio-rng-{},vectors=0"], ["virtio-rng"], rc) as vm:
        text = await output(vm)
    assert "16384" in text
    assert "IO-APIC" in text


@every_transport
@every_ring
async def test_console_ports(board: str, ring: str) -> None:
    """A named port and a console carry bytes both ways, more than any buffer holds."""
    rc = """
exec 3<>/dev/vport0p1; cat /sys/class/virtio-ports/vport0p1/name
echo hello >&3; read x <&3; echo "got $x"
head -c 300000 /dev/zero | tr '\\0' z >&3; echo on-hvc >/dev/hvc0
"""
    chardevs = tuple(ConsoleOptions(id=name) for name in ("c0", "c1", "console"))
    devices = [f"virtio-serial-{{}},{ring}", "virtconsole,chardev=c0", "virtserialport,chardev=c1,name=org.test"]
    vm = machine(board, devices, ["virtio_console"], rc, chardevs=chardevs, serials=("console",))
    async with vm:
        console, port = (vm.machine.chardevs.get(name).console for name in ("c0", "c1"))  # type: ignore[attr-defined]
        await port.expect("hello", LIMIT_S)
        await port.send("from the host\n")
        text = await output(vm)
        assert port.text.count("z") == 300_000
        assert "on-hvc" in console.text
    assert "org.test" in text
    assert "got from the host" in text


@every_transport
async def test_balloon(board: str) -> None:
    """The guest gives memory to the balloon, the host has it at once, and the guest gets it back."""
    devices = ["virtio-balloon-{},id=b,free-page-reporting=on"]
    async with machine(board, devices, ["virtio_balloon"], None) as vm:
        balloon: VirtioBalloon = vm.machine.site.devices["b"]
        await vm.console.expect(PROMPT, LIMIT_S)
        await vm.console.send("head -c 60000000 /dev/zero >/dev/shm/x; rm /dev/shm/x; echo filled\n")
        await vm.console.expect("^filled", LIMIT_S)
        before = os.fstat(vm.machine.memory.fd).st_blocks * 512
        changes = vm.events
        balloon.set_target(128 << 20)
        while balloon.actual_bytes != 128 << 20:
            await changes.wait("BALLOON_CHANGE", LIMIT_S)
        assert balloon.discarded_bytes >= 128 << 20
        assert os.fstat(vm.machine.memory.fd).st_blocks * 512 < min(before, 128 << 20)
        balloon.set_target(256 << 20)
        while balloon.actual_bytes != 256 << 20:
            await changes.wait("BALLOON_CHANGE", LIMIT_S)
        assert balloon.stats["stat-total-memory"] > 100 << 20
        await vm.console.send("poweroff -f\n")
        await output(vm)


@every_transport
async def test_driver_comes_and_goes(board: str) -> None:
    """The driver can be unbound and bound again, and a reset of the machine begins anew."""
    rc = """
cd /sys/bus/virtio/drivers/virtio_rng
echo virtio0 >unbind; echo virtio0 >bind
dd if=/dev/hwrng bs=1024 count=4 2>/dev/null | wc -c
"""
    async with machine(board, ["virtio-rng-{}"], ["virtio-rng"], rc) as vm:
        await vm.console.expect("^4096", LIMIT_S)
        await vm.reset()
        await vm.console.expect("^4096", LIMIT_S)
