"""What no part serves is refused by name."""

from __future__ import annotations

import pytest

from aioemu.cli.command_line import read_command_line
from aioemu.config.unserved import refuse_unserved, wanted
from aioemu.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "name", "shown"),
    [
        ("-netdev user,id=n", "netdev:user", "-netdev user,id=n"),
        ("-nic user", "nic", "-nic user"),
        ("-drive file=a.img,if=none", "drive", "-drive file=a.img"),
        ("a.img", "drive", "-drive file=a.img"),
        ("-blockdev raw,node-name=a", "blockdev", "-blockdev raw"),
        ("-object rng-random,id=r", "object:rng-random", "-object rng-random,id=r"),
        ("-fw_cfg opt/a,string=b", "fw_cfg", "-fw_cfg opt/a"),
        ("-vnc :0", "vnc", "-vnc :0"),
        ("-bios b", "bios", "-bios b"),
        ("-s", "gdb", "-gdb tcp::1234"),
        ("-incoming defer", "incoming", "-incoming defer"),
        ("-qtest null", "qtest", "-qtest qtest"),
        ("-snapshot", "snapshot", "-snapshot"),
    ],
)
def test_each_is_named(line: str, name: str, shown: str) -> None:
    """The error shows the option; who serves its name takes it."""
    config = read_command_line(line.split())[0]
    with pytest.raises(ConfigError) as caught:
        refuse_unserved(config, ())
    assert str(caught.value) == f"{shown}: not available in this version"

    refuse_unserved(config, {name})


def test_none_asks_for_nothing() -> None:
    """`-net none`, `-nic none`, `-vnc none` and a plain machine need no part."""
    config = read_command_line("-net none -nic none -vnc none -m 64 -smp 2 -serial null -S".split())[0]

    assert list(wanted(config)) == []
