"""Jobs: work on disks that goes on behind the monitor's back, with a state that can be asked for and is told.

The states and their order are those of QAPI job.json; a job that has ended stays until it is dismissed, so that nobody
misses how it ended. Jobs of the kinds that exist here cannot be paused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any

from aioemu.errors import EmuError

_ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)


class JobStatus(StrEnum):
    """Where a job is in its life."""

    UNDEFINED = "undefined"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    READY = "ready"
    STANDBY = "standby"
    WAITING = "waiting"
    PENDING = "pending"
    ABORTING = "aborting"
    CONCLUDED = "concluded"
    NULL = "null"


class Job:
    """One job. Its work sets `current` and `total`, which say how far it is."""

    def __init__(self, job_id: str, kind: str, tell: Callable[[Job], None]) -> None:
        self.id = job_id
        self.kind = kind
        self.current = 0
        self.total = 1
        self.error: str | None = None
        self.status = JobStatus.UNDEFINED
        self.task: asyncio.Task[None] | None = None
        self._tell = tell

    def go_to(self, status: JobStatus) -> None:
        """Be in another state, and say so."""
        self.status = status
        self._tell(self)


Work = Callable[[Job], Coroutine[Any, Any, None]]


class Jobs:
    """The jobs of one machine; `tell` learns of each change of state."""

    def __init__(self, tell: Callable[[Job], None]) -> None:
        self._tell = tell
        self._jobs: dict[str, Job] = {}

    @property
    def all(self) -> list[Job]:
        """Every job, the latest first."""
        return list(reversed(self._jobs.values()))

    def find(self, job_id: str) -> Job:
        """The job of this id."""
        job = self._jobs.get(job_id)
        if job is None:
            raise EmuError("Job not found")
        return job

    def start(self, job_id: str, kind: str, work: Work) -> Job:
        """Begin a job: it is running when this returns."""
        if job_id in self._jobs:
            raise EmuError(f"Job ID '{job_id}' already in use")
        if _ID.fullmatch(job_id) is None:
            raise EmuError(f"Invalid job ID '{job_id}'")
        job = self._jobs[job_id] = Job(job_id, kind, self._tell)
        job.go_to(JobStatus.CREATED)
        job.go_to(JobStatus.RUNNING)
        job.task = asyncio.get_running_loop().create_task(work(job))
        job.task.add_done_callback(lambda task: self._ended(job, task))
        return job

    def cancel(self, job_id: str) -> None:
        """Ask a job to end; it concludes when it has."""
        job = self.find(job_id)
        if job.status in (JobStatus.CONCLUDED, JobStatus.ABORTING):
            raise EmuError(f"Job '{job_id}' in state '{job.status}' cannot accept command verb 'cancel'")
        assert job.task is not None
        job.task.cancel()

    def dismiss(self, job_id: str) -> None:
        """Forget a job that has ended."""
        job = self.find(job_id)
        if job.status is not JobStatus.CONCLUDED:
            raise EmuError(f"Job '{job_id}' in state '{job.status}' cannot accept command verb 'dismiss'")
        del self._jobs[job_id]
        job.go_to(JobStatus.NULL)

    async def end(self) -> None:
        """The machine ends: cancel what runs, and wait until it has let go of its files."""
        tasks = [job.task for job in self.all if job.task is not None and not job.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in self.all:
            self.dismiss(job.id)

    def close(self) -> None:
        """Nobody can wait any more: cancel what runs."""
        for job in self.all:
            if job.task is not None:
                job.task.cancel()
        self._jobs.clear()

    def _ended(self, job: Job, task: asyncio.Task[None]) -> None:
        if self._jobs.get(job.id) is not job:
            return  # the machine is gone
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            job.error = str(error) if error is not None else "Operation canceled"
            job.go_to(JobStatus.ABORTING)
        else:
            job.current = job.total
            job.go_to(JobStatus.WAITING)
            job.go_to(JobStatus.PENDING)
        job.go_to(JobStatus.CONCLUDED)
