"""Frames to a TAP device, by a program that gives batches as cards do, with the sanitizers watching."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.netdev.namespaces import namespace

CORE = Path(__file__).resolve().parents[2] / "aioemu" / "core"
FLAGS = "-std=gnu11 -D_GNU_SOURCE= -g -O1 -fno-sanitize-recover=all -fsanitize=address,undefined -pthread".split()
SOURCES = "tap tap_read tap_write uring port passage offload io io_later iothread clock".split()
ROUNDS = 200

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/net/tun"), reason="needs root and /dev/net/tun"
)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tap_driver.c with the port's files."""
    made = tmp_path_factory.mktemp("tap") / "tap_driver"
    sources = [str(CORE / f"{name}.c") for name in SOURCES]
    driver = str(Path(__file__).with_name("tap_driver.c"))
    subprocess.run(["gcc", *FLAGS, f"-I{CORE}", "-o", str(made), *sources, driver], check=True)
    return made


@pytest.mark.parametrize("way", ["plain", "ring", "refused", "gone"])
def test_batches_arrive_whole_and_in_order(program: Path, way: str) -> None:
    """One by one or all at once, small or jumbo: what is sent arrives in order; a device that is gone stops nobody."""
    with namespace() as netns:
        words = ["ip", "netns", "exec", netns.name, str(program), way, str(ROUNDS)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
