"""The same arguments to QEMU and to us: what one reads the other reads, what one refuses the other refuses.

Skipped where Debian's qemu-system-x86 is not installed. Only what QEMU checks while it reads its command line is
compared: it is stopped right after by a pid file that cannot be made.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from aioemu.cli.command_line import read_command_line
from aioemu.errors import EmuError

QEMU = shutil.which("qemu-system-x86_64")
STOP = ["-machine", "none", "-display", "none", "-pidfile", "/no/such/folder/p"]

pytestmark = pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64")

BOTH_READ = [
    ["-m", "64"],
    ["-m", "1.5G"],
    ["-m", "0x10000k"],
    ["-m", "size=64"],
    ["-m", "64,"],
    ["--m", "64"],
    ["-name", "a,,b,process=c"],
    ["-name", "guest=a,debug-threads=on"],
    ["-name", ""],
    ["-uuid", "12345678-1234-1234-1234-123456789abc"],
    ["-rtc", "base=2006-06-17T16:01:21"],
    ["-rtc", "base=localtime,clock=vm,driftfix=slew"],
    ["-action", "reboot=shutdown,shutdown=pause,panic=exit-failure"],
    ["-chardev", "null,id=a.b-c_d"],
    ["-chardev", "socket,id=a,path=/x,server,nowait"],
    ["-chardev", "socket,id=a,path=/a,,b,server=on,wait=off"],
    ["-chardev", "null,id=a", "-mon", "a,mode=control"],
    ["-chardev", "null,id=a", "-mon", "chardev=a,mode=readline"],
    ["-blockdev", "driver=null-co,node-name=n,read-zeroes=on"],
    ["-blockdev", '{"driver": "null-co", "node-name": "n", "size": 5}'],
    ["-blockdev", "{'driver': 'null-co', 'node-name': 'n'}"],
    ["-blockdev", "raw,node-name=r,file.driver=null-co"],
    ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
    ["-device", '{"driver": "isa-debug-exit", "iobase": 244}'],
    ["-device", "x,id=a", "-set", "device.a.b=c"],
    ["-global", "a.b=c,d"],
    ["-global", "driver=a,property=b,value=c"],
    ["-smbios", "type=1,manufacturer=a,,b"],
    ["-qmp", "unix:/x,server=on,wait=off"],
    ["-qmp", "tcp::1,server,nowait"],
    ["-monitor", "stdio"],
    ["-fw_cfg", "name=opt/x,string=y"],
    ["-boot", "order=dc,once=n,menu=on"],
]

BOTH_REFUSE = [
    ["-machin", "none"],
    ["-m"],
    ["-m", "1X"],
    ["-m", "1.5"],
    ["-m", "-1"],
    ["-m", "1e3"],
    ["-m", "64,foo=1"],
    ["-machine", "none,usb"],
    ["-machine", "none,a.b=1,a=2"],
    ["-name", "a,foo=1"],
    ["-uuid", "x"],
    ["-rtc", "foo=1"],
    ["-action", "reboot=bar"],
    ["-action", "foo=bar"],
    ["-chardev", "null,id=1a"],
    ["-chardev", "null,id="],
    ["-chardev", "null,id=a,foo=1"],
    ["-chardev", "null,id=a", "-chardev", "null,id=a"],
    ["-blockdev", "foo,a"],
    ["-blockdev", "{"],
    ["-blockdev", '{"driver": "raw", "driver": "raw"}'],
    ["-blockdev", "driver=raw,l.0=a,l.2=b"],
    ["-device", "isa-debug-exit,id=1"],
    ["-device", "a,id=x", "-device", "b,id=x"],
    ["-global", "foo"],
    ["-global", "driver=a,property=b"],
    ["-set", "a.b=c"],
    ["-set", "device.nobody.a=b"],
    ["-smbios", "type=x"],
    ["-qmp", "foo"],
    ["-monitor", "foo"],
    ["-add-fd", "fd=0,set=1"],
    ["-add-fd", "fd=999,set=1"],
    ["-watchdog-action", "x"],
    ["-readconfig", "/no/such/file"],
]


def qemu_reads(arguments: list[str]) -> tuple[bool, str]:
    """Whether QEMU gets as far as the pid file."""
    assert QEMU is not None
    done = subprocess.run(
        [QEMU, *STOP, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    return "cannot create PID file" in done.stderr, done.stderr


def we_read(arguments: list[str]) -> tuple[bool, str]:
    """Whether we get a configuration."""
    try:
        read_command_line([*STOP, *arguments])
    except EmuError as exc:
        return False, str(exc)
    return True, ""


@pytest.mark.parametrize("arguments", BOTH_READ, ids=" ".join)
def test_both_read(arguments: list[str]) -> None:
    """What QEMU understands, we understand."""
    reads, errors = qemu_reads(arguments)
    assert reads, errors
    assert we_read(arguments) == (True, "")


@pytest.mark.parametrize("arguments", BOTH_REFUSE, ids=" ".join)
def test_both_refuse(arguments: list[str]) -> None:
    """What QEMU refuses, we refuse."""
    assert not qemu_reads(arguments)[0]
    assert not we_read(arguments)[0]
