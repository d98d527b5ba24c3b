"""The table of devices: help that tells what there is, properties that are checked by name."""

from __future__ import annotations

import pytest

from aioemu.devices.catalog import DEVICES, device_help, devices_help, find_device
from aioemu.devices.properties import read_properties
from aioemu.errors import ConfigError


def test_help_lists_every_device_with_its_bus() -> None:
    """`-device help` has a line for each row, in QEMU's form."""
    text = devices_help()
    for device in DEVICES:
        assert f'name "{device.name}", bus {device.bus}' in text


def test_device_help_lists_every_property() -> None:
    """`-device X,help` names type and default."""
    assert "  iobase=<uint32>        - first port (default: 1281)" in device_help("isa-debug-exit").splitlines()
    assert "  chardev=<str>          - ID of a chardev to use as a backend" in device_help("isa-serial").splitlines()


def test_unknown_device_names_the_nearest() -> None:
    """A misspelt device is an error that helps."""
    with pytest.raises(ConfigError, match=r"'isa-debugexit'.*isa-debug-exit"):
        find_device("isa-debugexit")


def test_properties_are_read_from_text_and_json() -> None:
    """Numbers come in decimal or hexadecimal text, or as numbers."""
    schema = find_device("isa-debug-exit").properties
    given = read_properties("isa-debug-exit", schema, {"iobase": "0xf4", "iosize": 4})
    assert (given.iobase, given.iosize) == (0xF4, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"iobas": "1"}, "iobas.*iobase"),
        ({"iobase": "many"}, "'iobase' expects integer"),
        ({"iobase": True}, "'iobase' expects integer"),
        ({"iobase": "-1"}, "'iobase' expects uint32_t"),
        ({"iobase": 1 << 33}, "'iobase' expects uint32_t"),
        ({"iosize": 0}, "isa-debug-exit.iosize"),
        ({"iosize": None}, "'iosize' expects integer"),
    ],
)
def test_wrong_property_is_named(given: dict[str, object], message: str) -> None:
    """An unknown property, a wrong type and a value out of range name the device and the property."""
    with pytest.raises(ConfigError, match=message):
        read_properties("isa-debug-exit", find_device("isa-debug-exit").properties, given)
