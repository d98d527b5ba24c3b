"""Which library the software CPU is taken from, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioemu.accel import tcg
from aioemu.errors import AccelError
from aioemu.log import Log


def test_engine_package_is_preferred(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With the engine installed nothing is said."""
    monkeypatch.setattr(tcg, "find_engine", lambda: Path("/engine.so"))
    monkeypatch.setattr(tcg, "find_stock", lambda: Path("/stock.so"))
    assert tcg.Tcg(Log("accel")).library == Path("/engine.so")
    assert not caplog.records


def test_stock_library_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without it the stock wheel serves, and one line says that it is slower and what to do."""
    monkeypatch.setattr(tcg, "find_engine", lambda: None)
    monkeypatch.setattr(tcg, "find_stock", lambda: Path("/stock.so"))
    assert tcg.Tcg(Log("accel")).library == Path("/stock.so")
    assert [record.getMessage().count("make engine") for record in caplog.records] == [1]


def test_neither_is_an_error_that_names_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to install the engine."""
    monkeypatch.setattr(tcg, "find_engine", lambda: None)
    monkeypatch.setattr(tcg, "find_stock", lambda: None)
    with pytest.raises(AccelError, match="make engine"):
        tcg.Tcg(Log("accel"))


def test_stock_library_is_found_where_its_wheel_is_installed() -> None:
    """The dependency is there, so its library is, and it is not loaded by looking."""
    library = tcg.find_stock()
    assert library is not None
    assert library.name == "libunicorn.so.2"
