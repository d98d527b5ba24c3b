"""Pause, resume, cancellation, many machines, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest
import uvloop

from aioemu.api import Machine
from aioemu.errors import EmuError
from aioemu.machine.runstate import RunState
from tests.guest.conftest import LIMIT_S, VmFactory, passes, run

pytestmark = [pytest.mark.kvm, pytest.mark.guest]


def resources() -> tuple[int, int]:
    """Open file descriptors and threads of this process."""
    gc.collect()  # what other tests left goes now, not while this one counts
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


async def test_pause_stops_everything(make_vm: VmFactory) -> None:
    """While paused no vCPU enters the guest and virtual time stands still; twice pause or resume changes nothing."""
    async with make_vm("load", smp=2) as vm:
        await vm.console.expect("load", LIMIT_S)
        for _ in range(20):
            await vm.pause()
            clock = vm.machine.clock.now_ns()
            registers = [vm.registers(cpu) for cpu in range(2)]
            await vm.pause()
            assert vm.state.value == "paused"
            assert [vm.registers(cpu) for cpu in range(2)] == registers
            assert vm.machine.clock.now_ns() == clock
            await vm.resume()
            await vm.resume()
            assert vm.state.value == "running"


async def test_events_tell_each_transition_once(make_vm: VmFactory) -> None:
    """STOP and RESUME come on transitions only."""
    async with make_vm("load") as vm:
        await vm.pause()
        await vm.pause()
        await vm.resume()
        await vm.resume()
        names = [event.name for event in vm.events.history if event.name in ("STOP", "RESUME")]

        assert names == ["RESUME", "STOP", "RESUME"]


async def test_paused_start(make_vm: VmFactory) -> None:
    """paused=True (-S) builds everything and runs nothing until resume."""
    async with make_vm("hello", paused=True) as vm:
        assert vm.state.value == "prelaunch"
        assert vm.machine.native.first_entry_ns() == 0
        await vm.resume()
        assert (await asyncio.wait_for(vm.wait(), LIMIT_S)).code == 1


async def test_nothing_is_left_behind(make_vm: VmFactory) -> None:
    """However a machine ends, its file descriptors and threads are gone when `async with` is left."""
    await passes(make_vm("hello"))
    before = resources()

    await passes(make_vm("hello", smp=4))
    with pytest.raises(KeyError):
        async with make_vm("load", smp=2):
            raise KeyError("inside")
    with pytest.raises(EmuError):
        await make_vm("hello", initrd="/nonexistent/initrd").open()
    async with make_vm("load", smp=2) as vm:
        await vm.quit()

    assert resources() == before


async def test_failure_inside_carries_a_report(make_vm: VmFactory) -> None:
    """An exception that leaves the machine's block says how the machine was."""

    async def fail() -> None:
        async with make_vm("load") as vm:
            await vm.console.expect("load", LIMIT_S)
            raise KeyError("inside")

    with pytest.raises(KeyError) as caught:
        await fail()

    notes = "\n".join(caught.value.__notes__)
    assert "event RESUME" in notes
    assert "load" in notes


async def test_cancelled_start_leaves_nothing(make_vm: VmFactory) -> None:
    """Cancelling at any moment of a machine's life frees all of it."""
    await passes(make_vm("hello"))
    before = resources()
    for steps in range(12):

        async def live() -> None:
            async with make_vm("load", smp=2) as vm:
                for _ in range(3):
                    await vm.pause()
                    await vm.resume()

        task = asyncio.ensure_future(live())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert resources() == before


async def test_many_machines_in_one_loop(make_vm: VmFactory) -> None:
    """Machines in one process run at once and end each with its own status."""
    outputs = await asyncio.gather(*(passes(make_vm(f"hello {n}")) for n in range(8)))

    assert all(f"hello from level 3: hello {n}" in output for n, output in enumerate(outputs))


async def test_one_machine_s_mistake_is_its_own(make_vm: VmFactory) -> None:
    """A machine that ends in an internal error does not touch the one beside it."""
    async with make_vm("internal") as broken, make_vm("load") as good:
        await broken.events.wait("vcpu-stopped", LIMIT_S)
        await good.pause()
        await good.resume()

        assert (broken.state, good.state) == (RunState.INTERNAL_ERROR, RunState.RUNNING)


def test_any_loop(make_vm: VmFactory) -> None:
    """Plain asyncio and uvloop carry the same machine."""
    for runner in (asyncio.run, uvloop.run):
        assert runner(run(make_vm("hello"))).code == 1


def test_signals_stay_with_the_program(make_vm: VmFactory) -> None:
    """vCPU threads take no signal but the core's own kick."""

    async def masks() -> list[str]:
        async with make_vm("load", smp=2) as vm:
            tids = [vm.machine.native.thread_id(cpu) for cpu in range(2)]
            status = [Path(f"/proc/self/task/{tid}/status").read_text() for tid in tids]
        return [line.split()[1] for text in status for line in text.splitlines() if line.startswith("SigBlk")]

    others = threading.enumerate()
    blocked = [int(mask, 16) for mask in asyncio.run(masks())]
    assert set(threading.enumerate()) <= set(others)
    assert all(mask & (1 << 1) and mask & (1 << 14) for mask in blocked)  # SIGINT, SIGTERM


async def test_late_and_several_readers_see_byte_0(make_vm: VmFactory) -> None:
    """Everything that a guest printed can be read later, by any number of readers."""
    async with make_vm("flood") as vm:
        await asyncio.wait_for(vm.wait(), LIMIT_S)
        first, second = vm.console.reader(), vm.console.reader()
        assert (await first.expect("payload: pass", 1)).group() == (await second.expect("payload: pass", 1)).group()
        assert vm.console.lost == 0


async def test_machine_needs_its_context() -> None:
    """Using a machine that is not open says what to do."""
    with pytest.raises(Exception, match="async with"):
        _ = Machine().state


async def test_last_words_of_a_guest_that_never_exits_again(make_vm: VmFactory) -> None:
    """Output that the accelerator gathers arrives although the guest then computes without leaving once."""
    async with make_vm("load") as vm:
        line = await vm.console.expect(r'\{"test":"load".*\}\r?\n', LIMIT_S)
        exits = vm.exits()

        assert line.group().rstrip().endswith("}")
        assert exits["pio-write"] < exits["pio-read"]  # it was gathered


async def test_polled_output_costs_one_exit_a_byte(make_vm: VmFactory) -> None:
    """A guest that polls before each byte leaves for the poll only, and every byte arrives once, in order."""
    async with make_vm("flood lines=200") as vm:
        await asyncio.wait_for(vm.wait(), LIMIT_S)
        numbers = [line.split()[0] for line in vm.console.text.splitlines() if "abcdef" in line]

        assert numbers == [f"{n:08d}" for n in range(200)]
        assert vm.exits()["pio-write"] < vm.exits()["pio-read"] / 4


async def test_single_step_and_breakpoint(make_vm: VmFactory) -> None:
    """Under debugging a vCPU stops where it was told, in state debug, and runs on freely afterwards."""
    async with make_vm("hello", paused=True) as vm:
        native = vm.machine.native
        start = vm.registers()["rip"]
        native.debug(0, single_step=True)
        await vm.resume()
        await vm.events.wait("STOP", LIMIT_S)
        stepped = vm.registers()["rip"]
        assert vm.state.value == "debug"
        assert 0 < stepped - start <= 15

        native.debug(0)
        await vm.resume()
        assert (await asyncio.wait_for(vm.wait(), LIMIT_S)).code == 1


@pytest.mark.parametrize("smp", [1, 2])
async def test_nmi_reaches_a_guest_that_never_leaves(make_vm: VmFactory, smp: int) -> None:
    """A guest that spins without exits gets its NMI at once, and the loop goes on: nobody waits for the guest."""
    async with make_vm("load", smp=smp) as vm:
        await vm.console.expect("load", LIMIT_S)
        asking = asyncio.create_task(vm.qmp("inject-nmi"))
        await asyncio.wait_for(asking, LIMIT_S)
        for _ in range(20):
            await vm.qmp("inject-nmi")
            assert (await vm.qmp("query-status"))["status"] in ("running", "shutdown", "internal-error", "paused")
