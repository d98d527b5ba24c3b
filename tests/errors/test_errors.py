"""The one tree of errors."""

from __future__ import annotations

import errno

import aioemu
from aioemu.errors import ConfigError, EmuError, GuestError, HostError, MonitorError


def test_everything_is_one_tree() -> None:
    """Whoever catches EmuError catches all that aioemu raises on purpose."""
    names = ["AccelError", "ConfigError", "GuestError", "HostError", "MonitorError"]
    assert all(issubclass(getattr(aioemu, name), EmuError) for name in names)


def test_a_host_error_says_what_and_why() -> None:
    """The text is the action and the host's reason; both signs of errno are taken, as the core answers -errno."""
    assert str(HostError("open d0.qcow2", errno.ENOENT)) == "open d0.qcow2: No such file or directory"
    assert HostError("open d0.qcow2", -errno.ENOENT).errno == errno.ENOENT
    assert str(HostError("no answer")) == "no answer"
    assert HostError("no answer").errno is None


def test_errors_name_the_thing() -> None:
    """Option, device and class stay readable by programs, beside the text for people."""
    assert ConfigError("-m 0: too small", "-m").option == "-m"
    assert str(GuestError("ring index 7 of 4", "net0")) == "net0: ring index 7 of 4"
    assert MonitorError("no device 'x'", "DeviceNotFound").error_class == "DeviceNotFound"
