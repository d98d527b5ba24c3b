"""Cards and their back ends: cables, receive filters, back ends that come and go (QAPI net.json)."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from aioemu.config import OptionGroup
from aioemu.config.grammar import is_identifier
from aioemu.errors import ConfigError, MonitorError
from aioemu.netdev.options import option_name
from aioemu.netdev.registry import BACK_ENDS
from aioemu.protocol.machine import Machine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record, Size, UInt32, Union, plain
from aioemu.protocol.socket_types import SocketAddress

if TYPE_CHECKING:
    from aioemu.machine.nics import Nic, Nics

ADDRESS_BYTES = 6
PROMISCUOUS, ALL_MULTICAST, ALL_UNICAST, NO_MULTICAST, NO_UNICAST, NO_BROADCAST = (1 << bit for bit in range(6))


class NetClientDriver(StrEnum):
    """The types of back ends; a test holds this list to the table of them."""

    BRIDGE = "bridge"
    DGRAM = "dgram"
    HUBPORT = "hubport"
    SOCKET = "socket"
    STREAM = "stream"
    TAP = "tap"
    USER = "user"


# a text in a list: its member is called `str`, which a class body could not say of itself
String: Any = msgspec.defstruct("String", [("str", str)], bases=(Record,), kw_only=True, rename="kebab")
String.__doc__ = "A text in a list."


def _cases() -> dict[str, type[Record]]:
    """Each type's members, from the options of its back end."""
    return {kind: _record(kind, import_module(module).Options) for kind, module in BACK_ENDS.items()}


_TYPES: dict[str, Any] = {
    "str": str,
    "bool": bool,
    "int": UInt32,
    "Size": Size,
    "tuple[str, ...]": list[String],
    "dict[str, Any]": SocketAddress,
}


def _record(kind: str, options: type[Any]) -> type[Record]:
    """A record of a back end's options, those that are needed without a default."""
    fields: list[Any] = []
    for field in dataclasses.fields(options):
        of = _TYPES[str(field.type).removesuffix(" | None")]
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        fields.append((field.name, of) if needed else (field.name, of | None, None))
    made = msgspec.defstruct(f"Netdev{kind.title()}Options", fields, bases=(Record,), kw_only=True, rename=option_name)
    assert issubclass(made, Record)
    made.__doc__ = f"The options of `-netdev {kind}`."
    return made


class Netdev(Union, kw_only=True):
    """A back end's id and type; its type says which further members there are."""

    tag = "type"
    cases = _cases

    id: str
    type: NetClientDriver


class NetdevId(Record):
    """Which back end."""

    id: str


class LinkState(Record):
    """Of a card or a back end."""

    name: str
    up: bool


class FilterQuery(Record):
    """Of one card, or of all."""

    name: str | None = None


class RxState(StrEnum):
    """What passes of a kind of frames."""

    NORMAL = "normal"
    NONE = "none"
    ALL = "all"


class RxFilterInfo(Record):
    """What a card's driver wants to receive."""

    name: str
    promiscuous: bool
    multicast: RxState
    unicast: RxState
    vlan: RxState
    broadcast_allowed: bool
    multicast_overflow: bool
    unicast_overflow: bool
    main_mac: str
    vlan_table: list[int]
    unicast_table: list[str]
    multicast_table: list[str]


class AnnounceSelf(Record):
    """How often a machine says where it is; the guest's driver has a timing of its own, which is used."""

    initial: int
    max: int
    rounds: int
    step: int
    interfaces: list[str] | None = None
    id: str | None = None


class NetMachine(Machine):
    """A machine with a network."""

    nics: Nics


@command("set_link", needs=("nics",))
def set_link(machine: NetMachine, args: LinkState) -> None:
    """Plug a cable in or out; the guest's driver sees it when this returns."""
    try:
        machine.nics.set_link(args.name, args.up)
    except ConfigError as exc:
        raise MonitorError(f"Device '{args.name}' not found", "DeviceNotFound") from exc


@command("netdev_add", needs=("nics",))
async def netdev_add(machine: NetMachine, args: Netdev) -> None:
    """Open a back end."""
    if not is_identifier(args.id):
        raise MonitorError("Parameter 'id' expects an identifier")
    if args.id in machine.nics.back_ends:
        raise MonitorError(f"Duplicate ID '{args.id}'")
    values = plain(args.branch) if args.branch is not None else {}
    await machine.nics.add(OptionGroup("netdev", args.type.value, args.id, values))


@command("netdev_del", needs=("nics",))
def netdev_del(machine: NetMachine, args: NetdevId) -> None:
    """Close a back end; a card on it stays, without a link."""
    if args.id not in machine.nics.back_ends:
        raise MonitorError(f"Device '{args.id}' not found", "DeviceNotFound")
    machine.nics.remove(args.id)


@command("query-rx-filter", needs=("nics",))
def query_rx_filter(machine: NetMachine, args: FilterQuery) -> list[RxFilterInfo]:
    """Say what cards receive; NIC_RX_FILTER_CHANGED tells of the next change again."""
    cards = [nic for nic in machine.nics.cards if args.name in (None, nic.name)]
    if args.name is not None and not cards:
        known = args.name in machine.nics.back_ends
        raise MonitorError(f"net client({args.name}) isn't a NIC" if known else f"invalid net client name: {args.name}")
    return [_filter(nic) for nic in cards]


def _filter(nic: Nic) -> RxFilterInfo:
    nic.tells_filter = True
    card = nic.card
    tags = [tag for tag in reversed(range(8 * len(card.vlans))) if not card.filters_vlans or _has(card.vlans, tag)]
    return RxFilterInfo(
        name=nic.name,
        promiscuous=bool(card.modes & PROMISCUOUS),
        multicast=_state(card.modes, NO_MULTICAST, ALL_MULTICAST),
        unicast=_state(card.modes, NO_UNICAST, ALL_UNICAST),
        vlan=RxState.ALL if not card.filters_vlans else RxState.NORMAL if tags else RxState.NONE,
        broadcast_allowed=not card.modes & NO_BROADCAST,
        multicast_overflow=card.multicast_overflow,
        unicast_overflow=card.unicast_overflow,
        main_mac=nic.mac,
        vlan_table=tags,
        unicast_table=_addresses(card.unicast),
        multicast_table=_addresses(card.multicast),
    )


def _has(bits: bytes, index: int) -> bool:
    return bool(bits[index // 8] >> index % 8 & 1)


def _state(modes: int, none: int, every: int) -> RxState:
    return RxState.NONE if modes & none else RxState.ALL if modes & every else RxState.NORMAL


def _addresses(table: bytes) -> list[str]:
    """The last first, as tags, because QEMU shows them so."""
    return [table[at : at + ADDRESS_BYTES].hex(":") for at in reversed(range(0, len(table), ADDRESS_BYTES))]


@command("announce-self", needs=("nics",))
def announce_self(machine: NetMachine, args: AnnounceSelf) -> None:
    """Have the guest's drivers announce their addresses to the network."""
    for nic in machine.nics.cards:
        if args.interfaces is None or nic.name in args.interfaces:
            nic.card.announce()


COMMANDS = (set_link, netdev_add, netdev_del, query_rx_filter, announce_self)
