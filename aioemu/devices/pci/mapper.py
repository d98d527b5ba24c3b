"""BARs on a machine's router."""

from __future__ import annotations

from aioemu.bus.router import Region, Router
from aioemu.bus.wires import Placeable
from aioemu.errors import ConfigError, HostError


class RouterMapper:
    """BARs on a machine's router: a place that is taken is refused, not an error."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def map(self, space: int, base: int, device: Placeable, name: str) -> object | None:
        try:
            return self.router.place(device, space, base, name=name)
        except (ConfigError, HostError):
            return None

    def unmap(self, place: object) -> None:
        assert isinstance(place, Region)
        self.router.remove(place)
