"""Work that a client began goes on when the client is killed, and everybody else sees it end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.qmp import Client, wait_for

LIMIT_S = 60.0
IMAGE_BYTES = 512 << 20
KILLED = """
import os, signal, sys
from tests.bench.qmp import Client
client = Client(sys.argv[1])
client.sock.sendall(sys.argv[2].encode())
first = client.line()
assert b"return" in first or b"event" in first, first
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Path]:
    """A machine with memory and a monitor."""
    path = tmp_path / "q"
    words = "-m aioemu -machine q35 -accel tcg -m 64M -S -display none -nodefaults".split()
    process = subprocess.Popen([sys.executable, *words, "-qmp", f"unix:{path},server=on,wait=off"])
    try:
        wait_for(path)
        yield path
    finally:
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def killed_after(monitor: Path, request: dict[str, Any]) -> None:
    """A client sends this, sees that it began, and is killed at once."""
    words = [sys.executable, "-c", KILLED, str(monitor), json.dumps(request)]
    assert subprocess.run(words, check=False, timeout=LIMIT_S).returncode == -signal.SIGKILL


def until(client: Client, query: str, key: str, ends: tuple[str, ...]) -> dict[str, Any]:
    """Ask until the first of what is answered is in one of these states."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        client.sock.sendall(json.dumps({"execute": query, "id": 1}).encode())
        text = b""
        while b'"id": 1}' not in text:
            text += client.line()
        found = [each for each in map(json.loads, text.splitlines()) if each.get("id") == 1]
        values = [value for each in found for value in (each["return"] if query == "query-jobs" else [each["return"]])]
        if values and values[0][key] in ends:
            answer: dict[str, Any] = values[0]
            return answer
        time.sleep(0.01)  # time passes: the job works
    raise AssertionError(f"{query}: {values}")


@pytest.mark.parametrize("preallocation", ["falloc", "full"])
def test_blockdev_create_of_a_client_that_is_killed(monitor: Path, tmp_path: Path, preallocation: str) -> None:
    """The job goes on to its end, is listed for another client and dismissed by it; the image is whole."""
    image = tmp_path / "image"
    options = {"driver": "file", "filename": str(image), "size": IMAGE_BYTES, "preallocation": preallocation}
    killed_after(monitor, {"execute": "blockdev-create", "arguments": {"job-id": "j", "options": options}})
    other = Client(monitor)

    job = until(other, "query-jobs", "status", ("concluded",))

    assert job["id"] == "j"
    assert "error" not in job
    status = os.stat(image)
    assert status.st_size == IMAGE_BYTES
    assert status.st_blocks * 512 >= IMAGE_BYTES
    assert b'"return": {}' in other.ask(b'{"execute":"job-dismiss","arguments":{"id":"j"}}').splitlines()[-1]
    other.sock.close()


def test_dump_of_a_client_that_is_killed(monitor: Path, tmp_path: Path) -> None:
    """A detached dump of the guest's memory ends as an ELF core with all of it."""
    core = tmp_path / "core"
    arguments = {"paging": False, "protocol": f"file:{core}", "detach": True}
    killed_after(monitor, {"execute": "dump-guest-memory", "arguments": arguments})
    other = Client(monitor)

    answer = until(other, "query-dump", "status", ("completed", "failed"))

    assert answer["status"] == "completed"
    assert core.read_bytes()[:4] == b"\x7fELF"
    assert core.stat().st_size > 64 << 20
    other.sock.close()
