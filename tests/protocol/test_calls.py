"""Commands as methods of Python: typed, complete, with the names that members have."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import aioemu
from aioemu.protocol.commands.chardev_types import ChardevBackend, ChardevBackendKind, ChardevRingbuf, RingbufWrapper
from aioemu.protocol.commands.power import RunState
from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.python_names import method_name
from aioemu.protocol.stub import write

REFUSED = ("query-balloon", "query-memory-devices")  # there is no such device
STUB = Path(__file__).parents[2] / "protocol" / "calls.pyi"


@pytest.fixture
async def vm() -> AsyncIterator[aioemu.Machine]:
    """A machine whose processors never run, with a root port."""
    async with aioemu.Machine(machine="q35", accel="qtest", devices=["pcie-root-port,id=port"]) as machine:
        yield machine


def test_stub_is_current() -> None:
    """protocol/calls.pyi is what the declarations say: python -m aioemu.protocol.stub writes it."""
    assert STUB.read_text() == write()


async def test_answers_are_records(vm: aioemu.Machine) -> None:
    """What a method answers has attributes and enumerations, lists of them too, encoded answers as well."""
    status = await vm.monitor.query_status()

    assert status.running
    assert status.status is RunState.RUNNING
    assert "query-status" in {each.name for each in await vm.monitor.query_commands()}
    assert "query-status" in {each.name for each in await vm.monitor.query_qmp_schema()}


async def test_every_command_of_the_machine_is_a_method(vm: aioemu.Machine) -> None:
    """Each that the machine lists is among the names that completion shows, with its words and its arguments."""
    names = [method_name(each.name) for each in await vm.monitor.query_commands()]
    described = {each.name: each.doc for each in COMMANDS}

    assert set(names) <= set(dir(vm.monitor))
    for name in names:
        method = getattr(vm.monitor, name)
        assert inspect.getdoc(method) in described.values(), name
    assert list(inspect.signature(vm.monitor.getfd).parameters) == ["fdname"]


async def test_what_is_answered_is_what_was_declared(vm: aioemu.Machine) -> None:
    """The answer of every query without arguments has the members and types that clients were told of."""
    await vm.monitor.blockdev_add(driver="null-co", node_name="disk")
    for command in COMMANDS:
        method = getattr(vm.monitor, method_name(command.name), None)
        required = [each for each in command.arguments.members if not each.optional]
        if method is not None and command.name.startswith("query-") and not required and command.name not in REFUSED:
            answer = await method()
            assert answer is not None, command.name


async def test_arguments_are_records_or_plain(vm: aioemu.Machine) -> None:
    """A nested argument is given as a record, or as what a client would send."""
    back_end = {"type": "ringbuf", "data": {"size": 64}}
    await vm.monitor.chardev_add(id="a", backend=back_end)
    answer = await vm.monitor.chardev_add(
        id="b",
        backend=ChardevBackend(type=ChardevBackendKind.RINGBUF, branch=RingbufWrapper(data=ChardevRingbuf(size=64))),
    )

    assert answer.pty is None
    assert {"a", "b"} <= {each.label for each in await vm.monitor.query_chardev()}


@pytest.mark.parametrize("by_method", [True, False])
async def test_names_are_those_of_the_members(vm: aioemu.Machine, by_method: bool) -> None:
    """`_` is `_` where the member or the model's property has it, and `-` where that has it."""
    options: dict[str, Any] = {"bus": "port", "drive": "disk", "physical_block_size": 4096, "disable_legacy": "on"}
    if by_method:
        await vm.monitor.blockdev_add(driver="null-co", node_name="disk", read_zeroes=True)
        await vm.monitor.device_add(driver="virtio-blk-pci", id="d", **options)
    else:
        await vm.qmp("blockdev-add", driver="null-co", node_name="disk", read_zeroes=True)
        await vm.qmp("device_add", driver="virtio-blk-pci", id="d", **options)

    assert await vm.monitor.qom_get(path="/machine/peripheral/d", property="physical_block_size") == 4096


async def test_mistakes_are_told_as_to_a_client(vm: aioemu.Machine) -> None:
    """A refused command raises the monitor's error; a name that is none is an attribute that is not there."""
    with pytest.raises(aioemu.MonitorError, match="nope"):
        await vm.monitor.blockdev_del(node_name="nope")
    with pytest.raises(aioemu.MonitorError, match="Parameter 'fdname' is missing"):
        await vm.monitor.getfd()  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="no command no_such"):
        _ = vm.monitor.no_such  # type: ignore[attr-defined]


async def test_preconfig_holds_the_guest_back() -> None:
    """With --preconfig managers look and add; what runs the guest is refused until x-exit-preconfig, which runs it."""
    async with aioemu.Machine(machine="q35", accel="tcg", preconfig=True) as vm:
        await vm.monitor.object_add(qom_type="iothread", id="io0")
        assert (await vm.monitor.query_status()).status is RunState.PRELAUNCH
        for refused in ("cont", "query-cpus-fast"):
            with pytest.raises(aioemu.MonitorError, match="only after machine initialization"):
                await vm.qmp(refused)
        with pytest.raises(aioemu.EmuError, match="x-exit-preconfig"):
            await vm.resume()

        await vm.monitor.x_exit_preconfig()

        assert (await vm.monitor.query_status()).running
        assert await vm.monitor.query_cpus_fast()
        with pytest.raises(aioemu.MonitorError, match="only before machine initialization"):
            await vm.monitor.x_exit_preconfig()
