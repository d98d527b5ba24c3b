"""Network cards, links and switches between two guests that send and receive anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.sanitized import CORE, ENGINE, IO, build, live

WIRES = [path.stem for kind in ("netq", "offload", "link", "switch", "capture") for path in CORE.glob(f"{kind}*.c")]


def build_in(folder: Path) -> Path:
    """The program, to run it by hand."""
    return build("netq", [*ENGINE, *IO, *WIRES, "port", "port_box", "passage"], folder)


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_in(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 0xCAB1E, 0x123456789ABCDEF])
def test_no_frame_hurts_the_host(fuzzer: Path, seed: int) -> None:
    """Whatever guests send and offer, memory is touched only where it may be, and every frame is given back."""
    live(fuzzer, 4000, seed)
