"""PCI: how guests find functions, size and move BARs, number buses, and what happens when they do it wrongly."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.bus.registers import Reg, RegisterBlock, access
from aioemu.bus.wires import MMIO, PIO
from aioemu.devices.pci.bars import BarSpec
from aioemu.devices.pci.bridge import RootPort
from aioemu.devices.pci.bus import PciBus, devfn
from aioemu.devices.pci.capabilities import Express, PowerManagement
from aioemu.devices.pci.function import Identity, PciFunction
from aioemu.devices.pci.q35 import HostBridge, Lpc
from aioemu.devices.reset_control import ResetControl
from aioemu.errors import ConfigError, StateError
from tests.devices.fakes import Mapper
from tests.devices.pci_bench import ADDRESS, BAR0, COMMAND, DATA, STATUS, PciBench

NIC = Identity(0x1AF4, 0x1041, 0x020000, 1, 0x1AF4, 0x0001)
IO, MEMORY, MASTER, INTX_OFF = 1, 2, 4, 0x400
ONES = 0xFFFFFFFF


class Scratch(RegisterBlock):
    layout = {0: type("Word", (Reg,), {"width": 4})}


def make(kind: str = "mem32", size: int = 0x1000, index: int = 0, **options: object) -> PciFunction:
    bar = BarSpec(index, kind, size, [(0, Scratch())])  # type: ignore[arg-type]
    return PciFunction(NIC, bars=[bar], **options)  # type: ignore[arg-type]


@pytest.fixture
def bench() -> PciBench:
    return PciBench()


def test_functions_are_found_both_ways(bench: PciBench) -> None:
    """A plugged function shows its identity by port and by ECAM; an empty slot reads all ones."""
    bench.host.root.plug(make(), devfn(3))
    for read in (bench.read, bench.ecam_read):
        assert read(devfn(3), 0) == 0x10411AF4
        assert read(devfn(3), 8) == 0x02000001
        assert read(devfn(3), 0x2C) == 0x00011AF4
        assert read(devfn(4), 0) == ONES
        assert read(devfn(3, 1), 0, 2) == 0xFFFF


def test_data_port_takes_bytes_words_and_dwords(bench: PciBench) -> None:
    """Each lane of the data port is that byte of the register; without the enable bit there is nothing."""
    bench.host.root.plug(make(), 0)
    assert [bench.read(0, n, 1) for n in range(4)] == [0xF4, 0x1A, 0x41, 0x10]
    assert bench.read(0, 2, 2) == 0x1041
    access(bench.host, ADDRESS, 4, True, 0)
    assert access(bench.host, DATA, 4, False) == ONES


def test_address_port_is_a_dword_register(bench: PciBench) -> None:
    """Only dword writes set the address; reserved bits read zero; bytes pass to the other ports there."""
    access(bench.host, ADDRESS, 4, True, ONES)
    assert access(bench.host, ADDRESS, 4, False) == 0x80FFFFFC
    access(bench.host, ADDRESS, 1, True, 0)
    access(bench.host, ADDRESS + 2, 2, True, 0)
    assert access(bench.host, ADDRESS, 4, False) == 0x80FFFFFC
    assert access(bench.host, ADDRESS, 1, False) == 0xFF


def test_reset_register_lies_within_the_address_port() -> None:
    """A byte at 0xcf9 is the reset control's, whatever the address register holds."""
    resets: list[int] = []
    bench = PciBench(ResetControl(lambda: resets.append(1)))
    access(bench.host, 1, 1, True, 0x02)
    assert access(bench.host, 1, 1, False) == 0x02
    access(bench.host, 1, 1, True, 0x06)
    assert resets == [1]


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ("mem32", 0x1000, 0xFFFFF000, None),
        ("mem32", 16, 0xFFFFFFF0, None),
        ("mem64", 0x4000, 0xFFFFC004, 0xFFFFFFFF),
        ("mem64", 1 << 33, 0x00000004, 0xFFFFFFFE),
        ("io", 0x20, 0xFFFFFFE1, None),
    ],
)
def test_bars_are_sized_by_writing_ones(bench: PciBench, kind: str, size: int, low: int, high: int | None) -> None:
    """Writing all ones and reading back tells size and kind."""
    bench.host.root.plug(make(kind, size), 0)
    bench.write(0, BAR0, ONES)
    bench.write(0, BAR0 + 4, ONES)
    assert bench.read(0, BAR0) == low
    assert bench.read(0, BAR0 + 4) == (high or 0)


def test_bar_is_decoded_only_when_enabled(bench: PciBench) -> None:
    """The command register's bits switch memory and I/O on and off; a moved BAR moves at once."""
    bench.host.root.plug(make(), 0)
    bench.write(0, BAR0, 0xE0000000)
    assert bench.mapper.bases() == set()
    bench.write(0, COMMAND, MEMORY, 2)
    assert bench.mapper.bases() == {(MMIO, 0xE0000000)}
    bench.write(0, BAR0 + 1, 0x50, 1)
    assert bench.mapper.bases() == {(MMIO, 0xE0005000)}
    bench.write(0, COMMAND, IO, 2)
    assert bench.mapper.bases() == set()


def test_io_bar_is_decoded_within_the_port_space(bench: PciBench) -> None:
    """Ports exist up to 0xffff; beyond nothing is decoded."""
    bench.host.root.plug(make("io", 0x20), 0)
    bench.write(0, COMMAND, IO, 2)
    bench.write(0, BAR0, 0xC001)
    assert bench.mapper.bases() == {(PIO, 0xC000)}
    bench.write(0, BAR0, 0x1C001)
    assert bench.mapper.bases() == set()


@pytest.mark.parametrize("address", [0, ONES, 0xFFFFF000])
def test_address_that_cannot_be_is_not_decoded(bench: PciBench, address: int) -> None:
    """Zero, and all ones while sizing with decoding on, map nothing."""
    bench.host.root.plug(make(), 0)
    bench.write(0, COMMAND, MEMORY, 2)
    bench.write(0, BAR0, address)
    assert bench.mapper.bases() == set()


def test_overlapping_bar_waits_until_the_place_is_free(bench: PciBench) -> None:
    """The second of two BARs at one place is not mapped, and takes the place when the first one leaves."""
    first, second = make(), make()
    bench.host.root.plug(first, devfn(1))
    bench.host.root.plug(second, devfn(2))
    for function in (1, 2):
        bench.write(devfn(function), BAR0, 0xE0000000)
        bench.write(devfn(function), COMMAND, MEMORY, 2)
    assert [device for _, _, device in bench.mapper.places.values()] == [first.bars[0].spec.parts[0][1]]
    bench.write(devfn(1), BAR0, 0xE8000000)
    assert {base for _, base, _ in bench.mapper.places.values()} == {0xE0000000, 0xE8000000}


def test_unplugged_function_leaves_nothing(bench: PciBench) -> None:
    """Its BARs and its interrupt are gone, its slot reads all ones, and it can be plugged in again."""
    function = make(pin=1)
    bench.host.root.plug(function, devfn(5))
    bench.write(devfn(5), BAR0, 0xE0000000)
    bench.write(devfn(5), COMMAND, MEMORY, 2)
    function.set_intx(True)
    assert bench.raised() == {1}
    bench.host.root.unplug(devfn(5))
    assert bench.mapper.bases() == set()
    assert bench.raised() == set()
    assert bench.read(devfn(5), 0) == ONES
    bench.host.root.plug(function, devfn(6))
    assert bench.mapper.bases() == {(MMIO, 0xE0000000)}


def test_pin_shows_in_status_and_can_be_switched_off(bench: PciBench) -> None:
    """INTx follows the device; the command register's disable bit holds it low without hiding the status."""
    function = make(pin=2)
    bench.host.root.plug(function, devfn(3))
    function.set_intx(True)
    assert bench.raised() == {(3 + 1) % 4}
    assert bench.read(devfn(3), STATUS, 2) & 0x08
    bench.write(devfn(3), COMMAND, INTX_OFF, 2)
    assert bench.raised() == set()
    assert bench.read(devfn(3), STATUS, 2) & 0x08
    bench.write(devfn(3), COMMAND, 0, 2)
    function.set_intx(False)
    assert bench.raised() == set()


def test_capabilities_form_a_chain(bench: PciBench) -> None:
    """A driver that walks the chain finds each capability, and the end."""
    bench.host.root.plug(make(capabilities=[PowerManagement(), Express()]), 0)
    assert bench.read(0, STATUS, 2) & 0x10
    assert bench.capability(0, 0x01) == 0x40
    assert bench.capability(0, 0x10) == 0x48
    assert bench.capability(0, 0x99) == 0


def behind_root_port(bench: PciBench) -> tuple[RootPort, PciFunction]:
    port = RootPort(1)
    bench.host.root.plug(port, devfn(1))
    function = make(pin=1)
    PciBus(bench.host, port, "rp1").plug(function)
    return port, function


def test_function_behind_a_port_is_found_by_the_number_the_guest_gives(bench: PciBench) -> None:
    """Only after the bus was numbered, only at that number, and no longer after it was renumbered."""
    behind_root_port(bench)
    assert bench.read(0x100, 0) == ONES
    bench.write(devfn(1), 0x18, 0x00030200)
    assert bench.read(0x200, 0) == 0x10411AF4
    assert bench.ecam_read(0x200, 0) == 0x10411AF4
    bench.write(devfn(1), 0x18, 0x00050500)
    assert bench.read(0x200, 0) == ONES
    assert bench.read(0x500, 0) == 0x10411AF4


@pytest.mark.parametrize("numbers", [0x00000000, 0x00010200, 0x00FF0000])
def test_impossible_bus_numbers_hide_what_is_behind(bench: PciBench, numbers: int) -> None:
    """Secondary 0, or a range that is none, shows nothing and disturbs nothing on bus 0."""
    behind_root_port(bench)
    bench.write(devfn(1), 0x18, numbers)
    assert all(bench.read(bus << 8, 0) == ONES for bus in range(1, 256))
    assert bench.read(devfn(1), 0) == 0x000C1B36


def test_two_ports_with_one_number_show_the_first(bench: PciBench) -> None:
    """A guest that gives one number twice finds one of the two, and finds both after mending it."""
    for device in (1, 2):
        port = RootPort(device)
        bench.host.root.plug(port, devfn(device))
        PciBus(bench.host, port, f"rp{device}").plug(make(size=0x100 << device))
        bench.write(devfn(device), 0x18, 0x00010100)
    bench.write(0x100, BAR0, ONES)
    assert bench.read(0x100, BAR0) == 0xFFFFFE00
    bench.write(devfn(2), 0x18, 0x00020200)
    bench.write(0x200, BAR0, ONES)
    assert bench.read(0x200, BAR0) == 0xFFFFFC00


def test_interrupts_are_turned_by_each_bridge(bench: PciBench) -> None:
    """INTA# of a device behind root port 1.0 is the port's own INTA#."""
    _, function = behind_root_port(bench)
    function.set_intx(True)
    assert bench.raised() == {1}


def test_secondary_reset_resets_what_is_behind(bench: PciBench) -> None:
    """The bridge control bit brings the function behind the port to its power-on state."""
    behind_root_port(bench)
    bench.write(devfn(1), 0x18, 0x00010100)
    bench.write(0x100, BAR0, 0xE0000000)
    bench.write(0x100, COMMAND, MEMORY, 2)
    bench.write(devfn(1), 0x3E, 0x40, 2)
    assert bench.mapper.bases() == set()
    assert bench.read(0x100, COMMAND, 2) == 0


def test_presence_shows_in_the_slot(bench: PciBench) -> None:
    """The slot status tells whether a device is plugged in."""
    port, _ = behind_root_port(bench)
    at = bench.capability(devfn(1), 0x10)
    assert bench.read(devfn(1), at + 0x1A, 2) & 0x40
    assert port.behind is not None
    port.behind.unplug(0)
    assert not bench.read(devfn(1), at + 0x1A, 2) & 0x40


def test_slots_are_given_out_and_run_out(bench: PciBench) -> None:
    """Devices get the first free slot; a taken or impossible one is refused by name."""
    assert bench.host.root.plug(make()) == devfn(1)
    assert bench.host.root.plug(make()) == devfn(2)
    with pytest.raises(ConfigError, match="taken"):
        bench.host.root.plug(make(), devfn(1))
    with pytest.raises(ConfigError, match="no device"):
        bench.host.root.plug(make(), 256)
    for _ in range(28):
        bench.host.root.plug(make())
    with pytest.raises(ConfigError, match="no free slot"):
        bench.host.root.plug(make())


def test_host_bridge_places_ecam_where_the_guest_wants_it() -> None:
    """PCIEXBAR moves and switches off the window; after reset it is where the board has it."""
    bench = PciBench()
    bridge = HostBridge(bench.host, ecam_base=0xB0000000)
    bench.host.root.plug(bridge, 0)
    assert bench.mapper.bases() == {(MMIO, 0xB0000000)}
    assert bench.read(0, 0x60) == 0xB0000001
    bench.write(0, 0x60, 0xE8000003)
    assert bench.mapper.bases() == {(MMIO, 0xE8000000)}
    assert bench.host.ecam.size == 128 << 20
    bench.write(0, 0x60, 0xE8000007)
    assert bench.mapper.bases() == set()
    bench.host.reset()
    assert bench.mapper.bases() == {(MMIO, 0xB0000000)}


def test_fewer_buses_need_less_ecam_and_hide_the_rest() -> None:
    """A host of 16 buses takes the smallest window that holds them, and numbers beyond are not found."""
    bench = PciBench(buses=16)
    bench.host.root.plug(HostBridge(bench.host, ecam_base=0xB0000000), 0)
    assert bench.host.ecam.size == 64 << 20
    behind_root_port(bench)
    bench.write(devfn(1), 0x18, 0x000F0F00)
    assert bench.ecam_read(0xF00, 0) == 0x10411AF4
    bench.write(devfn(1), 0x18, 0x00101000)
    assert bench.ecam_read(0x1000, 0) == ONES


def test_q35_functions_are_what_guests_expect() -> None:
    """Device 0 and device 1f carry the ids of the 3 Series hub and the ICH9, with ACPI on and its base set."""
    bench = PciBench()
    bench.host.root.plug(HostBridge(bench.host), 0)
    bench.host.root.plug(Lpc(0x600), devfn(0x1F))
    assert bench.read(0, 0) == 0x29C08086
    assert bench.read(0xF8, 0) == 0x29188086
    assert bench.read(0xF8, 0x40) == 0x601
    assert bench.read(0xF8, 0x44, 1) == 0x80
    assert bench.read(0xF8, 0x60) == 0x80808080
    assert bench.read(0xF8, 0x0E, 1) == 0x80


def built() -> PciBench:
    bench = PciBench(ResetControl(lambda: None))
    bench.host.root.plug(HostBridge(bench.host, 0xB0000000), 0)
    bench.host.root.plug(Lpc(0x600), devfn(0x1F))
    behind_root_port(bench)
    bench.host.root.plug(make("mem64", 0x4000, pin=1, capabilities=[PowerManagement()]), devfn(2))
    return bench


def test_saved_tree_goes_on() -> None:
    """Bus numbers, BARs and interrupts are in force again after a load."""
    bench = built()
    bench.write(devfn(1), 0x18, 0x00010100)
    bench.write(0x100, BAR0, 0xE0000000)
    bench.write(0x100, COMMAND, MEMORY, 2)
    state = bench.host.save()
    other = built()
    other.host.load(state)
    assert other.host.save() == state
    assert (MMIO, 0xE0000000) in other.mapper.bases()
    assert other.read(0x100, 0) == 0x10411AF4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["address"], "ffffffff"),
        (["functions"], {}),
        (["functions", "pcie.0:10", "", "registers", "vendor_id"], 0x1234),
        (["functions", "pcie.0:10", "", "registers", "bar0"], 0x00000008),
        (["functions", "pcie.0:10", "", "registers", "bar0"], 1 << 32),
        (["functions", "pcie.0:10", "pm"], None),
        (["reset_control"], None),
    ],
)
def test_state_of_another_machine_is_refused_whole(path: list[str], value: object) -> None:
    """Another identity, other functions or impossible bits are an error, and no function has changed."""
    bench = built()
    bench.write(devfn(2), BAR0, 0xE0000000)
    before = bench.host.save()
    state = built().host.save()
    place = state
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(StateError):
        bench.host.load(state)
    assert bench.host.save() == before


addresses = st.tuples(st.sampled_from([0, devfn(1), devfn(2), devfn(0x1F), 0x100]), st.integers(0, 0x140))


@given(st.lists(st.tuples(addresses, st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)), max_size=40))
def test_any_configuration_is_survived(writes: list[tuple[tuple[int, int], int, int]]) -> None:
    """No write to any configuration space raises; no two BARs ever share an address; the state is always loadable."""
    bench = built()
    for (bdf, offset), size, value in writes:
        bench.ecam_write(bdf, offset, value, size)
        bench.ecam_read(bdf, offset, size)
    check_disjoint(bench.mapper)
    state = bench.host.save()
    other = built()
    other.host.load(state)
    assert other.host.save() == state


def check_disjoint(mapper: Mapper) -> None:
    ranges = sorted((space, base, base + device.size) for space, base, device in mapper.places.values())
    for before, after in itertools.pairwise(ranges):
        assert before[0] != after[0] or before[2] <= after[1]
