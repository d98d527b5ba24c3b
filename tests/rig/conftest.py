"""Machines with hardware KVM for the whole run; each test waits for the result of its own case."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from aioemu.images import debian_guest
from tests.rig.guests import Files
from tests.rig.outer import Rig
from tests.rig.virtio import MODULES

AT_ONCE = 2  # rigs; each keeps one processor of the host busy
TRIES = 2  # of a rig: the software CPU under it is not beyond doubt, and what was decided before stays decided
WITHOUT_RESULT_S = 500.0  # longer than any case may take


class Results:
    """Results by case, from rigs that share the cases and work at the same time."""

    def __init__(self, files: Files, cases: list[str]) -> None:
        self._files = files
        self._failures: dict[str, str] = {}
        self._news = threading.Condition()
        self._rigs: set[Rig] = set()
        self._closed = False
        count = max(1, min(AT_ONCE, len(os.sched_getaffinity(0)), len(cases)))
        self._threads = [threading.Thread(target=self._work, args=(cases[i::count],)) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def of(self, case: str) -> str:
        """Wait for this case's result: why it failed, or an empty string."""
        with self._news:
            self._news.wait_for(lambda: case in self._failures)
            return self._failures[case]

    def close(self) -> None:
        """End the rigs."""
        with self._news:
            self._closed = True
            for rig in self._rigs:
                rig.kill()
        for thread in self._threads:
            thread.join()

    def _work(self, cases: list[str]) -> None:
        left, trouble = list(cases), ""
        for _ in range(TRIES):
            try:
                trouble = self._run(left)
            except Exception as exc:
                trouble = str(exc)
            if not left or self._closed:
                break
        for case in left:
            self._tell(case, f"the rig failed: {trouble}")

    def _run(self, left: list[str]) -> str:
        """Run the cases that are left in a rig; takes those with a result off the list. What was wrong with the rig."""
        job = json.dumps({"files": asdict(self._files), "cases": left})
        with Rig([sys.executable, "-m", "tests.rig.inside", job], limit_s=WITHOUT_RESULT_S) as rig:
            with self._news:
                self._rigs.add(rig)
            try:
                for line in rig.results():
                    result = json.loads(line)
                    left.remove(result["case"])
                    self._tell(result["case"], result["failure"])
            finally:
                with self._news:
                    self._rigs.discard(rig)
            return f"exit status {rig.exit_status}; its console:\n{rig.tail()}"

    def _tell(self, case: str, failure: str) -> None:
        with self._news:
            self._failures[case] = failure
            self._news.notify_all()


def selected(session: pytest.Session) -> list[str]:
    """The cases that this run of pytest asks for."""
    specs = [getattr(item, "callspec", None) for item in session.items]
    return [spec.params["case"] for spec in specs if spec is not None and "case" in spec.params]


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    """Rigs that work on every selected case."""
    image = debian_guest()
    virtio = debian_guest(MODULES)
    files = Files(str(image.kernel), str(image.vmlinux), str(image.initrd), image.append, str(virtio.initrd))
    results = Results(files, selected(request.session))
    yield results
    results.close()
