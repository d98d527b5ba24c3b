"""Which accelerator a machine gets, and what is said about it."""

from __future__ import annotations

import pytest

from aioemu.accel import choose
from aioemu.accel.base import Accelerator
from aioemu.accel.choose import open_accelerator
from aioemu.accel.none import NoProcessor
from aioemu.accel.probe import Fact, as_json, as_text, probe
from aioemu.config import AccelOptions, MachineConfig, MachineOptions
from aioemu.errors import AccelError, ConfigError
from aioemu.log import Log


def refuse(*_: object) -> Accelerator:
    """An accelerator that this host lacks."""
    raise AccelError("not on this host")


def config(*names: str) -> MachineConfig:
    """-accel NAME, several times."""
    return MachineConfig(accel=tuple(AccelOptions(name) for name in names))


def test_first_that_works(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Repeated -accel is a list of preferences; a fallback is said with its reason."""
    monkeypatch.setitem(choose.ACCELERATORS, "kvm", refuse)

    assert open_accelerator(config("kvm", "qtest"), Log("accel")).name == "qtest"
    assert "kvm: not on this host; falling back to qtest" in caplog.text


def test_all_reasons_when_none_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing works, each accelerator's own reason is in the error."""
    monkeypatch.setitem(choose.ACCELERATORS, "kvm", refuse)
    monkeypatch.setitem(choose.ACCELERATORS, "tcg", refuse)

    with pytest.raises(AccelError, match=r"kvm: not on this host; tcg: not on this host"):
        open_accelerator(config("kvm", "tcg"), Log("accel"))


def test_unknown_accelerator_is_named() -> None:
    """A misspelt name is an error with the nearest known one."""
    with pytest.raises(ConfigError, match="did you mean kvm"):
        open_accelerator(config("kwm"), Log("accel"))


def test_empty_board_has_no_processor() -> None:
    """-M none runs nothing, whatever -accel says."""
    machine = MachineConfig(machine=MachineOptions("none"), accel=(AccelOptions("kvm"),))

    assert isinstance(open_accelerator(machine, Log("accel")), NoProcessor)


class InterpretedKvm:
    """A /dev/kvm that interprets ring 0, as kvm_pvm's does."""

    name = "kvm"
    closed = 0

    def ring0_rate(self) -> int:
        return 2_000_000

    def close(self) -> None:
        InterpretedKvm.closed += 1


class NativeKvm(InterpretedKvm):
    """An ordinary /dev/kvm."""

    def ring0_rate(self) -> int:
        return 3_000_000_000


def test_auto_takes_kvm_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured, not guessed: native ring 0 means kvm."""
    monkeypatch.setattr(choose, "Kvm", NativeKvm)
    monkeypatch.setattr(choose, "Tcg", refuse)

    assert choose.open_auto({}, Log("accel")).name == "kvm"


def test_auto_takes_tcg_where_kvm_interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where KVM interprets kernel code, the software CPU is faster; KVM is closed again."""
    monkeypatch.setattr(choose, "Kvm", InterpretedKvm)
    monkeypatch.setattr(choose, "Tcg", lambda log: NoProcessor("tcg"))
    before = InterpretedKvm.closed

    assert choose.open_auto({}, Log("accel")).name == "tcg"
    assert InterpretedKvm.closed == before + 1


def test_auto_without_an_engine_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An interpreting KVM is still better than nothing, and the log says why it was taken."""
    monkeypatch.setattr(choose, "Kvm", InterpretedKvm)
    monkeypatch.setattr(choose, "Tcg", refuse)

    assert choose.open_auto({}, Log("accel")).name == "kvm"
    assert "interprets guest kernel code" in caplog.text


def test_probe_tells_facts_and_advice() -> None:
    """The probe tries everything, raises nothing, and each lack has one line of advice."""
    facts = probe()

    assert {"kvm", "-accel auto", "io_uring", "tun", "userfaultfd"} <= {fact.name for fact in facts}
    assert all(fact.ok or fact.advice for fact in facts)
    assert as_json(facts)[0].keys() == {"name", "ok", "value", "advice"}


def test_probe_text_puts_advice_below_its_lack() -> None:
    """People read one line a fact, and the advice under what is missing."""
    text = as_text([Fact("a", True, "works", "unused"), Fact("long name", False, "absent", "do this")])

    assert text.splitlines() == [
        "a          yes  works",
        "long name  no   absent",
        "                -> do this",
    ]
