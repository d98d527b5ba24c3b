"""The control protocols: QMP, qtest, gdb and rfb servers and their shared session machinery.

Imported as `aioemu.protocol` only: the bare name is too general to take from everybody else.
"""

from __future__ import annotations

if not __name__.startswith("aioemu."):
    raise ImportError("import aioemu.protocol, not protocol: this folder is reached through the link aioemu/protocol")
