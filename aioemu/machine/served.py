"""What this version's machine serves beyond board and devices: a part that learns an option adds its name here.

`object:TYPE` and `netdev:TYPE` are one type each, and what `-object help` and `-netdev help` list; other names are the
options' own (`drive`, `blockdev`, `nic`, `qtest`, `gdb`, ...).
"""

from __future__ import annotations

SERVED = frozenset(
    (
        "add-fd",
        "blockdev",
        "drive",
        "net",
        "netdev:bridge",
        "netdev:dgram",
        "netdev:hubport",
        "netdev:socket",
        "netdev:stream",
        "netdev:tap",
        "netdev:user",
        "nic",
        "object:filter-dump",
        "object:iothread",
        "object:memory-backend-file",
        "object:memory-backend-memfd",
        "object:memory-backend-ram",
        "object:rng-builtin",
        "object:rng-random",
        "object:secret",
        "object:throttle-group",
        "qtest",
        "snapshot",
    )
)
