"""What every device promises, whatever it is: any guest is answered, reset is reset, a state is a state or refused.

The catalogue's rows and the boards' own chips are all held to it; a new row is in at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioemu.bus.registers import access
from aioemu.bus.wires import PIO, Placeable
from aioemu.devices.acpi_pm import AcpiPm, Gpe
from aioemu.devices.catalog import DEVICES, DeviceType, Site
from aioemu.devices.i8042 import I8042
from aioemu.devices.pci.host import PciHost
from aioemu.devices.pci.q35 import HostBridge, Lpc
from aioemu.devices.pm_timer import PmTimer
from aioemu.devices.reset_control import ResetControl
from aioemu.devices.rtc import Rtc
from aioemu.devices.uart import Uart
from aioemu.errors import StateError
from tests.contract.site import FakeSite
from tests.devices.fakes import Line, Mapper, Messages

Maker = Callable[[FakeSite], Any]
FIXED_TIME_NS = 1_700_000_000_000_000_000
ECAM_BYTES = 0x10_0000  # of bus 0: as much as a fuzzer needs to see


def of_catalog(row: DeviceType) -> Maker:
    def make(site: FakeSite) -> Any:
        seam: Site = site
        needed = {"drive": "disk"} if "drive" in row.properties.__dataclass_fields__ else {}
        return row.make(seam, "device", row.properties(**needed))

    return make


def make_rtc(site: FakeSite) -> Any:
    return site.place("rtc", Rtc(Line(), site.timers, lambda: FIXED_TIME_NS + site.timers.now))


def make_i8042(site: FakeSite) -> Any:
    chip = I8042(Line(), Line(), site.wish)
    for block in chip.blocks:
        site.place("i8042", block, (PIO, 0))
    return chip


def make_pci(site: FakeSite) -> Any:
    host = PciHost(Mapper(), Messages(), lambda index: Line(), ResetControl(site.wish))
    host.root.plug(HostBridge(host, 0xB0000000), 0)
    host.root.plug(Lpc(0x600), 0xF8)
    site.reachable += [host, host.ecam]
    return host


CHIPS: dict[str, Maker] = {
    **{row.name: of_catalog(row) for row in DEVICES},
    "rtc": make_rtc,
    "i8042": make_i8042,
    "pci": make_pci,
    "acpi-pm": lambda site: site.place("pm", AcpiPm(Line(), site.wish, site.timers)),
    "gpe": lambda site: site.place("gpe", Gpe(Line())),
    "pm-timer": lambda site: site.place("timer", PmTimer()),
    "reset-control": lambda site: site.place("reset", ResetControl(site.wish)),
}

every_chip = pytest.mark.parametrize("make", list(CHIPS.values()), ids=list(CHIPS))
accesses = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.one_of(st.integers(0, 32), st.integers(0, ECAM_BYTES + 64)),
        st.integers(1, 8),
        st.booleans(),
        st.one_of(st.sampled_from([0, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1)),
    ),
    max_size=40,
)


def drive(site: FakeSite, steps: list[tuple[int, int, int, bool, int]]) -> None:
    """Access the device as a guest that knows nothing about it."""
    for which, offset, size, is_write, value in steps:
        chip: Placeable = site.reachable[which % len(site.reachable)]
        got = access(chip, offset % (min(chip.size, ECAM_BYTES) + 16), size, is_write, value)
        assert 0 <= got < 1 << (8 * size)
        site.timers.advance(value & 0xFFFFFFF)


@every_chip
@given(steps=accesses)
def test_any_guest_is_answered_and_any_state_is_kept(make: Maker, steps: list[Any]) -> None:
    """No access of any size anywhere raises; whatever state follows loads into a fresh device and is the same."""
    site, other = FakeSite(), FakeSite()
    device, twin = make(site), make(other)
    drive(site, steps)
    state = device.save()
    other.timers.now = site.timers.now
    twin.load(copy.deepcopy(state))
    assert twin.save() == state


def without_battery(state: Any) -> Any:
    """What a reset brings back: all but the clock chip's memory, time and index, which a battery feeds."""
    if isinstance(state, dict):
        return {key: without_battery(value) for key, value in state.items() if key not in BATTERY}
    return state


BATTERY = {"cmos", "offset_ns", "seen_ns"}


@every_chip
@given(steps=accesses)
def test_reset_is_the_same_whatever_went_before(make: Maker, steps: list[Any]) -> None:
    """After reset a device that was used is as one that was not."""
    fresh, used = FakeSite(), FakeSite()
    reference, device = make(fresh), make(used)
    drive(used, steps)
    reference.reset()
    device.reset()
    if isinstance(device, Uart):
        device.take()  # its last words outlive the reset
    assert without_battery(device.save()) == without_battery(reference.save())


json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.integers(0, 255),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20).map(bytes.hex),
    st.just({}),
    st.just([]),
)


def paths(state: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a state where a value is."""
    found = [prefix]
    if isinstance(state, dict):
        for key, value in state.items():
            found += paths(value, (*prefix, key))
    return found


def mutate(state: Any, path: tuple[Any, ...], value: Any, how: int, where: int) -> Any:
    """The state with one place replaced, removed, or with something added."""
    if not path:
        return value
    changed = copy.deepcopy(state)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if how == 0:
        del place[path[-1]]
    elif how == 1:
        place["unknown"] = value
    elif how == 2 and isinstance(place[path[-1]], str):
        text = place[path[-1]]
        at = where % (len(text) + 1)
        place[path[-1]] = text[:at] + "ff" + text[at + 2 :]
    else:
        place[path[-1]] = value
    return changed


@every_chip
@settings(max_examples=200)
@given(data=st.data(), value=json_values, how=st.integers(0, 5), where=st.integers(0, 1 << 20))
def test_a_damaged_state_is_refused_or_loads_whole(
    make: Maker, data: st.DataObject, value: Any, how: int, where: int
) -> None:
    """A state with one wrong value raises StateError and changes nothing, or is a possible state and is taken over."""
    site = FakeSite()
    device = make(site)
    before = device.save()
    path = data.draw(st.sampled_from(paths(before)))
    damaged = mutate(before, path, value, how, where)
    try:
        device.load(copy.deepcopy(damaged))
    except StateError:
        assert device.save() == before
    else:
        taken = device.save()
        device.load(copy.deepcopy(taken))
        assert device.save() == taken
    drive(site, [(n, n * 3, 4, n % 2 == 0, 0xFFFFFFFF) for n in range(16)])
