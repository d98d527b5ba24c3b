"""Run one line of the text monitor: find the command, read its arguments, give back what it prints.

Commands stand on those of the protocol, so both do the same; what the machine cannot do is not listed here either. An
error is text like everything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aioemu.errors import EmuError, MonitorError
from aioemu.protocol.hmp.arguments import UsageError, read
from aioemu.protocol.hmp.commands import COMMANDS
from aioemu.protocol.hmp.info import INFO
from aioemu.protocol.hmp.table import HmpCommand, find

if TYPE_CHECKING:
    from aioemu.protocol.monitor import Caller


class Interpreter:
    """The text commands of one machine, for one caller. `cpu` is the processor they are about."""

    def __init__(self, monitor: Caller) -> None:
        self.monitor = monitor
        self.machine = monitor.hub.machine
        self.cpu = 0
        self.history: list[str] = []
        self.commands = sorted((each for each in COMMANDS if self._works(each)), key=lambda each: each.names)
        self.info = sorted((each for each in INFO if self._works(each)), key=lambda each: each.names)

    async def run(self, line: str) -> str:
        """What the command in (line) prints."""
        name, rest = _first(line.split("#", 1)[0] if line.lstrip().startswith("#") else line)
        if not name:
            return ""
        command = find(self.commands, name)
        if command is None:
            return f"unknown command: '{name}'\n"
        label = name
        if name == "info" and rest.strip():
            topic, rest = _first(rest)
            command, label = find(self.info, topic), f"info {topic}"
            if command is None:
                return f"unknown command: '{label}'\n"
        try:
            values = read(command.names, rest, command.parameters)
        except UsageError as exc:
            return f'{exc}\nTry "help {label}" for more information\n'
        try:
            return await command.run(self, values)
        except EmuError as exc:
            return f"Error: {exc}\n"

    async def qmp(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a command of the protocol as the same caller."""
        command = self.monitor.hub.registry.commands.get(name)
        if command is None:
            raise MonitorError(f"The command {name} has not been found", "CommandNotFound")
        result = command.call(self.machine, self.monitor, arguments or {})
        return await result if command.is_async else result

    def complete(self, line: str) -> list[str]:
        """The words that may stand where (line) ends."""
        words = line.split(" ")
        if len(words) == 1:
            known = self.commands
        elif words[0] in ("info", "i") or words[:2] == ["help", "info"]:
            known = self.info
        elif words[0] in ("help", "?"):
            known = self.commands
        elif len(words) == 2:
            return sorted(name for name in self._ids(words[0]) if name.startswith(words[1]))
        elif words[0] == "set_link" and len(words) == 3:
            return [word for word in ("off", "on") if word.startswith(words[2])]
        else:
            return []
        names = (name for each in known for name in each.names.split("|"))
        return sorted(name for name in names if name.startswith(words[-1]))

    def _ids(self, command: str) -> Iterable[str]:
        """What the first argument of (command) may name."""
        machine = self.machine
        if command == "device_del" and hasattr(machine, "devices"):
            return [name for name in machine.devices.names() if machine.devices.path(name).endswith(f"/{name}")]
        if command == "object_del" and hasattr(machine, "objects"):
            return list(machine.objects.names())
        if command in ("netdev_del", "set_link") and hasattr(machine, "nics"):
            cards = [card.name for card in machine.nics.cards] if command == "set_link" else []
            return [*cards, *machine.nics.back_ends]
        if command in ("chardev-remove", "chardev-send-break", "ringbuf_read", "ringbuf_write"):
            return [each.label for each in machine.chardevs.query()]
        if command in ("block_resize", "block_set_io_throttle", "drive_del", "eject", "change"):
            return list(machine.drives.backends) if hasattr(machine, "drives") else []
        return []

    def _works(self, command: HmpCommand) -> bool:
        known = self.monitor.hub.registry.commands
        return all(each in known for each in command.qmp) and all(
            getattr(self.machine, each, None) is not None for each in command.needs
        )


def _first(line: str) -> tuple[str, str]:
    """The first word of (line), and the rest; `xp/4x` is two words."""
    line = line.lstrip()
    end = next((at for at, letter in enumerate(line) if letter.isspace() or (letter == "/" and at)), len(line))
    return line[:end], line[end:]
