"""What a direction does to its frames, as arithmetic: shares, bursts, delays, rates, and that a seed decides it all."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.errors import ConfigError
from aioemu.netdev.impair import Impairment

FRAMES = 100_000
BOUND = 3.29  # standard deviations: 99.9 % of a normal distribution, which the binomial one is close to here


def within(count: int, share: float, of: int = FRAMES) -> bool:
    return abs(count - share * of) <= BOUND * math.sqrt(of * share * (1 - share))


def lost(fates: list[str | float]) -> list[int]:
    return [index for index, fate in enumerate(fates) if isinstance(fate, str)]


def delays(impairment: Impairment, **more: float) -> list[float]:
    return [fate for fate in impairment.fates(FRAMES, **more) if not isinstance(fate, str)]  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.99])
def test_share_of_losses(share: float) -> None:
    """As many frames are lost as were asked for, within the binomial 99.9 % interval."""
    assert within(len(lost(Impairment(loss=share, seed=7).fates(FRAMES))), share)


def test_none_and_all() -> None:
    """Nothing is lost at 0 and everything at 1."""
    assert not lost(Impairment().fates(1000))
    assert len(lost(Impairment(loss=1.0).fates(1000))) == 1000


def test_same_seed_same_frames_whatever_the_time() -> None:
    """Which frames are lost depends on the seed and their number, not on when they come."""
    fast = Impairment(loss=0.01, jitter_ms=3, seed=42).fates(FRAMES, gap_ms=0.001)
    slow = Impairment(loss=0.01, seed=42).fates(FRAMES, gap_ms=5)
    other = Impairment(loss=0.01, seed=43).fates(FRAMES)

    assert lost(fast) == lost(slow)
    assert lost(fast) != lost(other)


@given(st.integers(0, (1 << 64) - 1))
def test_changing_one_value_keeps_the_other_decisions(seed: int) -> None:
    """Losses stay the same ones when anything else is added."""
    plain = Impairment(loss=0.1, seed=seed)
    more = plain.changed({"delay_ms": 5, "jitter_ms": 1, "duplicate": 0.5, "corrupt": 0.5, "reorder": 0.5})

    assert lost(plain.fates(300)) == lost(more.fates(300))


def test_every_nth() -> None:
    """One frame in each n is lost, the n-th."""
    assert lost(Impairment(loss_every=10).fates(35)) == [9, 19, 29]


def test_bursts() -> None:
    """Gilbert-Elliott: losses come in runs as long, and as often, as the chain's probabilities say."""
    fates = Impairment(burst_enter=0.001, burst_leave=0.1, seed=5).fates(FRAMES)
    hit = lost(fates)
    runs = sum(1 for index in hit if not isinstance(fates[index - 1], str))

    assert len(hit) / runs == pytest.approx(10, rel=0.35)
    assert len(hit) == pytest.approx(FRAMES * 0.001 / (0.001 + 0.1), rel=0.35)
    assert {fates[index] for index in hit} == {"burst"}


def test_delay() -> None:
    """Every frame takes the delay, exactly."""
    assert set(delays(Impairment(delay_ms=12.5))) == {12.5}


@pytest.mark.parametrize(("kind", "deviation"), [("uniform", 2 / math.sqrt(3)), ("normal", 2.0), ("pareto", 2.0)])
def test_jitter(kind: str, deviation: float) -> None:
    """Delays spread around the mean as their distribution says."""
    found = delays(Impairment(delay_ms=50, jitter_ms=2, jitter=kind, seed=9), gap_ms=200)

    assert statistics.fmean(found) == pytest.approx(50, abs=0.1)
    assert statistics.pstdev(found) == pytest.approx(deviation, rel=0.1)
    assert min(found) >= 0


def test_uniform_jitter_has_bounds() -> None:
    """Uniform jitter is never more than it says."""
    found = delays(Impairment(delay_ms=50, jitter_ms=2), gap_ms=200)
    assert 48 <= min(found) < 48.1
    assert 51.9 < max(found) <= 52


def test_jitter_keeps_order() -> None:
    """However much the delay varies, no frame overtakes another."""
    fates = delays(Impairment(delay_ms=10, jitter_ms=10), gap_ms=0.1)
    arrivals = [round(index * 100_000 + delay * 1e6) for index, delay in enumerate(fates)]
    assert arrivals == sorted(arrivals)


def test_reordered_frames_are_late() -> None:
    """The share that is reordered comes later by as much as was asked for; the others do not wait for it."""
    found = delays(Impairment(delay_ms=1, reorder=0.05, reorder_ms=7, seed=3))
    late = [delay for delay in found if delay == pytest.approx(8)]
    assert within(len(late), 0.05)
    assert {round(delay, 6) for delay in found} == {1.0, 8.0}


def test_rate() -> None:
    """A frame takes its length on the line, and waits for those before it."""
    fates = Impairment(rate_mbit=8).fates(5, size=1000, gap_ms=0)
    assert fates == [pytest.approx(n) for n in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize("limit", [{"queue_packets": 4}, {"queue_bytes": 4000}])
def test_queue_before_the_rate_is_bounded(limit: dict[str, int]) -> None:
    """What the queue has no room for is lost, and when it has drained there is room again."""
    fates = Impairment(rate_mbit=8, **limit).fates(20, size=1000, gap_ms=0)  # type: ignore[arg-type]
    assert lost(fates) == list(range(4, 20))
    assert not lost(Impairment(rate_mbit=8, **limit).fates(20, size=1000, gap_ms=1))  # type: ignore[arg-type]


def test_outage() -> None:
    """Nothing passes in the second part of each period."""
    assert lost(Impairment(outage_up_ms=3, outage_down_ms=2).fates(10, gap_ms=1)) == [3, 4, 8, 9]


@pytest.mark.parametrize(
    "values",
    [
        {"loss": 1.01},
        {"loss": -0.1},
        {"loss": math.nan},
        {"loss": True},
        {"delay_ms": -1},
        {"delay_ms": math.inf},
        {"jitter": "gamma"},
        {"queue_packets": 0},
        {"queue_packets": 1 << 20},
        {"seed": -1},
        {"loss_every": 1.5},
        {"rate_mbit": "10"},
    ],
)
def test_impossible_values(values: dict[str, object]) -> None:
    """What cannot be is refused by name, and nothing changes."""
    with pytest.raises(ConfigError, match=next(iter(values))):
        Impairment().changed(values)


def test_unknown_value() -> None:
    """A name that does not exist is refused with the one that was meant."""
    with pytest.raises(ConfigError, match="delay_ms"):
        Impairment().changed({"delay_m": 1})
