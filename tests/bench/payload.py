"""Machines that run the freestanding payload of tests/guests, for figures that need no operating system."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from aioemu.api import Machine, RawRange
from aioemu.bus.wires import Placeable
from tests.bench.harness import UnavailableError
from tests.guests.build import payload

BASE = 0xFEB00000  # where payloads look for a device
LIMIT_S = 60.0
EXIT_PORT = 0x501


def machine(command: str, devices: Sequence[Placeable] = (), **keywords: Any) -> Machine:
    """A machine that runs this test of the payload, with these devices at BASE, one page each."""
    keywords = {"machine": "microvm", "accel": "kvm", "memory": "128M", "no_reboot": True, **keywords}
    vm = Machine(kernel=payload(), append=command, **keywords)
    vm.place(RawRange(4, lambda *_: 0, lambda *_: vm.machine.kit.wishes.exit(0)), port=EXIT_PORT)
    for index, device in enumerate(devices):
        vm.place(device, mmio=BASE + 0x1000 * index)
    return vm


async def finished(vm: Machine) -> dict[str, Any]:
    """Wait for the payload's end; the JSON line that it printed. AssertionError when it failed."""
    await asyncio.wait_for(vm.wait(), LIMIT_S)
    text = vm.console.text
    assert "payload: pass" in text, text
    values: dict[str, Any] = next((json.loads(line) for line in text.splitlines() if line.startswith("{")), {})
    return values


def need_kvm() -> None:
    """UnavailableError where KVM cannot be used."""
    from tests.conftest import kvm_refusal  # brings pytest, which a process that is measured must not carry

    refusal = kvm_refusal()
    if refusal:
        raise UnavailableError(refusal)
