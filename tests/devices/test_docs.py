"""The page of register maps says what the code says."""

from __future__ import annotations

from pathlib import Path

from aioemu.devices.docs import page

DOCS = Path(__file__).parents[2] / "docs" / "registers.md"


def test_page_of_registers_is_current() -> None:
    """docs/registers.md is what `python -m aioemu.devices.docs` prints now."""
    assert DOCS.read_text() == page()
