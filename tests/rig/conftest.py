"""One machine with hardware KVM for the whole run; each test waits for the result of its own case."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from aioemu.images import debian_guest
from tests.rig.guests import Files
from tests.rig.outer import Rig, RigError


class Results:
    """Results by case, read as they come from inside."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._lines = rig.results()
        self._known: dict[str, dict[str, object]] = {}

    def of(self, case: str) -> dict[str, object]:
        """Wait for this case's result. RigError when the machine ended without it."""
        while case not in self._known:
            line = next(self._lines, None)
            if line is None:
                raise RigError(f"{case}: ended without a result; the machine's console:\n{self.rig.tail()}")
            result = json.loads(line)
            self._known[result["case"]] = result
        return self._known[case]


def selected(session: pytest.Session) -> list[str]:
    """The cases that this run of pytest asks for."""
    specs = [getattr(item, "callspec", None) for item in session.items]
    return [spec.params["case"] for spec in specs if spec is not None and "case" in spec.params]


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    """A rig that works on every selected case."""
    image = debian_guest()
    files = Files(str(image.kernel), str(image.vmlinux), str(image.initrd), image.append)
    job = {"files": asdict(files), "cases": selected(request.session)}
    with Rig([sys.executable, "-m", "tests.rig.inside", json.dumps(job)]) as rig:
        yield Results(rig)
