"""A network namespace made by a test, and what goes on inside it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from aioemu.netdev.tap_device import run_in_namespace

T = TypeVar("T")
NUMBERS = itertools.count()


class Namespace:
    """One of them, by its name."""

    def __init__(self) -> None:
        from pyroute2 import netns

        self.name = f"aioemu-{os.getpid()}-{next(NUMBERS)}"
        self.is_there = True
        netns.create(self.name)

    def call(self, work: Callable[..., T], *args: Any) -> T:
        """Call something inside it."""
        return run_in_namespace(self.name, work, *args)

    def netlink(self, work: Callable[[Any], T]) -> T:
        """Call `work(ip)` with a netlink socket inside it."""

        def inside() -> T:
            from pyroute2 import IPRoute

            with IPRoute() as ip:
                return work(ip)

        return self.call(inside)

    def links(self) -> dict[str, Any]:
        """Every interface by its name."""
        return {link.get_attr("IFLA_IFNAME"): link for link in self.netlink(lambda ip: list(ip.get_links()))}

    def add_address(self, name: str, address: str) -> None:
        """Give an interface an IPv4 address in a /24."""

        def add(ip: Any) -> None:
            ip.addr("add", index=ip.link_lookup(ifname=name)[0], address=address, prefixlen=24)

        self.netlink(add)

    def packet_socket(self, name: str) -> socket.socket:
        """Every frame that passes an interface."""

        def open_socket() -> socket.socket:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            found.bind((name, 0))
            found.setblocking(False)
            return found

        return self.call(open_socket)

    def remove(self) -> None:
        """Take it away, and what is in it."""
        from pyroute2 import netns

        if self.is_there:
            self.is_there = False
            netns.remove(self.name)


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """One for a test."""
    made = Namespace()
    try:
        yield made
    finally:
        made.remove()
