"""The command line's option groups and their parameters, as query-command-line-options tells them.

Only what the command line takes (a test holds the two together). A group without parameters takes those of the model,
type or back end that it names.
"""

from __future__ import annotations

from collections.abc import Mapping

_LIMITS = " ".join(
    f"throttling.{unit}-{way}{tail}:number"
    for unit in ("iops", "bps")
    for way in ("total", "read", "write")
    for tail in ("", "-max", "-max-length")
)

# name:type, the type as the protocol calls it
GROUPS: Mapping[str, str] = {
    "accel": "",
    "action": "reboot:string shutdown:string panic:string watchdog:string",
    "add-fd": "fd:number set:number opaque:string",
    "boot-opts": "order:string once:string menu:boolean splash:string splash-time:number reboot-timeout:number"
    " strict:boolean",
    "chardev": "backend:string path:string input-path:string host:string port:string fd:string to:number ipv4:boolean"
    " ipv6:boolean wait:boolean server:boolean delay:boolean nodelay:boolean reconnect:number reconnect-ms:number"
    " telnet:boolean width:number height:number cols:number rows:number mux:boolean signal:boolean size:size"
    " chardevs.0:string chardevs.1:string chardevs.2:string chardevs.3:string append:boolean logfile:string"
    " logappend:boolean tight:boolean abstract:boolean",
    "device": "",
    "drive": "file:string if:string index:number bus:number unit:number media:string format:string driver:string"
    " node-name:string snapshot:boolean read-only:boolean auto-read-only:boolean force-share:boolean"
    " copy-on-read:boolean cache.direct:boolean cache.no-flush:boolean cache.writeback:boolean aio:string"
    " discard:string detect-zeroes:string werror:string rerror:string throttling.iops-size:number"
    f" throttling.group:string {_LIMITS}",
    "global": "driver:string property:string value:string",
    "memory": "size:size slots:number maxmem:size",
    "mon": "chardev:string mode:string pretty:boolean",
    "msg": "timestamp:boolean guest-name:boolean",
    "name": "guest:string process:string debug-threads:boolean",
    "net": "",
    "netdev": "",
    "nic": "",
    "object": "",
    "overcommit": "mem-lock:string cpu-pm:boolean",
    "rtc": "base:string clock:string driftfix:string",
    "run-with": "async-teardown:boolean chroot:string user:string exit-with-parent:boolean",
    "sandbox": "enable:boolean obsolete:string elevateprivileges:string spawn:string resourcecontrol:string",
    "smbios": "",
    "smp-opts": "cpus:number drawers:number books:number sockets:number dies:number clusters:number modules:number"
    " cores:number threads:number maxcpus:number",
    "trace": "enable:string events:string file:string",
}


def parameters(group: str) -> list[tuple[str, str]]:
    """A group's parameters: name and type."""
    return [(name, kind) for name, _, kind in (each.rpartition(":") for each in GROUPS[group].split())]
