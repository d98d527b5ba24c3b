"""The tab key in the text monitor: commands, reports, and the names of what a command is about."""

from __future__ import annotations

import aioemu
from aioemu.cli.command_line import read_command_line
from aioemu.protocol.hmp.interpreter import Interpreter
from aioemu.protocol.hub import LocalCaller, MonitorHub

WORDS = (
    "-machine q35 -accel qtest -netdev user,id=net0 -device virtio-net-pci,id=card0,netdev=net0 -device isa-debug-exit"
    " -object rng-builtin,id=dice -chardev null,id=sink"
).split()


async def test_names_of_what_there_is() -> None:
    """Devices with an id, back ends and cards, objects, chardevs; on and off behind set_link; nothing for the rest."""
    config, _ = read_command_line(WORDS)
    async with aioemu.Machine.from_config(config) as vm:
        monitor = Interpreter(LocalCaller(MonitorHub(vm.machine)))

        assert monitor.complete("device_del ") == ["card0"]
        assert monitor.complete("set_link ") == ["card0", "net0"]
        assert monitor.complete("set_link card0 o") == ["off", "on"]
        assert monitor.complete("netdev_del n") == ["net0"]
        assert monitor.complete("object_del d") == ["dice"]
        assert "sink" in monitor.complete("chardev-remove ")
        assert monitor.complete("drive_del ") == []
        assert monitor.complete("info stat") == ["status"]
        assert monitor.complete("system_p") == ["system_powerdown"]
        assert monitor.complete("cont x") == []
