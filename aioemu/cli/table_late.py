"""The second half of the option table: objects, the guest's life, the process, and what has no effect here."""

from __future__ import annotations

from aioemu.cli.rows import FLAG, KEYVAL, NESTED, OPTS, TEXT, Option

_O = Option

LATE_SECTIONS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    (
        "Objects",
        (
            _O(
                "object",
                "groups:object_",
                NESTED,
                "type,id=name[,prop=value][,...]",
                "create an object",
                "qom-type",
                "object",
                "object",
            ),
            _O("tpmdev", "group:tpmdev!", OPTS, "type,id=name[,...]", "a TPM back end", "type", "tpmdev"),
            _O(
                "add-fd",
                "groups:add_fd",
                OPTS,
                "fd=n,set=n[,opaque=text]",
                "put an inherited descriptor into a set",
                group="add-fd",
            ),
        ),
    ),
    (
        "Life",
        (
            _O("S", "flag:paused", FLAG, "", "do not start the CPUs: wait for 'cont'"),
            _O("preconfig", "flag:preconfig", FLAG, "", "do not start the CPUs: wait for 'x-exit-preconfig'"),
            _O("no-reboot", "life:no_reboot", FLAG, "", "leave instead of rebooting"),
            _O("no-shutdown", "life:no_shutdown", FLAG, "", "stop instead of leaving when the guest shuts down"),
            _O(
                "action",
                "life:action",
                OPTS,
                "event=action[,...]",
                "reboot=reset|shutdown, shutdown=poweroff|pause, panic=pause|shutdown|exit-failure|none, watchdog=...",
                group="action",
            ),
            _O("watchdog-action", "life:watchdog_action", TEXT, "action", "as -action watchdog=action"),
            _O("loadvm", "flag:loadvm", TEXT, "tag|id", "start from a saved state"),
            _O("incoming", "flag:incoming", TEXT, "uri", "start from a migration"),
            _O("nodefaults", "flag:nodefaults", FLAG, "", "no default devices"),
            _O("readconfig", "readconfig:readconfig", TEXT, "FILE", "read options from a file"),
        ),
    ),
    (
        "Process",
        (
            _O("daemonize", "process:daemonize", FLAG, "", "go to the background when the machine is set up"),
            _O("pidfile", "process:pidfile", TEXT, "FILE", "write the process id to a file, and lock it"),
            _O("ready-fd", "life:ready_fd", TEXT, "n", "write 'ready' to this descriptor when the machine is set up"),
            _O("runas", "process:runas", TEXT, "user", "become this user when the machine is set up"),
            _O("chroot", "process:chroot", TEXT, "DIR", "change to this root when the machine is set up"),
            _O(
                "run-with",
                "life:run_with",
                OPTS,
                "[chroot=DIR][,user=name][,exit-with-parent=on|off]",
                "process options",
                group="run-with",
            ),
            _O("D", "field:log_file", TEXT, "FILE", "log to a file"),
            _O("d", "life:log_items", TEXT, "item[,...]", "log these items ('-d help' for a list)", topic="log"),
            _O("trace", "life:trace", OPTS, "[enable=]pattern", "log matching events", "enable", "trace"),
        ),
    ),
    (
        "Accepted and without effect",
        (
            _O("id", "ignored:text", TEXT, "number", "a manager's own number for the guest"),
            _O("L", "ignored:text", TEXT, "DIR", "firmware folder: there is none to search"),
            _O("k", "ignored:text", TEXT, "layout", "keyboard layout: there is no display"),
            _O("usb", "ignored:flag", FLAG, "", "USB controllers are added by -device"),
            _O("no-hpet", "ignored:flag", FLAG, "", "there is no HPET"),
            _O("no-fd-bootchk", "ignored:flag", FLAG, "", "there is no legacy boot"),
            _O("no-user-config", "ignored:flag", FLAG, "", "no configuration file is read by itself"),
            _O("only-migratable", "ignored:flag", FLAG, "", "every device can be saved"),
            _O("audio", "ignored:no_audio", KEYVAL, "none", "there is no sound", "driver"),
            _O(
                "audiodev",
                "ignored:no_audio",
                KEYVAL,
                "none,id=name",
                "there is no sound",
                "driver",
                "audiodev",
                "audiodev",
            ),
            _O(
                "msg",
                "ignored:msg",
                OPTS,
                "[timestamp=on|off][,guest-name=on|off]",
                "messages have one form",
                group="msg",
            ),
            _O(
                "overcommit",
                "ignored:overcommit",
                OPTS,
                "[mem-lock=on|off][,cpu-pm=on|off]",
                "host policy",
                group="overcommit",
            ),
            _O(
                "sandbox",
                "ignored:sandbox",
                OPTS,
                "on|off[,...]",
                "no system call filter: 'on' warns",
                "enable",
                "sandbox",
            ),
            _O(
                "compat",
                "ignored:compat",
                OPTS,
                "[deprecated-input=...]",
                "nothing here is deprecated yet",
                group="compat",
            ),
            _O("dfilter", "ignored:text", TEXT, "range,...", "translation is not logged"),
            _O("singlestep", "ignored:flag", FLAG, "", "translation is not tuned"),
            _O("seed", "ignored:text", TEXT, "number", "the guest gets no pseudo-random numbers"),
            _O("async-teardown", "ignored:flag", FLAG, "", "memory is freed at once"),
        ),
    ),
)
