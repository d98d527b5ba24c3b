"""A process with a thousand clients, most of which mean ill: the others are served, and memory and descriptors end."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.bench.qmp import Client, wait_for

CLIENTS = 1000
OWN_FDS = 200  # of this process, besides the clients
UNREAD_BYTES = 256 << 10  # what a client that never reads may cost
LIMIT_S = 60.0
HELLO = b'{"execute":"qmp_capabilities"}'
KINDS = {
    "silent": b"",
    "half a command": HELLO + b'{"execute":"query-st',
    "never reads long answers": HELLO + b'{"execute":"query-qmp-schema"}' * 2000,
    "never reads many answers": HELLO + b'{"execute":"query-status"}' * 2000,
    "garbage": b"\xff" * 4000,
    "nests": b"[" * 4000,
    "a string without end": HELLO + b'{"execute":"query-status","id":"' + b"x" * 60000,
}


def fds(process: subprocess.Popen[bytes]) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def resident(process: subprocess.Popen[bytes]) -> int:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def until_fds(process: subprocess.Popen[bytes], count: int, most: bool) -> None:
    """Wait until it has at least, or at most, so many descriptors."""
    end = time.monotonic() + LIMIT_S
    while fds(process) > count if most else fds(process) < count:
        assert time.monotonic() < end, f"{fds(process)} descriptors, not {count}"
        time.sleep(0.01)  # time passes: another process works


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A machine with a monitor, started with few descriptors as a shell would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = CLIENTS + OWN_FDS
    if hard < need:
        pytest.skip(f"at most {hard} descriptors are allowed, {need} are needed")
    path = tmp_path / "q"
    words = "-m aioemu -machine none -display none -nodefaults".split()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    process = subprocess.Popen([sys.executable, *words, "-qmp", f"unix:{path},server=on,wait=off"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    try:
        wait_for(path)
        yield process, path
    finally:
        process.terminate()
        assert process.wait(LIMIT_S) == 0
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(300)
def test_a_thousand_clients_of_which_one_is_good(served: tuple[subprocess.Popen[bytes], Path]) -> None:
    """Silent, half, garbled and never-reading clients at once: one that asks is answered; nothing is left of them."""
    process, path = served
    good = Client(path)
    with closing(good.sock):
        good.ask(b'{"execute":"query-qmp-schema"}')
        before_fds, before_bytes = fds(process), resident(process)
        crowd = []
        for number in range(CLIENTS):
            each = socket.socket(socket.AF_UNIX)
            each.connect(str(path))
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.send(list(KINDS.values())[number % len(KINDS)])
            crowd.append(each)
        until_fds(process, before_fds + CLIENTS, most=False)
        for _ in range(500):
            assert b'"status"' in good.ask(b'{"execute":"query-status"}')
        assert resident(process) - before_bytes < CLIENTS * UNREAD_BYTES
        for each in crowd:
            each.close()
        until_fds(process, before_fds, most=True)
        assert b'"status"' in good.ask(b'{"execute":"query-status"}')
