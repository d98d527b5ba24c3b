"""Changing wires that are never empty of senders, driven by a program, with the sanitizers watching."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "aioemu" / "core"
FLAGS = "-std=gnu11 -D_GNU_SOURCE= -g -O1 -fno-sanitize-recover=all -pthread".split()


@pytest.fixture(scope="session", params=["address,undefined", "thread"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """passage_driver.c with the files of ports and links, under one kind of sanitizer."""
    made = tmp_path_factory.mktemp("passage") / "passage_driver"
    wires = [CORE / f"{name}.c" for name in ("clock", "io", "io_later", "iothread", "port", "passage", "offload")]
    wires += [path for kind in ("link", "capture") for path in sorted(CORE.glob(f"{kind}*.c"))]
    command = ["gcc", *FLAGS, f"-fsanitize={request.param}", f"-I{CORE}", "-o", str(made), *map(str, wires)]
    subprocess.run([*command, str(Path(__file__).with_name("passage_driver.c")), "-lm"], check=True)
    return made


def test_a_change_waits_for_who_is_inside_and_nobody_else(program: Path) -> None:
    """One of the senders is always on its way: a change still returns, when those are out who were in."""
    done = subprocess.run([program, "50"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
