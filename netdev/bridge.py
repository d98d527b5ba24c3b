"""`-netdev bridge`: a TAP device made for this machine and put into a bridge of the host.

By netlink, or by a helper (`helper=PATH`) for those who may not. Everything else is as in `tap`.
"""

from __future__ import annotations

from dataclasses import dataclass

from aioemu.netdev import tap
from aioemu.netdev.registry import NetContext

DEFAULT_BRIDGE = "br0"


@dataclass(frozen=True, slots=True)
class Options:
    """QEMU's options, and `netns`."""

    br: str = DEFAULT_BRIDGE
    helper: str | None = None
    netns: str | None = None


class Bridge(tap.Tap):
    """The device in its bridge."""

    @property
    def summary(self) -> str:
        """As QEMU shows it."""
        return f"helper={self._options.helper or 'no'},br={self._options.br}"


async def open_netdev(options: Options, context: NetContext) -> Bridge:
    """Make the device and put it into the bridge."""
    as_tap = tap.Options(br=options.br, helper=options.helper, netns=options.netns)
    return Bridge(await tap.open_device(as_tap, context), as_tap, context)
