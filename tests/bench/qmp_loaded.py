"""The monitor while the guest works: 99th percentile of query-status beside a disk or a card at full speed.

The guest is the payload that polls its device without end, on a disk in memory and on a TAP device, with an iothread
and without; QEMU runs the same in turn. A client asks twice in a millisecond, as a manager would that looks often.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bench import block, net
from tests.bench.harness import Bench, Figure, Options, UnavailableError, interleave, of_samples
from tests.bench.payload import need_kvm
from tests.bench.qmp import LIMIT_S, STATUS, Client, wait_for
from tests.netdev.namespaces import namespace

LIMIT_MS = 5.0
PAUSE_S = 0.0005  # between two commands
WARM_UP_S = 0.5  # the payload finds its device meanwhile: these answers do not count
GUEST_MS = 60_000  # longer than anybody asks
Takers = dict[str, Callable[[], float]]
DISK = {"disk, 4 KiB reads, qd 32": "qd=32", "disk, 128 KiB writes, qd 8": "qd=8 size=131072 seq=1 write=1"}


def p99_ms(words: list[str], seconds: float) -> float:
    """Start it, ask for so long, end it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q"
        words = [*words, "-qmp", f"unix:{path},server=on,wait=off"]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(path)
                client = Client(path)
                asked(client, WARM_UP_S)
                taken = asked(client, seconds)
                assert process.poll() is None, "the guest ended too early"
            finally:
                process.terminate()
                process.wait(LIMIT_S)
    return statistics.quantiles(taken, n=100)[98]


def asked(client: Client, seconds: float) -> list[float]:
    """Milliseconds of each command."""
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter_ns()
        assert b"running" in client.ask(STATUS)
        taken.append((time.perf_counter_ns() - started) / 1e6)
        time.sleep(PAUSE_S)  # time passes: a manager's own work
    return taken


def compare(name: str, takers: Takers, rounds: int) -> Iterator[Figure]:
    """Each of ours against the limit, QEMU's for information."""
    taken = interleave(rounds, takers)
    qemu = statistics.median(taken.pop("qemu"))
    for place, samples in taken.items():
        yield of_samples(f"{name}, {place}", samples, "ms", limit=LIMIT_MS, note=f"QEMU {qemu:.2f} ms")


def bench(options: Options) -> Iterator[Figure]:
    """On KVM: disk, then network."""
    need_kvm()
    seconds, rounds = options.pick(2, 1), options.pick(3, 1)
    places = (block.THREAD, block.LOOP)
    with block.image() as file:
        for name, load in DISK.items():
            append = f"blk {load} ms={GUEST_MS}"
            takers: Takers = {
                place: partial(p99_ms, block.command(block.aioemu(), file, "", place, append), seconds)
                for place in places
            }
            aio = block.QEMU_SETTINGS["io_uring"]
            theirs = block.command(block.qemu(), file, aio, block.THREAD, append)
            yield from compare(f"p99 beside {name}", takers | {"qemu": partial(p99_ms, theirs, seconds)}, rounds)
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise UnavailableError("the network's part needs root and iproute2")
    with namespace() as netns:
        net.persistent_device(netns)
        append = f"net mode={net.TX} size=1500 ms={GUEST_MS}"
        inside = ["ip", "netns", "exec", netns.name]
        ours = block.aioemu()
        takers = {
            place: partial(p99_ms, [*inside, *net.command(ours, place == net.THREAD, append)], seconds)
            for place in places
        }
        theirs = [*inside, *net.command([block.qemu()[0], *net.QEMU], False, append)]
        name = "p99 beside network, 1500 B sent"
        yield from compare(name, takers | {"qemu": partial(p99_ms, theirs, seconds)}, rounds)


BENCHES: dict[str, Bench] = {"qmp-loaded": bench}
