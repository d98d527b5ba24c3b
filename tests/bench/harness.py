"""What every bench stands on: a figure with its samples and its limit, the host it was taken on, interleaved runs.

A bench is a function that takes `Options` and gives figures. It raises `UnavailableError` where this host or this
state of the project cannot do it; the report then says so instead of a number.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aioemu import __version__


class UnavailableError(Exception):
    """Why this bench cannot run here."""


@dataclass(frozen=True)
class Options:
    """How much work to do: `pick(full, quick)` chooses."""

    quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """One number: the median of `samples`, what it may be at most, and what it is compared with.

    `limit` bounds the value, or with `reference` (the same taken with QEMU, or with a baseline) the ratio of the two.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    reference: float | None = None
    samples: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.value / self.reference if self.reference else None

    @property
    def is_met(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        if self.limit is None:
            return None
        return (self.value if self.ratio is None else self.ratio) <= self.limit

    def as_json(self) -> dict[str, Any]:
        """Rounded, with ratio and verdict."""
        values = asdict(self)
        values["samples"] = [_short(sample) for sample in self.samples]
        values["value"] = _short(self.value)
        values["reference"] = None if self.reference is None else _short(self.reference)
        values["ratio"] = None if self.ratio is None else round(self.ratio, 3)
        values["met"] = self.is_met
        return values


Bench = Callable[[Options], Iterable[Figure]]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def of_samples(name: str, samples: Iterable[float], unit: str, **more: Any) -> Figure:
    """The median of samples."""
    taken = list(samples)
    return Figure(name, statistics.median(taken), unit, samples=taken, **more)


def against(
    name: str, ours: Iterable[float], theirs: Iterable[float], unit: str, limit: float, note: str = ""
) -> Figure:
    """The median of ours, bounded by a multiple of the median of theirs."""
    reference = statistics.median(theirs)
    return of_samples(name, ours, unit, limit=limit, reference=reference, note=note)


def interleave(rounds: int, takers: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Take one sample of each in turn, `rounds` times: what loads the host loads all of them alike."""
    samples: dict[str, list[float]] = {name: [] for name in takers}
    for _ in range(rounds):
        for name, take in takers.items():
            samples[name].append(take())
    return samples


def need(program: str) -> str:
    """The path of a program, or UnavailableError."""
    found = shutil.which(program)
    if found is None:
        raise UnavailableError(f"{program} is not installed")
    return found


def host() -> dict[str, Any]:
    """What the figures were taken on."""
    model = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) >> 10 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    modules = [line.split()[0] for line in _lines("/proc/modules") if line.startswith("kvm")]
    return {
        "cpu": model[0] if model else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": memory[0] if memory else 0,
        "kernel": platform.release(),
        "kvm": modules,
        "python": platform.python_version(),
        "aioemu": __version__,
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "qemu": _output("qemu-system-x86_64", "--version").partition("\n")[0],
        "load": os.getloadavg()[0],
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
