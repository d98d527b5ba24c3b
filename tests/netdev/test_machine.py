"""Back ends on a machine without a processor: options as users write them, cards, the monitor's commands."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from aioemu.api import Machine
from aioemu.config import RingbufOptions
from aioemu.errors import EmuError, MonitorError


async def command(vm: Machine, line: str) -> str:
    """What the text monitor prints."""
    return str(await vm.qmp("human-monitor-command", command_line=line)).replace("\r\n", "\n")


def has_carrier(vm: Machine) -> bool:
    return vm.nic[0].port.carrier


def machine(*netdevs: str, **keywords: Any) -> Machine:
    return Machine(machine="q35", accel="qtest", netdevs=list(netdevs), **keywords)


async def test_ports_are_forwarded_by_the_text_monitor() -> None:
    """hostfwd_add and hostfwd_remove, with and without the network's id; info usernet lists what is there."""
    async with machine("user,id=one", "user,id=two,net=10.7.0.0/16") as vm:
        assert await command(vm, "hostfwd_add tcp:127.0.0.1:0-:22") == ""
        assert await command(vm, "hostfwd_add two udp:127.0.0.1:0-10.7.0.9:53") == ""
        listed = await command(vm, "info usernet")
        assert listed.index("Hub -1 (one)") < listed.index("TCP[HOST_FORWARD]") < listed.index("Hub -1 (two)")
        port = listed.split("TCP[HOST_FORWARD]")[1].split()[2]

        assert await command(vm, "hostfwd_add three tcp::0-:22") == "unrecognized netdev id 'three'\n"
        assert "bad guest" in await command(vm, "hostfwd_add tcp::0-:99999")
        assert await command(vm, "hostfwd_remove nonsense") == "invalid format\n"
        removed = f"host forwarding rule for tcp:127.0.0.1:{port}"
        assert await command(vm, f"hostfwd_remove one tcp:127.0.0.1:{port}") == f"{removed} removed\n"
        assert await command(vm, f"hostfwd_remove one tcp:127.0.0.1:{port}") == f"{removed} not found\n"

    async with machine() as vm:
        assert await command(vm, "hostfwd_add tcp::0-:22") == "user mode network stack not in use\n"


async def test_filters_come_and_go(tmp_path: Path) -> None:
    """object-add and object-del of a filter-dump, status by qom-set; what is missing or unknown is named."""
    async with machine("user,id=n0") as vm:
        path = str(tmp_path / "dump")
        await vm.qmp("object-add", qom_type="filter-dump", id="d0", netdev="n0", file=path)
        assert (tmp_path / "dump").read_bytes()[:4] == b"\xd4\xc3\xb2\xa1"
        await vm.qmp("qom-set", path="/objects/d0", property="status", value="off")
        assert await vm.qmp("qom-get", path="/objects/d0", property="status") == "off"
        with pytest.raises(MonitorError, match="not found"):
            await vm.qmp("object-add", qom_type="filter-dump", id="d1", netdev="n1", file=path)
        with pytest.raises(MonitorError, match="'file' is missing"):
            await vm.qmp("object-add", qom_type="filter-dump", id="d1", netdev="n0")
        await vm.qmp("object-del", id="d0")


async def test_a_card_hears_another_machine(tmp_path: Path) -> None:
    """Carrier of a card on a stream follows its connection, and clients are told."""
    address = f"addr.type=unix,addr.path={tmp_path / 'wire'}"
    cards = ["virtio-net-pci,id=nic0,netdev=n0"]
    async with machine(f"stream,id=n0,{address},reconnect-ms=5", devices=cards) as client:
        told: list[str] = []
        connected = asyncio.Event()

        def tell(event: Any) -> None:
            if event.name.startswith("NETDEV_STREAM"):
                told.append(event.name)
                connected.set()

        client.machine.events.subscribe(tell)
        assert not has_carrier(client)
        async with machine(f"stream,id=n0,server=on,{address}", devices=cards) as server:
            await asyncio.wait_for(connected.wait(), 10)
            assert has_carrier(client)
            connected.clear()
            assert server.nic[0].mac == "52:54:00:12:34:56"
        await asyncio.wait_for(connected.wait(), 10)
        assert not has_carrier(client)
        assert told == ["NETDEV_STREAM_CONNECTED", "NETDEV_STREAM_DISCONNECTED"]


async def test_hub_and_chardev_of_a_machine(tmp_path: Path) -> None:
    """A hub joins a card and a back end of one machine; guestfwd may name a chardev."""
    async with machine(
        "user,id=u,guestfwd=tcp:10.0.2.100:7-chardev:c0",
        "hubport,id=h0,hubid=0,netdev=u",
        "hubport,id=h1,hubid=0",
        chardevs=(RingbufOptions(id="c0"),),
        devices=["virtio-net-pci,netdev=h1"],
    ) as vm:
        assert vm.nic[0].port.carrier
        with pytest.raises(MonitorError, match="busy"):
            await vm.qmp("chardev-remove", id="c0")


@pytest.mark.parametrize(
    ("netdev", "message"),
    [
        ("user,id=n0,guestfwd=tcp:10.0.2.100:7-chardev:none", "chardev 'none' not found"),
        ("hubport,id=n0,hubid=0,netdev=none", "netdev 'none' not found"),
        ("stream,id=n0,addr.type=fd,addr.str=999", "999"),
        ("user,id=n0,dns=10.0.2.2", "-netdev user,id=n0,dns=10.0.2.2: dns must be different"),
    ],
)
async def test_a_machine_that_cannot_be_opens_nothing(netdev: str, message: str) -> None:
    """The mistake is named and every descriptor is closed again."""
    gc.collect()  # what other tests left goes now, not while this one counts
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(EmuError, match=message):
        async with machine(netdev):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


async def test_options_as_json_and_nic() -> None:
    """-netdev in JSON with lists of rules, and -nic user: the command line's ways to the same."""
    rules = [{"str": "tcp:127.0.0.1:0-:22"}, {"str": "udp:127.0.0.1:0-:53"}]
    netdev = json.dumps({"type": "user", "id": "n0", "hostfwd": rules, "ipv6": False})
    arguments = ["-M", "q35", "-accel", "qtest", "-S", "-display", "none", "-monitor", "stdio", "-netdev", netdev]
    arguments += ["-nic", "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=tcp:127.0.0.1:0-:443"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "aioemu", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(process.communicate(b"info usernet\nquit\n"), 30)

    assert process.returncode == 0
    assert printed.count(b"TCP[HOST_FORWARD]") == 3
    assert printed.count(b"UDP[HOST_FORWARD]") == 1
