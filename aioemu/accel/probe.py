"""What this host can do, what aioemu will use of it, and one line of advice for each lack (`aioemu --probe`).

Everything is tried, nothing is guessed from versions. Needs no privileges; what they would change is said.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aioemu.accel.choose import open_auto
from aioemu.accel.kvm import DEVICE, NATIVE_RATE, Kvm
from aioemu.accel.tcg import find_engine, find_stock
from aioemu.errors import AccelError
from aioemu.log import Log

SYS_IO_URING_SETUP, SYS_USERFAULTFD = 425, 323  # x86-64
UFFD_USER_MODE_ONLY = 1
KVM_CAPS = {"irqchip": 0, "ioeventfd": 36, "irqfd": 32, "signal-msi": 77, "immediate-exit": 136, "xsave": 55}
HUGE = Path("/sys/kernel/mm/hugepages")
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing about the host: whether it is there, how it looks, and what to do if it is not."""

    name: str
    ok: bool
    value: str
    advice: str = ""


def probe() -> list[Fact]:
    """All facts, in the order in which they matter."""
    facts = [*_kvm(), _engine(), _chosen()]
    return [*facts, _io_uring(), _tun(), _userfaultfd(), _huge_pages(), _thp(), _uvloop()]


def as_json(facts: list[Fact]) -> list[dict[str, Any]]:
    """Plain values, one object a fact."""
    return [asdict(fact) for fact in facts]


def as_text(facts: list[Fact]) -> str:
    """A table for people; advice on a line of its own."""
    width = max(len(fact.name) for fact in facts)
    lines = []
    for fact in facts:
        lines.append(f"{fact.name:<{width}}  {'yes' if fact.ok else 'no ':<3}  {fact.value}")
        if fact.advice and not fact.ok:
            lines.append(f"{'':<{width}}       -> {fact.advice}")
    return "\n".join(lines)


def _kvm() -> list[Fact]:
    try:
        kvm = Kvm()
    except AccelError as exc:
        return [Fact("kvm", False, str(exc), "enable virtualization in the firmware and load kvm_intel or kvm_amd")]
    try:
        rate = kvm.ring0_rate()
        native = rate >= NATIVE_RATE
        how = "natively" if native else "interpreted by KVM"
        facts = [
            Fact("kvm", True, DEVICE),
            Fact(
                "kvm ring 0",
                native,
                f"guest kernel code runs {how}: {rate / 1e6:.1f} M instructions/s",
                "guests boot faster on -accel tcg here; ring 3 payloads still run natively on kvm",
            ),
        ]
        for name, number in KVM_CAPS.items():
            there = kvm.check_extension(number) > 0
            facts.append(Fact(f"kvm {name}", there, "present" if there else "absent", "a newer host kernel has it"))
        return facts
    finally:
        kvm.close()


def _engine() -> Fact:
    engine = find_engine()
    if engine is not None:
        return Fact("tcg engine", True, str(engine))
    stock = find_stock()
    instead = f"not installed; slower: {stock}" if stock is not None else "not installed"
    return Fact("tcg engine", False, instead, "run `make engine`")


def _chosen() -> Fact:
    """What -accel auto takes."""
    try:
        accelerator = open_auto({}, Log("probe"))
    except AccelError as exc:
        return Fact("-accel auto", False, str(exc), "neither kvm nor tcg works: see the lines above")
    accelerator.close()
    return Fact("-accel auto", True, accelerator.name)


def _syscall(number: int, *arguments: Any) -> int:
    """A file descriptor, or minus the errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    rc = int(libc.syscall(number, *arguments))
    return rc if rc >= 0 else -ctypes.get_errno()


def _by_fd(name: str, fd: int, advice: dict[int, str]) -> Fact:
    if fd >= 0:
        os.close(fd)
        return Fact(name, True, "works")
    return Fact(name, False, os.strerror(-fd), advice.get(-fd, "this kernel was built without it"))


def _io_uring() -> Fact:
    parameters = ctypes.create_string_buffer(120)  # struct io_uring_params, all zero
    fd = _syscall(SYS_IO_URING_SETUP, ctypes.c_uint(1), parameters)
    return _by_fd("io_uring", fd, {errno.EPERM: "sysctl kernel.io_uring_disabled=0; aioemu uses threads until then"})


def _tun() -> Fact:
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        fd = -(exc.errno or errno.EIO)
    return _by_fd("tun", fd, {errno.ENOENT: "modprobe tun", errno.EACCES: "give this user access to /dev/net/tun"})


def _userfaultfd() -> Fact:
    fd = _syscall(SYS_USERFAULTFD, ctypes.c_int(os.O_CLOEXEC | UFFD_USER_MODE_ONLY))
    return _by_fd("userfaultfd", fd, {errno.EPERM: "sysctl vm.unprivileged_userfaultfd=1"})


def _huge_pages() -> Fact:
    free = {}
    for folder in sorted(HUGE.glob("hugepages-*kB")) if HUGE.is_dir() else []:
        free[folder.name.removeprefix("hugepages-")] = _number(folder / "free_hugepages")
    value = ", ".join(f"{count} free of {size}" for size, count in free.items()) or "not supported"
    advice = "sysctl vm.nr_hugepages=N, then -object memory-backend-memfd,hugetlb=on"
    return Fact("huge pages", any(free.values()), value, advice)


def _thp() -> Fact:
    try:
        text = THP.read_text("ascii").strip()
    except OSError:
        text = "not supported"
    on = "[always]" in text or "[madvise]" in text
    return Fact("transparent huge pages", on, text, f"echo madvise > {THP}")


def _uvloop() -> Fact:
    there = find_spec("uvloop") is not None
    return Fact("uvloop", there, "installed" if there else "absent", "pip install uvloop: events reach Python faster")


def _number(path: Path) -> int:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return 0
