"""The object tree as tools walk it: the board's own parts, devices with their properties, types that are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

import aioemu
from aioemu.cli.command_line import read_command_line
from aioemu.errors import ConfigError, MonitorError

DEVICES = (
    "pcie-root-port,id=p0,addr=2,multifunction=on",
    "pcie-root-port,id=p1,addr=2.1",
    "virtio-net-pci,netdev=n0,id=nic,bus=p0,bootindex=1,romfile=",
    "virtio-rng-pci,id=rng,rng=r0",
    "isa-debug-exit",
)


@pytest.fixture
async def vm() -> AsyncIterator[aioemu.Machine]:
    """A q35 that waits, with some devices."""
    words = "-machine q35 -accel tcg -S -netdev user,id=n0 -object rng-builtin,id=r0".split()
    config, _ = read_command_line([*words, *(word for each in DEVICES for word in ("-device", each))])
    async with aioemu.Machine.from_config(config) as machine:
        yield machine


async def walk(vm: aioemu.Machine, path: str = "/") -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Every property of every object below a path."""
    for each in await vm.qmp("qom-list", path=path):
        yield path, each
        if each["type"].startswith("child<"):
            async for found in walk(vm, f"{path.rstrip('/')}/{each['name']}"):
                yield found


async def test_everything_that_is_listed_can_be_read(vm: aioemu.Machine) -> None:
    """qom-get answers for each property of the tree, never with null; a child is of a type that is told."""
    types = {each["name"] for each in await vm.qmp("qom-list-types")}
    seen = 0
    async for path, each in walk(vm):
        value = await vm.qmp("qom-get", path=path, property=each["name"])
        assert value is not None, f"{path} {each}"
        seen += 1
        if each["type"].startswith("child<"):
            assert each["type"][6:-1] in types

    assert seen > 200


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/machine/q35", "q35-pcihost"),
        ("/machine/q35/mch", "mch"),
        ("/machine/q35/pcie.0", "PCIE"),
        ("/machine/q35/ioapic", "ioapic"),
        ("/machine/unattached/device[1]", "ICH9-LPC"),
        ("/machine/unattached/device[1]/rtc", "mc146818rtc"),
        ("/machine/peripheral/nic/virtio-backend", "virtio-net-device"),
        ("/machine/peripheral/p1/p1", "PCIE"),
        ("/machine/peripheral-anon/device[0]", "isa-debug-exit"),
        ("/objects/r0", "rng-builtin"),
    ],
)
async def test_parts_are_where_they_are_looked_for(vm: aioemu.Machine, path: str, kind: str) -> None:
    """The board's own parts and devices, by QEMU's paths and types."""
    assert await vm.qmp("qom-get", path=path, property="type") == kind


async def test_what_tools_read(vm: aioemu.Machine) -> None:
    """A card's address though nobody gave one, links as paths, the guest's date, the place of a function."""

    async def read(path: str, name: str) -> Any:
        return await vm.qmp("qom-get", path=path, property=name)

    assert await read("/machine/peripheral/nic", "mac") == vm.nic[0].mac
    assert await read("/machine/peripheral/rng/virtio-backend", "rng") == "/objects/r0"
    assert await read("/machine/peripheral/p1", "addr") == "02.1"
    assert await read("/machine/peripheral/rng", "vectors") == 0xFFFFFFFF
    assert (await read("/machine", "rtc-time")).keys() == {
        "tm_year", "tm_mon", "tm_mday", "tm_hour", "tm_min", "tm_sec",
    }  # fmt: skip
    assert (await read("/machine", "smp"))["cpus"] == 1


async def test_boot_order_is_kept(vm: aioemu.Machine) -> None:
    """A boot index is set and told; two devices cannot have the same."""
    nic = {"path": "/machine/peripheral/nic", "property": "bootindex"}
    await vm.qmp("qom-set", **nic, value=4)

    assert await vm.qmp("qom-get", **nic) == 4
    with pytest.raises(MonitorError, match="The bootindex 4 has already been used"):
        await vm.qmp("device_add", driver="virtio-net-pci", id="second", bus="p1", netdev="n0", bootindex=4)


async def test_types_are_kinds_of_types(vm: aioemu.Machine) -> None:
    """`implements` and `abstract` choose; a model's properties are those that -device takes."""

    async def names(**chosen: Any) -> set[str]:
        return {each["name"] for each in await vm.qmp("qom-list-types", **chosen)}

    assert "iothread" in await names(implements="user-creatable")
    assert "virtio-rng-pci" not in await names(implements="user-creatable")
    assert await names(implements="memory-backend") == {f"memory-backend-{kind}" for kind in ("ram", "file", "memfd")}
    assert "pci-device" in await names(abstract=True)
    assert "pci-device" not in await names()
    listed = {each["name"]: each for each in await vm.qmp("device-list-properties", typename="virtio-net-pci")}
    assert {"rx_queue_size", "host_mtu", "event_idx", "multifunction", "romfile", "addr", "bootindex"} <= listed.keys()
    assert listed["vectors"]["default-value"] == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (["pcie-root-port,addr=2", "pcie-root-port,addr=2.1"], r"single function device can't be populated in .* 2\.1"),
        (["pcie-root-port,addr=2.1", "pcie-root-port,addr=2"], r"2\.0 indicates single function, but 2\.1 is already"),
        (["virtio-rng-pci,romfile=pxe.rom"], 'failed to find romfile "pxe.rom"'),
        (["virtio-net-pci,bootindex=1", "virtio-net-pci,bootindex=1"], "The bootindex 1 has already been used"),
    ],
)
async def test_places_that_cannot_be(devices: list[str], told: str) -> None:
    """What no guest would see is refused, and shown as it was given."""
    with pytest.raises(ConfigError, match=f"^-device {devices[-1].split(',')[0]}.*: .*{told}"):
        async with aioemu.Machine(machine="q35", accel="tcg", paused=True, devices=devices):
            pass


async def test_more_functions_are_said_in_the_header(vm: aioemu.Machine) -> None:
    """Function 0 of a device with siblings has the bit that makes guests look for them, after a reset too."""
    functions = vm.machine.site.buses["pcie.0"].functions
    await vm.qmp("system_reset")

    assert functions[2 << 3].read(0x0E, 1) == 0x81
    assert functions[2 << 3 | 1].read(0x0E, 1) == 0x01
