"""One TCP stream between a stock Linux guest on the software CPU and its host, beside QEMU's, over a TAP device.

The guest's kernel and programs are the same; what differs is the processor and the card. The host's ends run in threads
of this process, in the namespace of the device, and take the time from the connection to the end of the stream.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from aioemu.images import GuestImage, debian_guest
from tests.bench.harness import Figure, Options, UnavailableError, interleave, of_samples
from tests.bench.net import DEVICE, persistent_device
from tests.bench.tcg import commands, need_tcg
from tests.netdev.namespaces import Namespace, namespace

HOST, GUEST = "10.9.0.1", "10.9.0.2"
SINK, SOURCE = 5001, 5002
LIMIT_S = 60.0
TRIES = 5  # QEMU's guest hangs in the calibration of its clock at times
CHUNK = 1 << 20
RATIO = 1 / 1.5
BOARD = "q35"  # QEMU's microvm has no timer that a busy host's guest could calibrate its clock by
ONLY_OURS = ("iothread,id=io0",)


def guest(mebibytes: int) -> GuestImage:
    """Boots, sends a stream, receives one, ends."""
    rc = f"ip link set eth0 up; ip addr add {GUEST}/24 dev eth0"
    rc += f"; stream {HOST} {SINK} {mebibytes}; stream {HOST} {SOURCE} 0"
    source = Path(__file__).with_name("net_stream.c")
    return debian_guest(["virtio_pci", "virtio_net"], rc=rc, programs={"stream": source})


class Ends:
    """The host's ends of both streams; `taken` are nanoseconds for each byte."""

    def __init__(self, netns: Namespace, mebibytes: int) -> None:
        self.size = mebibytes << 20
        self.taken: dict[str, float] = {}
        self._listeners = [netns.call(partial(_listen, port)) for port in (SINK, SOURCE)]
        self._threads = [threading.Thread(target=self._serve, args=(end,)) for end in (self._sink, self._source)]
        for thread in self._threads:
            thread.start()

    def _serve(self, end: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):  # nobody came
            end()

    def _sink(self) -> None:
        buffer, got = bytearray(CHUNK), 0
        with self._listeners[0].accept()[0] as stream:
            started = time.perf_counter_ns()
            while count := stream.recv_into(buffer):
                got += count
            assert got == self.size
            self.taken["guest to host"] = (time.perf_counter_ns() - started) / got

    def _source(self) -> None:
        data, left = memoryview(bytes(CHUNK)), self.size
        with self._listeners[1].accept()[0] as stream:
            started = time.perf_counter_ns()
            while left:
                left -= stream.send(data[:left])
            stream.shutdown(socket.SHUT_WR)
            stream.recv(1)
            self.taken["host to guest"] = (time.perf_counter_ns() - started) / self.size

    def wait(self) -> dict[str, float]:
        for thread in self._threads:
            thread.join(LIMIT_S)
        return self.taken

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def _listen(port: int) -> socket.socket:
    return socket.create_server((HOST, port))


def take(netns: Namespace, words: list[str], mebibytes: int, found: list[dict[str, float]]) -> float:
    """One boot with both streams; again when the guest does not come up."""
    for _ in range(TRIES):
        with contextlib.suppress(subprocess.TimeoutExpired):
            found.append(_take(netns, words, mebibytes))
            return 0.0
    raise AssertionError(f"{words[0]}: the guest did not come up in {TRIES} tries")


def _take(netns: Namespace, words: list[str], mebibytes: int) -> dict[str, float]:
    ends = Ends(netns, mebibytes)
    try:
        command = ["ip", "netns", "exec", netns.name, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL, check=False
        )
        taken = ends.wait() if "aioemu-init" in done.stdout else {}
        assert len(taken) == 2, done.stdout[-2000:] + done.stderr[-2000:]
        return taken
    finally:
        ends.close()


def bench(options: Options) -> Iterator[Figure]:
    """With an iothread and without."""
    need_tcg()
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise UnavailableError("needs root and iproute2")
    mebibytes = options.pick(256, 32)
    image = guest(mebibytes)
    card = ["-netdev", f"tap,id=n,ifname={DEVICE},script=no,downscript=no", "-device"]
    plain = commands(image, image.kernel, *card, "virtio-net-pci,netdev=n")
    thread = commands(image, image.kernel, "-object", *ONLY_OURS, *card, "virtio-net-pci,netdev=n,iothread=io0")
    found_words = {"iothread": thread["aioemu"], "main loop": plain["aioemu"], "qemu": plain["qemu"]}
    words = {name: [BOARD if word == "microvm" else word for word in each] for name, each in found_words.items()}
    with namespace() as netns:
        persistent_device(netns)
        netns.add_address(DEVICE, HOST)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in words}
        takers = {name: partial(take, netns, words[name], mebibytes, found[name]) for name in words}
        interleave(options.pick(5, 1), takers)
    for way in ("guest to host", "host to guest"):
        reference = statistics.median(each[way] for each in found["qemu"])
        for place in ("iothread", "main loop"):
            samples = [each[way] for each in found[place]]
            note = f"{8 / statistics.median(samples):.2f} Gbit/s, QEMU {8 / reference:.2f} Gbit/s"
            yield of_samples(f"TCP {way}, {place}", samples, "ns/B", limit=RATIO, reference=reference, note=note)
