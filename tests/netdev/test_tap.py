"""TAP devices of the host: made, taken over, joined, and gone; frames pass both ways."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioemu._core import lib
from aioemu.errors import ConfigError, EmuError, HostError
from aioemu.log import EventLog, Log
from aioemu.machine.iothread import ReactorIo
from aioemu.netdev.port import TAKES, Box
from aioemu.netdev.registry import NetContext, open_netdev
from aioemu.netdev.tap_device import IFF_NO_PI, IFF_TAP, TUN, TUNSETIFF
from tests.netdev.namespaces import Namespace, namespace

ETHERNET = b"\xff" * 6 + bytes((2, 0, 0, 0, 0, 1)) + b"\x88\xb5"
FRAME = ETHERNET + bytes(range(100))
OPEN_LIMIT_S = 10.0


class Bench:
    """An io context, what was opened on it, and a box to join to it."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.io = ReactorIo()
        self.opened: list[Any] = []

    async def open(self, kind: str = "tap", **values: Any) -> Any:
        log = Log("machine", "test", self.events)
        context = NetContext("net0", log.to("net"), lambda: self.io.ptr, int)
        netdev = await asyncio.wait_for(open_netdev(kind, values, context), OPEN_LIMIT_S)
        self.opened.append(netdev)
        return netdev

    def box(self, netdev: Any, **keywords: Any) -> Box:
        box = Box(**keywords)
        self.opened.append(box)
        box.join(netdev.port)
        return box

    def close(self) -> None:
        for each in reversed(self.opened):
            each.close()
        self.io.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.close()


async def arrival(box: Box) -> bytes:
    """The next frame of the test's kind: the host's own chatter is not waited for."""
    while True:
        while (frame := box.take()) is not None:
            if frame[12:14] == ETHERNET[12:14]:
                return frame
        await filled(box)


async def filled(box: Box) -> None:
    """Until there is something in it."""
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def tell() -> None:
        if not arrived.done():
            arrived.set_result(None)

    loop.add_reader(box.fd, tell)
    try:
        await asyncio.wait_for(arrived, OPEN_LIMIT_S)
    finally:
        loop.remove_reader(box.fd)


async def heard(sniffer: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        frame = await asyncio.wait_for(loop.sock_recv(sniffer, 1 << 17), OPEN_LIMIT_S)
        if frame[12:14] == ETHERNET[12:14]:
            return frame


@pytest.mark.parametrize(
    "options", [{"sndbuf": "1M"}, {"queues": "4"}, {"vnet_hdr": "off"}, {"queues": "2", "vnet_hdr": "off"}]
)
async def test_frames_pass_both_ways(bench: Bench, netns: Namespace, options: dict[str, str]) -> None:
    """What the host sends on the device arrives at the port, and the other way round, byte for byte."""
    tap = await bench.open(ifname="lab0", netns=netns.name, **options)
    box = bench.box(tap)
    with netns.packet_socket("lab0") as sniffer:
        assert box.send(FRAME)
        assert await heard(sniffer) == FRAME

        sniffer.send(FRAME)
        assert await arrival(box) == FRAME


async def test_a_port_without_room_gets_the_rest_when_there_is_some(bench: Bench, netns: Namespace) -> None:
    """What the peer does not take waits, in order, and is not lost."""
    tap = await bench.open(ifname="lab0", netns=netns.name)
    box = bench.box(tap, frames=4, waits=True)
    with netns.packet_socket("lab0") as sniffer:
        for number in range(40):
            sniffer.send(FRAME + bytes([number]))

        assert [(await arrival(box))[-1] for _ in range(40)] == list(range(40))


async def test_the_device_goes_with_the_machine_unless_it_is_to_persist(bench: Bench, netns: Namespace) -> None:
    """Closing takes the device away; `persist=on` leaves it."""
    one = await bench.open(ifname="lab0", netns=netns.name)
    other = await bench.open(ifname="lab1", netns=netns.name, persist=True)
    assert {"lab0", "lab1"} <= netns.links().keys()

    one.close()
    other.close()

    assert "lab0" not in netns.links()
    assert "lab1" in netns.links()


async def test_names_mtu_and_bridge_are_as_asked(bench: Bench, netns: Namespace) -> None:
    """By netlink, inside the namespace; the kernel finds a name where none is given."""
    netns.netlink(lambda ip: ip.link("add", ifname="br7", kind="bridge"))
    tap = await bench.open(netns=netns.name, br="br7", mtu="9000")
    other = await bench.open("bridge", br="br7", netns=netns.name)

    links = netns.links()
    for each, mtu in ((tap, 9000), (other, 1500)):
        assert links[each.ifname].get_attr("IFLA_MTU") == mtu
        assert links[each.ifname].get_attr("IFLA_MASTER") == links["br7"]["index"]
    assert tap.summary == f"ifname={tap.ifname},br=br7"
    assert other.summary == "helper=no,br=br7"


async def test_a_descriptor_that_somebody_else_opened_is_taken_over(bench: Bench, netns: Namespace) -> None:
    """fd= and fds= need no rights of ours; whether there are headers is found out."""

    def opened() -> int:
        fd = os.open(TUN, os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"lab0", IFF_TAP | IFF_NO_PI))
        return fd

    fd = netns.call(opened)
    netns.netlink(lambda ip: ip.link("set", index=ip.link_lookup(ifname="lab0")[0], state="up"))
    tap = await bench.open(fd=str(fd))
    box = bench.box(tap)
    with netns.packet_socket("lab0") as sniffer:
        sniffer.send(FRAME)
        assert await arrival(box) == FRAME
    assert (tap.ifname, tap.summary) == ("lab0", f"fd={fd}")
    assert tap.port.takes == frozenset()


async def test_what_is_no_tap_is_refused(bench: Bench) -> None:
    """A descriptor of something else, and options that exclude each other."""
    read_end, write_end = os.pipe()
    os.close(write_end)
    with pytest.raises(HostError, match="not a TAP device"):
        await bench.open(fd=str(read_end))
    os.close(read_end)  # it is ours still
    with pytest.raises(HostError, match="not a TAP device: Bad file descriptor"):
        await bench.open(fd=str(read_end))
    for values, why in (
        ({"fd": "3", "fds": "4"}, "fds= is invalid with fd="),
        ({"fd": "3", "ifname": "x"}, "ifname= is invalid with fd="),
        ({"queues": "0"}, "queues=0"),
        ({"queues": "x"}, "'queues' expects a number"),
        ({"vnet_hdr": "perhaps"}, "'vnet_hdr' expects 'on' or 'off'"),
        ({"ifnam": "x"}, "'ifnam' is unexpected; did you mean ifname"),
        ({"vhostforce": "on"}, "vhost"),
        ({"ifname": "a-name-of-16-byte"}, "ifname="),
        ({"netns": "no-such-namespace"}, "network namespace no-such-namespace"),
    ):
        with pytest.raises(EmuError, match=why):
            await bench.open(**values)
    with pytest.raises(ConfigError, match="does not accept value 'tpa'; did you mean tap"):
        await bench.open("tpa")


@pytest.mark.parametrize("how", ["device", "namespace"])
async def test_a_device_that_disappears_takes_only_the_carrier(bench: Bench, netns: Namespace, how: str) -> None:
    """Deleted, or the namespace that it was moved to: an event, no carrier, frames are lost, and nothing spins."""
    tap = await bench.open(ifname="lab0", netns=netns.name)
    box = bench.box(tap)
    assert [box.carrier, box.is_up] == [True, True]
    gone = asyncio.Event()
    bench.events.subscribe(lambda event: gone.set() if event.name == "netdev-gone" else None)

    if how == "device":
        netns.netlink(lambda ip: ip.link("del", index=ip.link_lookup(ifname="lab0")[0]))
    else:
        with namespace() as other:
            netns.netlink(lambda ip: ip.link("set", index=ip.link_lookup(ifname="lab0")[0], net_ns_fd=other.name))
    await asyncio.wait_for(gone.wait(), OPEN_LIMIT_S)

    assert [box.carrier, box.is_up] == [False, True]
    assert box.send(FRAME)
    assert box.stats.sent.dropped == {"link-down": 1}
    assert not select.select([lib.core_io_fd(bench.io.ptr)], [], [], 0)[0]


async def test_a_namespace_stays_as_long_as_a_device_in_it_is_used(bench: Bench, netns: Namespace) -> None:
    """Its name may go: the device works on in it, and closing ends both."""
    tap = await bench.open(ifname="lab0", netns=netns.name)
    box = bench.box(tap)
    with netns.packet_socket("lab0") as sniffer:
        netns.remove()
        assert box.send(FRAME)
        assert await heard(sniffer) == FRAME
    tap.close()
    assert not box.carrier


async def test_scripts_get_the_interface_in_its_namespace(bench: Bench, netns: Namespace, tmp_path: Path) -> None:
    """The up script runs before the machine, the down script still finds the interface; one that fails is an error."""
    script, seen = tmp_path / "up", tmp_path / "seen"
    script.write_text(
        f'#!/bin/sh\n[ -e /proc/self/net/dev_snmp6/$1 ] || grep -q "$1:" /proc/self/net/dev && echo "$1" >>{seen}\n'
    )
    script.chmod(0o755)
    tap = await bench.open(ifname="lab0", netns=netns.name, script=str(script), downscript=str(script))
    assert seen.read_text() == "lab0\n"

    watcher = netns.packet_socket("lab0")
    tap.close()
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, wait_for_threads)
    watcher.close()

    assert seen.read_text() == "lab0\nlab0\n"
    script.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(HostError, match="failed with status 3"):
        await bench.open(ifname="lab1", netns=netns.name, script=str(script))
    assert "lab1" not in netns.links()


@pytest.mark.parametrize("turns", range(6))
async def test_an_opening_that_is_cancelled_leaves_no_device(bench: Bench, netns: Namespace, turns: int) -> None:
    """Wherever it is, the device that a thread makes meanwhile goes with it."""
    before = len(os.listdir("/proc/self/fd"))
    opening = asyncio.ensure_future(bench.open(ifname="lab0", netns=netns.name))
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert "lab0" not in netns.links()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_script_whose_opening_is_cancelled(bench: Bench, netns: Namespace, tmp_path: Path) -> None:
    """The device stays for the script, and goes when that has ended."""
    started, go_on, script = tmp_path / "started", tmp_path / "go-on", tmp_path / "up"
    for fifo in (started, go_on):
        os.mkfifo(fifo)
    script.write_text(f"#!/bin/sh\necho >{started}\nread line <{go_on}\n")
    script.chmod(0o755)
    opening = asyncio.ensure_future(bench.open(ifname="lab0", netns=netns.name, script=str(script)))
    await asyncio.to_thread(started.read_text)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert "lab0" in netns.links()
    await asyncio.to_thread(go_on.write_text, "\n")
    async with asyncio.timeout(OPEN_LIMIT_S):
        while "lab0" in netns.links():
            await asyncio.sleep(0)


def wait_for_threads() -> None:
    """Until down scripts are through."""
    import threading

    for thread in threading.enumerate():
        if thread.name.startswith("downscript"):
            thread.join()


async def test_offloads_of_the_peer_become_the_devices(bench: Bench, netns: Namespace) -> None:
    """A peer that understands checksums and segmentation gets large frames with a header, another complete ones."""
    tap = await bench.open(ifname="lab0", netns=netns.name)
    assert tap.port.takes >= {"csum", "tso4", "tso6", "ecn"}
    box = bench.box(tap, takes=frozenset(TAKES))
    netns.add_address("lab0", "10.7.0.1")

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            udp.sendto(b"hello" * 20, ("10.7.0.255", 9))

    netns.call(send)
    header = await udp_header(box)
    assert header[0] == 1  # the checksum is for the receiver, or its hardware, to complete

    box.part()
    plain = bench.box(tap)
    netns.call(send)
    assert (await udp_header(plain))[0] == 0


async def udp_header(box: Box) -> bytes:
    """The header of the next UDP packet over IPv4."""
    while True:
        while (found := box.take_with_header()) is not None:
            header, frame = found
            if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP:
                return header
        await filled(box)
