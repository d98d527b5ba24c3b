"""Text commands for user networking: ports forwarded while the guest runs, and the list of connections.

There is no command of the protocol for these; tools read the text, so its lines are those that they know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.errors import ConfigError
from aioemu.protocol.hmp.table import HmpCommand, parameters

if TYPE_CHECKING:
    from aioemu.protocol.hmp.interpreter import Interpreter
    from aioemu.protocol.machine import UserNetwork

Values = dict[str, Any]


def _choose(interpreter: Interpreter, values: Values) -> tuple[UserNetwork | str, str]:
    """The network that is meant, or what to print instead; and the rule."""
    networks = interpreter.machine.user_networks
    if values["rule"] is None:
        first = next(iter(networks.values()), None)
        return first if first is not None else "user mode network stack not in use\n", values["netdev"]
    if values["netdev"] in networks:
        return networks[values["netdev"]], values["rule"]
    return f"unrecognized netdev id '{values['netdev']}'\n", values["rule"]


async def _hostfwd_add(interpreter: Interpreter, values: Values) -> str:
    network, rule = _choose(interpreter, values)
    if isinstance(network, str):
        return network
    network.add_hostfwd(rule)
    return ""


async def _hostfwd_remove(interpreter: Interpreter, values: Values) -> str:
    network, rule = _choose(interpreter, values)
    if isinstance(network, str):
        return network
    try:
        found = network.remove_hostfwd(rule)
    except ConfigError:
        return "invalid format\n"
    return f"host forwarding rule for {rule} {'removed' if found else 'not found'}\n"


async def _usernet(interpreter: Interpreter, values: Values) -> str:
    networks = interpreter.machine.user_networks
    return "".join(f"Hub -1 ({name}):\n{network.connections}" for name, network in networks.items())


_RULE = parameters("netdev", "rule?")

COMMANDS = (
    HmpCommand(
        "hostfwd_add",
        "[netdev_id] [tcp|udp|unix]:[[hostaddr]:hostport|hostpath]-[guestaddr]:guestport",
        "redirect TCP, UDP or UNIX connections from host to guest",
        _hostfwd_add,
        _RULE,
        needs=("user_networks",),
    ),
    HmpCommand(
        "hostfwd_remove",
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
        "remove host-to-guest TCP or UDP redirection",
        _hostfwd_remove,
        _RULE,
        needs=("user_networks",),
    ),
)
INFO = HmpCommand("usernet", "", "show user network stack connection states", _usernet, needs=("user_networks",))
