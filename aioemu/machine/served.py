"""What this version's machine serves beyond board and devices: a part that learns an option adds its name here."""

from __future__ import annotations

SERVED = frozenset(
    (
        "object:memory-backend-file",
        "object:memory-backend-memfd",
        "object:memory-backend-ram",
    )
)
