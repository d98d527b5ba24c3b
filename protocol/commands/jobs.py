"""Jobs (QAPI job.json): what goes on in the background, and how it ended."""

from __future__ import annotations

from enum import StrEnum

from aioemu.blockdev.jobs import JobStatus
from aioemu.protocol.commands.block import DrivesMachine
from aioemu.protocol.registry import command
from aioemu.protocol.schema import Record


class JobType(StrEnum):
    """What a job does."""

    CREATE = "create"


class JobInfo(Record):
    """A job: how far it is, or how it ended."""

    id: str
    type: JobType
    status: JobStatus
    current_progress: int
    total_progress: int
    error: str | None = None


class JobId(Record):
    """Which job."""

    id: str


@command("query-jobs", needs=("drives",))
def query_jobs(machine: DrivesMachine) -> list[JobInfo]:
    """Every job that was not dismissed."""
    return [
        JobInfo(
            id=job.id,
            type=JobType(job.kind),
            status=job.status,
            current_progress=job.current,
            total_progress=job.total,
            error=job.error,
        )
        for job in machine.drives.jobs.all
    ]


@command("job-cancel", needs=("drives",))
def job_cancel(machine: DrivesMachine, args: JobId) -> None:
    """Ask a job to end before it is done."""
    machine.drives.jobs.cancel(args.id)


@command("job-dismiss", needs=("drives",))
def job_dismiss(machine: DrivesMachine, args: JobId) -> None:
    """Forget a job that has ended."""
    machine.drives.jobs.dismiss(args.id)


COMMANDS = (query_jobs, job_cancel, job_dismiss)
