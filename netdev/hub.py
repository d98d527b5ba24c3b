"""A hub: every frame goes out of every other port, whatever it is. Native, as the switch (`core/switch.h`)."""

from __future__ import annotations

from aioemu.netdev.switch import Switch


class Hub(Switch):
    """Learns nothing and keeps nothing to itself."""

    learns = False
