"""The project's own files as the style tests read them: what git tracks or would track, nothing that was built."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("protocol", "netdev", "blockdev")


@cache
def files(*suffixes: str) -> tuple[Path, ...]:
    """Every regular file of the project, as paths from the root; only those with the suffixes if any are given."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [Path(name) for name in sorted(filter(None, listed.split("\0")))]
    regular = [path for path in found if (ROOT / path).is_file() and not (ROOT / path).is_symlink()]
    return tuple(path for path in regular if not suffixes or path.suffix in suffixes)


def texts(*suffixes: str) -> Iterator[tuple[Path, str]]:
    """Every text file and what is in it; a file with a zero byte in it is no text."""
    for path in files(*suffixes):
        content = (ROOT / path).read_bytes()
        if b"\0" not in content:
            yield path, content.decode()


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of one Python file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def is_package_file(path: Path) -> bool:
    """Whether the file is part of what is installed."""
    return path.parts[0] in ("aioemu", *LINKED)


def is_test_file(path: Path) -> bool:
    """Whether the file is only run by the tests."""
    return path.parts[0] == "tests"
