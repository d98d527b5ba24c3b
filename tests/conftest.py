"""What every test stands on: markers that follow from the folder, no KVM where the host has none, no hurry.

Not here: fixtures of one package, which live in that package's own conftest.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
FOLDER_MARKS = {"package": pytest.mark.package}

# a busy machine is no reason to fail: only a test's own time limit counts, not one example's
settings.register_profile("aioemu", deadline=None, print_blob=True)
settings.load_profile("aioemu")


def kvm_refusal() -> str:
    """Why /dev/kvm cannot be used here, or an empty string when it can."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        return f"/dev/kvm: {errno.errorcode.get(exc.errno or 0, 'error')}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder; skip those that need KVM where it is refused."""
    refusal = kvm_refusal()
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in FOLDER_MARKS:
            item.add_marker(FOLDER_MARKS[folder])
        if refusal and item.get_closest_marker("kvm"):
            item.add_marker(pytest.mark.skip(reason=refusal))
