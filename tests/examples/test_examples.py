"""Every file in examples/ runs as its reader would run it, and says what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command: str, limit_s: float = 100.0) -> str:
    """What an example prints; its error text on failure."""
    done = subprocess.run(
        [sys.executable, *command], cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=limit_s, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_own_device() -> None:
    """examples/own_device.py places a device and reaches it over the bus."""
    output = run("examples/own_device.py")

    assert "control reads 0x31, started 1 time(s)" in output
    assert "Thermometer" in output


@pytest.mark.guest
def test_own_virtio() -> None:
    """examples/own_virtio.py: Linux reads what a device of 40 lines gives."""
    assert "rolled 2a 2a 2a 2a" in run("examples/own_virtio.py")


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.parametrize("board", ["microvm", "q35"])
def test_demo(board: str) -> None:
    """examples/demo.py boots Debian's kernel to a shell, uses it and a disk, boots again, switches off and sums up."""
    output = run("examples/demo.py", "--machine", board, "--smp", "2")

    assert "Linux 6." in output
    assert "guest-shutdown" in output
    assert f"{board}, " in output
    assert "the same after a reboot" in output
    assert "qemu-img check: clean" in output


@pytest.mark.guest
def test_own_peer() -> None:
    """examples/own_peer.py: Linux pings a host of 20 lines over a link of 20 ms there and back."""
    times = run("examples/own_peer.py").rpartition("= ")[2].split("/")
    assert float(times[0]) >= 20


@pytest.mark.guest
def test_scapy_peer() -> None:
    """examples/scapy_peer.py: Linux pings scapy."""
    pytest.importorskip("scapy")
    output = run("examples/scapy_peer.py")
    assert "round-trip" in output
    assert output.count("echo-request") == 3


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("board", ["microvm", "q35"])
def test_demo_network(board: str) -> None:
    """examples/demo_network.py: two guests on a link that is impaired, captured and cut, and their ways to the host."""
    output = run("examples/demo_network.py", "--machine", board, limit_s=200)

    assert "ping before, during and after" in output
    assert "carrier, link down and up again    0, 1" in output
    assert "hello from the host" in output
    if os.geteuid() == 0:
        assert "hello from the namespace" in output
