"""A machine with nothing to run."""

from __future__ import annotations

import asyncio
import time

import pytest

import aioemu

IDLE_S = 0.3
BUSY_MOST_S = 0.15  # of a processor; one that ran would take all of IDLE_S


@pytest.mark.parametrize("board", ["q35", "microvm"])
@pytest.mark.parametrize("accel", ["tcg", pytest.param("kvm", marks=pytest.mark.kvm)])
async def test_processor_waits_and_costs_nothing(accel: str, board: str) -> None:
    """Without kernel and firmware the boot processor waits where a reset leaves it, after a reset too, and the host's
    processor is free."""
    async with aioemu.Machine(machine=board, accel=accel) as vm:
        await vm.reset()
        before = time.process_time()
        await asyncio.sleep(IDLE_S)  # time passes: a processor that ran would use it up
        used = time.process_time() - before
        await vm.pause()

        assert vm.registers()["rip"] == 0xFFF0
        assert used < BUSY_MOST_S
