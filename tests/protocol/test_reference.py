"""The reference page says what is served, and so does the schema that is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.events import EVENTS
from aioemu.protocol.introspect import KEPT, cut, describe, keep
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


def test_kept_schema_is_current() -> None:
    """protocol/schema.jsonl is what the declarations say: python -m aioemu.protocol.introspect writes it."""
    assert KEPT.read_bytes() == b"".join(keep(COMMANDS, EVENTS))


def test_schema_cut_out_is_the_one_described() -> None:
    """What a machine with every other command serves is cut out of the whole: no entity more, none less, none other."""
    commands, events = COMMANDS[::2], EVENTS[::2]
    lines = b"".join(keep(COMMANDS, EVENTS))

    found = cut(lines, [each.name for each in commands], [each.name for each in events])

    assert found is not None
    by_name = {each["name"]: each for each in json.loads(found)}
    assert by_name == {each["name"]: each for each in describe(commands, events)}
    assert len(by_name) == len(json.loads(found))
    assert cut(lines, ["no-such-command"], []) is None
