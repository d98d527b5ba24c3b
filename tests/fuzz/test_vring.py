"""The queue engine under a guest that writes anything, with the sanitizers watching."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "aioemu" / "core"
ENGINE = "vring vring_data vring_split vring_packed virtio virtio_regs virtio_state ram chip msix window".split()
SANITIZED = "-std=gnu11 -D_GNU_SOURCE= -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -pthread".split()


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/fuzz/vring.c with the engine's files, sanitized."""
    program = tmp_path_factory.mktemp("fuzz") / "vring"
    sources = [str(CORE / f"{name}.c") for name in ENGINE]
    subprocess.run(
        ["gcc", *SANITIZED, f"-I{CORE}", "-o", program, str(Path(__file__).with_name("vring.c")), *sources], check=True
    )
    return program


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 0xC0FFEE, 0x123456789ABCDEF])
def test_no_ring_hurts_the_host(fuzzer: Path, seed: int) -> None:
    """Whatever rings, registers and saved states hold, memory is touched only where it may be."""
    done = subprocess.run([fuzzer, "20000", str(seed)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
