"""What `-netdev`, `-nic` and `-net` ask for: back ends to open and cards to make.

`-nic` is a back end and its card in one. `-net`, the old way, joins one card to one back end; a hub of more is asked
for with `hubport`. Without any of them a machine has no network: nothing is connected that nobody asked for.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aioemu.config import DeviceOptions, MachineConfig, OptionGroup
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError

MODELS = ("virtio", "virtio-net-pci", "virtio-net-pci-non-transitional", "virtio-net-device", "virtio-net")
CARD_KEYS = ("model", "mac", "macaddr", "addr", "vectors")
DEFAULT_MODEL = "virtio-net"  # what the board has: PCI or a virtio-mmio slot


class NicPlan(Struct, frozen=True):
    """Back ends, in the order they are opened, and cards that are not among the `-device`s."""

    netdevs: tuple[OptionGroup, ...] = ()
    devices: tuple[DeviceOptions, ...] = ()


def plan_nics(config: MachineConfig) -> NicPlan:
    """Everything that a configuration asks for. ConfigError for what cannot be."""
    netdevs, devices = list(config.netdevs), []
    taken = {group.id for group in config.netdevs}
    for group in config.nics:
        if group.type == "none":
            continue
        card, rest = _split(group)
        name = group.id or _free_name(taken)
        taken.add(name)
        netdevs.append(OptionGroup("netdev", group.type or "user", name, rest))
        devices.append(_device("-nic", card, name))
    back_ends, cards = _old_way(config.nets)
    if (cards and len(back_ends) > 1) or (len(cards) > 1 and back_ends):
        raise ConfigError("-net: one card and one back end; join more with -netdev hubport", "-net")
    for group in back_ends:
        name = group.id or _free_name(taken)
        taken.add(name)
        netdevs.append(OptionGroup("netdev", group.type, name, group.values))
        devices += [_device("-net", card, name) for card in cards]
    if not back_ends:
        devices += [_device("-net", card, card.pop("netdev", None)) for card in cards]
    return NicPlan(tuple(netdevs), tuple(devices))


def _old_way(nets: tuple[OptionGroup, ...]) -> tuple[list[OptionGroup], list[dict[str, Any]]]:
    back_ends = [group for group in nets if group.type not in ("none", "nic")]
    cards = [dict(group.values) for group in nets if group.type == "nic"]
    return back_ends, cards


def _split(group: OptionGroup) -> tuple[dict[str, Any], dict[str, Any]]:
    """The card's options and the back end's."""
    values = dict(group.values)
    return {key: values.pop(key) for key in CARD_KEYS if key in values}, values


def _device(option: str, card: dict[str, Any], netdev: str | None) -> DeviceOptions:
    props = dict(card)
    model = str(props.pop("model", DEFAULT_MODEL))
    if model not in MODELS:
        raise ConfigError(f"{option}: Unsupported NIC model: {model}{did_you_mean(model, MODELS)}", option)
    mac = props.pop("mac", props.pop("macaddr", None))
    addr = props.pop("addr", None)
    if mac is not None:
        props["mac"] = mac
    if netdev is not None:
        props["netdev"] = netdev
    driver = DEFAULT_MODEL if model == "virtio" else model
    return DeviceOptions(driver, None, None, None if addr is None else str(addr), props)


def _free_name(taken: set[str | None]) -> str:
    return next(name for n in range(len(taken) + 1) if (name := f"#net{n}") not in taken)
