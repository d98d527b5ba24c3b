"""A network card over a TAP device: the time of a frame, beside QEMU with the same payload in the same namespace.

Frames a second are the inverse; what is bounded is the time, so 1.3 times QEMU's rate is a ratio of 0.77. QEMU has no
iothread for its cards: its main loop is what both of ours are compared with. The other end is a C program (net_peer.c).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bench.harness import Bench, Figure, Options, UnavailableError, interleave, need, of_samples
from tests.bench.payload import need_kvm
from tests.guests.build import cache_folder, payload
from tests.netdev.namespaces import Namespace, namespace

DEVICE = "lab0"
LIMIT_S = 60.0
TX, RX, ECHO, PING = range(4)
LOADS = {
    "send 64 B": (TX, 64, None),
    "send 1500 B": (TX, 1500, None),
    "receive 64 B": (RX, 64, "flood"),
    "receive 1500 B": (RX, 1500, "flood"),
    "echo 64 B": (ECHO, 64, "window"),
    "echo 1500 B": (ECHO, 1500, "window"),
    "ping 64 B, p50": (PING, 64, "echo"),
    "ping 1500 B, p50": (PING, 1500, "echo"),
}
THREAD, LOOP = "iothread", "main loop"
RATIOS = {THREAD: 1 / 1.3, LOOP: 1.0}
QEMU = ("-M", "microvm,x-option-roms=off", "-global", "virtio-mmio.force-legacy=false")


def peer_program() -> Path:
    """net_peer.c, compiled once."""
    source = Path(__file__).with_name("net_peer.c")
    target = cache_folder() / f"net_peer-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / "net_peer"
            subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", made, source], check=True)
            made.replace(target)
    return target


def command(program: list[str], iothread: bool, append: str) -> list[str]:
    """A machine that runs the payload on this card, in words that both programs take."""
    device = "virtio-net-device,netdev=n" + (",iothread=io0" if iothread else "")
    return [
        *program,
        *("-accel", "kvm", "-cpu", "qemu64", "-m", "128M", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-kernel", str(payload()), "-append", append),
        *(("-object", "iothread,id=io0") if iothread else ()),
        *("-netdev", f"tap,id=n,ifname={DEVICE},script=no,downscript=no", "-device", device),
        *("-device", "isa-debug-exit,iobase=0x501"),
    ]


@contextlib.contextmanager
def other_end(netns: str, kind: str | None, size: int) -> Iterator[None]:
    """What the payload talks to, while it runs."""
    if kind is None:
        yield
        return
    words = ["ip", "netns", "exec", netns, str(peer_program()), kind, DEVICE, str(size)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def take(netns: str, words: list[str], kind: str | None, size: int) -> float:
    """One run of a program: microseconds a frame."""
    with other_end(netns, kind, size):
        done = subprocess.run(
            ["ip", "netns", "exec", netns, *words],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    assert "payload: pass" in done.stdout, done.stdout + done.stderr
    values: dict[str, float] = {}
    for line in re.findall(r"^\{.*\}", done.stdout, re.MULTILINE):
        values.update(json.loads(line))
    per_us = values["tsc_per_ms"] / 1000
    return values["p50"] / per_us if "p50" in values else values["cycles"] / per_us / values["done"]


def persistent_device(netns: Namespace) -> None:
    """The device of all runs; each takes it over."""
    words = ["ip", "netns", "exec", netns.name, "ip", "tuntap", "add", DEVICE, "mode", "tap", "vnet_hdr"]
    subprocess.run(words, check=True)
    netns.netlink(lambda ip: ip.link("set", index=ip.link_lookup(ifname=DEVICE)[0], state="up"))


def bench(options: Options) -> Iterator[Figure]:
    """On KVM, with an iothread and without."""
    need_kvm()
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise UnavailableError("needs root and iproute2")
    ours, theirs = [sys.executable, "-m", "aioemu", "-M", "microvm"], [need("qemu-system-x86_64"), *QEMU]
    with namespace() as netns:
        persistent_device(netns)
        for name, (mode, size, kind) in LOADS.items():
            append = f"net mode={mode} size={size} ms={options.pick(500, 150)}"
            takers: dict[str, Callable[[], float]] = {
                THREAD: partial(take, netns.name, command(ours, True, append), kind, size),
                LOOP: partial(take, netns.name, command(ours, False, append), kind, size),
                "qemu": partial(take, netns.name, command(theirs, False, append), kind, size),
            }
            taken = interleave(options.pick(7, 2), takers)
            reference = statistics.median(taken["qemu"])
            for place in (THREAD, LOOP):
                note = (
                    ""
                    if mode == PING
                    else f"{1e3 / statistics.median(taken[place]):.0f}k/s, QEMU {1e3 / reference:.0f}k/s"
                )
                yield of_samples(
                    f"{name}, {place}", taken[place], "us", limit=RATIOS[place], reference=reference, note=note
                )


BENCHES: dict[str, Bench] = {"net": bench}
