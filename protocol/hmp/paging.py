"""`info mem` and `info tlb`: what a processor's page tables map. Long answers let other clients have their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aioemu.protocol.hmp.table import HmpCommand

if TYPE_CHECKING:
    from aioemu.machine.paging import Page, Walk
    from aioemu.protocol.hmp.interpreter import Interpreter

LINES_LIMIT = 1 << 15  # of `info tlb`: more than anybody reads
TURN_TABLES = 8  # tables between two turns of the loop


async def info_mem(interpreter: Interpreter, values: dict[str, Any]) -> str:
    """Stretches of addresses with the same rights."""
    from aioemu.machine.paging import USER, WRITE, show_range

    walk: Walk = interpreter.machine.page_walk(interpreter.cpu)
    if not walk.is_on:
        return "PG disabled\n"
    lines: list[str] = []
    start, end, rights = 0, 0, 0
    async for page in _pages(walk):
        its = page.entry & (USER | WRITE)
        if page.virtual != end or its != rights:
            if end > start:
                lines.append(show_range(start, end, rights))
            start, rights = page.virtual, its
        end = page.virtual + page.size
    if end > start:
        lines.append(show_range(start, end, rights))
    return "".join(lines) + _cut(walk.cut)


async def info_tlb(interpreter: Interpreter, values: dict[str, Any]) -> str:
    """Every page."""
    from aioemu.machine.paging import show_page

    walk: Walk = interpreter.machine.page_walk(interpreter.cpu)
    if not walk.is_on:
        return "PG disabled\n"
    lines: list[str] = []
    async for page in _pages(walk):
        if len(lines) == LINES_LIMIT:
            return "".join(lines) + _cut(True)
        lines.append(show_page(page))
    return "".join(lines) + _cut(walk.cut)


async def _pages(walk: Walk) -> AsyncIterator[Page]:
    tables = 0
    for page in walk.pages():
        if page is not None:
            yield page
            continue
        tables += 1
        if tables % TURN_TABLES == 0:
            await asyncio.sleep(0)


def _cut(cut: bool) -> str:
    return "... (there is more)\n" if cut else ""


INFO = (
    HmpCommand("mem", "", "show the active virtual memory mappings", info_mem, needs=("page_walk", "vcpus")),
    HmpCommand("tlb", "", "show virtual to physical memory mappings", info_tlb, needs=("page_walk", "vcpus")),
)
