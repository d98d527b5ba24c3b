"""The request engine of virtio-blk under a guest that asks anything and a block graph that answers anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fuzz.test_vring import CORE, ENGINE, SANITIZED

DISK = [path.stem for path in CORE.glob("blk*.c")]
FILES = [*ENGINE, *DISK, "vring_batch", "uring", "io", "io_later", "iothread", "clock", "throttle"]


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/fuzz/blk.c with the engine's files, sanitized."""
    program = tmp_path_factory.mktemp("fuzz") / "blk"
    sources = [str(CORE / f"{name}.c") for name in sorted(set(FILES))]
    main = str(Path(__file__).with_name("blk.c"))
    subprocess.run(["gcc", *SANITIZED, f"-I{CORE}", "-o", program, main, *sources], check=True)
    return program


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 0xD15C, 0x123456789ABCDEF])
def test_no_request_hurts_the_host(fuzzer: Path, seed: int) -> None:
    """Whatever the guest asks and the graph says, memory is touched only where it may be, and no request is lost."""
    done = subprocess.run([fuzzer, "1500", str(seed)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
