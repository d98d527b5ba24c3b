"""Machines that run the payload of tests/guests on KVM, whatever kind of KVM this host has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioemu.api import ExitStatus, Machine
from aioemu.devices.isa_debug_exit import IsaDebugExit
from tests.guests.build import payload

PASS, FAIL = 1, 3  # isa-debug-exit statuses of the payload's exit codes 0 and 1
LIMIT_S = 30.0  # a busy machine with two cores; a payload takes well under a second

VmFactory = Callable[..., Machine]


@pytest.fixture(scope="session")
def payload_path() -> Path:
    """The freestanding guest, built once."""
    return payload()


@pytest.fixture
def make_vm(payload_path: Path) -> VmFactory:
    """`make_vm("storm n=10", machine="q35", smp=2)`: a machine that runs this test of the payload."""

    def make(command: str, **keywords: Any) -> Machine:
        keywords = {"machine": "microvm", "accel": "kvm", "memory": "64M", "no_reboot": True, **keywords}
        vm = Machine(kernel=payload_path, append=command, **keywords)
        vm.place(IsaDebugExit(lambda code: vm.machine.kit.wishes.exit(code)), port=0x501)
        return vm

    return make


async def run(vm: Machine) -> ExitStatus:
    """Until the guest ends it."""
    async with vm:
        return await asyncio.wait_for(vm.wait(), LIMIT_S)


async def passes(vm: Machine) -> str:
    """Run to the end; what the guest printed. Fails with the payload's own reason."""
    async with vm:
        status = await asyncio.wait_for(vm.wait(), LIMIT_S)
        assert status.code == PASS, vm.console.text
        return vm.console.text


def result(output: str, test: str) -> dict[str, Any]:
    """The JSON line that the payload printed for one of its tests."""
    for line in output.splitlines():
        if line.startswith("{"):
            values: dict[str, Any] = json.loads(line)
            if values.get("test") == test:
                return values
    raise AssertionError(f"no result of {test} in {output!r}")
