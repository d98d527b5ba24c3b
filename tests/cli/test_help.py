"""What `OPTION help` answers: lists in the layout that tools read, of what there is and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aioemu.blockdev.registry import DRIVERS

NETDEV = "  netdev=<str>           - ID of a netdev to use as a backend"


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    """The command with a question."""
    return subprocess.run([sys.executable, "-m", "aioemu", *words], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("words", "first", "line"),
    [
        ("-cpu help", "Available CPUs:", "  qemu64                a plain 64-bit processor that every host has"),
        ("-object iothread,help", "iothread options:", None),
        ("-object help", "List of user creatable objects:", "  rng-random"),
        ("-netdev user,help", "user options:", "  hostfwd=<str>"),
        ("-netdev tap,help", "tap options:", "  vnet_hdr=<bool (on/off)>"),
        ("-nic model=help", "Available NIC models for this configuration:", "virtio-net-pci"),
        ("-drive file=x,format=help", "Supported formats: " + " ".join(sorted(DRIVERS)), None),
        ("-vga help", "none                 no graphic card", None),
        ("-audiodev help", "Available audio drivers:", "none"),
        ("-smp help", "smp-opts options:", "  cores=<num>"),
        ("-boot ?", "boot-opts options:", "  menu=<bool (on/off)>"),
        ("-device virtio-net-pci,help", "virtio-net-pci options:", NETDEV),
    ],
)  # fmt: skip
def test_lists(words: str, first: str, line: str | None) -> None:
    """The heading and the lines that scripts look for; status 0."""
    done = ask(*words.split())
    lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == first
    assert line is None or line in lines


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("-device nope,help", "-device nope,help: Device 'nope' not found"),
        ("-object nope,help", "-object nope,help: Parameter 'qom-type' does not accept value 'nope'"),
        ("-netdev nope,help", "Parameter 'type' does not accept value 'nope'"),
    ],
)
def test_what_is_unknown_is_named(words: str, told: str) -> None:
    """Help about what there is not is an error."""
    done = ask(*words.split())

    assert done.returncode == 1
    assert done.stderr.startswith(f"aioemu: {told}")
