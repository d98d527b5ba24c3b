"""Runs cases inside the rig: `python -m tests.rig.inside '{"files": {...}, "cases": [...]}'`.

Each result is a JSON line on $RIG_RESULTS as soon as there is one. Two cases run at once: one waits for its guest's
processor while the other's runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator

import uvloop

from tests.rig.cases import CASES
from tests.rig.guests import Files

AT_ONCE = 2
CASE_LIMIT_S = 400.0


def publish(**result: object) -> None:
    """Send one result to the host."""
    with open(os.environ.get("RIG_RESULTS", "/dev/stdout"), "w", encoding="utf-8") as out:
        out.write(json.dumps(result) + "\n")


async def run(name: str, files: Files) -> None:
    """Run one case and tell its result."""
    start, failure = time.monotonic(), ""
    try:
        await asyncio.wait_for(CASES[name](files), CASE_LIMIT_S)
    except Exception:
        failure = traceback.format_exc()
    publish(case=name, seconds=round(time.monotonic() - start, 2), failure=failure)


async def work(names: Iterator[str], files: Files) -> None:
    """Take cases until there are none left."""
    for name in names:
        await run(name, files)


async def main(job: dict[str, object]) -> None:
    """Run the job's cases."""
    files, names = job["files"], job["cases"]
    assert isinstance(files, dict)
    assert isinstance(names, list)
    shared = iter(names)
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work(shared, Files(**files)))


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
