"""Native chips under several threads at once: vCPUs and the host lose nothing and never see a torn state."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from aioemu._core import ffi, lib
from aioemu.devices.pci.function import Identity, PciFunction
from aioemu.devices.pci.msi import MsixTable
from aioemu.devices.uart import Uart
from tests.devices.pci_bench import PciBench

DATA, LSR, THRE, DR = 0, 5, 0x20, 0x01
WRITERS, BYTES_EACH = 3, 20_000


def native_access(chip: object, offset: int, size: int, is_write: bool, value: int = 0) -> tuple[int, int]:
    """One part, as a vCPU thread does it: without any Python object in between. Handed over or not, and the value."""
    part, data, reg = ffi.new("uint32_t *", size), ffi.new("uint64_t *", value), ffi.new("uint32_t *")
    rc = lib.core_chip_access(chip, offset, part, is_write, data, reg)
    return rc, int(data[0])


def run_all(*bodies: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)


def test_bytes_of_several_vcpus_all_arrive_in_each_ones_order() -> None:
    """Writers that poll LSR fill the ring faster than the host empties it; nothing is lost, doubled or reordered."""
    uart = Uart()
    done = threading.Event()
    taken = bytearray()
    left = [WRITERS]
    lock = threading.Lock()

    def write(which: int) -> None:
        for number in range(BYTES_EACH):
            while not native_access(uart.chip, LSR, 1, False)[1] & THRE:
                pass
            while native_access(uart.chip, DATA, 1, True, which << 6 | number % 64)[0] != 0:
                pass  # another vCPU filled the transmitter: the byte was not taken
        with lock:
            left[0] -= 1
            if not left[0]:
                done.set()

    def take() -> None:
        while not done.is_set() or lib.core_uart_pending(uart.chip):
            taken.extend(uart.take(4096))

    run_all(take, *(lambda which=which: write(which) for which in range(WRITERS)))
    taken.extend(uart.take())
    assert Counter(byte >> 6 for byte in taken) == dict.fromkeys(range(WRITERS), BYTES_EACH)
    for which in range(WRITERS):
        mine = [byte & 63 for byte in taken if byte >> 6 == which]
        assert mine == [number % 64 for number in range(BYTES_EACH)]


def test_input_fed_while_the_guest_reads_arrives_whole() -> None:
    """The host feeds as fast as it may while the guest drains the FIFO."""
    uart = Uart()
    uart.write(2, 1, 0x01)
    text = bytes(n % 251 for n in range(60_000))
    got = bytearray()

    def feed() -> None:
        at = 0
        while at < len(text):
            at += uart.feed(text[at : at + 1000])

    def read() -> None:
        while len(got) < len(text):
            if native_access(uart.chip, LSR, 1, False)[1] & DR:
                got.append(native_access(uart.chip, DATA, 1, False)[1])

    run_all(feed, read)
    assert got == text


def test_function_goes_while_it_is_being_read() -> None:
    """A vCPU that reads configuration space while functions come and go sees the function or all ones."""
    bench = PciBench()
    function = PciFunction(Identity(0x1AF4, 0x1041, 0x020000))
    stop = threading.Event()
    seen: Counter[int] = Counter()

    def read() -> None:
        while not stop.is_set():
            seen[native_access(bench.host.ecam.chip, 8 << 12, 2, False)[1] & 0xFFFF] += 1

    def plug() -> None:
        for _ in range(2000):
            bench.host.root.plug(function, 8)
            bench.host.root.unplug(8)
        stop.set()

    run_all(read, read, plug)
    assert seen.keys() <= {0x1AF4, 0xFFFF}
    assert seen.total() > 0


def test_masked_interrupts_are_kept_while_the_guest_masks_and_unmasks() -> None:
    """Notifications from several threads while the vector's mask changes end as pending or sent, never as an error."""
    table = MsixTable(64, 0x800)
    lib.core_msix_control(table.chip, True, True)
    stop = threading.Event()
    answers: Counter[int] = Counter()

    def notify() -> None:
        for _ in range(20_000):
            answers[lib.core_msix_notify(table.chip, 5)] += 1
        stop.set()

    def mask() -> None:
        value = 0
        while not stop.is_set():
            value ^= 1
            native_access(table.chip, 5 * 16 + 12, 4, True, value)

    run_all(notify, mask)
    assert answers == {0: 20_000}
    assert native_access(table.chip, 0x800, 8, False)[1] == 1 << 5
