"""Chooses the accelerator: the first of those asked for that works, or by measuring what this host is good at.

`auto` takes KVM only where guest kernel code runs natively: some hosts interpret ring 0 instruction by instruction,
fifty times slower than the software CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aioemu.accel.base import Accelerator
from aioemu.accel.kvm import NATIVE_RATE, Kvm
from aioemu.accel.none import NoProcessor
from aioemu.accel.tcg import Tcg
from aioemu.config import AccelOptions, MachineConfig, OptionValue
from aioemu.config.grammar import did_you_mean
from aioemu.errors import AccelError, ConfigError
from aioemu.log import Log

Options = Mapping[str, OptionValue]


def _open_kvm(options: Options, log: Log) -> Accelerator:
    return Kvm(str(options.get("device", "/dev/kvm")))


def _open_tcg(options: Options, log: Log) -> Accelerator:
    return Tcg(log)


def _open_qtest(options: Options, log: Log) -> Accelerator:
    return NoProcessor("qtest")


def open_auto(options: Options, log: Log) -> Accelerator:
    """KVM where it is native, else the software CPU, else KVM as it is; the log says which and why."""
    try:
        kvm = Kvm()
    except AccelError as exc:
        log.info("accelerator tcg: %s", exc)
        return Tcg(log)
    rate = kvm.ring0_rate()
    if rate >= NATIVE_RATE:
        log.info("accelerator kvm: guest kernel code runs natively (%d M instructions/s)", rate // 1_000_000)
        return kvm
    try:
        tcg = Tcg(log)
    except AccelError as exc:
        log.warning("accelerator kvm, although it interprets guest kernel code here: %s", exc)
        return kvm
    kvm.close()
    log.info("accelerator tcg: this host's KVM interprets guest kernel code (%.1f M instructions/s)", rate / 1e6)
    return tcg


ACCELERATORS: dict[str, Callable[[Options, Log], Accelerator]] = {
    "auto": open_auto,
    "kvm": _open_kvm,
    "tcg": _open_tcg,
    "qtest": _open_qtest,
}


def open_accelerator(config: MachineConfig, log: Log) -> Accelerator:
    """Open the first accelerator that works. AccelError with every reason when none does."""
    if config.machine.type == "none":
        return NoProcessor()
    wanted = config.accel or (AccelOptions("auto"),)
    reasons = []
    for each in wanted:
        factory = ACCELERATORS.get(each.name)
        if factory is None:
            hint = did_you_mean(each.name, ACCELERATORS) or f"; known: {', '.join(ACCELERATORS)}"
            raise ConfigError(f"-accel {each.name}: unknown accelerator{hint}", "-accel")
        try:
            accelerator = factory(each.options, log)
        except AccelError as exc:
            reasons.append(f"{each.name}: {exc}")
            continue
        for reason in reasons:
            log.warning("%s; falling back to %s", reason, accelerator.name)
        return accelerator
    raise AccelError("; ".join(reasons))
