"""`-netdev tap`: a TAP device of the host, made or taken over, in any network namespace, with several queues.

Frames pass natively (`core/tap.c`), checksums and segmentation by the device's vnet header. A device that was made
goes with the machine unless `persist=on`; `br`, `mtu` and `netns` are set up by netlink. Scripts are run only where a
path is given. Left out: vhost, whose work the core does (`vhost=on` is taken for that). A device that disappears takes
the carrier, nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aioemu._core import ffi, lib
from aioemu.errors import ConfigError, HostError
from aioemu.netdev.options import Size
from aioemu.netdev.port import Port
from aioemu.netdev.registry import NetContext
from aioemu.netdev.tap_device import (
    TapDevice,
    TapRequest,
    make_device,
    read_device,
    run_down_script,
    run_in_namespace,
    run_script,
)

MAX_QUEUES = 256
LET_GO_S = 1.0  # a device is made in a few milliseconds; a script may take as long as it likes
NOT_WITH_FD = ("ifname", "script", "downscript", "vnet_hdr", "helper", "queues", "br", "netns", "mtu", "persist")


@dataclass(frozen=True, slots=True)
class Options:
    """QEMU's options, and `netns` (a name of `ip netns`, or a path), `mtu`, and `persist`."""

    ifname: str | None = None
    fd: str | None = None
    fds: str | None = None
    script: str | None = None
    downscript: str | None = None
    br: str | None = None
    helper: str | None = None
    sndbuf: Size | None = None
    vnet_hdr: bool | None = None
    vhost: bool | None = None
    vhostfd: str | None = None
    vhostfds: str | None = None
    vhostforce: bool | None = None
    queues: int | None = None
    poll_us: int | None = None
    netns: str | None = None
    mtu: int | None = None
    persist: bool = False


class Tap:
    """One device, joined by its port. `queues` are as many pairs as a NIC on it may have."""

    def __init__(self, device: TapDevice, options: Options, context: NetContext) -> None:
        self.ifname = device.name
        self.queues = len(device.fds)
        self._options = options
        self._context = context
        self._log = context.log
        self._fds = tuple(device.fds)  # the port's
        fds = ffi.new("int[]", device.fds)
        self.port = Port(lib.core_tap_new(fds, len(device.fds), device.vnet))
        self._loop = asyncio.get_running_loop()
        self._news = int(lib.core_tap_news_fd(self.port.ptr))
        self._loop.add_reader(self._news, self._gone)
        self.port.drive(context.io())

    @property
    def summary(self) -> str:
        """As QEMU shows it."""
        given = self._options
        if given.fd is not None or given.fds is not None:
            return f"fd={given.fd if given.fd is not None else given.fds}"
        if given.br is not None:
            return f"ifname={self.ifname},br={given.br}"
        return f"ifname={self.ifname},script={given.script or 'no'},downscript={given.downscript or 'no'}"

    def close(self) -> None:
        """Let go of the device; a down script still finds it."""
        if self.port.ptr == ffi.NULL:
            return
        self._loop.remove_reader(self._news)
        script = _script(self._options.downscript)
        if script is not None:
            last = TapDevice(self.ifname, [os.dup(fd) for fd in self._fds], vnet=False)
            run_down_script(script, last, self._options.netns)
        self.port.close()

    def _gone(self) -> None:
        os.eventfd_read(self._news)
        self.port.set_up(False)
        self._log.event("netdev-gone", netdev=self._context.id, ifname=self.ifname)
        self._log.warning("netdev %s: the device %s is gone", self._context.id, self.ifname)


async def open_netdev(options: Options, context: NetContext) -> Tap:
    """Make or take over the device, and give it a port."""
    return Tap(await open_device(options, context), options, context)


async def open_device(options: Options, context: NetContext) -> TapDevice:
    """Make or take over the device."""
    _check(options, context)
    if options.fd is not None or options.fds is not None:
        return _given(options, context)
    device = await _in_thread(partial(run_in_namespace, options.netns, make_device, _request(options)))
    script = _script(options.script)
    return device if script is None else await _in_thread(partial(_up_script, script, device, options.netns))


async def _in_thread(work: Callable[[], TapDevice]) -> TapDevice:
    """What it makes; for one who is cancelled meanwhile it goes again, at once or when the script has ended."""
    making = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_let_go)
        await asyncio.wait([making], timeout=LET_GO_S)
        raise


def _let_go(making: asyncio.Future[TapDevice]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()


def _up_script(script: str, device: TapDevice, netns: str | None) -> TapDevice:
    try:
        run_script(script, device.name, netns)
    except BaseException:
        device.close()
        raise
    return device


def _script(path: str | None) -> str | None:
    return None if path in (None, "", "no") else path


def _check(options: Options, context: NetContext) -> None:
    """What cannot be together, in QEMU's words."""
    values: dict[str, Any] = {name: getattr(options, name.replace("-", "_")) for name in NOT_WITH_FD}
    given = [name for name, value in values.items() if value]
    if options.fd is not None and options.fds is not None:
        raise ConfigError("fds= is invalid with fd=", "-netdev tap")
    if (options.fd is not None or options.fds is not None) and given:
        raise ConfigError(f"{given[0]}= is invalid with fd= and fds=", "-netdev tap")
    if options.helper is not None and (options.ifname or options.script or options.downscript):
        raise ConfigError("ifname=, script=, downscript= are invalid with helper=", "-netdev tap")
    if options.queues is not None and not 1 <= options.queues <= MAX_QUEUES:
        raise ConfigError(f"queues={options.queues}: a device has 1 to {MAX_QUEUES} queues", "-netdev tap")
    if options.vhostforce or options.vhostfd is not None or options.vhostfds is not None:
        raise ConfigError("vhost in the host's kernel is not used (vhostforce=, vhostfd=, vhostfds=)", "-netdev tap")
    if options.vhost:
        context.log.info("netdev %s: vhost=on: its work is done natively here", context.id)


def _request(options: Options) -> TapRequest:
    return TapRequest(
        name=options.ifname,
        queues=options.queues or 1,
        vnet=options.vnet_hdr is not False,
        persist=options.persist,
        sndbuf=options.sndbuf,
        bridge=options.br,
        helper=options.helper,
        mtu=options.mtu,
        up=options.script is None,
    )


def _given(options: Options, context: NetContext) -> TapDevice:
    """Descriptors that somebody else opened."""
    names = [name for name in (options.fds or options.fd or "").split(":") if name]
    fds = [context.find_fd(name) for name in names]
    if not fds:
        raise ConfigError("fds= names no descriptor", "-netdev tap")
    try:
        return read_device(fds)
    except OSError as exc:
        for name, fd in zip(names, fds, strict=True):
            context.leave_fd(name, fd)
        raise HostError(f"fd={options.fd or options.fds}: not a TAP device", exc.errno) from exc
