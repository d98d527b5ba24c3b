"""MSI and MSI-X: messages leave when they may, wait while they are masked, and never leave twice."""

from __future__ import annotations

import pytest

from aioemu._core import lib
from aioemu.bus.registers import access
from aioemu.devices.pci.bars import BarSpec
from aioemu.devices.pci.function import Identity, PciFunction
from aioemu.devices.pci.msi import Msi, Msix, MsixTable
from aioemu.errors import StateError
from tests.devices.pci_bench import PciBench

NIC = Identity(0x1AF4, 0x1041, 0x020000)
ENABLE, MASK_ALL = 0x8000, 0x4000
PBA = 0x800


class MsixBench:
    """A function with four vectors. Without an interrupt controller nothing can be sent: what leaves fails to."""

    def __init__(self) -> None:
        self.bench = PciBench()
        self.msix = Msix(4, bar=1)
        bar = BarSpec(1, "mem32", 0x1000, [(0, self.msix.table)])
        self.function = PciFunction(NIC, bars=[bar], capabilities=[self.msix])
        self.bench.host.root.plug(self.function, 0)
        self.at = self.bench.capability(0, 0x11)

    def control(self, value: int) -> None:
        self.bench.write(0, self.at + 2, value, 2)

    def table(self, offset: int, size: int = 4) -> int:
        return access(self.msix.table, offset, size, False)

    def set_table(self, offset: int, value: int, size: int = 4) -> None:
        access(self.msix.table, offset, size, True, value)

    def pending(self) -> int:
        return self.table(PBA, 8)

    def notify(self, vector: int) -> int:
        return int(lib.core_msix_notify(self.msix.table.chip, vector))


@pytest.fixture
def bench() -> MsixBench:
    return MsixBench()


ENODEV, EAGAIN, EINVAL = -19, -11, -22  # -ENODEV: it was sent, but there is no machine


def test_capability_says_where_the_table_is(bench: MsixBench) -> None:
    """Size, table and pending bits are found in the BAR that the function says."""
    assert bench.bench.read(0, bench.at + 2, 2) == 3
    assert bench.bench.read(0, bench.at + 4) == 0x001
    assert bench.bench.read(0, bench.at + 8) == PBA | 1


def test_vectors_are_masked_after_reset(bench: MsixBench) -> None:
    """Each entry reads zero but for its mask bit; reserved bits cannot be set."""
    assert [bench.table(offset) for offset in range(0, 64, 4)] == [0, 0, 0, 1] * 4
    bench.set_table(0, 0xFFFFFFFF)
    bench.set_table(12, 0xFFFFFFFE)
    assert (bench.table(0), bench.table(12)) == (0xFFFFFFFC, 0)


def test_table_takes_bytes_and_quadwords(bench: MsixBench) -> None:
    """Any width of access reaches the entries."""
    bench.set_table(16, 0x11223344_55667788, 8)
    assert bench.table(16, 8) == 0x11223344_55667788
    bench.set_table(18, 0xEE, 1)
    assert bench.table(16) == 0x55EE7788


def test_off_is_off_and_no_vector_is_no_vector(bench: MsixBench) -> None:
    """While MSI-X is off the caller hears that it must use the pin; a vector beyond the table is refused."""
    assert bench.notify(0) == EAGAIN
    bench.control(ENABLE)
    assert bench.notify(4) == EINVAL
    assert bench.notify(1 << 31) == EINVAL


def test_masked_vector_waits_and_leaves_once(bench: MsixBench) -> None:
    """A masked vector's interrupt shows in the pending bits and leaves when the vector is unmasked."""
    bench.control(ENABLE)
    assert bench.notify(2) == 0
    assert bench.notify(2) == 0
    assert bench.pending() == 0b100
    bench.set_table(2 * 16 + 12, 0)
    assert bench.pending() == 0
    assert bench.notify(2) == ENODEV


def test_function_mask_holds_all_vectors(bench: MsixBench) -> None:
    """With the function masked everything waits; unmasking sends what is unmasked itself."""
    bench.control(ENABLE | MASK_ALL)
    for vector in (0, 3):
        bench.set_table(vector * 16 + 12, 0)
    for vector in (0, 1, 3):
        assert bench.notify(vector) == 0
    assert bench.pending() == 0b1011
    bench.control(ENABLE)
    assert bench.pending() == 0b0010


def test_pending_bits_cannot_be_written(bench: MsixBench) -> None:
    """Guests only read them."""
    bench.set_table(PBA, 0xFFFFFFFF)
    assert bench.pending() == 0


def test_state_comes_back_with_what_waits(bench: MsixBench) -> None:
    """Table, pending bits and enable survive; an interrupt that waited leaves after the load when unmasked."""
    bench.control(ENABLE)
    bench.set_table(0, 0xFEE00000)
    bench.notify(0)
    other = MsixBench()
    other.function.load(bench.function.save())
    assert other.function.save() == bench.function.save()
    assert other.pending() == 1
    other.set_table(12, 0)
    assert other.pending() == 0


@pytest.mark.parametrize("position", [0, 12, 13, 64])
def test_impossible_table_is_refused(bench: MsixBench, position: int) -> None:
    """Reserved bits and half pending bits are not a table; the function stays as it was."""
    before = bench.function.save()
    state = bench.function.save()
    table = bytearray.fromhex(state["msix"]["fields"]["table_state"])
    table[position] = 0xFF
    state["msix"]["fields"]["table_state"] = table.hex()
    state[""]["registers"]["command"] = 2
    with pytest.raises(StateError, match="MSI-X"):
        bench.function.load(state)
    assert bench.function.save() == before


@pytest.mark.parametrize(("vectors", "pba"), [(0, 0), (2049, 0x9000), (4, 0x30), (4, 0x44)])
def test_impossible_tables_cannot_be_made(vectors: int, pba: int) -> None:
    """A table of no or too many vectors, or one that its pending bits overlap, is refused."""
    with pytest.raises(ValueError, match="MSI-X"):
        MsixTable(vectors, pba)


def test_largest_table_works() -> None:
    """2048 vectors, the most that the capability can say."""
    table = MsixTable(2048, 0x8000)
    lib.core_msix_control(table.chip, True, True)
    assert lib.core_msix_notify(table.chip, 2047) == 0
    assert access(table, 0x8000 + 255, 1, False) == 0x80
    assert access(table, table.size, 8, False) == 0


class MsiBench:
    def __init__(self, vectors: int = 4) -> None:
        self.bench = PciBench()
        self.msi = Msi(vectors)
        self.function = PciFunction(NIC, capabilities=[self.msi], pin=1)
        self.bench.host.root.plug(self.function, 0)
        self.at = self.bench.capability(0, 0x05)
        self.bench.write(0, self.at + 4, 0xFEE01000)
        self.bench.write(0, self.at + 0xC, 0x4041, 2)

    def enable(self, used: int = 2) -> None:
        self.bench.write(0, self.at + 2, 1 | used << 4, 2)


def test_msi_sends_address_and_vector() -> None:
    """The low bits of the data are the vector, as many as the guest allowed; off, the device must use its pin."""
    msi = MsiBench()
    assert not msi.function.notify(3)
    msi.enable(used=1)
    assert msi.function.notify(3)
    assert not msi.function.notify(4)
    assert msi.bench.messages.sent == [(0xFEE01000, 0x4041)]
    msi.enable(used=2)
    msi.function.notify(2)
    assert msi.bench.messages.sent[-1] == (0xFEE01000, 0x4042)


def test_masked_msi_waits_and_leaves_once() -> None:
    """A masked vector is pending until its mask goes."""
    msi = MsiBench()
    msi.enable()
    msi.bench.write(0, msi.at + 0x10, 0b0110)
    msi.function.notify(1)
    msi.function.notify(1)
    assert msi.bench.messages.sent == []
    assert msi.bench.read(0, msi.at + 0x14) == 0b0010
    msi.bench.write(0, msi.at + 0x10, 0)
    assert msi.bench.messages.sent == [(0xFEE01000, 0x4041)]
    assert msi.bench.read(0, msi.at + 0x14) == 0


def test_masks_exist_only_for_vectors_that_do() -> None:
    """Mask bits beyond the function's vectors cannot be set, nor can a state have them pending."""
    msi = MsiBench(vectors=2)
    msi.bench.write(0, msi.at + 0x10, 0xFFFFFFFF)
    assert msi.bench.read(0, msi.at + 0x10) == 0b11
    state = msi.function.save()
    state["msi"]["registers"]["msi_pending"] = 0b100
    with pytest.raises(StateError):
        msi.function.load(state)
