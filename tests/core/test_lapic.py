"""The local APIC as a guest sees it (Intel SDM vol. 3, chapter 11)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu._core import lib
from tests.core import intc_bench as lapic
from tests.core.intc_bench import Bench, bench


@pytest.fixture
def pc() -> Iterator[Bench]:
    with bench() as made:
        made.enable_apics()
        made.signals()
        yield made


@pytest.fixture
def smp() -> Iterator[Bench]:
    with bench(cpus=4) as made:
        made.enable_apics()
        for cpu in range(4):
            made.signals(cpu)
        yield made


def send(pc: Bench, cpu: int, destination: int, command: int) -> None:
    pc.apics[cpu].write(lapic.ICR_HIGH, destination << 24)
    pc.apics[cpu].write(lapic.ICR_LOW, command)


def test_higher_vector_is_taken_first(pc: Bench) -> None:
    """Of several requests the processor gets the highest vector, and the next of a lower class only after EOI."""
    pc.msi(0xFEE00000, 0x41)
    pc.msi(0xFEE00000, 0x91)

    assert pc.take() == 0x91
    assert pc.take() == -1
    pc.apics[0].write(lapic.EOI, 0)
    assert pc.take() == 0x41


def test_task_priority_holds_a_class_back(pc: Bench) -> None:
    """A request of TPR's class or below waits; lowering TPR asks the processor to look."""
    pc.apics[0].write(lapic.TPR, 0x50)
    pc.msi(0xFEE00000, 0x5F)

    assert pc.take() == -1
    assert pc.apics[0].read(lapic.PPR) == 0x50
    pc.signals()
    pc.apics[0].write(lapic.TPR, 0x4F)
    assert pc.signals() & lapic.INTERRUPT
    assert pc.take() == 0x5F


def test_disabled_apic_accepts_nothing() -> None:
    """Before software enables the APIC (SVR bit 8) a message is lost, and every vector table entry is masked."""
    with bench() as pc:
        assert pc.msi(0xFEE00000, 0x41) == 0
        pc.apics[0].write(lapic.LVT_TIMER, 0x40)

        assert pc.take() == -1
        assert pc.apics[0].read(lapic.LVT_TIMER) & lapic.MASKED


def test_illegal_vector_is_an_error_not_an_interrupt(pc: Bench) -> None:
    """Vectors 0-15 set ESR (shown by writing it) and raise the error vector."""
    pc.apics[0].write(lapic.LVT_ERROR, 0xFE)
    pc.msi(0xFEE00000, 0x0F)

    assert pc.take() == 0xFE
    assert pc.apics[0].read(lapic.ESR) == 0
    pc.apics[0].write(lapic.ESR, 0)
    assert pc.apics[0].read(lapic.ESR) == 1 << 6


def test_error_vector_that_is_illegal_itself_does_not_recurse(pc: Bench) -> None:
    """An error entry with vector 0 is the guest's mistake; the APIC only notes the error."""
    pc.apics[0].write(lapic.LVT_ERROR, 0x00)
    send(pc, 0, 0, 0x05)
    pc.apics[0].write(lapic.ESR, 0)

    assert pc.apics[0].read(lapic.ESR) == 1 << 5
    assert pc.take() == -1


@pytest.mark.parametrize(
    ("command", "expected"),
    [(0x40040, {0}), (0x80040, {0, 1, 2, 3}), (0xC0040, {1, 2, 3})],
    ids=["self", "all", "others"],
)
def test_shorthands_reach_whom_they_name(smp: Bench, command: int, expected: set[int]) -> None:
    """ICR bits 19:18: self, all, all but self; the destination field does not matter."""
    send(smp, 0, 0x55, command)

    assert {cpu for cpu in range(4) if smp.take(cpu) == 0x40} == expected


def test_logical_flat_destination_is_a_set(smp: Bench) -> None:
    """In flat mode each bit of the destination is a processor's LDR bit."""
    send(smp, 0, 0b1010, 0x840)

    assert [smp.take(cpu) for cpu in range(4)] == [-1, 0x40, -1, 0x40]


def test_logical_cluster_destination(smp: Bench) -> None:
    """In the cluster model the high nibble is the cluster, the low one its members, and cluster 15 is every one."""
    for number, apic in enumerate(smp.apics):
        apic.write(lapic.DFR, 0x0FFFFFFF)
        apic.write(lapic.LDR, (number // 2) << 28 | 1 << (24 + number % 2))
    send(smp, 0, 0x12, 0x840)
    assert [smp.take(cpu) for cpu in range(4)] == [-1, -1, -1, 0x40]

    send(smp, 0, 0xF1, 0x850)
    assert [smp.take(cpu) for cpu in range(4)] == [0x50, -1, 0x50, -1]


def test_lowest_priority_goes_to_one_and_takes_turns(smp: Bench) -> None:
    """Of the processors addressed exactly one gets the message: the least busy, equals in turn."""
    got = []
    for _ in range(4):
        send(smp, 0, 0x0F, 0x940)
        takers = [cpu for cpu in range(4) if smp.take(cpu) == 0x40]
        assert len(takers) == 1
        got += takers
        smp.apics[takers[0]].write(lapic.EOI, 0)

    assert sorted(got) == [0, 1, 2, 3]


def test_lowest_priority_avoids_the_busy(smp: Bench) -> None:
    """A processor with a high task priority is passed over."""
    for cpu in (0, 1, 3):
        smp.apics[cpu].write(lapic.TPR, 0x80)
    send(smp, 0, 0x0F, 0x940)

    assert smp.take(2) == 0x40


def test_init_and_startup_reach_the_processor(smp: Bench) -> None:
    """INIT, then SIPI with its vector; the level de-assert of old does nothing."""
    send(smp, 0, 2, 0x0C500)
    send(smp, 0, 2, 0x08500)
    assert smp.signals(2) == lapic.INIT
    send(smp, 0, 2, 0x0069A)
    assert smp.signals(2) == lapic.SIPI | 0x9A << 8


def test_init_resets_the_apic_but_not_its_id(smp: Bench) -> None:
    """After INIT the APIC is software-disabled with empty registers, and still answers to its id."""
    smp.msi(0xFEE02000, 0x77)
    send(smp, 0, 2, 0x0C500)

    assert smp.apics[2].read(lapic.SVR) == 0xFF
    assert smp.apics[2].read(lapic.IRR + 0x30) == 0
    assert smp.apics[2].read(lapic.ID) == 2 << 24


def test_nmi_by_message(smp: Bench) -> None:
    """Delivery mode NMI bypasses vectors and priorities."""
    send(smp, 0, 3, 0x400)

    assert smp.signals(3) == lapic.NMI
    assert smp.take(3) == -1


def test_one_shot_timer_fires_once_at_its_time(pc: Bench) -> None:
    """1 GHz ticks, divided; the current count runs down and stays at zero."""
    apic = pc.apics[0]
    apic.write(lapic.DIVIDE, 0x3)  # by 16
    apic.write(lapic.LVT_TIMER, 0x40)
    apic.write(lapic.INITIAL_COUNT, 1000)

    pc.advance(8_000)
    assert apic.read(lapic.CURRENT_COUNT) == 500
    assert pc.take() == -1
    pc.advance(8_000)
    assert pc.take() == 0x40
    assert apic.read(lapic.CURRENT_COUNT) == 0
    apic.write(lapic.EOI, 0)
    pc.advance(1_000_000)
    assert pc.take() == -1


def test_periodic_timer_keeps_its_phase(pc: Bench) -> None:
    """Ticks come at multiples of the period although each is served late."""
    apic = pc.apics[0]
    apic.write(lapic.DIVIDE, lapic.DIVIDE_BY_1)
    apic.write(lapic.LVT_TIMER, lapic.PERIODIC | 0x40)
    start = pc.now_ns
    apic.write(lapic.INITIAL_COUNT, 100_000)
    for tick in range(1, 6):
        pc.set_clock(start + tick * 100_000 + 7_000)
        assert pc.poll() == start + (tick + 1) * 100_000
        assert pc.take() == 0x40
        apic.write(lapic.EOI, 0)


def test_periodic_timer_cannot_flood_the_host(pc: Bench) -> None:
    """A period of one tick is served at the floor's rate, not a thousand million times a second."""
    apic = pc.apics[0]
    apic.write(lapic.DIVIDE, lapic.DIVIDE_BY_1)
    apic.write(lapic.LVT_TIMER, lapic.PERIODIC | 0x40)
    apic.write(lapic.INITIAL_COUNT, 1)
    pc.advance(1)
    assert pc.poll() >= pc.now_ns + 50_000


def test_masked_timer_asks_nothing_of_the_host(pc: Bench) -> None:
    """A masked timer counts, but wakes nobody and leaves nothing behind when it is unmasked after its time."""
    apic = pc.apics[0]
    apic.write(lapic.DIVIDE, lapic.DIVIDE_BY_1)
    apic.write(lapic.LVT_TIMER, lapic.MASKED | 0x40)
    apic.write(lapic.INITIAL_COUNT, 10_000)
    assert pc.poll() == 0
    pc.advance(20_000)
    apic.write(lapic.LVT_TIMER, 0x40)
    pc.poll()

    assert pc.take() == -1


def test_tsc_deadline(pc: Bench) -> None:
    """The deadline fires once and reads back as zero; a new one replaces it, zero disarms, the count is not used."""
    apic = pc.apics[0]
    apic.write(lapic.LVT_TIMER, lapic.DEADLINE | 0x40)
    apic.write(lapic.INITIAL_COUNT, 5)
    assert apic.read(lapic.INITIAL_COUNT) == 0
    lib.core_intc_set_deadline(pc.intc, 0, pc.now_ns + 500)
    lib.core_intc_set_deadline(pc.intc, 0, pc.now_ns + 900)
    pc.advance(899)
    assert pc.take() == -1
    pc.advance(1)
    assert pc.take() == 0x40
    apic.write(lapic.EOI, 0)
    lib.core_intc_set_deadline(pc.intc, 0, pc.now_ns + 500)
    lib.core_intc_set_deadline(pc.intc, 0, 0)
    pc.advance(1000)
    assert pc.take() == -1


def test_deadline_is_ignored_in_other_modes(pc: Bench) -> None:
    """Writing IA32_TSC_DEADLINE arms nothing unless the entry says TSC deadline (11.5.4.1)."""
    pc.apics[0].write(lapic.LVT_TIMER, 0x40)
    lib.core_intc_set_deadline(pc.intc, 0, pc.now_ns + 500)
    assert pc.poll() == 0


def test_apic_base_refuses_what_is_reserved(pc: Bench) -> None:
    """x2APIC and reserved bits are refused (the guest gets #GP); moving the page is not."""
    assert lib.core_intc_set_base(pc.intc, 0, 0xFEE00D00) < 0
    assert lib.core_intc_set_base(pc.intc, 0, 0xFEE00901) < 0
    assert lib.core_intc_set_base(pc.intc, 0, 0xFED00900) == 0


def test_narrow_and_misaligned_accesses_are_harmless(pc: Bench) -> None:
    """Bytes can be read; a write that is not a whole register is lost."""
    pc.apics[0].write(lapic.TPR, 0x30)
    pc.apics[0].write(lapic.TPR, 0x70, size=1)
    pc.apics[0].write(lapic.TPR + 2, 0x70, size=4)

    assert pc.apics[0].read(lapic.TPR, size=1) == 0x30
    assert pc.apics[0].read(lapic.VERSION + 2, size=2) == 5
    assert pc.apics[0].read(lapic.VERSION, size=8) & 0xFFFFFFFF == 0x50014


def test_state_goes_and_comes_back(pc: Bench) -> None:
    """A request, a running timer and every register survive save, reset and load, at another time of the clock."""
    apic = pc.apics[0]
    apic.write(lapic.DIVIDE, lapic.DIVIDE_BY_1)
    apic.write(lapic.LVT_TIMER, 0x40)
    apic.write(lapic.INITIAL_COUNT, 10_000)
    pc.msi(0xFEE00000, 0x31)
    state = apic.save()
    lib.core_chip_reset(apic.chip)
    pc.set_clock(50_000_000)
    assert apic.load(state)

    assert pc.take() == 0x31
    apic.write(lapic.EOI, 0)
    pc.advance(9_999)
    assert pc.take() == -1
    pc.advance(1)
    assert pc.take() == 0x40
    assert apic.save()[:8] == state[:4] + bytes(4)


@given(st.data())
def test_no_state_and_no_access_breaks_it(data: st.DataObject) -> None:
    """Whatever is loaded or written, the APIC answers, time goes on, and no vector below 16 is ever delivered."""
    with bench(cpus=2) as pc:
        apic = pc.apics[0]
        state = bytearray(apic.save())
        for _ in range(data.draw(st.integers(0, 4))):
            state[data.draw(st.integers(0, len(state) - 1))] = data.draw(st.integers(0, 255))
        apic.load(bytes(state))
        for _ in range(data.draw(st.integers(0, 30))):
            offset = data.draw(st.integers(0, 0x3F)) * 16
            apic.write(offset, data.draw(st.integers(0, 2**32 - 1)))
            apic.read(offset)
        pc.set_clock(pc.now_ns + 10**9)
        pc.poll()
        for cpu in range(2):
            vector = pc.take(cpu)
            assert vector == -1 or vector >= 16
