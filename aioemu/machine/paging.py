"""What a processor's page tables map, as `info mem` and `info tlb` print it.

The tables are the guest's: they may map the same table over and over, so a walk looks at a bounded number of them. It
runs on the reactor, in pieces: whoever iterates lets others run in between.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from aioemu.errors import EmuError

Read = Callable[[int, int], bytes]

CR0_PG, CR4_PSE, CR4_PAE, CR4_LA57, EFER_LMA = 1 << 31, 1 << 4, 1 << 5, 1 << 12, 1 << 10  # SDM vol. 3A 2.5
PRESENT, WRITE, USER, LARGE, NO_EXECUTE = 1, 2, 4, 0x80, 1 << 63  # SDM vol. 3A 4.5
ADDRESS = 0x000F_FFFF_FFFF_F000
FLAGS = "XGPDACTUW"  # as `info tlb` shows them, from the bits below
FLAG_BITS = (63, 8, 7, 6, 5, 4, 3, 2, 1)
TABLES_LIMIT = 1 << 12  # 16 MiB of tables map 8 GiB in small pages; a table that maps itself ends here


class Page(NamedTuple):
    """One mapping: where, to where, how long, and the flags of its last entry with what the tables above leave."""

    virtual: int
    physical: int
    size: int
    entry: int


class Walk:
    """One walk; `cut` says whether it ended at the limit."""

    def __init__(self, read: Read, registers: Mapping[str, int]) -> None:
        self._read = read
        self._registers = registers
        self._left = TABLES_LIMIT
        self.cut = False

    @property
    def is_on(self) -> bool:
        """Whether the processor pages at all."""
        return bool(self._registers["cr0"] & CR0_PG)

    def pages(self) -> Iterator[Page | None]:
        """Every mapping, ascending; None after each table, for whoever has to let others run."""
        if not self.is_on:
            return
        cr3, cr4 = self._registers["cr3"], self._registers["cr4"]
        if self._registers["efer"] & EFER_LMA:
            levels = 5 if cr4 & CR4_LA57 else 4
            yield from self._tables(cr3 & ADDRESS, 0, 12 + 9 * (levels - 1), USER | WRITE, 12 + 9 * levels)
        elif cr4 & CR4_PAE:
            yield from self._top_of_pae(cr3 & 0xFFFF_FFE0)
        else:
            yield from self._old(cr3 & 0xFFFF_F000, bool(cr4 & CR4_PSE))

    def _entries(self, table: int, count: int, form: str) -> tuple[int, ...]:
        if self._left == 0:
            self.cut = True
            return ()
        self._left -= 1
        try:
            return struct.unpack(f"<{count}{form}", self._read(table, count * (8 if form == "Q" else 4)))
        except EmuError:
            return ()  # not memory

    def _tables(self, table: int, base: int, shift: int, allowed: int, width: int) -> Iterator[Page | None]:
        for at, entry in enumerate(self._entries(table, 512, "Q")):
            if self.cut:
                return
            if not entry & PRESENT:
                continue
            virtual = base | at << shift
            if shift + 9 == width and virtual >> (width - 1):
                virtual |= (1 << 64) - (1 << width) if width > 32 else 0
            seen = entry & ~(USER | WRITE) | entry & allowed & (USER | WRITE)
            if shift == 12 or (entry & LARGE and shift in (21, 30)):
                size = 1 << shift
                yield Page(virtual, entry & ADDRESS & ~(size - 1), size, seen)
            else:
                yield from self._tables(entry & ADDRESS, virtual, shift - 9, allowed & entry, width)
        yield None

    def _top_of_pae(self, table: int) -> Iterator[Page | None]:
        for at, entry in enumerate(self._entries(table, 4, "Q")):
            if entry & PRESENT:
                yield from self._tables(entry & ADDRESS, at << 30, 21, USER | WRITE, 32)

    def _old(self, table: int, large: bool) -> Iterator[Page | None]:
        for at, entry in enumerate(self._entries(table, 1024, "I")):
            if entry & PRESENT and entry & LARGE and large:
                yield Page(at << 22, entry & 0xFFC0_0000, 1 << 22, entry)
            elif entry & PRESENT:
                for below, last in enumerate(self._entries(entry & 0xFFFF_F000, 1024, "I")):
                    if last & PRESENT:
                        seen = last & ~(USER | WRITE) | last & entry & (USER | WRITE)
                        yield Page(at << 22 | below << 12, last & 0xFFFF_F000, 4096, seen)
                yield None
        yield None


def show_page(page: Page) -> str:
    """A line of `info tlb`."""
    letters = "".join(FLAGS[i] if page.entry >> bit & 1 else "-" for i, bit in enumerate(FLAG_BITS))
    return f"{page.virtual:016x}: {page.physical:016x} {letters}\n"


def show_range(start: int, end: int, protection: int) -> str:
    """A line of `info mem`: a stretch of addresses with the same rights."""
    letters = f"{'u' if protection & USER else '-'}r{'w' if protection & WRITE else '-'}"
    return f"{start:016x}-{end & (1 << 64) - 1:016x} {end - start:016x} {letters}\n"
