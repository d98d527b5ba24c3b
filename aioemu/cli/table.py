"""The command's options, one row each; `-help` prints this table.

`reader` is `module:function` of aioemu.cli.readers, or one of the plain ones: `field:x` keeps the text in the draft,
`flag:x` and `process:x` set a field of the configuration, `group:x` carries the whole argument (`!`: it must have an
id), `disk:x` is a drive. `grammar` says how the argument is taken apart: not there (flag), text as it is (text), the
comma grammar (opts), that with dotted keys and JSON (nested), or without bare flags (keyval). `implied` is the key of
a bare first value, `group` the name in a configuration file, `topic` what `help` in the argument prints.
"""

from __future__ import annotations

from aioemu.cli.rows import FLAG, KEYVAL, NESTED, OPTS, TEXT, Option
from aioemu.cli.table_late import LATE_SECTIONS

_O = Option

SECTIONS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    (
        "Standard options",
        (
            _O("h", "", FLAG, "", "display this help and exit"),
            _O("help", "", FLAG, "", "display this help and exit"),
            _O("version", "", FLAG, "", "display version information and exit"),
            _O("probe", "", FLAG, "", "say what this host can do and what aioemu will use, and exit"),
            _O("json", "", FLAG, "", "with -probe: as JSON"),
            _O(
                "machine",
                "machine:machine",
                KEYVAL,
                "[type=]name[,prop=value[,...]]",
                "select the board ('-machine help' for a list); accel=a[:b[:...]] selects accelerators",
                "type",
                "machine",
                "machine",
            ),
            _O("M", "machine:machine", KEYVAL, "[type=]name[,...]", "as -machine", "type", None, "machine"),
            _O(
                "cpu",
                "machine:cpu",
                TEXT,
                "model[,feature=on|off][,+feature][,-feature]",
                "select the CPU",
                topic="cpu",
            ),
            _O(
                "accel",
                "machine:accel",
                OPTS,
                "[accel=]name[,prop=value[,...]]",
                "an accelerator to use: kvm, tcg, qtest; may be repeated, the first that works is taken",
                "accel",
                "accel",
                "accel",
            ),
            _O("enable-kvm", "machine:enable_kvm", FLAG, "", "as -accel kvm"),
            _O(
                "smp",
                "machine:smp",
                OPTS,
                "[[cpus=]n][,maxcpus=n][,sockets=n][,dies=n][,cores=n][,threads=n]",
                "number and topology of the CPUs",
                "cpus",
                "smp-opts",
            ),
            _O("m", "machine:memory", OPTS, "[size=]megs[,slots=n,maxmem=size]", "guest memory", "size", "memory"),
            _O("mem-path", "field:mem_path", TEXT, "FILE", "back the guest's memory by a file"),
            _O("mem-prealloc", "machine:mem_prealloc", FLAG, "", "allocate the guest's memory at the start"),
            _O("numa", "group:numa", OPTS, "node|dist|cpu,...", "memory nodes", "type", "numa"),
            _O(
                "device",
                "devices:device",
                NESTED,
                "driver[,prop[=value][,...]]",
                "add a device",
                "driver",
                "device",
                "device",
            ),
            _O("global", "devices:global_", TEXT, "driver.prop=value", "a default for every device of a driver"),
            _O("set", "devices:set_", TEXT, "group.id.key=value", "set a value in an earlier option"),
            _O(
                "name",
                "life:name",
                OPTS,
                "string[,process=name][,debug-threads=on|off]",
                "the guest's name",
                "guest",
                "name",
            ),
            _O("uuid", "machine:uuid", TEXT, "%08x-%04x-%04x-%04x-%012x", "the guest's UUID"),
            _O(
                "boot",
                "machine:boot",
                OPTS,
                "[order=drives][,once=drives][,menu=on|off][,...]",
                "boot order",
                "order",
                "boot-opts",
            ),
            _O(
                "rtc",
                "machine:rtc",
                OPTS,
                "[base=utc|localtime|<datetime>][,clock=host|rt|vm][,driftfix=none|slew]",
                "the guest's clock",
                group="rtc",
            ),
            _O(
                "smbios",
                "machine:smbios",
                OPTS,
                "type=n[,field=value][,...] | file=FILE",
                "SMBIOS fields and tables",
                group="smbios",
            ),
            _O(
                "fw_cfg",
                "groups:fw_cfg",
                OPTS,
                "[name=]name,file=FILE|string=text",
                "an entry of the firmware configuration",
                "name",
                "fw_cfg",
            ),
            _O(
                "acpitable",
                "group:acpitable",
                OPTS,
                "sig=str,data=FILE[,...]",
                "an additional ACPI table",
                group="acpi",
            ),
            _O("no-acpi", "machine:no_acpi", FLAG, "", "as -machine acpi=off"),
        ),
    ),
    (
        "Boot options",
        (
            _O(
                "kernel",
                "field:kernel",
                TEXT,
                "FILE",
                "boot this kernel: bzImage, or ELF with a PVH note or 64-bit entry",
            ),
            _O("append", "field:append", TEXT, "cmdline", "the kernel's command line"),
            _O("initrd", "field:initrd", TEXT, "FILE", "the kernel's initial RAM disk"),
            _O("dtb", "field:dtb", TEXT, "FILE", "device tree for the kernel"),
            _O("bios", "field:firmware", TEXT, "FILE", "firmware"),
            _O("pflash", "disk:pflash", TEXT, "FILE", "a flash drive with firmware"),
        ),
    ),
    (
        "Block devices",
        (
            _O(
                "blockdev",
                "drives:blockdev",
                KEYVAL,
                "[driver=]driver[,node-name=n][,...]",
                "a block node",
                "driver",
                "blockdev",
            ),
            _O(
                "drive",
                "drives:drive",
                OPTS,
                "[file=FILE][,if=type][,format=f][,id=name][,...]",
                "a disk with its medium",
                group="drive",
                topic="format",
            ),
            _O("hda", "disk:hda", TEXT, "FILE", "hard disk 0 (hdb, hdc, hdd: 1 to 3)"),
            _O("hdb", "disk:hdb", TEXT, "FILE", "hard disk 1"),
            _O("hdc", "disk:hdc", TEXT, "FILE", "hard disk 2"),
            _O("hdd", "disk:hdd", TEXT, "FILE", "hard disk 3"),
            _O("cdrom", "disk:cdrom", TEXT, "FILE", "CD-ROM"),
            _O("fda", "disk:fda", TEXT, "FILE", "floppy disk 0"),
            _O("fdb", "disk:fdb", TEXT, "FILE", "floppy disk 1"),
            _O("snapshot", "flag:snapshot", FLAG, "", "write to temporary files instead of the disks"),
            _O("fsdev", "group:fsdev!", OPTS, "driver,id=name,...", "a shared folder", "fsdriver", "fsdev"),
            _O(
                "virtfs",
                "group:virtfs",
                OPTS,
                "driver,path=DIR,mount_tag=tag,...",
                "a shared folder with its device",
                "fsdriver",
                "virtfs",
            ),
        ),
    ),
    (
        "Network",
        (
            _O(
                "netdev",
                "groups:netdev",
                NESTED,
                "type,id=name[,prop=value][,...]",
                "a network back end",
                "type",
                "netdev",
                "netdev",
            ),
            _O(
                "nic",
                "group:nic",
                OPTS,
                "[type][,model=m][,mac=a][,...]",
                "a network card with its back end",
                "type",
                "nic",
                "netdev",
            ),
            _O(
                "net",
                "groups:net",
                OPTS,
                "nic|none|type[,...]",
                "legacy form of -nic and -netdev",
                "type",
                "net",
                "netdev",
            ),
        ),
    ),
    (
        "Character devices, consoles and monitors",
        (
            _O(
                "chardev",
                "chardevs:chardev",
                OPTS,
                "backend,id=name[,mux=on|off][,logfile=FILE][,...]",
                "a character device",
                "backend",
                "chardev",
                "chardev",
            ),
            _O(
                "serial",
                "chardevs:serial",
                TEXT,
                "dev",
                "connect the next serial port: stdio, pty, unix:, tcp:, telnet:, file:, null, none, chardev:id, mon:",
            ),
            _O("parallel", "chardevs:parallel", TEXT, "dev", "connect the next parallel port (none)"),
            _O("debugcon", "chardevs:debugcon", TEXT, "dev", "a debug console at port 0xe9"),
            _O("monitor", "chardevs:monitor", TEXT, "dev", "a text monitor"),
            _O("qmp", "chardevs:qmp", TEXT, "dev", "a QMP monitor; unix:PATH listens where nobody does yet"),
            _O("qmp-pretty", "chardevs:qmp_pretty", TEXT, "dev", "as -qmp, with indented output"),
            _O(
                "mon",
                "chardevs:mon",
                OPTS,
                "[chardev=]id[,mode=readline|control][,pretty=on|off]",
                "a monitor on a chardev",
                "chardev",
                "mon",
            ),
            _O("gdb", "chardevs:gdb", TEXT, "dev", "wait for gdb's connection on a character device"),
            _O("s", "chardevs:gdb_default", FLAG, "", "as -gdb tcp::1234"),
            _O("qtest", "chardevs:qtest", TEXT, "dev", "serve the qtest protocol"),
            _O("qtest-log", "field:qtest_log", TEXT, "FILE", "log of the qtest protocol"),
            _O("echr", "chardevs:echr", TEXT, "chr", "the control character of a muxed terminal, instead of Ctrl-A"),
            _O("nographic", "flag:nographic", FLAG, "", "no display; serial port and monitor on stdio"),
            _O("display", "life:display", KEYVAL, "none", "no display", "type", None, "display"),
            _O("vga", "life:vga", TEXT, "none", "no graphics card", topic="vga"),
            _O("vnc", "groups:vnc", OPTS, "display[,...]", "serve the display over VNC", "vnc", "vnc"),
            _O("spice", "group:spice", OPTS, "...", "serve the display over SPICE", group="spice"),
        ),
    ),
    *LATE_SECTIONS,
)


def by_name() -> dict[str, Option]:
    """The rows by option name."""
    return {option.name: option for _, options in SECTIONS for option in options}


def by_group() -> dict[str, Option]:
    """The rows by the name of their group in a configuration file."""
    return {option.group: option for _, options in SECTIONS for option in options if option.group is not None}
