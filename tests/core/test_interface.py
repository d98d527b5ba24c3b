"""Python's calls into the core agree with cdef.h: the names exist and take that many arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from aioemu._core import ffi, lib
from tests.style.sources import files, tree


def uses(path: Path) -> Iterator[tuple[ast.Attribute, ast.Call | None]]:
    """Each `lib.name` in a file that imports the core, with the call it is the callee of."""
    imports = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)]
    if not any(node.module == "aioemu._core" for node in imports):
        return
    calls = {id(node.func): node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lib":
            yield node, calls.get(id(node))


def test_every_name_taken_from_the_core_is_declared() -> None:
    """The type checker cannot look into the compiled module; this does: a misspelt function never reaches a user."""
    declared = set(dir(lib))
    wrong = [f"{p}:{use.lineno} {use.attr}" for p in files(".py") for use, _ in uses(p) if use.attr not in declared]
    assert not wrong


def test_every_call_passes_as_many_arguments_as_declared() -> None:
    """A call with an argument too many or too few is found before it runs."""
    wrong = []
    for path in files(".py"):
        for use, call in uses(path):
            if call is None or not hasattr(lib, use.attr) or any(isinstance(arg, ast.Starred) for arg in call.args):
                continue
            expected = ffi.typeof(getattr(lib, use.attr))
            if not expected.ellipsis and len(expected.args) != len(call.args):
                wrong.append(f"{path}:{call.lineno} {use.attr} takes {len(expected.args)}, given {len(call.args)}")
    assert not wrong


def test_the_interface_has_one_prefix() -> None:
    """Whatever the core offers begins with core_: nothing of a library behind it shows through."""
    assert lib.core_machine_new
    assert not [name for name in dir(lib) if not name.startswith(("core_", "CORE_"))]
