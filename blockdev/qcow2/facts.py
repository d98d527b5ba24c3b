"""What an image says of itself, by the names of QAPI's ImageInfo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioemu.blockdev.qcow2 import header as fields

if TYPE_CHECKING:
    from aioemu.blockdev.qcow2.image import Image


def describe_image(image: Image) -> dict[str, Any]:
    """Facts of one image; what is particular to the format is under `format-specific`."""
    header = image.header
    data: dict[str, Any] = {
        "compat": "1.1" if header.version >= 3 else "0.10",
        "compression-type": "zstd" if header.compression else "zlib",
        "refcount-bits": 1 << header.refcount_order,
    }
    if header.version >= 3:
        data |= {
            "lazy-refcounts": bool(header.compatible & fields.LAZY_REFCOUNTS),
            "corrupt": bool(header.incompatible & fields.CORRUPT) or image.broken is not None,
            "extended-l2": header.extended,
        }
    if image.layout.external:
        data["data-file"] = header.text(fields.EXT_DATA_FILE)
        data["data-file-raw"] = bool(header.autoclear & fields.AUTOCLEAR_RAW_DATA)
    found: dict[str, Any] = {
        "cluster-size": header.cluster_size,
        "dirty-flag": bool(header.incompatible & fields.DIRTY),
        "format-specific": {"type": "qcow2", "data": data},
    }
    if header.backing_name is not None:
        found["backing-filename"] = header.backing_name
        format_name = header.text(fields.EXT_BACKING_FORMAT)
        if format_name:
            found["backing-filename-format"] = format_name
    if image.snapshots:
        found["snapshots"] = [
            {
                "id": each.id,
                "name": each.name,
                "vm-state-size": each.vm_state_size,
                "date-sec": each.date_sec,
                "date-nsec": each.date_nsec,
                "vm-clock-sec": each.vm_clock_nsec // 10**9,
                "vm-clock-nsec": each.vm_clock_nsec % 10**9,
            }
            for each in image.snapshots
        ]
    return found
