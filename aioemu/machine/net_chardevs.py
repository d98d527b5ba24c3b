"""Chardevs that a network back end asks for (`guestfwd=...-CHARDEV`): one that is there, or one of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aioemu.config.chardev_options import parse_short

if TYPE_CHECKING:
    from aioemu.chardev import Chardevs
    from aioemu.chardev.base import Chardev

Release = Callable[[], None]


def chardev_opener(chardevs: Chardevs) -> Callable[[str, str], Awaitable[tuple[Chardev, Release]]]:
    """What opens `chardev:ID`, or what a short form describes under a name; and gives it back."""

    async def open_chardev(spec: str, name: str) -> tuple[Chardev, Release]:
        if spec.startswith("chardev:"):
            claimed = chardevs.claim(spec.removeprefix("chardev:"))
            return claimed, lambda: chardevs.release(claimed)
        made = chardevs.add(parse_short("guestfwd", spec, name))

        def remove() -> None:
            made.close()
            if name in chardevs:
                chardevs.release(made)
                chardevs.remove(name)

        try:
            await made.open()
        except BaseException:
            remove()
            raise
        return chardevs.claim(name), remove

    return open_chardev
