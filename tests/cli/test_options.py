"""Command lines and the configurations they make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.cli.command_line import read_command_line
from aioemu.cli.reading import HelpRequest, find_reader
from aioemu.cli.rows import KEYVAL, NESTED, OPTS
from aioemu.cli.table import SECTIONS, by_name
from aioemu.cli.topics import TOPICS
from aioemu.config import (
    AccelOptions,
    Actions,
    ConsoleOptions,
    CpuModel,
    DeviceOptions,
    GlobalOptions,
    MachineConfig,
    MachineOptions,
    MonitorOptions,
    NullOptions,
    OptionGroup,
    RtcOptions,
    SmbiosOptions,
    Smp,
    SocketOptions,
    StdioOptions,
)
from aioemu.errors import ConfigError, EmuError


def config(line: str | Sequence[str]) -> MachineConfig:
    return read_command_line(line.split() if isinstance(line, str) else line)[0]


def test_nothing_given() -> None:
    """Without options: the defaults, and a console on the first serial port."""
    assert config("") == MachineConfig(chardevs=(ConsoleOptions(id="serial0"),), serials=("serial0",))
    assert config("-nodefaults") == MachineConfig(nodefaults=True)
    assert config("-machine none").serials == ()


def test_machine_options_add_up() -> None:
    """-machine and -M merge; special keys go where they belong; underscores are dashes."""
    found = config(
        "-M microvm,pcie=on -machine acpi=off,accel=kvm:tcg,kernel=/k,kernel_irqchip=split --machine pcie=off"
    )

    assert found.machine == MachineOptions("microvm", {"pcie": "off", "acpi": "off", "kernel-irqchip": "split"})
    assert found.accel == (AccelOptions("kvm"), AccelOptions("tcg"))
    assert found.boot.kernel == "/k"


def test_accelerators() -> None:
    """-accel lists in order with options; -enable-kvm is one; both ways at once are refused."""
    assert config("-accel kvm,device=/x -accel tcg").accel == (
        AccelOptions("kvm", {"device": "/x"}),
        AccelOptions("tcg"),
    )
    assert config("-enable-kvm").accel == (AccelOptions("kvm"),)
    with pytest.raises(ConfigError, match="cannot be used together"):
        config("-accel kvm -machine accel=tcg")


@pytest.mark.parametrize(
    ("line", "smp"),
    [
        ("4", Smp(4, 1, 1, 4, 1, 4)),
        ("cpus=4", Smp(4, 1, 1, 4, 1, 4)),
        ("4,sockets=2", Smp(4, 2, 1, 2, 1, 4)),
        ("4,cores=2", Smp(4, 2, 1, 2, 1, 4)),
        ("4,cores=2,sockets=1", Smp(4, 1, 1, 2, 2, 4)),
        ("2,maxcpus=8", Smp(2, 1, 1, 8, 1, 8)),
        ("maxcpus=8", Smp(8, 1, 1, 8, 1, 8)),
        ("sockets=2,cores=3,threads=2", Smp(12, 2, 1, 3, 2, 12)),
        ("8,dies=2,sockets=2", Smp(8, 2, 2, 2, 1, 8)),
        ("1,clusters=1", Smp(1, 1, 1, 1, 1, 1)),
    ],
)
def test_smp_is_filled_in(line: str, smp: Smp) -> None:
    """Cores before sockets before threads, until the product is maxcpus."""
    assert config(f"-smp {line}").smp == smp


def test_options_that_add_up_and_those_whose_last_counts() -> None:
    """-smp and -m add up key by key; -cpu, -name and -uuid are replaced."""
    assert config("-smp 4 -smp sockets=2").smp == Smp(4, 2, 1, 2, 1, 4)
    found = config("-m 1G -m 512 -m slots=2,maxmem=2G -cpu host -cpu max -name a -name b")
    assert (found.memory.size_bytes, found.memory.slots, found.memory.max_bytes) == (512 << 20, 2, 2 << 30)
    assert (found.cpu, found.name) == (CpuModel("max"), "b")


@pytest.mark.parametrize(
    ("text", "size"),
    [("64", 64 << 20), ("1.5G", 3 << 29), ("0", 128 << 20), ("size=1g", 1 << 30), ("0x10", 16 << 20), ("8193b", 16384)],
)
def test_memory_sizes(text: str, size: int) -> None:
    """A plain number is MiB, 0 the default; sizes are rounded up to 8 KiB."""
    assert config(f"-m {text}").memory.size_bytes == size


def test_cpu_features() -> None:
    """Values, then pluses, then minuses."""
    found = config("-cpu host,-avx,+sse,vendor=X,check")

    assert found.cpu == CpuModel("host", (("vendor", "X"), ("check", "on"), ("sse", "on"), ("avx", "off")))


def test_devices() -> None:
    """Text, flags and JSON; -set and -global; ids are unique."""
    found = config(
        [
            *("-device", "virtio-net-pci,id=n,bus=b,addr=1.0,mac=52:54:00:12:34:56,noioeventfd,x"),
            *("-device", '{"driver": "d", "id": "j", "queues": 4, "on": true}'),
            *("-set", "device.n.mac=1", "-set", "device.n.addr=2"),
            *("-global", "virtio-net-pci.romfile=", "-global", "driver=a.b,property=c,value=d"),
        ]
    )

    assert found.devices == (
        DeviceOptions("virtio-net-pci", "n", "b", "2", {"mac": "1", "ioeventfd": "off", "x": "on"}),
        DeviceOptions("d", "j", props={"queues": 4, "on": True}),
    )
    assert found.globals == (GlobalOptions("virtio-net-pci", "romfile", ""), GlobalOptions("a.b", "c", "d"))
    with pytest.raises(ConfigError, match="Duplicate device ID 'n'"):
        config("-device a,id=n -device b,id=n")


def test_groups_are_carried_whole() -> None:
    """What other parts read arrives with type, id and nested values; repeatable keys are lists."""
    found = config(
        [
            *("-netdev", "user,id=n,hostfwd=tcp::1-:2,hostfwd=tcp::3-:4,restrict"),
            *("-netdev", '{"type": "stream", "id": "s", "addr": {"type": "unix", "path": "/p"}}'),
            *("-blockdev", "qcow2,node-name=q,file.driver=file,file.filename=a,,b"),
            *("-drive", "file=a.img,if=none,id=d,format=raw", "-hdb", "b.img", "c.img"),
            *("-object", "memory-backend-memfd,id=m,size=1G,share=on"),
            *("-nic", "user,model=virtio", "-net", "none", "-fw_cfg", "opt/x,string=y"),
        ]
    )

    assert found.netdevs == (
        OptionGroup("netdev", "user", "n", {"hostfwd": ["tcp::1-:2", "tcp::3-:4"], "restrict": "on"}),
        OptionGroup("netdev", "stream", "s", {"addr": {"type": "unix", "path": "/p"}}),
    )
    file = {"driver": "file", "filename": "a,b"}
    assert found.blockdevs == (OptionGroup("blockdev", "qcow2", None, {"node-name": "q", "file": file}),)
    assert [drive.values["file"] for drive in found.drives] == ["a.img", "b.img", "c.img"]
    assert [drive.values.get("index") for drive in found.drives] == [None, 1, 0]
    assert found.objects == (OptionGroup("object", "memory-backend-memfd", "m", {"size": "1G", "share": "on"}),)
    assert found.nics == (OptionGroup("nic", "user", None, {"model": "virtio"}),)
    assert found.nets == (OptionGroup("net", "none", None),)
    assert found.groups_of("fw_cfg") == (OptionGroup("fw_cfg", "opt/x", None, {"string": "y"}),)


def test_ports_and_monitors() -> None:
    """Ids as QEMU gives them; none leaves a port out; mon: adds a monitor; a chardev may come later."""
    found = config(
        "-serial none -serial mon:stdio -serial chardev:c -qmp unix:/q,server,nowait -qmp tcp::1,server=on,wait=off"
        " -monitor chardev:m -mon n,mode=control,pretty=on -chardev null,id=c -chardev pty,id=m -chardev pty,id=n"
    )

    assert found.serials == (None, "serial1", "c")
    assert found.monitors == (
        MonitorOptions("serial1"),
        MonitorOptions("compat_monitor0", "control"),
        MonitorOptions("compat_monitor1", "control"),
        MonitorOptions("m"),
        MonitorOptions("n", "control", True),
    )
    assert found.chardev("serial1") == StdioOptions(id="serial1", mux=True, signal=False)
    with pytest.raises(ConfigError, match='chardev "x" not found'):
        config("-mon chardev=x")
    with pytest.raises(ConfigError, match="-serial chardev:x"):
        config("-serial chardev:x")


@pytest.mark.parametrize(("option", "listens"), [("-qmp", True), ("--qmp-pretty", True), ("-monitor", False)])
def test_qmp_listens_by_itself(option: str, listens: bool) -> None:
    """`-qmp unix:PATH` listens where nobody does, a difference from QEMU; other options stay clients."""
    found = config(f"{option} unix:/p").chardev("compat_monitor0")

    assert isinstance(found, SocketOptions)
    assert found.listen_if_free is listens
    explicit = config(f"{option} unix:/p,server=on,wait=off").chardev("compat_monitor0")
    assert isinstance(explicit, SocketOptions)
    assert not explicit.listen_if_free


def test_defaults_for_what_is_not_there_are_said() -> None:
    """-global for a device that does not exist has no effect, and is not silent; one for a device that does is."""
    _, warnings = read_command_line(["-global", "PIIX4_PM.disable_s3=1", "-global", "virtio-net-pci.host_mtu=1400"])

    assert warnings == ["-global PIIX4_PM.disable_s3=1: no effect: there is no device of this name"]


@pytest.mark.parametrize(
    ("line", "serials", "monitors", "chardevs"),
    [
        ("-nographic", ("serial0",), 1, (StdioOptions(id="serial0", mux=True, signal=False),)),
        ("-nographic -monitor none", ("serial0",), 0, (StdioOptions(id="serial0"),)),
        ("-nographic -serial null", ("serial0",), 1, (NullOptions(id="serial0"), StdioOptions(id="compat_monitor0"))),
        ("-nographic -nodefaults", (), 0, ()),
        ("-nographic -device isa-serial", (), 1, (StdioOptions(id="compat_monitor0"),)),
    ],
)
def test_nographic(
    line: str, serials: tuple[str, ...], monitors: int, chardevs: tuple[NullOptions | StdioOptions, ...]
) -> None:
    """Serial port and monitor share stdio, unless options speak for one of them."""
    found = config(line)

    assert (found.serials, len(found.monitors), found.chardevs) == (serials, monitors, chardevs)


def test_life_and_process(tmp_path: Path) -> None:
    """Flags, actions, clock, log and process options."""
    found = config(
        "-S -no-reboot -no-shutdown -action panic=none -action reboot=reset -rtc base=2006-06-17,clock=vm"
        " -D /l -d int,mmu -trace enable=vring* -trace x -pidfile /p -daemonize -echr 0x14 -snapshot"
        " -loadvm s -incoming defer -uuid 12345678-1234-1234-1234-123456789abc -smbios type=1,serial=a -smbios file=/f"
        " -boot order=nc"
        ",menu=on -run-with user=nobody -name x,process=y,debug-threads=on"
    )

    assert found.actions == Actions("reset", "pause", "none")
    assert found.rtc == RtcOptions("2006-06-17", "vm")
    assert (found.log.file, found.log.items, found.log.traces) == ("/l", ("int", "mmu"), ("vring*", "x"))
    assert (found.process.pidfile, found.process.daemonize, found.process.runas) == ("/p", True, "nobody")
    assert (found.paused, found.escape, found.snapshot, found.loadvm, found.incoming) == (
        True,
        0x14,
        True,
        "s",
        "defer",
    )
    assert found.uuid == UUID("12345678-1234-1234-1234-123456789abc")
    assert found.smbios == (SmbiosOptions(1, None, {"serial": "a"}), SmbiosOptions(None, "/f"))
    assert found.boot.options == {"order": "nc", "menu": True}
    assert (found.name, found.process.process_name) == ("x", "y")


def test_readconfig(tmp_path: Path) -> None:
    """Groups of a file mean what their options mean, at that place of the command line."""
    path = tmp_path / "vm.cfg"
    path.write_text(
        '[machine]\ntype = "microvm"\n[memory]\nsize = "256"\n[smp-opts]\ncpus = "2"\n'
        '[chardev "c"]\nbackend = "socket"\npath = "/p"\nserver = "on"\nwait = "off"\n'
        '[mon "m"]\nchardev = "c"\nmode = "control"\n[device "d"]\ndriver = "x"\na = "b,c"\n'
        '[netdev "n"]\ntype = "user"\n[object "o"]\nqom-type = "iothread"\n'
    )

    found = config(f"-m 64 -readconfig {path} -smp sockets=2")

    assert found.machine.type == "microvm"
    assert found.memory.size_bytes == 256 << 20
    assert found.smp == Smp(2, 2, 1, 1, 1, 2)
    assert found.monitors == (MonitorOptions("c", "control", False, "m"),)
    assert found.devices == (DeviceOptions("x", "d", props={"a": "b,c"}),)
    assert (found.netdevs[0].id, found.objects[0].type) == ("n", "iothread")
    path.write_text('[devise "d"]\n')
    with pytest.raises(ConfigError, match=r"vm.cfg:1: There is no option group 'devise'; did you mean device"):
        config(f"-readconfig {path}")


def test_every_row_has_a_reader_and_a_topic() -> None:
    """The table names nothing that is not there; names and groups are unique."""
    options = [option for _, rows in SECTIONS for option in rows]
    assert len(by_name()) == len(options)
    for option in options:
        if option.reader:
            assert callable(find_reader(option)), option.name
        assert option.topic is None or option.topic in TOPICS
    groups = [option.group for option in options if option.group is not None]
    assert len(set(groups)) == len(groups)


LINES = {
    "QEMUMachine": "-display none -vga none -chardev socket,id=mon,fd=3 -mon chardev=mon,mode=control -machine q35"
    " -serial null -chardev socket,id=console,path=/s,server=on,wait=off -serial chardev:console",
    "qtest": "-qtest unix:/s -qtest-log /dev/null -chardev socket,path=/q,id=char0 -mon chardev=char0,mode=control"
    " -display none -audio none -machine none -accel qtest -run-with exit-with-parent=on",
    "gns3": "-name r1 -m 512M -smp cpus=1,sockets=1 -enable-kvm -machine smm=off -boot order=c -uuid"
    " 12345678-1234-1234-1234-123456789abc -drive file=a.qcow2,if=virtio,index=0,media=disk,id=drive0 -serial"
    " telnet:127.0.0.1:5001,server,nowait -monitor tcp:127.0.0.1:5002,server,nowait -net none -device"
    " virtio-net-pci,mac=0c:00:00:00:00:00,netdev=gns3-0 -netdev"
    " socket,id=gns3-0,udp=127.0.0.1:10000,localaddr=127.0.0.1:10001 -nographic",
    "vrnetlab": "-display none -machine pc -monitor tcp:0.0.0.0:4000,server,nowait -serial"
    " telnet:0.0.0.0:5000,server,nowait -m 4096 -cpu host -smp 2 -drive if=ide,file=a.qcow2 -enable-kvm",
    "virtme-ng": "-name v -m 1G -display none -vga none -machine accel=kvm:tcg -M microvm,accel=kvm,pcie=on,rtc=on"
    " -cpu host -parallel none -net none -no-reboot -qmp tcp:localhost:3636,server,nowait -serial none -chardev"
    " stdio,id=console,signal=off,mux=on -serial chardev:console -mon chardev=console -kernel k -append a",
    "proxmox": "-id 100 -name vm,debug-threads=on -no-shutdown -chardev"
    " socket,id=qmp,path=/q,server=on,wait=off -mon chardev=qmp,mode=control -chardev"
    " socket,id=qmp-event,path=/e,reconnect=5 -mon chardev=qmp-event,mode=control -pidfile /p -daemonize -smbios"
    " type=1,uuid=12345678-1234-1234-1234-123456789abc -smp 1,sockets=1,cores=1,maxcpus=1 -nodefaults -boot"
    " menu=on,strict=on,reboot-timeout=1000 -vnc unix:/v,password=on -cpu kvm64,enforce,+lahf_lm,+sep -m 512",
    "labgrid": "-S -qmp stdio -chardev socket,id=serialsocket,path=/s -serial chardev:serialsocket -machine q35"
    " -m 512 -kernel k -append a -nodefaults -display none",
    "minikube": "-M pc -display none -m 2048 -smp 2 -boot d -cdrom a.iso -qmp unix:/m,server,nowait -pidfile /p"
    " -nic user,model=virtio,hostfwd=tcp::2222-:22 -daemonize a.img",
    "nixos": "-name m -m 1024 -smp 1 -device virtio-rng-pci -net nic,netdev=user.0,model=virtio -netdev user,id=user.0"
    " -kernel k -initrd i -append a -nographic -monitor unix:/m -qmp unix:/q,server=on,wait=off -chardev"
    " socket,id=shell,path=/s -device virtio-serial -device virtconsole,chardev=shell -serial stdio -no-reboot",
    "incus": "-S -name i -uuid 12345678-1234-1234-1234-123456789abc -daemonize -cpu host -serial chardev:console"
    " -nodefaults -no-user-config -sandbox on,obsolete=deny,spawn=allow -qmp chardev:monitor -pidfile /p -D /l"
    " -chardev ringbuf,id=console,size=1M -chardev socket,id=monitor,path=/m,server=on,wait=off -runas nobody",
}


@pytest.mark.parametrize("tool", LINES)
def test_launch_lines(tool: str) -> None:
    """What launchers start QEMU with is understood to the last key."""
    config(LINES[tool].split())


WORDS = st.sampled_from(
    "-m -smp -machine -M -device -chardev -serial -qmp -mon -netdev -object -drive -blockdev -cpu -accel -global -set"
    " -S -boot -rtc -name -uuid -action -smbios -d -D -fw_cfg help ? q35 none 1 4,cores=2 id=a a,id=a user,id=n"
    ' null,id=a socket,id=s,path=/p {} {"driver":1} a.b.c=d mon:stdio chardev:a unix:/p ,,, = - -- --help'.split()
)


@given(st.lists(WORDS | st.text(max_size=20), max_size=6))
def test_any_command_line_is_read_or_refused(words: list[str]) -> None:
    """No sequence of words ends in anything but a configuration, an error of ours, or a question."""
    try:
        config(words)
    except (EmuError, HelpRequest):
        return


def test_ready_fd_is_an_open_descriptor() -> None:
    """--ready-fd takes an inherited descriptor."""
    read_end, write_end = os.pipe()
    assert config(f"--ready-fd {write_end}").process.ready_fd == write_end
    os.close(read_end)
    os.close(write_end)


def test_grammars_are_used_where_the_table_says(tmp_path: Path) -> None:
    """Only rows whose argument is taken apart have a group in configuration files."""
    for _, rows in SECTIONS:
        for option in rows:
            assert option.group is None or option.grammar in (OPTS, NESTED, KEYVAL), option.name
