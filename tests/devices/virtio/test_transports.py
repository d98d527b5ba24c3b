"""The transports: the same device behind virtio-pci and virtio-mmio, as their specification lays them out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from aioemu.bus.registers import access
from aioemu.bus.wires import MMIO
from aioemu.config import DeviceOptions, MachineConfig, MachineOptions
from aioemu.config.model import AccelOptions
from aioemu.devices.pci.host import PciHost
from aioemu.devices.virtio.device import VERSION_1, VirtioDevice
from aioemu.devices.virtio.pci import CONFIG_AT, ISR_AT, NOTIFY_AT, VirtioPci
from aioemu.errors import ConfigError
from aioemu.machine.boards.slots import MmioSlots
from aioemu.machine.machine import Machine
from aioemu.machine.virtio import Doorbells
from tests.devices.fakes import Line, Mapper, Messages
from tests.devices.virtio.devices import Keeper, Shout
from tests.devices.virtio.driver import BUFFERS_AT, RINGS_AT, STATUS, Board, Ring, drive, negotiate

FEATURE_SEL, FEATURE, DRIVER_SEL, DRIVER_FEATURE, CONFIG_VECTOR, QUEUES = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x12
PCI_STATUS, GENERATION, QUEUE_SEL, QUEUE_SIZE, QUEUE_VECTOR, QUEUE_ENABLE, QUEUE_OFF = (
    0x14,
    0x15,
    0x16,
    0x18,
    0x1A,
    0x1C,
    0x1E,
)
NO_VECTOR = 0xFFFF


class Card:
    """A device on a PCI bus of its own, with memory behind it."""

    def __init__(self, device: VirtioDevice, vectors: int | None = None) -> None:
        self.board = Board(device)
        self.device = device
        self.host = PciHost(Mapper(), Messages(), lambda index: Line())
        self.function = VirtioPci(device, vectors=vectors)
        self.host.root.plug(self.function, 8)
        self.function.write(0x04, 2, 6)

    def read(self, offset: int, size: int) -> int:
        return access(self.function.face, offset, size, False)

    def write(self, offset: int, size: int, value: int) -> None:
        access(self.function.face, offset, size, True, value)

    def start(self, vector: int = 1) -> Ring:
        """A driver with one queue."""
        for status in (0, 1, 3):
            self.write(PCI_STATUS, 1, status)
        self.write(DRIVER_SEL, 4, 1)
        self.write(DRIVER_FEATURE, 4, VERSION_1 >> 32)
        self.write(PCI_STATUS, 1, 0xB)
        self.write(QUEUE_SEL, 2, 0)
        self.write(QUEUE_VECTOR, 2, vector)
        ring = Ring(self.board, 0, self.read(QUEUE_SIZE, 2), False, False, RINGS_AT)
        ring.free = list(range(ring.size))
        for offset, address in ((0x20, ring.at), (0x28, ring.avail_at), (0x30, ring.used_at)):
            self.write(offset, 8, address)
        self.write(QUEUE_ENABLE, 2, 1)
        self.write(PCI_STATUS, 1, 0xF)
        return ring

    def serve_one(self, ring: Ring) -> None:
        ring.add([(BUFFERS_AT, 4, False)])
        self.write(NOTIFY_AT + 4 * self.read(QUEUE_OFF, 2), 2, 0)
        self.device.notified()
        assert len(ring.used()) == 1

    def capabilities(self) -> dict[tuple[int, int], int]:
        """Where each capability is, by id and (of vendor ones) type."""
        found, at = {}, self.function.read(0x34, 1)
        while at:
            number = self.function.read(at, 1)
            found[number, self.function.read(at + 3, 1) if number == 9 else 0] = at
            at = self.function.read(at + 1, 1)
        return found


@pytest.fixture
def cards() -> Iterator[list[Card]]:
    made: list[Card] = []
    yield made
    for card in made:
        card.board.close()


def put(cards: list[Card], device: VirtioDevice, vectors: int | None = None) -> Card:
    cards.append(Card(device, vectors))
    return cards[-1]


def test_modern_identity_and_structures(cards: list[Card]) -> None:
    """The function says 1af4:1040 + id, revision 1, and has all five structures in BAR 4, MSI-X and Express."""
    card = put(cards, Shout())
    assert card.function.read(0, 4) == 0x106A1AF4
    assert card.function.read(8, 1) == 1
    places = card.capabilities()
    assert {kind for number, kind in places if number == 9} == {1, 2, 3, 4, 5}
    assert {0x11, 0x10} <= {number for number, _ in places}
    for kind, offset in ((1, 0), (2, NOTIFY_AT), (3, ISR_AT), (4, CONFIG_AT)):
        at = places[9, kind]
        assert (card.function.read(at + 4, 1), card.function.read(at + 8, 4)) == (4, offset)
    assert card.function.read(places[9, 2] + 16, 4) == 4


def test_queue_interrupts_by_its_vector(cards: list[Card]) -> None:
    """A completed chain sets the pending bit of its queue's masked vector; the pin stays quiet."""
    card = put(cards, Shout())
    card.function.write(card.capabilities()[0x11, 0] + 2, 2, 0x8000)  # enabled; every vector begins masked
    ring = card.start()
    card.serve_one(ring)
    assert card.function.msix is not None
    assert access(card.function.msix.table, 0x800, 8, False) == 1 << 1
    assert card.read(ISR_AT, 1) == 0


@pytest.mark.parametrize("vectors", [0, None])
def test_pin_where_there_are_no_messages(cards: list[Card], vectors: int | None) -> None:
    """Without MSI-X, or with it off, the interrupt status and the pin tell, and reading clears both."""
    card = put(cards, Shout(), vectors)
    card.serve_one(card.start())
    assert card.function.read(6, 2) & 8
    assert card.read(ISR_AT, 1) == 1
    assert card.read(ISR_AT, 1) == 0
    assert not card.function.read(6, 2) & 8


@pytest.mark.parametrize("vector", [2, 0x7FF, 0xFFFE, NO_VECTOR])
def test_vector_that_there_is_not(cards: list[Card], vector: int) -> None:
    """A vector beyond the table reads back as none."""
    card = put(cards, Shout())
    for offset in (CONFIG_VECTOR, QUEUE_VECTOR):
        card.write(offset, 2, vector)
        assert card.read(offset, 2) == NO_VECTOR
    card.write(QUEUE_VECTOR, 2, 1)
    assert card.read(QUEUE_VECTOR, 2) == 1


def test_function_level_reset(cards: list[Card]) -> None:
    """Resetting the function ends what its driver set up, BARs included."""
    device = Keeper()
    card = put(cards, device)
    card.start()
    assert card.read(PCI_STATUS, 1) == 0xF
    express = card.capabilities()[0x10, 0]
    assert card.function.read(express + 4, 4) & 1 << 28
    card.function.write(express + 8, 2, 0x8000)
    assert not device.running
    assert card.read(PCI_STATUS, 1) == 0
    assert card.function.read(4, 2) == 0


def test_registers_through_configuration_space(cards: list[Card]) -> None:
    """The PCI configuration access capability reaches BAR 4, and nothing outside of it."""
    card = put(cards, Shout())
    at = card.capabilities()[9, 5]
    for bar, offset, size, want in (
        (4, QUEUES, 2, 1),
        (4, 0x4000, 4, 0),
        (1, QUEUES, 2, 0),
        (4, 1, 2, 0),
        (4, 0, 3, 0),
    ):
        card.function.write(at + 4, 1, bar)
        card.function.write(at + 8, 4, offset)
        card.function.write(at + 12, 4, size)
        assert card.function.read(at + 16, 4) == want
    card.function.write(at + 4, 1, 4)
    card.function.write(at + 8, 4, PCI_STATUS)
    card.function.write(at + 12, 4, 1)
    card.function.write(at + 16, 4, 1)
    assert card.read(PCI_STATUS, 1) == 1


def test_configuration_changes_have_generations() -> None:
    """Each change is a new generation, and an interrupt for a driver that runs."""

    class Configured(Keeper):
        def __init__(self) -> None:
            VirtioDevice.__init__(self, [8], config=bytes(range(12)))
            self.kept = []

    device = Configured()
    board, _ = drive(device)
    try:
        before = board.read(0xFC)
        assert board.read(0x104) == 0x07060504
        device.set_config(4, b"\xaa\xbb")
        assert board.read(0xFC) == before + 1
        assert board.read(0x60) == 2
        assert board.read(0x104) == 0x0706BBAA
        board.write(0x104, 0)  # this device takes no writes
        assert board.read(0x104) == 0x0706BBAA
        assert board.read(0x10C) == 0
        board.write(STATUS, 0)
        assert board.read(0x104) == 0x07060504
    finally:
        board.close()


def test_mmio_identity() -> None:
    """Magic, version 2, and no shared memory."""
    board = Board(Shout())
    assert [board.read(offset) for offset in (0, 4, 8)] == [0x74726976, 2, 0x2A]
    assert board.read(0xB0) == 0xFFFFFFFF
    board.close()


def test_slots_by_name_and_in_order() -> None:
    """Devices take the slot that they name, or the first free one."""
    slots = MmioSlots(0xFEB00000, (16, 17, 18))
    assert slots.take("a", "virtio-mmio-bus.1") == (0xFEB00200, 17)
    assert slots.take("b") == (0xFEB00000, 16)
    assert slots.take("c") == (0xFEB00400, 18)
    assert list(slots.command_line())[1] == "virtio_mmio.device=512@0xfeb00200:17"
    for bus in ("virtio-mmio-bus.1", "virtio-mmio-bus.3", "pcie.0", "virtio-mmio-bus.x"):
        with pytest.raises(ConfigError):
            slots.take("d", bus)
    with pytest.raises(ConfigError, match="all 3"):
        slots.take("d")


def config(board: str, *devices: DeviceOptions, **options: Any) -> MachineConfig:
    machine = MachineOptions(board, options)
    return MachineConfig(machine=machine, accel=(AccelOptions("qtest"),), devices=devices)


async def opened(given: MachineConfig) -> Machine:
    machine = Machine(given)
    await machine.open()
    return machine


async def test_doorbells_follow_the_driver_and_the_bar() -> None:
    """Where the accelerator takes notifications, a write rings the queue's eventfd while the driver runs, only then."""
    machine = await opened(config("microvm", DeviceOptions("virtio-rng-device", "r")))
    try:
        device: VirtioDevice = machine.site.devices["r"]
        rung: list[int] = []
        device.ring_bell = lambda index: rung.append(index)  # type: ignore[method-assign]
        bells = Doorbells(machine.kit, device, 0x50, 0, 4)
        device.on_running = bells.running
        bells.moved(0xFEB00000)
        bus = machine.native.router

        def write(offset: int, value: int) -> None:
            bus.write(MMIO, 0xFEB00000 + offset, 4, value)

        for offset, value in ((0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x38, 8), (0x90, 0x1000), (0xA0, 0x2000)):
            write(offset, value)
        write(0x44, 1)
        write(0x70, 15)
        rung.clear()  # the device looks at each queue once when it starts
        write(0x50, 0)
        while not rung:
            await asyncio.sleep(0)
        assert rung == [0]
        hits = bus.hits(next(r for r in bus.regions if r.name == "r"))[1]
        write(0x50, 0)
        assert bus.hits(next(r for r in bus.regions if r.name == "r"))[1] == hits
        write(0x70, 0)
        write(0x50, 0)
        assert bus.hits(next(r for r in bus.regions if r.name == "r"))[1] == hits + 2
    finally:
        machine.close()


async def test_microvm_tells_the_kernel_of_its_slots() -> None:
    """Without ACPI the command line names the slots in use; with auto-kernel-cmdline=off it does not."""
    for options, want in (
        ({"acpi": False}, "quiet virtio_mmio.device=512@0xfeb00000:5"),
        ({"acpi": False, "auto-kernel-cmdline": False}, "quiet"),
        ({}, "quiet"),
    ):
        machine = await opened(config("microvm", DeviceOptions("virtio-rng-device"), **options))
        assert machine.board.boot_cmdline("quiet") == want
        machine.close()


@pytest.mark.parametrize(
    ("board", "driver", "props", "message"),
    [
        ("q35", "virtio-rng-device", {}, "No 'virtio-bus'"),
        ("microvm", "virtio-rng-pci", {}, "No 'PCI' bus"),
        ("q35", "virtio-rng-pci", {"disable-legacy": "off"}, "modern"),
        ("q35", "virtio-rng-pci", {"disable-modern": True}, "modern"),
        ("q35", "virtio-rng-pci-transitional", {}, "not a valid device model name"),
        ("q35", "virtio-rng-pci", {"rng": "nothing"}, "Device 'nothing' not found"),
    ],
)
async def test_what_cannot_be_is_named(board: str, driver: str, props: dict[str, Any], message: str) -> None:
    """A device on the wrong board, and the transitional kind, are refused by name."""
    with pytest.raises(ConfigError, match=message):
        await opened(config(board, DeviceOptions(driver, props=props)))


async def test_plain_name_goes_where_the_board_has_room() -> None:
    """`virtio-rng` is a PCI function on q35 and takes a slot on microvm."""
    for board in ("q35", "microvm"):
        machine = await opened(config(board, DeviceOptions("virtio-rng", "r")))
        assert isinstance(machine.site.devices["r"], VirtioDevice)
        assert negotiate_at_boot(machine, board)
        machine.close()


def negotiate_at_boot(machine: Machine, board: str) -> bool:
    """Whether the device is there for a guest."""
    if board == "microvm":
        return machine.native.router.read(MMIO, 0xFEB00008, 4) == 4
    return machine.native.router.read(MMIO, 0xB0000000 + (1 << 15), 4) == 0x10441AF4


def test_status_survives_partial_writes() -> None:
    """A byte write beside the status byte is no reset."""
    board, _ = drive(Shout())
    try:
        access(board.mmio, STATUS + 1, 1, True, 0)
        assert board.read(STATUS) == 0xF
        assert negotiate(board, VERSION_1)
    finally:
        board.close()
