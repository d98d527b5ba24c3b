"""Commands and events as plain tables: what a machine can serve is what is listed, described and dispatched.

    @command("block_resize", needs=("block",))
    async def block_resize(machine: Machine, args: BlockResize) -> None: ...

A handler that cannot block is a plain function and is answered at once; a coroutine runs in a task of its own. It may
ask for `args` (a Record) and for `monitor`, the session it was called from. `needs` names what the machine must have
for the command to exist. Types are looked at when first used: importing costs little.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from typing import Any

from aioemu.errors import MonitorError
from aioemu.protocol.framing import encode
from aioemu.protocol.schema import Nothing, Object, Record, Type, object_of, type_of

# What managers may ask and do while `--preconfig` holds the guest back (QAPI: allow-preconfig).
PRECONFIG = frozenset(
    """
    block_resize block_set_io_throttle blockdev-add blockdev-create blockdev-del blockdev-reopen netdev_add
    netdev_del object-add object-del qmp_capabilities qom-get qom-list qom-list-properties qom-list-types qom-set
    query-block query-blockstats query-chardev query-command-line-options query-commands query-hotpluggable-cpus
    query-iothreads query-memdev query-name query-named-block-nodes query-qmp-schema query-status query-uuid
    query-version quit set-action x-exit-preconfig
    """.split()
)


class Command:
    """One command: its name, its handler and what is known of it from the handler's signature."""

    def __init__(
        self, name: str, handler: Callable[..., Any], oob: bool, needs: tuple[str, ...], features: tuple[str, ...]
    ) -> None:
        self.name = name
        self.handler = handler
        self.oob = oob
        self.needs = needs
        self.features = features  # words by which clients recognise what an older version could not
        self.is_async = inspect.iscoroutinefunction(handler)
        self._parameters = frozenset(handler.__code__.co_varnames[: handler.__code__.co_argcount])
        self._takes = tuple(each in self._parameters for each in ("args", "monitor"))

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self.handler, include_extras=True)

    @cached_property
    def arguments(self) -> Object:
        """The type of its arguments."""
        return object_of(self._hints["args"] if "args" in self._parameters else Nothing)

    @property
    def answer(self) -> Any:
        """What the handler answers, as Python has it."""
        return self._hints["return"]

    @cached_property
    def returns(self) -> Type:
        """The type of its answer."""
        return object_of(Nothing) if self.answer is type(None) else type_of(self.answer)

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.handler) or ""

    def bind(self, machine: Any, monitor: Any, arguments: dict[str, Any]) -> Callable[[], Any]:
        """Check (arguments); what is answered calls the handler."""
        if machine.preconfig and self.name not in PRECONFIG:
            raise MonitorError(
                f"The command '{self.name}' is permitted only after machine initialization has completed"
            )
        takes_args, takes_monitor = self._takes
        if takes_args:
            loaded = self.arguments.load(arguments, "", "")
            if takes_monitor:
                return partial(self.handler, machine, loaded, monitor)
            return partial(self.handler, machine, loaded)
        if arguments:
            raise MonitorError(f"Parameter '{next(iter(arguments))}' is unexpected")
        return partial(self.handler, machine, monitor) if takes_monitor else partial(self.handler, machine)

    def call(self, machine: Any, monitor: Any, arguments: dict[str, Any]) -> Any:
        """Check (arguments) and call the handler: the answer, or a coroutine where `is_async`."""
        return self.bind(machine, monitor, arguments)()


def command(
    name: str, *, oob: bool = False, needs: Iterable[str] = (), features: Iterable[str] = ()
) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a typed function."""

    def make(handler: Callable[..., Any]) -> Command:
        return Command(name, handler, oob, tuple(needs), tuple(features))

    return make


@dataclass(frozen=True)
class EventClass:
    """One event: its data's type, and how often it may be sent."""

    name: str
    record: type[Record]
    needs: tuple[str, ...] = ()
    limited: bool = False  # at most one a second, the last one wins
    key: str = ""  # of the data: limited for each value of it

    def data(self, fields: dict[str, object]) -> Record:
        """The event's data out of what the machine says; members that the protocol does not have are left out."""
        known = {name: value for name, value in fields.items() if name in self.record.__struct_fields__}
        return self.record(**known)


class Encoded(bytes):
    """An answer that is encoded already."""


class Registry:
    """What one machine serves: all that it can, unless told. The tables are loaded when they are first looked at, which
    is after the first client was greeted."""

    def __init__(
        self, machine: Any, commands: Iterable[Command] | None = None, events: Iterable[EventClass] | None = None
    ) -> None:
        self._machine = machine
        self._is_standard = commands is None and events is None
        self._commands = commands
        self._events = events

    @cached_property
    def commands(self) -> dict[str, Command]:
        """By name."""
        if self._commands is None:
            from aioemu.protocol.commands.table import COMMANDS

            self._commands = COMMANDS
        return {each.name: each for each in self._commands if _has(self._machine, each.needs)}

    @cached_property
    def events(self) -> dict[str, EventClass]:
        """By name."""
        if self._events is None:
            from aioemu.protocol.events import EVENTS

            self._events = EVENTS
        return {each.name: each for each in self._events if _has(self._machine, each.needs)}

    def prepare(self) -> Iterator[None]:
        """Look at all types, one command's at a step, and load what describes them: no client has to wait for it."""
        for each in self.commands.values():
            _ = each.arguments, each.returns
            yield
        import_module("aioemu.protocol.introspect")
        yield

    @cached_property
    def schema(self) -> Encoded:
        """The answer of query-qmp-schema, encoded once, when first asked for."""
        from aioemu.protocol.introspect import KEPT, cut, describe

        if self._is_standard and KEPT.exists():
            kept = cut(KEPT.read_bytes(), self.commands, self.events)
            if kept is not None:
                return Encoded(kept)
        return Encoded(encode(describe(self.commands.values(), self.events.values())))


def _has(machine: Any, needs: tuple[str, ...]) -> bool:
    """Whether the machine has everything in (needs), by attribute name."""
    return all(getattr(machine, need, None) is not None for need in needs)
