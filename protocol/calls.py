"""A machine's commands as methods, for callers inside the program: `(await vm.monitor.query_status()).running`.

Methods come from the same declarations as the wire's commands: `query-status` is `query_status`, arguments are keywords
with `_` for `-`, records and enumerations go in and come out as Python objects. Type checkers and editors read the
methods in calls.pyi, which `python -m aioemu.protocol.stub` writes. Errors are those that a client would get.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from aioemu.protocol.python_names import is_open, method_name, wire_arguments
from aioemu.protocol.registry import Command

if TYPE_CHECKING:
    from aioemu.protocol.hub import MonitorHub

Method = Callable[..., Coroutine[Any, Any, Any]]


class Calls:
    """The commands of one machine, as methods that answer records."""

    def __init__(self, hub: MonitorHub) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Method:
        command = self._commands.get(name)
        if command is None:
            raise AttributeError(f"this machine has no command {name}", name=name, obj=self)
        return self._method(name, command)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._commands})

    @property
    def _commands(self) -> dict[str, Command]:
        return {method_name(name): each for name, each in self._hub.registry.commands.items()}

    def _method(self, name: str, command: Command) -> Method:
        own = {member.attribute for member in command.arguments.members}  # None: not given

        async def call(**keywords: Any) -> Any:
            given = {key: value for key, value in keywords.items() if value is not None or key not in own}
            answer = await self._hub.run(command, wire_arguments(command, given))
            if answer is None:
                return None
            wire = msgspec.json.decode(answer) if isinstance(answer, bytes) else msgspec.to_builtins(answer)
            return command.returns.load(wire, "", "")

        call.__name__ = call.__qualname__ = name
        call.__doc__ = command.doc
        vars(call)["__signature__"] = _signature(command)
        return call


def _signature(command: Command) -> inspect.Signature:
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(member.attribute, keyword_only, default=None if member.optional else inspect.Parameter.empty)
        for member in sorted(command.arguments.members, key=lambda each: each.optional)
    ]
    if is_open(command.arguments):
        parameters.append(inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)
