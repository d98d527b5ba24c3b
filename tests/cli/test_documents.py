"""What the documents say about options is what the table says."""

from __future__ import annotations

import re
from pathlib import Path

from aioemu.cli.table import SECTIONS

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"


def test_accepted_and_ignored_options_are_exactly_listed() -> None:
    """docs/compatibility.md has every option without effect, with its reason, and no other."""
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.split("## Accepted and without effect")[1].split("\n## ")[0]
    listed = dict(re.findall(r"^\| `-([\w-]+)` \| (.*?) \|$", section, re.MULTILINE))
    ignored = {option.name: option for _, rows in SECTIONS for option in rows if option.reader.startswith("ignored:")}

    assert set(listed) == set(ignored)
    for name, reason in listed.items():
        assert reason.split(":")[0].split(" (")[0].replace("`", "") in ignored[name].help, name
