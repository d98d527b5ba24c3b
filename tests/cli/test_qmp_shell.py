"""`aioemu qmp-shell` as a person uses it: typed lines, the tab key on a terminal, servers that leave."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aioemu.cli.qmp_shell import Schema
from tests.protocol.rig import TIMEOUT_S, Rig

SHELL = [sys.executable, "-m", "aioemu", "qmp-shell"]
PATIENCE_S = 30


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    await made.serve()
    yield made
    await made.close()


async def run(rig: Rig, typed: str, *options: str) -> tuple[int | None, str]:
    """The shell's status and everything it printed."""
    process = await asyncio.create_subprocess_exec(
        *SHELL,
        *options,
        rig.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "HOME": str(rig.folder)},
    )
    out, _ = await asyncio.wait_for(process.communicate(typed.encode()), PATIENCE_S)
    return process.returncode, out.decode()


async def test_commands_and_arguments(rig: Rig) -> None:
    """Lines are commands with key=value arguments; answers and errors are shown; the log and the history are kept."""
    log = rig.folder / "log"
    typed = "query-name\nhuman-monitor-command command-line='info name'\nnope\nx y\n\nqom-list path=/\n"
    status, out = await run(rig, typed, "-l", str(log))

    assert status == 0
    assert '{"return": {"name": "fake"}}' in out
    assert '"desc": "The command nope has not been found"' in out
    assert "Expected a key=value pair" in out
    assert '"execute": "query-name"' in log.read_text()
    assert (rig.folder / ".qmp-shell_history").exists()


async def test_text_monitor(rig: Rig) -> None:
    """-H speaks the text monitor; a blank line is none."""
    status, out = await run(rig, "info status\n   \ninfo name\n", "-H")

    assert status == 0
    assert "VM status: paused (prelaunch)" in out
    assert "fake" in out


async def test_help_comes_from_the_schema(rig: Rig) -> None:
    """`help COMMAND` shows names, types and what is optional, as the server says."""
    _, out = await run(rig, "help ringbuf-read\nhelp nope\nhelp\n")

    assert "ringbuf-read\n  device: string\n  size: int\n  [format: utf8|base64]\nreturns string\n" in out
    assert "The command nope has not been found" in out
    assert "help COMMAND" in out


async def test_server_that_quits(rig: Rig) -> None:
    """The end of the server ends the shell, with a word and no traceback."""

    async def leave() -> None:
        await rig.machine.ended
        rig.machine.chardevs.close()

    ending = asyncio.create_task(leave())
    status, out = await run(rig, "quit\nquery-status\n")
    await ending

    assert status == 0
    assert "Disconnected" in out
    assert "Traceback" not in out


async def test_tab_key_on_a_terminal(rig: Rig) -> None:
    """Tab completes a command, its argument and the argument's value."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *SHELL,
        rig.path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "HOME": str(rig.folder), "TERM": "dumb"},
    )
    os.close(theirs)
    screen = Screen(ours)
    await screen.wait_for("(QEMU) ")
    os.write(ours, b"set-ac\t")
    await screen.wait_for("set-action")
    os.write(ours, b" reb\t")
    await screen.wait_for("reboot=")
    os.write(ours, b"sh\t\n")
    await screen.wait_for('{"return": {}}')
    await screen.wait_for("(QEMU) ")
    os.write(ours, b"\x04")
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    screen.close()

    assert rig.machine.actions["reboot"] == "shutdown"


class Screen:
    """What a terminal shows, and waiting for it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._text = ""
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            self._text += os.read(self._fd, 65536).decode()
        except OSError:  # the other side is gone
            asyncio.get_running_loop().remove_reader(self._fd)
        self._news.set()

    async def wait_for(self, text: str) -> None:
        """Until (text) has been shown; what is before it is forgotten."""
        async with asyncio.timeout(TIMEOUT_S):
            while text not in self._text:
                self._news.clear()
                await self._news.wait()
        self._text = self._text.partition(text)[2]

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nodir/socket"], "Couldn't connect to /nodir/socket"),
        (["localhost:x"], "Bad port number: localhost:x"),
        (["-l", "/nodir/log", "/nodir/socket"], "/nodir/log: No such file or directory"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    """Nobody there, a wrong address, an impossible log: one line, status 1."""
    done = subprocess.run([*SHELL, *arguments], capture_output=True, text=True, timeout=PATIENCE_S)

    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_completion_offers_what_is_left(rig: Rig) -> None:
    """Arguments given already are not offered again; enumerations and booleans offer their values."""
    schema = Schema(await rig.hub.execute("query-qmp-schema"))

    assert schema.complete("ringbuf-read device=a ") == [
        "ringbuf-read device=a size=",
        "ringbuf-read device=a format=",
    ]
    assert schema.complete("ringbuf-read format=b") == ["ringbuf-read format=base64"]
    assert schema.complete("ringbuf-read nope=") == []
    assert schema.complete("nope d") == []
    assert schema.complete("help ringbuf-r") == ["help ringbuf-read"]
    assert schema.complete("object-add qom-type=iothread poll-m") == ["object-add qom-type=iothread poll-max-ns="]
    assert schema.complete("object-add poll-m") == []
