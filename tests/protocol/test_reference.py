"""The reference page says what is served."""

from __future__ import annotations

import re
from pathlib import Path

from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.reference import write

PAGE = Path(__file__).parents[2] / "docs" / "qmp-reference.md"


def test_page_is_current() -> None:
    """docs/qmp-reference.md is what the declarations say: python -m aioemu.protocol.reference writes it."""
    assert PAGE.read_text() == write()


def test_page_has_everything() -> None:
    """Each command has its heading, and every link leads to one."""
    page = write()
    headings = [line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")]

    assert {each.name for each in COMMANDS} <= set(headings)
    assert len(headings) == len(set(headings))
    assert set(re.findall(r"\(#([a-z0-9]+)\)", page)) <= {heading.lower() for heading in headings}
