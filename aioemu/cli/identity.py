"""Who the process is: its name, its root folder, its user, whether it outlives its parent.

Root and user change after everything was opened; what is opened later must be reachable from there.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal

from aioemu.config import MachineConfig, ProcessOptions
from aioemu.errors import ConfigError, HostError

PR_SET_PDEATHSIG = 1


def set_process_name(config: MachineConfig) -> None:
    """`-name ...,process=x`: what ps and top show."""
    name = config.process.process_name
    if name is not None:
        with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as comm:
            comm.write(name)


def confine(options: ProcessOptions) -> None:
    """Apply -chroot, -runas and exit-with-parent."""
    if options.exit_with_parent:
        _end_with_parent()
    user = find_user(options.runas) if options.runas is not None else None
    if options.chroot is not None:
        try:
            os.chroot(options.chroot)
            os.chdir("/")
        except OSError as exc:
            raise HostError(f"chroot {options.chroot}", exc.errno) from exc
    if user is not None:
        _become(*user)


def find_user(text: str) -> tuple[int, int, str | None]:
    """A user's name, or uid:gid; returns uid, gid and the name whose groups apply."""
    uid, colon, gid = text.partition(":")
    if colon and uid.isdecimal() and gid.isdecimal():
        return int(uid), int(gid), None
    try:
        entry = pwd.getpwnam(text)
    except KeyError:
        raise ConfigError(f"-runas {text}: there is no such user (a name, or uid:gid)", "-runas") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _become(uid: int, gid: int, name: str | None) -> None:
    try:
        if name is None:
            os.setgroups([])
        else:
            os.initgroups(name, gid)
        os.setgid(gid)
        os.setuid(uid)
    except OSError as exc:
        raise HostError(f"-runas {name or uid}", exc.errno) from exc
    if uid != 0:
        with contextlib.suppress(OSError):
            os.setuid(0)
            raise HostError("-runas: the privileges came back")


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent dies; one that died already is not missed."""
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
