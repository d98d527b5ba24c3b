"""Block back ends: nodes, image formats, I/O engines and jobs.

Imported as `aioemu.blockdev` only: the bare name is too general to take from everybody else.
"""

from __future__ import annotations

if not __name__.startswith("aioemu."):
    raise ImportError("import aioemu.blockdev, not blockdev: this folder is reached through the link aioemu/blockdev")
