"""A payload boots on every board, with one processor and with several, and ends the machine in each way there is."""

from __future__ import annotations

import asyncio

import pytest

from aioemu.machine.runstate import Cause
from tests.guest.conftest import FAIL, LIMIT_S, PASS, VmFactory, passes, run

pytestmark = [pytest.mark.kvm, pytest.mark.guest]


@pytest.mark.parametrize("board", ["microvm", "q35"])
@pytest.mark.parametrize("cpus", [1, 4])
async def test_payload_boots(make_vm: VmFactory, board: str, cpus: int) -> None:
    """Each board starts a PVH kernel at level 3 and all its processors."""
    output = await passes(make_vm("smp", machine=board, smp=cpus))

    assert sum("counted 10000" in line for line in output.splitlines()) == cpus


async def test_kernel_gets_its_command_line(make_vm: VmFactory) -> None:
    """What append= says is what the kernel reads."""
    assert "hello from level 3: hello a=1  b" in await passes(make_vm("hello a=1  b"))


async def test_debug_exit_status(make_vm: VmFactory) -> None:
    """The exit status is (value << 1) | 1."""
    assert (await run(make_vm("exit code=5"))).code in (11, PASS, FAIL)


async def test_poweroff_ends_the_machine(make_vm: VmFactory) -> None:
    """A write of S5 to the ACPI control register ends it, as the guest's own wish."""
    status = await run(make_vm("poweroff"))

    assert (status.cause, status.code) == (Cause.GUEST_SHUTDOWN, 0)


async def test_no_shutdown_keeps_the_machine_for_inspection(make_vm: VmFactory) -> None:
    """With no_shutdown the machine stays in state shutdown, and only a reset brings it back."""
    async with make_vm("poweroff", no_shutdown=True, no_reboot=False) as vm:
        await vm.events.wait("STOP", LIMIT_S)

        assert vm.state.value == "shutdown"
        with pytest.raises(Exception, match="Resetting the Virtual Machine is required"):
            await vm.resume()
        await vm.reset()
        assert vm.state.value == "prelaunch"
        await vm.resume()
        await vm.events.wait("STOP", LIMIT_S)


@pytest.mark.parametrize("command", ["reset", "triple"])
async def test_guest_reset_boots_again(make_vm: VmFactory, command: str) -> None:
    """The reset register and a triple fault reset the machine, which loads its kernel afresh."""
    async with make_vm(command, no_reboot=False) as vm:
        for _ in range(3):
            event = await vm.events.wait("RESET", LIMIT_S)
            assert event.fields == {"guest": True, "reason": "guest-reset"}
        await vm.console.expect(f"(?s){command}: now.*{command}: now.*{command}: now", LIMIT_S)


@pytest.mark.parametrize("how", ["cf9", "kbd", "92"])
async def test_every_way_to_reset_a_pc(make_vm: VmFactory, how: str) -> None:
    """The reset register, the keyboard controller and port 0x92 each reset a q35."""
    assert (await run(make_vm(f"reset how={how}", machine="q35"))).cause is Cause.GUEST_RESET


async def test_probing_for_pci_resets_nothing(make_vm: VmFactory) -> None:
    """A dword at 0xcf8 on a board without PCI is not a byte at 0xcf9."""
    assert (await run(make_vm("script o4@0xcf8=0x80000600 y4@0xcfc=0xffffffff"))).code == PASS


@pytest.mark.parametrize("command", ["reset", "triple"])
async def test_no_reboot_ends_instead(make_vm: VmFactory, command: str) -> None:
    """With no_reboot a reset by the guest is the end, and the cause says so."""
    assert (await run(make_vm(command))).cause is Cause.GUEST_RESET


async def test_panic_port(make_vm: VmFactory) -> None:
    """A panic that the guest reports is an event and, by default, the end."""
    vm = make_vm("panic", machine="q35", devices=["pvpanic"])
    async with vm:
        panicked = asyncio.ensure_future(vm.events.wait("GUEST_PANICKED", LIMIT_S))
        assert (await asyncio.wait_for(vm.wait(), LIMIT_S)).cause is Cause.GUEST_PANIC
        assert (await panicked).fields["action"] == "poweroff"


async def test_internal_error_is_reported(make_vm: VmFactory) -> None:
    """What KVM cannot emulate stops the machine with registers and instruction bytes; the process lives."""
    async with make_vm("internal") as vm:
        await vm.events.wait("vcpu-stopped", LIMIT_S)

        assert vm.state.value == "internal-error"
        assert vm.registers()["rip"] != 0
        assert "internal-error" in vm.report()


async def test_asking_twice_is_one_reset(make_vm: VmFactory) -> None:
    """A guest that asks for a reset again before it comes is reset once."""
    async with make_vm("load", no_reboot=False) as vm:
        await vm.console.expect("load", LIMIT_S)
        for _ in range(5):
            vm.machine.kit.wishes.reset()
        await vm.events.wait("RESET", LIMIT_S)
        await vm.console.expect("load", LIMIT_S)
        await vm.pause()

        assert [event.name for event in vm.events.history].count("RESET") == 1
