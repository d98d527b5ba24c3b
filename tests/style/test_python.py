"""Python files keep the rules that no off-the-shelf linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.style.sources import LINKED, ROOT, files, is_package_file, is_test_file, tree

PASSES = "# time passes:"  # marks a sleep that is the subject of the test, with the reason; never one that waits


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call in the file whose callee is a plain or dotted name."""
    nodes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), node) for node in nodes if isinstance(node.func, ast.Name | ast.Attribute)]


def imported(path: Path) -> list[tuple[str, int]]:
    """Every module that the file imports anywhere in it, and the line."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node.lineno))
    return found


def test_general_names_are_never_imported_bare() -> None:
    """`protocol`, `netdev` and `blockdev` belong to everybody: here they are only ever aioemu.<name>."""
    wrong = [f"{p}:{line}" for p in files(".py") for name, line in imported(p) if name.split(".")[0] in LINKED]
    assert not wrong


def test_modules_open_with_a_sentence() -> None:
    """The first thing in a file says in one sentence what it is about."""
    wrong = []
    for path in files(".py"):
        docstring = ast.get_docstring(tree(path), clean=True) or ""
        opening = docstring.split("\n\n")[0]
        if tree(path).body and not any(mark in opening for mark in (".", ":", "?")):
            wrong.append(str(path))
    assert not wrong


def test_tests_state_their_promise() -> None:
    """Each test function has a docstring: the promise that it holds the code to."""
    wrong = []
    for path in filter(is_test_file, files(".py")):
        nodes = ast.walk(tree(path))
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        tests = [node for node in functions if node.name.startswith("test_")]
        wrong += [f"{path}:{node.lineno} {node.name}" for node in tests if not ast.get_docstring(node)]
    assert not wrong


def test_tests_wait_for_events_not_for_time() -> None:
    """A test never sleeps in the hope that something has happened by then; sleep(0) only lets other tasks run."""
    wrong = []
    for path in filter(is_test_file, files(".py")):
        lines = (ROOT / path).read_text().splitlines()
        for name, node in calls(path):
            is_yield = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            if (
                name in ("time.sleep", "asyncio.sleep", "sleep")
                and not is_yield
                and PASSES not in lines[node.lineno - 1]
            ):
                wrong.append(f"{path}:{node.lineno}")
    assert not wrong


def test_the_package_never_blocks_by_sleeping() -> None:
    """time.sleep would stop every machine in the process."""
    package = [path for path in files(".py") if is_package_file(path)]
    assert not [f"{path}:{node.lineno}" for path in package for name, node in calls(path) if name == "time.sleep"]


def test_no_module_state_is_rebound() -> None:
    """Many machines live in one process: nothing is kept in a module's globals."""
    wrong = []
    for path in filter(is_package_file, files(".py")):
        wrong += [f"{path}:{node.lineno}" for node in ast.walk(tree(path)) if isinstance(node, ast.Global)]
    assert not wrong


def test_every_example_is_tested() -> None:
    """An example that nothing runs is wrong sooner or later: each is named by a test."""
    tests = "\n".join((ROOT / path).read_text() for path in files(".py") if is_test_file(path))
    examples = [path for path in files(".py") if path.parts[0] == "examples" and path.name != "__init__.py"]
    assert not [str(path) for path in examples if path.name not in tests]
