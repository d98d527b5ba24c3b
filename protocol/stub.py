"""The methods of `vm.monitor` for type checkers and editors, written from the declarations that serve them.

python -m aioemu.protocol.stub > protocol/calls.pyi
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.python_names import is_open, method_name
from aioemu.protocol.registry import Command
from aioemu.protocol.schema import Record

WIDTH = 120  # of a line, as everywhere in the project
METHODS = {method_name(each.name) for each in COMMANDS}
FEW = 6  # values of an enumeration that may be spelt out

HEAD = '''"""Written by `python -m aioemu.protocol.stub`; a test keeps it current."""

'''


def write(commands: Iterable[Command] = COMMANDS) -> str:
    """The whole stub."""
    writer = _Writer()
    methods = [writer.method(each) for each in sorted(commands, key=lambda each: each.name)]
    body = ["class Calls:", "    def __init__(self, hub: MonitorHub) -> None: ...", *methods]
    return HEAD + writer.imports() + "\n\n" + "\n".join(body) + "\n"


class _Writer:
    """Writes annotations, and remembers which modules they name."""

    def __init__(self) -> None:
        self._modules: dict[str, str] = {}  # by the name they have here

    def imports(self) -> str:
        """What the methods name."""
        ours = {(module.rpartition(".")[0], _imported(module)) for module in self._modules.values()}
        ours.add(("aioemu.protocol.hub", "MonitorHub"))
        lines = ["from collections.abc import Sequence", "from typing import Any, Literal", ""]
        for package in sorted({package for package, _ in ours}):
            names = sorted((name for each, name in ours if each == package), key=lambda name: (name.islower(), name))
            line = f"from {package} import {', '.join(names)}"
            lines += [line] if len(line) <= WIDTH else [f"from {package} import (", *_indented(names, 4), ")"]
        return "\n".join(lines)

    def method(self, command: Command) -> str:
        """One command, on one line or a line for each argument."""
        words = list(self._parameters(command))
        head, tail = f"    async def {method_name(command.name)}(", f") -> {self._answer(command.answer)}: ..."
        line = head + ", ".join(["self", *(["*", *words] if words and not words[0].startswith("**") else words)]) + tail
        if len(line) <= WIDTH:
            return line
        return "\n".join([head, *_indented(["self", "*", *words], 8), "    " + tail])

    def _parameters(self, command: Command) -> Iterator[str]:
        fields = msgspec.structs.fields(command.arguments.record)
        hidden = command.arguments.record.hidden
        for each in sorted((one for one in fields if one.name not in hidden), key=lambda one: not one.required):
            annotation = self._argument(each.type)
            if not each.required and not annotation.endswith("| None"):
                annotation += " | None"
            yield f"{each.name}: {annotation}" + ("" if each.required else " = None")
        if is_open(command.arguments):
            yield "**options: Any"

    def _argument(self, annotation: Any) -> str:
        """What a method takes: besides the protocol's own types also what is easy to write."""
        origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is list:
            return f"Sequence[{self._argument(parts[0])}]"
        if origin in (types.UnionType, typing.Union):
            return " | ".join(self._argument(each) for each in parts)
        if isinstance(annotation, type) and issubclass(annotation, StrEnum):
            values = ", ".join(f'"{each.value}"' for each in annotation)
            return f"{self._name(annotation)} | {f'Literal[{values}]' if len(annotation) <= FEW else 'str'}"
        if isinstance(annotation, type) and issubclass(annotation, Record):
            return f"{self._name(annotation)} | dict[str, Any]"
        return self._answer(annotation)

    def _answer(self, annotation: Any) -> str:
        origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is Annotated:
            return self._answer(parts[0])
        if origin is list:
            return f"list[{self._answer(parts[0])}]"
        if origin in (types.UnionType, typing.Union):
            return " | ".join(self._answer(each) for each in parts)
        if annotation in (None, type(None)):
            return "None"
        if annotation in (Any, object):
            return "Any"
        return self._name(annotation) if annotation.__module__ != "builtins" else annotation.__name__

    def _name(self, kind: type) -> str:
        module = kind.__module__
        short = _imported(module).rpartition(" ")[2]
        if self._modules.setdefault(short, module) != module:
            raise ValueError(f"{module} and {self._modules[short]} have the same last name")
        return f"{short}.{kind.__qualname__}"


def _imported(module: str) -> str:
    """How a module is imported: under another name where a method has its own."""
    last = module.rpartition(".")[2]
    return f"{last} as {last}_types" if last in METHODS else last


def _indented(words: Iterable[str], by: int) -> list[str]:
    return [f"{' ' * by}{word}," for word in words]


if __name__ == "__main__":
    sys.stdout.write(write())
