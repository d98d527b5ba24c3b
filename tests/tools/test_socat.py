"""socat as people and scripts use it: typed by pieces, two at once; QMP and the text monitor, unix sockets and TCP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.qmp import wait_for

LIMIT_S = 60.0
pytestmark = pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")


class Socat:
    """A socat between this test and an address."""

    def __init__(self, address: str) -> None:
        words = ["socat", "-t", "30", "-", address]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    def until(self, end: bytes) -> bytes:
        assert self.process.stdout is not None
        got = b""
        while not got.endswith(end):
            byte = self.process.stdout.read(1)
            assert byte, got
            got += byte
        return got

    def answer(self) -> Any:
        return json.loads(self.until(b"\r\n"))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """Addresses of a machine's monitors: QMP, text by TCP, text by telnet."""
    path = tmp_path / "q"
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [each.getsockname()[1] for each in (one, two)]
    words = "-m aioemu -machine none -display none -nodefaults -S".split()
    words += ["-monitor", f"tcp:127.0.0.1:{ports[0]},server,nowait", "-qmp", f"unix:{path},server,nowait"]
    words += ["-monitor", f"telnet:127.0.0.1:{ports[1]},server,nowait"]
    process = subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL)
    try:
        wait_for(path)
        yield f"UNIX-CONNECT:{path}", f"TCP:127.0.0.1:{ports[0]}", f"TCP:127.0.0.1:{ports[1]}"
    finally:
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_typed_by_pieces_beside_another(places: tuple[str, str, str]) -> None:
    """Half lines wait for their other half, lines need no end, a second client is served meanwhile and sees events."""
    one, two = Socat(places[0]), Socat(places[0])
    try:
        assert "QMP" in one.answer()
        one.type("{ 'execute': 'qmp_capa")
        assert "QMP" in two.answer()
        two.type('{"execute":"qmp_capabilities"}\n')
        assert two.answer() == {"return": {}}
        one.type("bilities' }")
        assert one.answer() == {"return": {}}
        for character in '{"execute": "query-status", "id": [1, {"a": null}]}':
            one.type(character)
        assert one.answer() == {"return": {"status": "prelaunch", "running": False}, "id": [1, {"a": None}]}
        one.type('nonsense\n{"execute": "query-name"}\n')
        assert one.answer()["error"]["desc"].startswith("JSON parse error")
        assert one.answer() == {"return": {}}
        two.type('{"execute":"cont"}')
        assert one.answer()["event"] == two.answer()["event"] == "RESUME"
        assert two.answer() == {"return": {}}
    finally:
        one.close()
        two.close()


@pytest.mark.parametrize("place", [1, 2], ids=["tcp", "telnet"])
def test_text_monitor(places: tuple[str, str, str], place: int) -> None:
    """As GNS3 and vrnetlab do: read to the prompt, send a line, read to the prompt again; what is wrong is told."""
    person = Socat(places[place])
    try:
        assert b"QEMU 10.0.0 monitor - type 'help' for more information\r\n" in person.until(b"(qemu) ")
        for line, expected in (
            ("info status", b"VM status: paused (prelaunch)\r\n"),
            ("cont", b""),
            ("info status", b"VM status: running\r\n"),
            ("stop", b""),
            ("nope", b"unknown command: 'nope'\r\n"),
            ("set_link", b"set_link"),
            ("", b""),
        ):
            person.type(f"{line}\n")
            text = person.until(b"(qemu) ")
            assert expected in text
    finally:
        person.close()


def test_a_script_that_sends_all_and_closes(places: tuple[str, str, str]) -> None:
    """`echo ... | socat -` gets every answer, with the events in between, before the end of the stream."""
    commands = '{"execute":"qmp_capabilities"}{"execute":"cont"}{"execute":"stop"}{"execute":"query-status","id":7}'
    words = ["socat", "-t", "30", "-", places[0]]
    done = subprocess.run(words, input=commands.encode(), capture_output=True, timeout=LIMIT_S, check=True)

    kinds = [next(iter(set(json.loads(line)) & {"QMP", "return", "event"})) for line in done.stdout.splitlines()]
    assert kinds == ["QMP", "return", "event", "return", "event", "return", "return"]
