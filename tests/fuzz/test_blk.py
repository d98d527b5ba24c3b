"""The request engine of virtio-blk under a guest that asks anything and a block graph that answers anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.sanitized import CORE, ENGINE, IO, build, live

DISK = ["guard", *(path.stem for path in CORE.glob("blk*.c"))]


def build_in(folder: Path) -> Path:
    """The program in a folder."""
    return build("blk", [*ENGINE, *IO, *DISK, "uring", "throttle"], folder)


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_in(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 0xD15C, 0x123456789ABCDEF])
def test_no_request_hurts_the_host(fuzzer: Path, seed: int) -> None:
    """Whatever the guest asks and the graph says, memory is touched only where it may be, and no request is lost."""
    live(fuzzer, 1500, seed)


@pytest.mark.slow
def test_a_guest_that_changes_its_memory_meanwhile(fuzzer: Path) -> None:
    """What another processor writes into rings, headers and data while they are read is seen once, or not at all."""
    live(fuzzer, 1500, 0xFACE, "race")
