"""Command lines that are mistakes, and those that are questions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aioemu.cli.command_line import read_command_line
from aioemu.cli.reading import HelpRequest
from aioemu.config import (
    MachineConfig,
)
from aioemu.errors import EmuError


def config(line: str | Sequence[str]) -> MachineConfig:
    return read_command_line(line.split() if isinstance(line, str) else line)[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-machin q35", "-machin: unknown option; did you mean -machine?"),
        ("--machin q35", "--machin: unknown option; did you mean -machine?"),
        ("-machine=q35", "-machine=q35: unknown option; the argument of -machine is a word of its own"),
        ("-zzzzzz", "-zzzzzz: unknown option"),
        ("-m", "-m: requires an argument"),
        ("-machine q35,usb", "-machine q35,usb: Expected '=' after parameter 'usb'"),
        ("-m 1X", "-m 1X: Parameter 'size' expects a size"),
        ("-m 1,slot=2", "-m 1,slot=2: Invalid parameter 'slot'; did you mean slots?"),
        ("-m 2G,maxmem=1G,slots=1", "maxmem (0x40000000) is less than the initial memory (0x80000000)"),
        ("-m 1G,slots=1", "slots without maxmem"),
        ("-smp 0", "-smp 0: CPU topology parameters must be greater than zero"),
        ("-smp 4,sockets=3", "sockets (3) * dies (1) * cores (1) * threads (1) is not maxcpus (4)"),
        ("-smp 2,maxcpus=1", "cpus (2) is more than maxcpus (1)"),
        ("-smp 2,clusters=2", "clusters > 1 not supported"),
        ("-smp 2,core=2", "Invalid parameter 'core'; did you mean cores?"),
        ("-accel kvm:tcg", "invalid accelerator 'kvm:tcg'"),
        ("-uuid x", "-uuid x: failed to parse UUID string"),
        ("-name a,foo=1", "-name a,foo=1: Invalid parameter 'foo'"),
        ("-rtc base=x", "invalid datetime format 'x'"),
        ("-rtc clock=hst", "Parameter 'clock' does not accept value 'hst'; did you mean host?"),
        ("-boot order=q", "Invalid boot device 'q'"),
        ("-boot order=cc", "Boot device 'c' was given twice"),
        ("-boot mnu=on", "Invalid parameter 'mnu'; did you mean menu?"),
        ("-action foo=bar", "Invalid parameter 'foo'"),
        ("-action reboot=bar", "Parameter 'reboot' does not accept value 'bar'"),
        ("-watchdog-action x", "-watchdog-action x:"),
        ("-mon chardev=a,mode=foo", "Parameter 'mode' does not accept value 'foo'"),
        ("-mon pretty=on", "Parameter 'chardev' is missing"),
        ("-netdev user", "-netdev user: Parameter 'id' is missing"),
        ("-netdev id=a", "-netdev id=a: Parameter 'type' is missing"),
        ("-netdev user,id=a -netdev user,id=a", "Duplicate ID 'a' for netdev"),
        ("-object x", "-object x: Parameter 'id' is missing"),
        ("-blockdev x", ""),
        ("-chardev null,id=a -chardev null,id=a", "-chardev null,id=a: Duplicate ID 'a' for chardev"),
        ("-device id=x", "Parameter 'driver' is missing"),
        ("-device x,id=1", "Parameter 'id' expects an identifier"),
        ("-global foo", "-global foo: expected driver.property=value"),
        (
            "-global virtio-rng-pci.zz=1",
            "can't apply global virtio-rng-pci.zz=1: Property 'virtio-rng-pci.zz' not found",
        ),
        ("-set a.b=c", "-set a.b=c: expected group.id.key=value"),
        ("-set a.b.c=d", "There is no option group 'a'"),
        ("-set device.b.c=d", 'there is no device "b" defined'),
        ("-qmp foo", "-qmp foo: 'foo' is not a valid char driver"),
        ("-d foo", "-d foo"),
        ("-display gtk", "-display gtk: Parameter 'type' does not accept value 'gtk'"),
        ("-vga std", "-vga std: unknown vga type: std"),
        ("-audiodev alsa,id=a", "Parameter 'driver' does not accept value 'alsa'"),
        ("-ready-fd 999", "-ready-fd 999: file descriptor 999: Bad file descriptor"),
        ("-echr 256", "-echr 256: expected a character code"),
        ("-parallel stdio", "there are no parallel ports"),
        ("-smbios serial=a", "one of file= and type= is missing"),
        ("-add-fd fd=1,set=1", "fd cannot be a standard I/O stream"),
        ("-cpu ,x", "a CPU model is missing"),
        ("-readconfig /no/such", "-readconfig /no/such"),
    ],
)
def test_mistakes_are_named(line: str, message: str) -> None:
    """An error names the option as it was given, the key, and the nearest known one."""
    if not message:
        config(line)  # a block driver of any name is the block layer's to refuse
        return
    with pytest.raises(EmuError) as caught:
        config(line)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "topic", "name"),
    [
        ("-machine help", "machine", None),
        ("-M ?", "machine", None),
        ("-M q35,help", "machine", "q35"),
        ("-device help", "device", None),
        ("-device isa-serial,help", "device", "isa-serial"),
        ("-device isa-serial,?", "device", "isa-serial"),
        ("-cpu help", "cpu", None),
        ("-cpu ?", "cpu", None),
        ("-accel help", "accel", None),
        ("-chardev help", "chardev", None),
        ("-netdev help", "netdev", None),
        ("-object help", "object", None),
        ("-object rng-random,help", "object", "rng-random"),
        ("-d help", "log", None),
        ("-display help", "display", None),
    ],
)
def test_help_requests(line: str, topic: str, name: str | None) -> None:
    """`help` and `?` are questions, in QEMU's places."""
    with pytest.raises(HelpRequest) as caught:
        config(line)

    assert (caught.value.topic, caught.value.name) == (topic, name)
