"""TAP devices on the host: made, taken over and set up, in the namespace that was asked for.

Blocking, so never on the reactor's thread: a namespace belongs to a thread, and each call here that enters one does so
in a thread of its own. Netlink (pyroute2) is loaded only for what needs it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aioemu.errors import ConfigError, HostError

T = TypeVar("T")
TUN = "/dev/net/tun"
NETNS_DIR = "/run/netns"
TUNSETIFF, TUNGETIFF, TUNSETPERSIST = 0x400454CA, 0x800454D2, 0x400454CB
TUNSETSNDBUF, TUNSETVNETHDRSZ, TUNGETFEATURES = 0x400454D4, 0x400454D8, 0x800454CF
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
NAME_BYTES = 15
HEADER_BYTES = 12
CLONE_NEWNET = 0x40000000
SCRIPT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TapRequest:
    """What is asked of a device that is made or taken over."""

    name: str | None = None
    queues: int = 1
    vnet: bool = True
    persist: bool = False
    sndbuf: int | None = None
    bridge: str | None = None
    helper: str | None = None
    mtu: int | None = None
    up: bool = True


@dataclass(slots=True)
class TapDevice:
    """An open device: one descriptor for each queue; `vnet`: they carry headers."""

    name: str
    fds: list[int]
    vnet: bool

    def close(self) -> None:
        """Nobody will use it."""
        while self.fds:
            os.close(self.fds.pop())


def run_in_namespace(netns: str | None, work: Callable[..., T], *args: Any) -> T:
    """Call `work(*args)` inside a network namespace (None: this one) and wait for it."""
    if netns is None:
        return work(*args)
    outcome: list[T | BaseException] = []

    def inside() -> None:
        try:
            enter_namespace(netns)
            outcome.append(work(*args))
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=inside, name=f"netns {netns}")
    thread.start()
    thread.join()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def enter_namespace(netns: str) -> None:
    """Move this thread, for good."""
    path = netns if "/" in netns else f"{NETNS_DIR}/{netns}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise HostError(f"network namespace {netns}", exc.errno) from exc
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, CLONE_NEWNET) < 0:
            raise HostError(f"enter network namespace {netns}", ctypes.get_errno())
    finally:
        os.close(fd)


def make_device(request: TapRequest) -> TapDevice:
    """In the namespace of this thread."""
    if request.helper is not None:
        return _ask_helper(request.helper, request.bridge or "br0", request.vnet)
    if request.name is not None and not 1 <= len(request.name.encode()) <= NAME_BYTES:
        raise ConfigError(f"ifname={request.name}: 1 to {NAME_BYTES} bytes", "-netdev tap")
    device = TapDevice(request.name or "tap%d", [], request.vnet)
    try:
        for _ in range(request.queues):
            _add_queue(device, request)
        if request.persist:
            fcntl.ioctl(device.fds[0], TUNSETPERSIST, 1)
        if request.bridge is not None or request.mtu is not None:
            _set_up_by_netlink(device.name, request)
        if request.up:
            _bring_up(device.name)
    except BaseException:
        device.close()
        raise
    return device


def _add_queue(device: TapDevice, request: TapRequest) -> None:
    try:
        fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise HostError(f"could not open {TUN}", exc.errno) from exc
    device.fds.append(fd)
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR * request.vnet | IFF_MULTI_QUEUE * (request.queues > 1)
    try:
        answer = fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.name.encode(), flags))
        device.name = answer[:16].rstrip(b"\0").decode()
        if request.vnet:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER_BYTES))
        if request.sndbuf is not None:
            fcntl.ioctl(fd, TUNSETSNDBUF, struct.pack("i", min(request.sndbuf or 0x7FFFFFFF, 0x7FFFFFFF)))
    except OSError as exc:
        raise HostError(f"could not configure {TUN} ({device.name})", exc.errno) from exc


def read_device(fds: list[int]) -> TapDevice:
    """Take over descriptors that were opened elsewhere; OSError when they are not of a TAP device."""
    names, vnets = [], []
    for fd in fds:
        name, flags = struct.unpack("16sH22x", fcntl.ioctl(fd, TUNGETIFF, bytes(40)))
        if not flags & IFF_TAP:
            raise OSError(22, "not a TAP device")
        names.append(name.rstrip(b"\0").decode())
        vnets.append(bool(flags & IFF_VNET_HDR))
        if vnets[-1]:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER_BYTES))
        os.set_blocking(fd, False)
        os.set_inheritable(fd, False)
    if len(set(vnets)) > 1:
        raise ConfigError("fds=: some have a vnet header and some have none", "-netdev tap")
    return TapDevice(names[0], fds, vnets[0])


def _bring_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sH22x", name.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)
        if flags & IFF_UP:
            return
        try:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | IFF_UP))
        except OSError as exc:
            raise HostError(f"bring up {name}", exc.errno) from exc


def _set_up_by_netlink(name: str, request: TapRequest) -> None:
    from pyroute2 import IPRoute  # a third of a second: only who needs it waits for it
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip:
        try:
            (index,) = ip.link_lookup(ifname=name)
            changes: dict[str, Any] = {}
            if request.mtu is not None:
                changes["mtu"] = request.mtu
            if request.bridge is not None:
                bridges = ip.link_lookup(ifname=request.bridge)
                if not bridges:
                    raise HostError(f"bridge {request.bridge}: there is none")
                changes["master"] = bridges[0]
            ip.link("set", index=index, **changes)
        except NetlinkError as exc:
            raise HostError(f"set up {name}", exc.code) from exc


def _ask_helper(helper: str, bridge: str, vnet: bool) -> TapDevice:
    """Have a bridge helper (set-uid, usually) make the device; it sends the descriptor over a socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        fd = theirs.fileno()
        command = [helper, *(["--use-vnet"] if vnet else []), f"--fd={fd}", f"--br={bridge}"]
        try:
            with subprocess.Popen(command, pass_fds=(fd,)) as process:
                theirs.close()
                ours.settimeout(SCRIPT_SECONDS)
                _, fds, _, _ = socket.recv_fds(ours, 1, 1)
                code = process.wait(SCRIPT_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise HostError(f"bridge helper {helper}", getattr(exc, "errno", None)) from exc
    if not fds or code != 0:
        raise HostError(f"bridge helper failed: {helper} for {bridge}")
    return read_device(list(fds))


def run_script(script: str, name: str, netns: str | None) -> None:
    """Run `script NAME` in the namespace and wait for it; HostError when it fails."""
    prefix = [] if netns is None else ["nsenter", f"--net={netns if '/' in netns else f'{NETNS_DIR}/{netns}'}"]
    command = [*prefix, script, name]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=SCRIPT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise HostError(f"network script {script}", getattr(exc, "errno", None)) from exc
    if done.returncode:
        raise HostError(f"network script {script} failed with status {done.returncode}")


def run_down_script(script: str, device: TapDevice, netns: str | None) -> None:
    """Run a script in a thread of its own; the device's descriptors, which are its alone, keep it until it is done."""

    def run() -> None:
        with contextlib.suppress(HostError):
            run_script(script, device.name, netns)
        device.close()

    threading.Thread(target=run, name=f"downscript {device.name}").start()
