"""Chardev tests run on asyncio's own loop and on uvloop: both are promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from aioemu.chardev import Chardevs
from aioemu.config import ChardevOptions
from aioemu.config.chardev_options import parse_chardev, parse_short
from aioemu.config.grammar import Options


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], Any]]:
    """The loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def chardevs() -> AsyncIterator[Chardevs]:
    """A machine's chardevs, closed in the end."""
    found = Chardevs()
    yield found
    found.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short-named current folder: socket paths stay short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(text: str) -> ChardevOptions:
    """As -chardev reads it."""
    return parse_chardev(Options.parse("-chardev", text, "backend"))


def short(text: str) -> ChardevOptions:
    """As -serial reads it."""
    return parse_short("-serial", text, "serial0")
