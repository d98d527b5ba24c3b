"""Secrets of -object and object-add: read from either place, and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

import aioemu
from aioemu.cli.command_line import read_command_line
from aioemu.errors import ConfigError, MonitorError

EMPTY = "-machine none -accel qtest -display none".split()


def machine(*words: str) -> aioemu.Machine:
    """An empty machine with these options."""
    return aioemu.Machine.from_config(read_command_line([*EMPTY, *words])[0])


async def test_a_secret_is_read_and_not_shown(tmp_path: Path) -> None:
    """From the command line or a file, raw or base64; the tree tells that there is one, not what it is."""
    path = tmp_path / "key"
    path.write_bytes(b"aGlkZGVu\n")
    async with machine("-object", "secret,id=a,data=hidden") as vm:
        await vm.qmp("object-add", qom_type="secret", id="b", file=str(path), format="base64")
        assert {vm.machine.objects.find(name).made.value for name in "ab"} == {b"hidden"}
        for name in "ab":
            for each in await vm.qmp("qom-list", path=f"/objects/{name}"):
                value = await vm.qmp("qom-get", path=f"/objects/{name}", property=each["name"])
                assert "hidden" not in str(value)
                assert "aGlk" not in str(value)
        await vm.qmp("object-del", id="a")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "Either 'file' or 'data' must be provided"),
        ({"data": "x", "file": "/dev/null"}, "'file' and 'data' are mutually exclusive"),
        ({"file": "/nonexistent/key"}, "Unable to read /nonexistent/key: No such file or directory"),
        ({"data": "%%%", "format": "base64"}, "Base64 data contains invalid characters"),
        ({"data": "x", "format": "hex"}, "Parameter 'format' does not accept value 'hex'"),
        ({"data": "x", "keyid": "other"}, "encrypted secrets cannot be read"),
        ({"file": "/dev/zero"}, "longer than"),
    ],
)
async def test_what_cannot_be_read_is_said(given: dict[str, str], told: str) -> None:
    """The mistake is named, and nothing is left."""
    async with machine() as vm:
        with pytest.raises(MonitorError, match=told):
            await vm.qmp("object-add", qom_type="secret", id="s", **given)
        assert vm.machine.objects.names() == {}


async def test_an_error_does_not_show_it() -> None:
    """What stands on the command line is shown with errors, but not this."""
    with pytest.raises(ConfigError) as caught:
        async with machine("-object", "secret,id=s,data=hidden,format=hex"):
            pass

    assert "hidden" not in str(caught.value)
