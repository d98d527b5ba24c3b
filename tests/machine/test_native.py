"""The reactor's patience with a guest that asks again and again."""

from __future__ import annotations

from aioemu.machine.native import PASS_MAX, Patience


def chances_until_next_look(patience: Patience) -> int:
    """How many chances are let pass before the next look."""
    passed = 0
    while not patience.tries():
        passed += 1
    return passed


def test_looks_in_vain_become_rare() -> None:
    """Each look that finds nothing doubles the wait for the next, up to a bound."""
    patience = Patience()
    waits = []
    for _ in range(12):
        waits.append(chances_until_next_look(patience))
        patience.learn(hit=False)

    assert waits[:5] == [0, 1, 3, 7, 15]
    assert waits[-1] == PASS_MAX


def test_a_find_brings_confidence_back() -> None:
    """After a look that found something, the next chance is taken."""
    patience = Patience()
    patience.learn(hit=False)
    patience.learn(hit=False)
    assert not patience.tries()
    patience.learn(hit=True)
    assert patience.tries()
