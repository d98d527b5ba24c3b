"""The queue engine under a guest that writes anything, with the sanitizers watching."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.sanitized import ENGINE, build, live


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("vring", ENGINE, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 0xC0FFEE, 0x123456789ABCDEF])
def test_no_ring_hurts_the_host(fuzzer: Path, seed: int) -> None:
    """Whatever rings, registers and saved states hold, memory is touched only where it may be."""
    live(fuzzer, 20000, seed)
