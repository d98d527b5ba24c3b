"""What importing costs, and which names there are."""

from __future__ import annotations

import ast
import importlib
import json
import sys

import pytest

import aioemu
from aioemu import __file__ as init_path
from tests.package.conftest import run

HEAVY = {"uvloop", "msgspec", "pyroute2", "qemu", "unicorn", "cffi", "asyncio"}


def loaded_after(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running the program."""
    report = "import sys, json; print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    return set(json.loads(run(sys.executable, "-c", f"{program}\n{report}").splitlines()[-1]))


def run_command(argument: str) -> str:
    """A program that runs the command with one argument and survives its exit."""
    lines = [f"import sys; sys.argv = ['aioemu', '{argument}']", "from aioemu.cli import main"]
    return "\n".join([*lines, "try: main()", "except SystemExit: pass"])


@pytest.mark.parametrize("argument", ["--version", "-version", "-help", "--help"])
def test_asking_the_command_about_itself_loads_nothing_heavy(argument: str) -> None:
    """Version and help answer at once: no event loop, no JSON library, no network library, no compiled core."""
    assert not loaded_after(run_command(argument)) & HEAVY


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import aioemu` is free; names load what they need when they are first used."""
    assert not loaded_after("import aioemu") & (HEAVY | {"logging"})


def test_every_exported_name_is_there() -> None:
    """Each name of the lazy table exists in its module, is listed by dir() and is the module's own object."""
    for name, module in aioemu.EXPORTS.items():
        assert getattr(aioemu, name) is getattr(importlib.import_module(module), name)
        assert name in dir(aioemu)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as on any module, so that hasattr and from-imports behave."""
    with pytest.raises(AttributeError, match="no attribute 'Machin'"):
        getattr(aioemu, "Machin")  # noqa: B009 - mypy would refuse the plain form
    with pytest.raises(ImportError):
        exec("from aioemu import Machin")


def test_the_type_checker_sees_the_same_names() -> None:
    """The imports under TYPE_CHECKING are exactly the lazy table."""
    with open(init_path) as file:
        body = ast.parse(file.read()).body
    guarded = [each for node in body if isinstance(node, ast.If) for each in node.body]
    seen = {alias.name: node.module for node in guarded if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == aioemu.EXPORTS
