"""Page tables as `info mem` and `info tlb` read them: rights, sizes, and tables that a guest made to trap us."""

from __future__ import annotations

import struct

import pytest

from aioemu.errors import GuestError
from aioemu.machine.paging import TABLES_LIMIT, Page, Walk, show_page, show_range

P, W, U, LARGE = 1, 2, 4, 0x80
LONG = {"cr0": 1 << 31, "cr3": 0x1000, "cr4": 1 << 5, "efer": 1 << 10}


class Memory:
    """A few tables at page addresses."""

    def __init__(self, tables: dict[int, dict[int, int]], form: str = "Q") -> None:
        self.bytes = {at: self._table(entries, form) for at, entries in tables.items()}
        self.reads = 0

    def _table(self, entries: dict[int, int], form: str) -> bytes:
        count = 4096 // struct.calcsize(form)
        return struct.pack(f"<{count}{form}", *(entries.get(n, 0) for n in range(count)))

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        page = self.bytes.get(address & ~0xFFF)
        if page is None:
            raise GuestError(f"no memory at {address:#x}")
        return page[address & 0xFFF :][:size]


def pages(memory: Memory, registers: dict[str, int]) -> list[Page]:
    return [page for page in Walk(memory.read, registers).pages() if page is not None]


def test_long_mode_has_small_large_and_high_pages() -> None:
    """Rights are those of all levels together; the upper half of the address space is where it is."""
    tables = {
        0x1000: {0: 0x2000 | P | W | U, 511: 0x2000 | P | W},
        0x2000: {0: 0x3000 | P | W | U},
        0x3000: {0: 0x4000 | P | W | U, 1: 0x20_0000 | P | W | U | LARGE},
        0x4000: {0: 0x7000 | P | U, 1: 0x8000 | P | W | U},
    }
    found = pages(Memory(tables), LONG)

    assert [(page.virtual, page.physical, page.size, page.entry & (U | W)) for page in found] == [
        (0, 0x7000, 4096, U),
        (0x1000, 0x8000, 4096, U | W),
        (0x20_0000, 0x20_0000, 1 << 21, U | W),
        (0xFFFF_FF80_0000_0000, 0x7000, 4096, 0),
        (0xFFFF_FF80_0000_1000, 0x8000, 4096, W),
        (0xFFFF_FF80_0020_0000, 0x20_0000, 1 << 21, W),
    ]


def test_old_and_pae_tables() -> None:
    """Two levels with 4 MiB pages, and three with four entries at the top."""
    old = {"cr0": 1 << 31, "cr3": 0x1000, "cr4": 1 << 4, "efer": 0}
    memory = Memory({0x1000: {0: 0x2000 | P | W, 1: 0x80_0000 | P | W | LARGE}, 0x2000: {3: 0x5000 | P}}, "I")
    assert [(page.virtual, page.physical, page.size) for page in pages(memory, old)] == [
        (0x3000, 0x5000, 4096),
        (0x40_0000, 0x80_0000, 1 << 22),
    ]
    pae = {"cr0": 1 << 31, "cr3": 0x1020, "cr4": 1 << 5, "efer": 0}
    memory = Memory({0x1000: {4 + 3: 0x2000 | P}, 0x2000: {511: 0x60_0000 | P | W | LARGE}})
    assert [(page.virtual, page.physical, page.size) for page in pages(memory, pae)] == [
        (0xFFE0_0000, 0x60_0000, 1 << 21)
    ]


def test_no_paging_is_no_pages() -> None:
    """A processor that does not page maps nothing."""
    assert pages(Memory({}), {**LONG, "cr0": 0x10}) == []


def test_a_table_of_itself_ends() -> None:
    """A guest whose tables are one table, over and over, costs a bounded number of reads, and is told of."""
    memory = Memory({0x1000: dict.fromkeys(range(512), 0x1000 | P | W | U)})
    walk = Walk(memory.read, LONG)
    for _ in walk.pages():
        if walk.cut:
            break

    assert walk.cut
    assert memory.reads <= TABLES_LIMIT


def test_tables_outside_memory_are_skipped() -> None:
    """A table that is nowhere maps nothing; what is beside it is still found."""
    tables = {0x1000: {0: 0xDEAD_0000_0000 | P, 1: 0x2000 | P}, 0x2000: {0: 1 << 30 | P | LARGE}}
    assert [page.size for page in pages(Memory(tables), LONG)] == [1 << 30]


@pytest.mark.parametrize(
    ("page", "line"),
    [
        (Page(0x1000, 0x8000, 4096, P | W | U), "0000000000001000: 0000000000008000 -------UW\n"),
        (Page(0, 0, 4096, 1 << 63 | P | 0x60), "0000000000000000: 0000000000000000 X--DA----\n"),
    ],
)
def test_lines_of_tlb(page: Page, line: str) -> None:
    """Address, address, flags."""
    assert show_page(page) == line


def test_lines_of_mem() -> None:
    """Start, end, length, rights."""
    assert show_range(0x1000, 0x3000, U | W) == "0000000000001000-0000000000003000 0000000000002000 urw\n"
    assert show_range((1 << 64) - 4096, 1 << 64, 0).startswith("fffffffffffff000-0000000000000000 ")
