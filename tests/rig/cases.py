"""What stock Linux must be able to do on hardware KVM: each case runs inside the rig, on a machine of its own.

A case is a coroutine that fails by an exception. The table's order is the order in which they start.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from functools import partial

from aioemu.api import Machine
from aioemu.images import FIRST_LINE
from aioemu.machine.runstate import Cause, RunState
from tests.rig import virtio
from tests.rig.guests import BOOT_S, Files, ask, booted, ends, power_off, uptime

Case = Callable[[Files], Awaitable[None]]

BOARDS = ("q35", "microvm")
PAUSES = 40  # in one boot: about every piece of output there is
PAUSE_S = 10.0
REBOOT_TYPES = {"q35": ("acpi", "kbd", "triple", "pci"), "microvm": ("acpi", "triple")}


async def boots(files: Files, board: str, image: str, cpus: int) -> None:
    """To a shell command's output on the serial console, on every processor, and off again by ACPI."""
    async with files.machine(board, image=image, smp=cpus) as vm:
        await booted(vm)
        assert await ask(vm, "nproc") == str(cpus)
        assert await ask(vm, "expr 6 '*' 7; cat /sys/devices/system/clocksource/clocksource0/current_clocksource") == (
            "42\nkvm-clock"
        )
        for cpu in range(cpus):
            await ask(vm, f"taskset {1 << cpu:x} true")
        await power_off(vm)


async def reboots(files: Files, board: str) -> None:
    """By the ACPI reset register and, where the board has them, keyboard controller, triple fault and port 0xcf9."""
    async with files.machine(board) as vm:
        await booted(vm)
        for kind in REBOOT_TYPES[board]:
            await ask(vm, f"echo {kind} >/sys/kernel/reboot/type")
            await vm.console.send("reboot -f\n")
            await booted(vm)
        resets = [event.fields for event in vm.events.history if event.name == "RESET"]
        assert resets == [{"guest": True, "reason": "guest-reset"}] * len(REBOOT_TYPES[board])
        await power_off(vm)


async def no_reboot(files: Files, board: str) -> None:
    """With no_reboot a guest's reboot is the end of the machine, with its cause."""
    async with files.machine(board, no_reboot=True) as vm:
        await booted(vm)
        await vm.console.send("reboot -f\n")
        assert (await ends(vm)).cause is Cause.GUEST_RESET


async def power_button(files: Files, board: str) -> None:
    """Pressing the power button makes the guest shut down."""
    async with files.machine(board) as vm:
        await booted(vm)
        vm.powerdown()
        assert (await ends(vm)).cause is Cause.GUEST_SHUTDOWN


async def pauses_while_booting(files: Files, board: str) -> None:
    """A boot that is paused at every few lines arrives as if nothing had been; nothing moves while it stands still."""
    async with files.machine(board, quiet=False, smp=2) as vm:
        output = aiter(vm.console.reader())
        for _ in range(PAUSES):
            await anext(output)
            await vm.pause()
            before = vm.machine.clock.now_ns(), vm.console.end, [vm.registers(cpu) for cpu in range(2)]
            assert vm.state is RunState.PAUSED
            assert before == (vm.machine.clock.now_ns(), vm.console.end, [vm.registers(cpu) for cpu in range(2)])
            await vm.resume()
        await booted(vm)
        await power_off(vm)


async def resets_while_booting(files: Files, board: str) -> None:
    """A system reset early and one late in a boot each start it afresh, and the last boot is as good as any."""
    async with files.machine(board, quiet=False, smp=2) as vm:
        for milestone in ("Memory: .*available", "smp: Brought up", "Run /init"):
            await vm.console.expect(milestone, BOOT_S)
            await vm.reset()
        await booted(vm)
        assert vm.console.text.count(FIRST_LINE) <= 2  # the last, and that of the late reset if it came that far
        await power_off(vm)


async def keeps_time(files: Files, board: str) -> None:
    """A pause of 10 s does not exist for the guest: no clock jumps or stands still, and no timer is late by it."""
    async with files.machine(board, smp=2) as vm:
        await booted(vm)
        host_before = time.monotonic()  # first: an answer may be long on its way
        before = await uptime(vm)
        await vm.pause()
        await asyncio.sleep(PAUSE_S)  # time passes: the pause is what is tested
        await vm.resume()
        after, host_after = await uptime(vm), time.monotonic()
        assert 0 < after - before < host_after - host_before - PAUSE_S + 1, (before, after)
        await _ticks(vm)
        await power_off(vm)


async def _ticks(vm: Machine) -> None:
    """Uptime and wall clock of the guest advance together, and by what it sleeps."""
    words = "date +%s; cat /proc/uptime; sleep 3; date +%s; cat /proc/uptime"
    wall, up, wall_later, up_later = (float(line.split()[0]) for line in (await ask(vm, words)).splitlines())
    assert 2.9 < up_later - up < 6, (up, up_later)
    assert abs((wall_later - wall) - (up_later - up)) < 1.5, (wall, wall_later, up, up_later)


def table() -> dict[str, Case]:
    """Every case by its name; the long ones first, so that the last ones are short."""
    cases: dict[str, Case] = {}
    for run in (reboots, keeps_time, resets_while_booting, pauses_while_booting):
        cases |= {f"{run.__name__}-{board}": partial(run, board=board) for board in BOARDS}
    for board, image, cpus in itertools.product(BOARDS, ("bzimage", "vmlinux"), (4, 2, 1)):
        cases[f"boots-{board}-{image}-{cpus}"] = partial(boots, board=board, image=image, cpus=cpus)
    for run in (no_reboot, power_button):
        cases |= {f"{run.__name__}-{board}": partial(run, board=board) for board in BOARDS}
    return cases | virtio.table()


CASES = table()
