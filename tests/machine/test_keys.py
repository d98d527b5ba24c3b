"""Keys typed through the monitor arrive at the keyboard controller as a keyboard sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioemu.accel.tcg import find_engine
from aioemu.api import Machine as Vm
from aioemu.bus.wires import PIO
from aioemu.config import AccelOptions, DeviceOptions, MachineConfig, MachineOptions
from aioemu.devices.scancodes import key_bytes, key_numbers
from aioemu.errors import MonitorError
from aioemu.images import PROMPT, debian_guest
from aioemu.machine.machine import Machine
from aioemu.protocol.commands.keys import QKeyCode
from aioemu.protocol.hmp.interpreter import Interpreter
from aioemu.protocol.hub import LocalCaller, MonitorHub

MS = 1_000_000


class Desk:
    """A machine whose clock the test owns, and the guest's side of its keyboard."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.hub = MonitorHub(machine)
        self.monitor = Interpreter(LocalCaller(self.hub))

    def taken(self) -> str:
        """All bytes that a guest reads now, translated to set 1."""
        router = self.machine.native.router
        found = bytearray()
        while router.read(PIO, 0x64, 1) & 1:
            found.append(router.read(PIO, 0x60, 1))
        return found.hex()

    def later(self, ms: int) -> str:
        """What came when so many milliseconds have passed."""
        self.machine.clock.advance(self.machine.clock.now_ns() + ms * MS)
        return self.taken()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    config = MachineConfig(
        machine=MachineOptions("q35"),
        accel=(AccelOptions("qtest"),),
        devices=(
            DeviceOptions("pcie-root-port", "port0"),
            DeviceOptions("pvpanic-pci", "panic0", bus="port0"),
            DeviceOptions("isa-debug-exit", "exit0"),
        ),
    )
    machine = Machine(config)
    await machine.open()
    machine.clock.own()
    made = Desk(machine)
    yield made
    made.hub.close()
    machine.close()


async def test_chord_is_pressed_held_and_released_in_reverse(desk: Desk) -> None:
    """ctrl-alt-delete: down in order, up in reverse order after the hold time, with 0xE0 where it belongs."""
    assert await desk.monitor.run("sendkey ctrl-alt-delete 50") == ""
    assert desk.taken() == "1d38e053"
    assert desk.later(49) == ""
    assert desk.later(1) == "e0d3b89d"


async def test_keys_wait_for_each_other_and_for_the_guest(desk: Desk) -> None:
    """More keys than the keyboard can hold come one after the other and none is lost, whenever the guest reads."""
    for _ in range(10):
        await desk.hub.execute("send-key", {"keys": [{"type": "qcode", "data": "a"}], "hold-time": 1})
    desk.machine.clock.advance(desk.machine.clock.now_ns() + 1000 * MS)
    text = desk.taken()
    while more := desk.later(10):
        text += more

    assert text == "1e9e" * 10


async def test_events_by_name_and_number(desk: Desk) -> None:
    """input-send-event moves keys one by one; a number has bit 7 where 0xE0 comes first."""
    events = [
        {"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "shift"}}},
        {"type": "key", "data": {"down": True, "key": {"type": "number", "data": 0xC8}}},
        {"type": "key", "data": {"down": False, "key": {"type": "qcode", "data": "shift"}}},
    ]
    await desk.hub.execute("input-send-event", {"events": events})
    assert desk.taken() == "2ae048aa"

    await desk.monitor.run("sendkey 0x1e-<")
    assert desk.taken() == "1e56"


async def test_mistakes_type_nothing(desk: Desk) -> None:
    """An unknown key, a wrong number, a wrong time and a keyboard that nobody reads are told."""
    assert "invalid parameter: nokey" in await desk.monitor.run("sendkey a-nokey")
    for arguments in (
        {"keys": [{"type": "number", "data": 0x7F00}]},
        {"keys": [{"type": "qcode", "data": "nokey"}]},
        {"keys": [{"type": "qcode", "data": "a"}], "hold-time": -1},
    ):
        with pytest.raises(MonitorError):
            await desk.hub.execute("send-key", arguments)
    assert desk.taken() == ""

    held = [{"type": "qcode", "data": "a"}] * 400
    await desk.hub.execute("send-key", {"keys": held})
    with pytest.raises(MonitorError, match="keyboard is full"):
        await desk.hub.execute("send-key", {"keys": held})
    await desk.machine.reset()
    assert desk.later(1000) == ""


def test_every_name_has_a_key() -> None:
    """The protocol's names are the table's, and each can go down; all but pause say when they come up."""
    assert {each.value for each in QKeyCode} == key_numbers().keys()
    for name, number in key_numbers().items():
        assert key_bytes(number, True), name
        assert bool(key_bytes(number, False)) == (name != "pause")
    assert [key_bytes(number, True) for number in (-1, 0, 0x80, 0x7F, 0x100, 1 << 40)][-1] is None


async def test_reports_show_the_devices(desk: Desk) -> None:
    """`info pci` and `info qtree` have the chipset and what was added, with ids, where it sits."""
    pci = await desk.monitor.run("info pci")
    assert "  Bus  0, device   0, function 0:\n    Host bridge: PCI device 8086:29c0\n" in pci
    assert '      id "panic0"\n' in pci
    assert "      BAR0: 32 bit memory (not mapped)\n" in pci

    tree = (await desk.monitor.run("info qtree")).splitlines()
    port = tree.index('      dev: pcie-root-port, id "port0"')
    assert "        slot = 0 (0x0)" in tree[port:]
    assert "        addr = 01.0" in tree[port:]
    assert "        bus: port0" in tree[port:]
    assert '          dev: pvpanic-pci, id "panic0"' in tree[port:]
    assert '  dev: isa-debug-exit, id "exit0"' in tree


async def test_wakeup_says_why_not(desk: Desk) -> None:
    """No guest sleeps here."""
    with pytest.raises(MonitorError, match="wake-up from suspend is not supported by this guest"):
        await desk.hub.execute("system_wakeup")


@pytest.mark.guest
@pytest.mark.timeout(300)
@pytest.mark.skipif(find_engine() is None, reason="needs the CPU engine")
async def test_linux_reads_what_is_typed() -> None:
    """Debian's kernel finds the keyboard, and its virtual terminal gets a line typed faster than it reads."""
    image = debian_guest()
    keywords: dict[str, Any] = {"machine": "q35", "accel": "tcg", "memory": "256M", "kernel": image.vmlinux}
    async with Vm(append=image.append, initrd=image.initrd, **keywords) as vm:
        await vm.console.expect(PROMPT, 120)
        await vm.console.send("exec 3</dev/tty1; echo open-$((6 * 7))\n")
        await vm.console.expect("open-42", 60)
        for keys in ("shift-h", "e", "l", "l", "o", "spc", "shift-1", "kp_enter"):
            assert await vm.qmp("human-monitor-command", command_line=f"sendkey {keys} 5") == ""
        await vm.console.send("head -n1 <&3\n")
        await vm.console.expect("Hello !", 60)
