"""Which image format a file begins like, by the magic numbers of the formats people use.

Formats that aioemu cannot open are known too: their files must not be taken for raw disks. Nothing is parsed.
"""

from __future__ import annotations

PROBE_BYTES = 512  # what is looked at: QEMU looks at as much before it lets a guessed raw image be written
MAGICS: tuple[tuple[int, bytes, str], ...] = (  # offset, bytes, format
    (0, b"QFI\xfb\x00\x00\x00\x01", "qcow"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\x00", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
)


def probe(head: bytes) -> str:
    """The format that a file with this beginning has."""
    for offset, magic, name in MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return name
    return "raw"
