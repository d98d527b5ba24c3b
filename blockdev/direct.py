"""Access past the host's cache (O_DIRECT): what it asks of offsets, lengths and memory, and reading whole blocks."""

from __future__ import annotations

import mmap
import os

ALIGNMENTS = (1, 512, 4096)  # of O_DIRECT, the first that the host takes


def fill(fd: int, block: mmap.mmap, offset: int) -> int:
    """Read whole blocks until the file ends; how much there was."""
    got = 0
    with memoryview(block) as whole:
        while got < len(whole):
            count = os.preadv(fd, [whole[got:]], offset + got)
            got += count
            if count == 0 or count % 512:
                break
    return got


def probe_alignment(fd: int) -> int:
    """What O_DIRECT asks of offsets, lengths and memory."""
    with mmap.mmap(-1, 2 * ALIGNMENTS[-1]) as block, memoryview(block) as whole:
        for alignment in ALIGNMENTS:
            try:
                os.preadv(fd, [whole[alignment : 2 * alignment]], 0)
            except OSError:
                continue
            return alignment
    return ALIGNMENTS[-1]
