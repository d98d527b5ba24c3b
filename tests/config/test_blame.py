"""Errors show the option as the user gave it."""

from __future__ import annotations

from typing import Any

import pytest

from aioemu.config.blame import blaming, spell
from aioemu.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "values", "shown"),
    [
        ("user", {"id": "n", "restrict": True, "net": None}, "user,id=n,restrict=on"),
        ("user", {"hostfwd": ["tcp::1-:2", "udp::3-:4"]}, "user,hostfwd=tcp::1-:2,hostfwd=udp::3-:4"),
        ("user", {"hostfwd": [{"str": "tcp::1-:2"}]}, "user,hostfwd=tcp::1-:2"),
        ("stream", {"addr": {"type": "unix", "path": "a,b"}}, "stream,addr.type=unix,addr.path=a,,b"),
        (None, {"size": 5}, "size=5"),
    ],
)
def test_options_are_spelt_as_on_the_command_line(kind: str | None, values: dict[str, Any], shown: str) -> None:
    """Members by their path, elements one by one, commas doubled."""
    assert spell(kind, values) == shown


def test_an_error_that_names_its_option_stays() -> None:
    """Only what does not say whose fault it is gets the option in front."""
    with pytest.raises(ConfigError, match=r"^-netdev user,id=n: no$"), blaming("-netdev", "user", {"id": "n"}):
        raise ConfigError("no")
    with pytest.raises(ConfigError, match=r"^-x: no$"), blaming("-netdev", "user", {"id": "n"}):
        raise ConfigError("-x: no")
