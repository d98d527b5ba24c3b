"""Debian's stock cloud kernel on `-accel kvm`, on KVM that is backed by hardware virtualization (as the rig has it)."""

from __future__ import annotations

import pytest

from tests.rig.cases import CASES
from tests.rig.conftest import Results

pytestmark = pytest.mark.rig


@pytest.mark.parametrize("case", CASES)
def test_stock_linux(results: Results, case: str) -> None:
    """Each case of tests/rig/cases.py, whose docstring is its promise, ran to its end inside."""
    failure = results.of(case)

    assert not failure, f"inside the rig:\n{failure}"
