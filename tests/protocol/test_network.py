"""Cards and back ends by the monitor: added, removed, their cables, their filters, their lines in `info network`."""

from __future__ import annotations

import asyncio

import pytest

from aioemu.api import Machine
from aioemu.config import DeviceOptions, OptionGroup
from aioemu.errors import ConfigError, MonitorError
from aioemu.netdev.registry import BACK_ENDS
from aioemu.protocol.commands.network import NetClientDriver

HUB = OptionGroup("netdev", "hubport", "h0", {"hubid": "0"})


def vm(**keywords: object) -> Machine:
    card = DeviceOptions("virtio-net-device", "card", None, None, {"netdev": "h0"})
    return Machine(machine="microvm", accel="qtest", netdevs=(HUB,), devices=(card,), **keywords)  # type: ignore[arg-type]


def test_every_back_end_is_in_the_schema() -> None:
    """What the table has, netdev_add takes."""
    assert {each.value for each in NetClientDriver} == set(BACK_ENDS)


async def test_back_ends_come_and_go() -> None:
    """netdev_add makes one, twice is an error, netdev_del takes it away, and a card on it loses its link."""
    async with vm() as machine:
        assert machine.nic[0].link_up
        await machine.qmp("netdev_add", type="hubport", id="h1", hubid=0)
        with pytest.raises(MonitorError, match=r"Duplicate ID 'h1'$"):
            await machine.qmp("netdev_add", type="hubport", id="h1", hubid=0)
        with pytest.raises(MonitorError, match="Parameter 'id' expects an identifier"):
            await machine.qmp("netdev_add", type="hubport", id="1h", hubid=0)
        with pytest.raises(MonitorError, match="Parameter 'hubid' is missing"):
            await machine.qmp("netdev_add", type="hubport", id="h2")
        with pytest.raises(MonitorError, match="does not accept value 'tpa'"):
            await machine.qmp("netdev_add", type="tpa", id="h2")
        await machine.qmp("netdev_del", id="h1")
        with pytest.raises(MonitorError, match="Device 'h1' not found"):
            await machine.qmp("netdev_del", id="h1")

        await machine.qmp("netdev_del", id="h0")

        assert not machine.nic[0].link_up


async def test_a_back_end_in_a_hub_is_in_use() -> None:
    """A card on it is refused as on one that another card has, and moves nothing."""
    hub = OptionGroup("netdev", "hubport", "h1", {"hubid": "1"})
    plugged = OptionGroup("netdev", "hubport", "h2", {"hubid": "1", "netdev": "h1"})
    card = DeviceOptions("virtio-net-device", "card", None, None, {"netdev": "h1"})
    machine = Machine(machine="microvm", accel="qtest", netdevs=(hub, plugged), devices=(card,))
    with pytest.raises(ConfigError, match="Property 'netdev' can't take value 'h1', it's in use"):
        await machine.open()
    machine.close()


async def test_an_address_of_a_socket_is_typed(tmp_path: object) -> None:
    """A stream takes QAPI's SocketAddress."""
    async with vm() as machine:
        address = {"type": "unix", "path": f"{tmp_path}/wire"}
        await machine.qmp("netdev_add", type="stream", id="s0", server=True, addr=address)
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/wire")
        writer.close()
        await writer.wait_closed()
        assert reader is not None
        await machine.qmp("netdev_del", id="s0")


async def test_cables_by_card_or_back_end() -> None:
    """set_link on either takes the guest's link; no other name is taken."""
    async with vm() as machine:
        for name in ("card", "h0"):
            await machine.qmp("set_link", name=name, up=False)
            assert not machine.nic[0].link_up
            await machine.qmp("set_link", name=name, up=True)
            assert machine.nic[0].link_up
        with pytest.raises(MonitorError, match="Device 'nobody' not found"):
            await machine.qmp("set_link", name="nobody", up=True)


async def test_filters_are_told_and_asked() -> None:
    """A change is an event, once until somebody asked; unknown cards are named."""
    async with vm() as machine:
        card = machine.nic[0].card
        card.on_filter()
        card.on_filter()
        assert [event.name for event in machine.events.history].count("NIC_RX_FILTER_CHANGED") == 1
        card.modes, card.multicast = 0, bytes((1, 0, 0x5E, 0, 0, 1, 0x33, 0x33, 0, 0, 0, 1))

        (found,) = await machine.qmp("query-rx-filter", name="card")

        assert found["main-mac"] == "52:54:00:12:34:56"
        assert (found["promiscuous"], found["multicast"], found["unicast"]) == (False, "normal", "normal")
        assert found["multicast-table"] == ["33:33:00:00:00:01", "01:00:5e:00:00:01"]  # the last first, as QEMU
        assert (found["vlan"], found["vlan-table"]) == ("all", list(reversed(range(4096))))  # nothing is filtered yet
        card.on_filter()
        assert [event.name for event in machine.events.history].count("NIC_RX_FILTER_CHANGED") == 2
        with pytest.raises(MonitorError, match="invalid net client name: other"):
            await machine.qmp("query-rx-filter", name="other")
        with pytest.raises(MonitorError, match=r"net client\(h0\) isn't a NIC"):
            await machine.qmp("query-rx-filter", name="h0")


async def test_tags_of_a_card_that_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that named no tag yet gets none of them; a table that overflows does not change the kind's state."""
    async with vm() as machine:
        card = machine.nic[0].card
        monkeypatch.setattr(type(card), "filters_vlans", True)
        (found,) = await machine.qmp("query-rx-filter")
        assert (found["vlan"], found["vlan-table"]) == ("none", [])
        card.vlans = bytes((0x81,)) + card.vlans[1:]
        card.unicast_overflow = True
        (found,) = await machine.qmp("query-rx-filter")
        assert (found["vlan"], found["vlan-table"]) == ("normal", [7, 0])
        assert (found["unicast"], found["unicast-overflow"]) == ("normal", True)


async def test_info_network_has_the_lines_that_tools_read() -> None:
    """Cards with their back ends, then the others."""
    async with vm() as machine:
        await machine.qmp("netdev_add", type="hubport", id="h1", hubid=3)
        text = await machine.qmp("human-monitor-command", **{"command-line": "info network"})
        assert text.splitlines()[:2] == [
            "card: index=0,type=nic,model=virtio-net-device,macaddr=52:54:00:12:34:56",
            f" \\ h0: index=0,type=hubport,{machine.machine.nics.back_ends['h0'].netdev.summary}",
        ]
        assert text.splitlines()[2].startswith("h1: index=0,type=hubport")
        await machine.qmp("human-monitor-command", **{"command-line": "set_link card off"})
        assert not machine.nic[0].link_up
        await machine.qmp("human-monitor-command", **{"command-line": "netdev_del h1"})
        await machine.qmp("human-monitor-command", **{"command-line": "netdev_add hubport,id=h2,hubid=1"})
        assert "h2" in machine.machine.nics.back_ends
