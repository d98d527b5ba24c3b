"""All commands as one table; each module lists its own."""

from __future__ import annotations

from aioemu.protocol.commands import (
    actions,
    balloon,
    block,
    block_control,
    chardevs,
    control,
    descriptors,
    devices,
    dump,
    identity,
    jobs,
    keys,
    links,
    memory,
    network,
    objects,
    power,
    processors,
    qom,
    text,
    yank,
)
from aioemu.protocol.registry import Command

COMMANDS: tuple[Command, ...] = (
    *control.COMMANDS,
    *identity.COMMANDS,
    *power.COMMANDS,
    *actions.COMMANDS,
    *processors.COMMANDS,
    *memory.COMMANDS,
    *balloon.COMMANDS,
    *block.COMMANDS,
    *block_control.COMMANDS,
    *jobs.COMMANDS,
    *chardevs.COMMANDS,
    *descriptors.COMMANDS,
    *devices.COMMANDS,
    *dump.COMMANDS,
    *objects.COMMANDS,
    *keys.COMMANDS,
    *links.COMMANDS,
    *network.COMMANDS,
    *qom.COMMANDS,
    *text.COMMANDS,
    *yank.COMMANDS,
)
