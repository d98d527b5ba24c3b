"""What -netdev, -nic and -net ask for, from a command line to back ends and cards."""

from __future__ import annotations

from typing import Any

import pytest

from aioemu.cli.command_line import read_command_line
from aioemu.errors import ConfigError
from aioemu.machine.nic_options import plan_nics

Asked = tuple[list[tuple[str, str, dict[str, Any]]], list[tuple[str, dict[str, Any]]]]


def asked(*words: str) -> Asked:
    """Back ends (type, id, options) and cards (model, properties)."""
    plan = plan_nics(read_command_line(words)[0])
    back_ends = [(group.type or "", group.id or "", dict(group.values)) for group in plan.netdevs]
    return back_ends, [(card.driver, dict(card.props)) for card in plan.devices]


def test_nothing_asked_for_is_no_network() -> None:
    """And `none` says so."""
    assert asked() == asked("-nic", "none") == asked("-net", "none") == ([], [])


def test_nic_is_a_back_end_and_its_card() -> None:
    """Its options are told apart; ids are made up where none is given; the back end is `user` where none is named."""
    words = ("-nic", "tap,ifname=lab0,script=no,model=virtio-net-pci,mac=52:54:00:00:00:01", "-nic", "model=virtio")
    back_ends, cards = asked(*words)

    assert back_ends == [("tap", "#net0", {"ifname": "lab0", "script": "no"}), ("user", "#net1", {})]
    assert cards == [
        ("virtio-net-pci", {"mac": "52:54:00:00:00:01", "netdev": "#net0"}),
        ("virtio-net", {"netdev": "#net1"}),
    ]


def test_net_joins_a_card_and_a_back_end() -> None:
    """The old way, and its card on a -netdev."""
    assert asked("-net", "nic,model=virtio,macaddr=52:54:00:00:00:02", "-net", "tap,ifname=lab0") == (
        [("tap", "#net0", {"ifname": "lab0"})],
        [("virtio-net", {"mac": "52:54:00:00:00:02", "netdev": "#net0"})],
    )
    assert asked("-netdev", "tap,id=n", "-net", "nic,netdev=n") == (
        [("tap", "n", {})],
        [("virtio-net", {"netdev": "n"})],
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-nic", "tap,model=e1000"), "Unsupported NIC model: e1000"),
        (("-net", "nic", "-net", "tap", "-net", "user"), "hubport"),
        (("-netdev", "tap"), "Parameter 'id' is missing"),
    ],
)
def test_what_cannot_be_is_named(words: tuple[str, ...], why: str) -> None:
    """The option, and what is the matter."""
    with pytest.raises(ConfigError, match=why):
        asked(*words)
