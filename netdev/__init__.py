"""Network back ends: ports, links, hubs, switches, taps and captures.

Imported as `aioemu.netdev` only: the bare name is too general to take from everybody else.
"""

from __future__ import annotations

if not __name__.startswith("aioemu."):
    raise ImportError("import aioemu.netdev, not netdev: this folder is reached through the link aioemu/netdev")
