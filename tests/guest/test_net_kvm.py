"""A polling driver on KVM sends, receives and echoes over a TAP device, served by the loop and by an iothread."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator

import pytest

from aioemu.config import DeviceOptions, MachineConfig, OptionGroup
from tests.bench.net import DEVICE, ECHO, PING, RX, TX, other_end
from tests.guest.conftest import LIMIT_S, PASS, VmFactory
from tests.netdev.namespaces import Namespace, namespace

pytestmark = [pytest.mark.guest, pytest.mark.kvm]

PEERS = {TX: "echo", RX: "flood", ECHO: "window", PING: "echo"}


@pytest.fixture
def netns() -> Iterator[Namespace]:
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root and /dev/net/tun")
    with namespace() as made:
        yield made


@pytest.mark.parametrize("iothread", [None, "io0"])
@pytest.mark.parametrize("mode", list(PEERS))
async def test_a_polling_driver_on_kvm(make_vm: VmFactory, netns: Namespace, mode: int, iothread: str | None) -> None:
    """Frames pass in both directions without an interrupt, and what was counted on the card agrees."""
    props = {"netdev": "n", **({"iothread": iothread} if iothread else {})}
    config = MachineConfig(
        netdevs=(OptionGroup("netdev", "tap", "n", {"ifname": DEVICE, "netns": netns.name}),),
        objects=(OptionGroup("object", "iothread", "io0", {}),),
        devices=(DeviceOptions("virtio-net-device", None, None, None, props),),
    )
    async with make_vm(f"net mode={mode} size=300 ms=500", config=config, paused=True) as vm:
        with other_end(netns.name, PEERS[mode], 300):
            await vm.resume()
            status = await asyncio.wait_for(vm.wait(), LIMIT_S)
        assert status.code == PASS, vm.console.text
        done = int(re.findall(r'"done":(\d+)', vm.console.text)[-1])
        stats = vm.nic[0].stats
        assert done > 0
        assert (stats.received.frames if mode == RX else stats.sent.frames) >= done
        assert not stats.sent.dropped
