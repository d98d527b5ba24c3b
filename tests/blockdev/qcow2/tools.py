"""qemu-img and qemu-io as a judge, and a disk kept in memory as the truth that images are compared with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HAVE_TOOLS = shutil.which("qemu-img") is not None and shutil.which("qemu-io") is not None
needs_tools = pytest.mark.skipif(not HAVE_TOOLS, reason="qemu-img and qemu-io (Debian: qemu-utils) are the judges")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def run(*command: str | Path, status: int = 0) -> str:
    """Run a tool to its end; its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def make(path: Path, size: int | str, options: str = "", *extra: str) -> Path:
    """An image by qemu-img."""
    run("qemu-img", "create", "-q", "-f", "qcow2", *(["-o", options] if options else []), *extra, path, str(size))
    return path


def fill(path: Path, *commands: str) -> None:
    """Run qemu-io's commands on an image."""
    words = [word for command in commands for word in ("-c", command)]
    output = run("qemu-io", "-f", "qcow2", *words, path)
    assert "failed" not in output, output


def check(path: Path, leaks: bool = False) -> dict[str, Any]:
    """qemu-img's verdict: consistent, and without leaks unless (leaks) are allowed."""
    done = subprocess.run(
        ["qemu-img", "check", "--output=json", "-f", "qcow2", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode in ((0, 3) if leaks else (0,)), done.stdout + done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)
    assert not verdict.get("corruptions"), verdict
    return verdict


def contents(path: Path) -> bytes:
    """What a guest would read, by qemu-img."""
    raw = path.with_suffix(".as-raw")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


def facts(path: Path) -> dict[str, Any]:
    """qemu-img info."""
    found: dict[str, Any] = json.loads(run("qemu-img", "info", "--output=json", path))
    return found
