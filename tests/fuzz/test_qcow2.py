"""qcow2 images with some fields of header and tables changed: errors or service, within bounds, whatever they say."""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aioemu.blockdev.qcow2.node import Qcow2Node
from aioemu.errors import EmuError
from tests.blockdev.qcow2.recorder import MemoryFile, open_memory
from tests.blockdev.qcow2.test_hostile import ALL_ONES, FIELDS, image, memory_bound, use
from tests.blockdev.qcow2.tools import needs_tools

pytestmark = needs_tools
__all__ = ["image", "memory_bound"]  # fixtures


def broken(content: bytes, chooser: random.Random) -> bytes:
    """An image with a few fields or table entries changed to values that were chosen to hurt."""
    data = bytearray(content)
    values = (
        0,
        1,
        0x200,
        0x1000,
        0x7FFFFFFF,
        0xFFFFFFFF,
        1 << 56,
        1 << 62,
        1 << 63,
        ALL_ONES,
        len(content),
        0x8000000000003000,
    )
    for _ in range(chooser.choice((1, 1, 2, 5))):
        if chooser.random() < 0.5:
            offset, code = FIELDS[chooser.choice(list(FIELDS))]
            value = chooser.choice(values) if chooser.random() < 0.7 else chooser.getrandbits(64)
            size = struct.calcsize(code)
            data[offset : offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "big")
        else:
            cluster = chooser.randrange(len(data) // 4096)
            at = cluster * 4096 + chooser.randrange(64) * 8
            old = int.from_bytes(data[at : at + 8], "big")
            value = chooser.choice(
                (old ^ 1 << chooser.randrange(64), chooser.choice(values), chooser.randrange(64) << 12 | 1 << 63)
            )
            data[at : at + 8] = value.to_bytes(8, "big")
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
async def test_fuzzed_headers_and_tables(image: Path, seed: int) -> None:
    """Whatever a few changed fields make of an image: errors or service, and the header stays a header."""
    content = image.read_bytes()
    chooser = random.Random(seed)
    served = 0
    for _ in range(150):
        file = MemoryFile(broken(content, chooser))
        node = await try_open(file)
        if node is None:
            continue
        served += 1
        await use(node)
        with suppress(EmuError):
            await node.close()
        assert file.content[:4] == b"QFI\xfb"
        assert len(file.content) < 256 << 20
    assert served > 10


async def try_open(file: Any) -> Qcow2Node | None:
    """The image as a node, if it is one."""
    try:
        return await open_memory(file)
    except EmuError:
        return None
