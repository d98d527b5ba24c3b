"""qemu.qmp's qmp-tui in a terminal of tmux: what is typed reaches the machine, its answers and events are shown."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.qmp import wait_for

TUI = Path(sys.executable).with_name("qmp-tui")
LIMIT_S = 30.0
pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("urwid") is None, reason="urwid is not installed: qemu.qmp[tui]"),
    pytest.mark.skipif(not TUI.exists(), reason="qmp-tui is not installed: qemu.qmp"),
]


class Terminal:
    """A window of tmux that runs one program."""

    def __init__(self, folder: Path, command: str) -> None:
        self._words = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._do("new-session", "-d", "-x", "100", "-y", "60", command)

    def _do(self, *words: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "TMUX"} | {"TERM": "xterm"}
        command = [*self._words, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=10).stdout

    def keys(self, *names: str) -> None:
        self._do("send-keys", *names)

    def text(self, text: str) -> None:
        self._do("send-keys", "-l", text)

    def until(self, holds: Callable[[str], bool]) -> str:
        """What is shown once it is so."""
        end = time.monotonic() + LIMIT_S
        while not holds(shown := self._do("capture-pane", "-p")):
            assert time.monotonic() < end, shown
            time.sleep(0.05)  # time passes: the program draws ...
            self.keys("Down")  # ... and this one only after a key; it also leads from the history into the editor
        return shown

    def close(self) -> None:
        self._do("kill-server")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    path = tmp_path / "q"
    words = "-m aioemu -machine none -display none -nodefaults -S".split()
    with subprocess.Popen([sys.executable, *words, "-qmp", f"unix:{path},server=on,wait=off"]) as process:
        wait_for(path)
        yield process, path
        process.terminate()


def test_typed_commands_answers_and_events(tmp_path: Path, machine: tuple[subprocess.Popen[bytes], Path]) -> None:
    """It negotiates, a command typed is answered, an event is shown, and quit ends the machine with 0."""
    process, path = machine
    terminal = Terminal(tmp_path, f"{TUI} {path}")
    try:
        terminal.until(lambda shown: '"return": {}' in shown and "[Connected" in shown)
        for command, answer in (("query-status", '"prelaunch"'), ("cont", '"RESUME"')):
            terminal.text(f'{{"execute": "{command}"}}')
            terminal.until(lambda shown, command=command: f'> {{"execute": "{command}"}}' in shown)  # type: ignore[misc]
            terminal.keys("Escape", "Enter")  # alt-enter sends
            terminal.until(lambda shown, answer=answer: answer in shown)  # type: ignore[misc]
        terminal.text('{"execute": "quit"}')
        terminal.keys("Escape", "Enter")
        assert process.wait(LIMIT_S) == 0
    finally:
        terminal.close()
