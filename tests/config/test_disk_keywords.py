"""Disks as a program gives them to a machine."""

from __future__ import annotations

import pytest

from aioemu.config import MachineConfig, OptionGroup
from aioemu.config.keywords import build_config
from aioemu.errors import ConfigError


def test_drives_and_nodes() -> None:
    """Text as on the command line, mappings as in JSON, and groups as they are."""
    group = OptionGroup("blockdev", "raw", None, {"node-name": "r", "file": "f"})
    found = build_config(
        MachineConfig(),
        drives=["file=a.img,file.locking=off,if=none,id=d"],
        blockdevs=["file,node-name=f,filename=a", {"driver": "null-co", "node-name": "n", "size": 5}, group],
    )
    assert found.drives == (OptionGroup("drive", None, "d", {"file": "a.img", "file.locking": "off", "if": "none"}),)
    assert found.blockdevs == (
        OptionGroup("blockdev", "file", None, {"node-name": "f", "filename": "a"}),
        OptionGroup("blockdev", "null-co", None, {"node-name": "n", "size": 5}),
        group,
    )
    with pytest.raises(ConfigError):
        build_config(MachineConfig(), blockdevs=["raw,foo"])
