"""QEMU's own python/qemu/machine, unmodified, launches the installed command, talks to it and ends it.

Runs where AIOEMU_QEMU_SOURCE names QEMU's source folder (`python -m tests.conformance FOLDER` fetches it).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = os.environ.get("AIOEMU_QEMU_SOURCE", "")
LIBRARY = Path(SOURCE or "/nonexistent") / "python"
BINARY = Path(sys.executable).with_name("aioemu-system-x86_64")
pytestmark = [
    pytest.mark.skipif(not (LIBRARY / "qemu/machine").is_dir(), reason="AIOEMU_QEMU_SOURCE does not name its source"),
    pytest.mark.skipif(not BINARY.exists(), reason="aioemu-system-x86_64 is not installed"),
]

BEGIN = """
import os, signal, sys
from qemu.machine import QEMUMachine, QEMUQtestMachine
from qemu.qmp import ExecuteError
BINARY = sys.argv[1]
"""
PROGRAMS = {
    "launch, commands, events, shutdown": """
with QEMUMachine(BINARY, args=["-nodefaults"]) as vm:
    vm.set_machine("q35")
    vm.launch()
    assert vm.is_running()
    assert vm.cmd("query-status") == {"status": "running", "running": True}
    vm.cmd("stop")
    assert vm.event_wait("STOP", timeout=30)["event"] == "STOP"
    assert vm.cmd("human-monitor-command", command_line="info status") == "VM status: paused\\r\\n"
    try:
        vm.cmd("nope")
        raise AssertionError("accepted")
    except ExecuteError as exc:
        assert exc.error_class == "CommandNotFound"
    vm.shutdown()
    assert vm.exitcode() == 0, vm.get_log()
""",
    "a console, a descriptor on the command line, one sent": """
with QEMUMachine(BINARY) as vm:
    vm.set_console()
    reading, writing = os.pipe()
    vm.add_fd(reading, 3, "mine")
    vm.launch()
    [held] = vm.cmd("query-fdsets")
    assert held["fdset-id"] == 3 and held["fds"][0]["opaque"] == "mine"
    assert vm.send_fd_scm(fd=writing) == 0
    assert vm.cmd("getfd", fdname="sent") == {}
    vm.console_socket.close()
""",
    "a monitor over TCP": """
import socket
with socket.create_server(("127.0.0.1", 0)) as probe:
    address = probe.getsockname()
with QEMUMachine(BINARY, monitor_address=address) as vm:
    vm.launch()
    assert vm.cmd("query-version")["qemu"]["major"] == 10
""",
    "quit by the client, and waiting for it": """
with QEMUMachine(BINARY) as vm:
    vm.launch()
    vm.cmd("quit")
    vm.wait()
    assert vm.exitcode() == 0
""",
    "a machine that cannot start": """
from qemu.machine.machine import VMLaunchFailure
with QEMUMachine(BINARY, args=["-device", "nope"]) as vm:
    try:
        vm.launch()
        raise AssertionError("launched")
    except VMLaunchFailure as exc:
        assert "'nope' is not a valid device model name" in str(exc)
""",
    "qtest": """
with QEMUQtestMachine(BINARY, args=["-nodefaults"]) as vm:
    vm.set_qmp_monitor()
    vm.launch()
    assert vm.qtest("clock_step 1000").split() == ["OK", "1000"]
    assert vm.qtest("write 0x1000 2 0xabcd").split() == ["OK"]
    assert vm.qtest("read 0x1000 2").split() == ["OK", "0xabcd"]
    vm.shutdown()
    assert vm.exitcode() == 0
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, tmp_path: Path) -> None:
    """Each of these programs runs to its end."""
    path = os.pathsep.join([str(LIBRARY), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])])
    words = [sys.executable, "-c", BEGIN + PROGRAMS[name], str(BINARY)]
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
