"""Text commands for cards and back ends, and what `info network` shows, in QEMU's lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.config import OptionGroup
from aioemu.config.grammar import Options
from aioemu.errors import MonitorError
from aioemu.protocol.hmp.table import HmpCommand, parameters

if TYPE_CHECKING:
    from aioemu.machine.nics import BackEnd, Nic
    from aioemu.protocol.hmp.interpreter import Interpreter

Values = dict[str, Any]


async def network(interpreter: Interpreter, values: Values) -> str:
    """Each card with its back end, then the back ends that no card uses."""
    nics = interpreter.machine.nics
    lines = []
    for nic in nics.cards:
        lines.append(_card(nic))
        if nic.back_end is not None:
            lines.append(f" \\ {_back_end(nic.back_end)}")
    lines += [_back_end(each) for each in nics.back_ends.values() if each.nic is None]
    return "".join(f"{line}\n" for line in lines)


def _card(nic: Nic) -> str:
    return f"{nic.name}: index=0,type=nic,model={nic.model},macaddr={nic.mac}"


def _back_end(back_end: BackEnd) -> str:
    return f"{back_end.id}: index=0,type={back_end.kind},{back_end.netdev.summary}"


async def _set_link(interpreter: Interpreter, values: Values) -> str:
    await interpreter.qmp("set_link", values)
    return ""


async def _netdev_add(interpreter: Interpreter, values: Values) -> str:
    """Values are text here, as on the command line: the back end reads them."""
    from aioemu.config.keywords import read_netdevs

    given = Options.parse("netdev_add", values["netdev"], "type")
    for key in ("type", "id"):
        if key not in given:
            raise MonitorError(f"Parameter '{key}' is missing")
    group: OptionGroup = read_netdevs([values["netdev"]])[0]
    await interpreter.machine.nics.add(group)
    return ""


async def _netdev_del(interpreter: Interpreter, values: Values) -> str:
    await interpreter.qmp("netdev_del", {"id": values["id"]})
    return ""


COMMANDS = (
    HmpCommand(
        "set_link",
        "name on|off",
        "change the link status of a network adapter",
        _set_link,
        parameters("name", "up:switch"),
        ("set_link",),
    ),
    HmpCommand(
        "netdev_add",
        "[user|tap|socket|stream|dgram|bridge|hubport],id=str[,prop=value][,...]",
        "add host network device",
        _netdev_add,
        parameters("netdev"),
        ("netdev_add",),
    ),
    HmpCommand("netdev_del", "id", "remove host network device", _netdev_del, parameters("id"), ("netdev_del",)),
)
INFO = HmpCommand("network", "", "show the network state", network, needs=("nics",))
