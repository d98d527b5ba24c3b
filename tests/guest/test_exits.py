"""Accesses of every kind and size reach the device that is meant, whole and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aioemu.api import Deferred, RawRange
from aioemu.bus.registers import Reg, RegisterBlock
from aioemu.bus.wires import PIO
from tests.guest.conftest import LIMIT_S, VmFactory, passes, result

pytestmark = [pytest.mark.kvm, pytest.mark.guest]

BASE = 0xFEB00000
FNV_BASIS, FNV_PRIME, MASK64 = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


class Plain(RegisterBlock):
    """Two pages of plain bytes: never leaves the core."""

    layout = {n: type(f"B{n}", (Reg,), {"writable": 0xFF}) for n in range(64)}


class Counter(RegisterBlock):
    """Counts its reads in Python."""

    class Value(Reg):
        """What the guest reads."""

        width = 4

    layout = {0: Value}

    def __init__(self) -> None:
        self.reads = 0
        super().__init__()

    def read_value(self) -> int:
        self.reads += 1
        return self.reads


class Patient(RegisterBlock):
    """Answers from a coroutine."""

    class Value(Reg):
        """What the guest reads."""

        width = 4

    layout = {0: Value}

    async def read_value(self) -> int:
        await asyncio.sleep(0)
        return 0x12345678


class Later(RegisterBlock):
    """Answers when the test says so."""

    class Value(Reg):
        """What the guest reads."""

        width = 4

    layout = {0: Value}

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Deferred] = asyncio.Queue()
        super().__init__()

    def read_value(self) -> Deferred:
        answer = Deferred()
        self.asked.put_nowait(answer)
        return answer


class Broken(RegisterBlock):
    """Raises."""

    class Value(Reg):
        """What the guest reads."""

        width = 4

    layout = {0: Value}

    def read_value(self) -> int:
        raise ZeroDivisionError("on purpose")


async def test_window_needs_no_python(make_vm: VmFactory) -> None:
    """Plain registers keep what is written at every size and offset, and no access is handed over."""
    vm = make_vm(f"mmio base={BASE:#x} bytes=64")
    vm.place(Plain(), mmio=BASE)
    async with vm:
        assert (await asyncio.wait_for(vm.wait(), LIMIT_S)).code == 1, vm.console.text
        assert vm.exits()["handed-over"] <= 2  # the payload's two ways to end, and nothing else
        assert vm.exits()["mmio-read"] > 100


async def test_synchronous_register_is_asked_each_time(make_vm: VmFactory) -> None:
    """A read hook runs once for each read, and its answer is the guest's."""
    counter = Counter()
    vm = make_vm(f"script r4@{BASE:#x} r4@{BASE:#x} x4@{BASE:#x}=3")
    vm.place(counter, mmio=BASE)

    await passes(vm)

    assert counter.reads == 3


async def test_coroutine_answers(make_vm: VmFactory) -> None:
    """A hook may be a coroutine: the vCPU waits for it."""
    vm = make_vm(f"script x4@{BASE:#x}=0x12345678 x2@{BASE + 2:#x}=0x1234")
    vm.place(Patient(), mmio=BASE)

    await passes(vm)


async def test_pause_while_a_device_thinks(make_vm: VmFactory) -> None:
    """A vCPU that waits for its device counts as paused; the answer is kept and the guest goes on after resume."""
    later = Later()
    vm = make_vm(f"script x4@{BASE:#x}=77")
    vm.place(later, mmio=BASE)
    async with vm:
        answer = await asyncio.wait_for(later.asked.get(), LIMIT_S)
        await asyncio.wait_for(vm.pause(), LIMIT_S)
        answer.complete(77)
        assert vm.exits()["handed-over"] == 1
        await vm.resume()
        assert (await asyncio.wait_for(vm.wait(), LIMIT_S)).code == 1, vm.console.text


async def test_reset_abandons_what_waits(make_vm: VmFactory) -> None:
    """A reset frees a vCPU from a device that never answers; the guest starts again."""
    later = Later()
    vm = make_vm(f"script r4@{BASE:#x}", no_reboot=False)
    vm.place(later, mmio=BASE)
    async with vm:
        first = await asyncio.wait_for(later.asked.get(), LIMIT_S)
        await asyncio.wait_for(vm.reset(), LIMIT_S)
        first.complete(1)  # too late: nobody waits any more
        (await asyncio.wait_for(later.asked.get(), LIMIT_S)).complete(2)
        assert (await asyncio.wait_for(vm.wait(), LIMIT_S)).code == 1
        assert '"value":2' in vm.console.text


async def test_closing_frees_a_waiting_vcpu(make_vm: VmFactory) -> None:
    """Leaving `async with` ends a vCPU that waits for an answer that never comes."""
    later = Later()
    vm = make_vm(f"script r4@{BASE:#x}")
    vm.place(later, mmio=BASE)
    async with vm:
        await asyncio.wait_for(later.asked.get(), LIMIT_S)


async def test_device_that_raises_is_stopped(make_vm: VmFactory) -> None:
    """A device's mistake is reported by name and reads all ones; guest and machine go on."""
    vm = make_vm(f"script x4@{BASE:#x}=0xffffffff x4@{BASE:#x}=0xffffffff")
    vm.place(Broken(), mmio=BASE, name="broken")
    async with vm:
        assert (await asyncio.wait_for(vm.wait(), LIMIT_S)).code == 1, vm.console.text
        errors = [event for event in vm.events.history if event.name == "device-error"]
        assert [event.fields["device"] for event in errors] == ["broken"]


async def test_slow_device_is_reported_once(make_vm: VmFactory) -> None:
    """A callback that keeps the loop busy beyond the bound is named, once."""
    counter = Counter()
    vm = make_vm(f"script r4@{BASE:#x} r4@{BASE:#x}")
    vm.place(counter, mmio=BASE, name="slow")
    async with vm:
        vm.machine.native.router.slow_ns = 0
        assert (await asyncio.wait_for(vm.wait(), LIMIT_S)).code == 1
        assert [e.fields["device"] for e in vm.events.history if e.name == "device-slow"].count("slow") == 1


@pytest.mark.parametrize("size", [1, 2, 4])
async def test_string_output_arrives_in_order(make_vm: VmFactory, size: int) -> None:
    """`rep outs` of every width brings every byte once, in order."""
    got = bytearray()

    def on_write(offset: int, width: int, value: int) -> None:
        got.extend(value.to_bytes(width, "little"))

    vm = make_vm(f"strio port=0x600{size} size={size} op=out count=500")
    vm.place(RawRange(4, lambda *_: 0, on_write), port=0x6000 + size)

    await passes(vm)

    assert bytes(got) == bytes((7 * i + 3) & 0xFF for i in range(500 * size))


@pytest.mark.parametrize("size", [1, 2, 4])
async def test_string_input_arrives_in_order(make_vm: VmFactory, size: int) -> None:
    """`rep ins` fills memory with what the port gave, across a page border too."""
    given = bytes((i * 31 + 7) & 0xFF for i in range(300 * size))
    position = 0

    def on_read(offset: int, width: int) -> int:
        nonlocal position
        position += width
        return int.from_bytes(given[position - width : position], "little")

    vm = make_vm(f"strio port=0x6000 size={size} op=in count=300 offset=4001")
    vm.place(RawRange(4, on_read, lambda *_: None), port=0x6000)

    output = await passes(vm)

    expected = FNV_BASIS
    for byte in given:
        expected = ((expected ^ byte) * FNV_PRIME) & MASK64
    assert result(output, "strio")["hash"] == expected


async def test_holes_read_all_ones(make_vm: VmFactory) -> None:
    """Where nothing is, reads give all ones and writes are lost, in both spaces."""
    steps = "y1@0x6100=0xff y2@0x6100=0xffff y4@0x6100=0xffffffff w4@0xfd000000=1 x4@0xfd000000=0xffffffff"

    await passes(make_vm(f"script {steps}"))


async def test_hostile_ports_and_addresses(make_vm: VmFactory) -> None:
    """Reading and writing everything everywhere leaves the machine and the process alive."""
    vm = make_vm("fuzz_mmio n=500", machine="q35")

    async with vm:
        ended = asyncio.ensure_future(vm.wait())
        await asyncio.wait({ended}, timeout=LIMIT_S)
        assert ended.done() or vm.state.value == "running"
        ended.cancel()


def test_regions_never_overlap(make_vm: VmFactory) -> None:
    """Two devices at one address are refused by name, before anything runs."""

    async def attempt() -> Any:
        vm = make_vm("hello")
        vm.place(Counter(), port=0x3FA, name="mine")
        with pytest.raises(Exception, match=r"mine at port 0x3fa: overlaps serial0"):
            await vm.open()
        return vm

    asyncio.run(attempt())


async def test_unplaced_device_leaves_its_address(make_vm: VmFactory) -> None:
    """A device taken off the bus answers no more; its place can be used again."""
    async with make_vm("hello", paused=True) as vm:
        router = vm.machine.native.router
        region = router.place(Counter(), PIO, 0x7000)
        router.remove(region)
        router.place(Counter(), PIO, 0x7000)
        assert router.read(PIO, 0x7000, 4) == 1
