"""Debian's kernel uses a network card over a TAP device: both transports, both rings, one and four queue pairs."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from aioemu.api import Machine
from aioemu.config import OptionGroup
from aioemu.images import PROMPT, debian_guest
from tests.netdev.namespaces import Namespace, namespace

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]

LIMIT_S = 60.0
HOST, GUEST = "10.9.0.1", "10.9.0.2"
RC = f"ip link set eth0 up; ip addr add {GUEST}/24 dev eth0"


@pytest.fixture
def netns() -> Iterator[Namespace]:
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root and /dev/net/tun")
    with namespace() as made:
        yield made


async def ask(vm: Machine, command: str) -> str:
    """What a command at the guest's prompt prints."""
    await vm.console.send(f"{command}; echo through-$((40+2))\n")
    found = await vm.console.expect(r"(?P<answer>(?s:.*?))through-42\r\n", LIMIT_S)
    return re.sub(r".*\$\(\(40\+2\)\)\s*", "", found["answer"], flags=re.DOTALL)


def machine(netns: Namespace, board: str, device: str, netdev: str = "", **keywords: Any) -> Machine:
    modules = ["virtio_mmio" if board == "microvm" else "virtio_pci", "virtio_net"]
    image = debian_guest(modules, rc=RC, shell=True)
    return Machine(
        machine=board,
        accel="tcg",
        memory="256M",
        kernel=image.kernel,
        initrd=image.initrd,
        append=image.append,
        netdevs=[f"tap,id=n0,ifname=lab0,netns={netns.name}{netdev}"],
        devices=[f"{device},netdev=n0"],
        **keywords,
    )


@pytest.mark.parametrize(
    ("board", "device", "netdev"),
    [
        ("microvm", "virtio-net-device", ""),
        ("microvm", "virtio-net-device,packed=on,mq=on", ",queues=4"),
        ("microvm", "virtio-net-device,mrg_rxbuf=off,event_idx=off", ""),
        ("q35", "virtio-net-pci,packed=on,host_mtu=1400", ""),
        ("q35", "virtio-net-pci,mq=on", ",queues=4"),
        ("q35", "virtio-net-pci,vectors=0,csum=off,guest_csum=off", ",vnet_hdr=off"),
    ],
)
async def test_a_guest_pings_the_host(netns: Namespace, board: str, device: str, netdev: str) -> None:
    """Small and fragmented packets come back, its link follows the cable, and its counters tell of it."""
    async with machine(netns, board, device, netdev, smp=4 if "mq" in device else 1) as vm:
        await vm.console.expect(PROMPT, LIMIT_S)
        netns.add_address("lab0", HOST)

        assert "3 packets received" in await ask(vm, f"ping -c 3 -i 0.2 {HOST}")
        assert "2 packets received" in await ask(vm, f"ping -c 2 -s 20000 -i 0.2 {HOST}")

        nic = vm.nic[0]
        assert nic.mac == "52:54:00:12:34:56"
        assert nic.stats.sent.frames >= 3 + 2 * 14
        nic.set_link(False)
        assert "0" in await ask(vm, "cat /sys/class/net/eth0/carrier")
        nic.set_link(True)
        assert "1" in await ask(vm, "cat /sys/class/net/eth0/carrier")
        assert "1 packets received" in await ask(vm, f"ping -c 1 {HOST}")
        assert (await ask(vm, "cat /sys/class/net/eth0/mtu")).strip() == ("1400" if "mtu" in device else "1500")
        assert nic.queues == (4 if "mq" in device else 1)


async def test_an_iothread_serves_the_card_while_python_is_busy(netns: Namespace) -> None:
    """Packets pass with the reactor blocked; pausing the machine stops them, and none is lost by it."""
    async with machine(
        netns, "microvm", "virtio-net-device,iothread=io0", objects=(OptionGroup("object", "iothread", "io0"),)
    ) as vm:
        await vm.console.expect(PROMPT, LIMIT_S)
        netns.add_address("lab0", HOST)
        before = vm.nic[0].stats.sent.frames
        await vm.console.send(f"ping -c 30 -i 0.05 {HOST} >/p; tail -n 2 /p\n")
        await vm.console.expect("tail -n 2", LIMIT_S)

        while vm.nic[0].stats.sent.frames < before + 5:  # without a turn of the loop
            pass
        await vm.pause()
        standing = vm.nic[0].stats
        await asyncio.sleep(0.2)  # time passes: nothing moves in it
        assert vm.nic[0].stats == standing
        await vm.resume()

        assert await vm.console.expect(r"30 packets received, 0% packet loss", LIMIT_S)
