"""The text monitor's commands, one line at a time, for a program."""

from __future__ import annotations

from aioemu.errors import MonitorError
from aioemu.protocol.machine import Machine
from aioemu.protocol.monitor import Caller
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class HumanMonitorCommand(Record):
    """A line, and the processor it is about."""

    command_line: str
    cpu_index: int | None = None


@command("human-monitor-command")
async def human_monitor_command(machine: Machine, args: HumanMonitorCommand, monitor: Caller) -> str:
    """Run a line of the text monitor; the answer is what it prints, errors included."""
    from aioemu.protocol.hmp.interpreter import Interpreter  # most programs never come here

    interpreter = Interpreter(monitor)
    if args.cpu_index is not None:
        if not 0 <= args.cpu_index < machine.config.smp.cpus:
            raise MonitorError("Parameter 'cpu-index' expects a CPU number")
        interpreter.cpu = args.cpu_index
    return (await interpreter.run(args.command_line)).replace("\n", "\r\n")


COMMANDS = (human_monitor_command,)
