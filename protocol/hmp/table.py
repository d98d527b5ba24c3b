"""What a text command is: names, parameters, help, and the function that runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioemu.protocol.hmp.arguments import Parameter

if TYPE_CHECKING:
    from aioemu.protocol.hmp.interpreter import Interpreter

Run = Callable[["Interpreter", dict[str, Any]], Awaitable[str]]


@dataclass(frozen=True)
class HmpCommand:
    """`names` is `stop|s`; `qmp` the protocol commands it stands on, `needs` what the machine must have."""

    names: str
    usage: str
    help: str
    run: Run
    parameters: tuple[Parameter, ...] = ()
    qmp: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Its line of `help`."""
        return f"{self.names} {self.usage} -- {self.help}\n"

    def answers_to(self, name: str) -> bool:
        return name in self.names.split("|")


def parameters(*declared: str) -> tuple[Parameter, ...]:
    """Parameters out of `name`, `name:kind`, with a final `?` where optional."""
    made = []
    for each in declared:
        name, _, kind = each.rstrip("?").partition(":")
        made.append(Parameter(name, kind or "word", each.endswith("?")))
    return tuple(made)


def find(commands: Sequence[HmpCommand], name: str) -> HmpCommand | None:
    """The command that answers to (name)."""
    return next((each for each in commands if each.answers_to(name)), None)
