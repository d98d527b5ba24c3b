"""What managers look for in the schema before they use it, by paths as libvirt writes them."""

from __future__ import annotations

from typing import Any

import pytest

from aioemu.protocol.commands.table import COMMANDS
from aioemu.protocol.events import EVENTS
from aioemu.protocol.introspect import describe

SCHEMA: dict[str, dict[str, Any]] = {}

FOUND = """
blockdev-add/arg-type/node-name
blockdev-add/arg-type/cache/direct
blockdev-add/arg-type/detect-zeroes/^unmap
blockdev-add/arg-type/driver/^throttle
blockdev-add/arg-type/+file/filename
blockdev-add/arg-type/+file/aio/^io_uring
blockdev-add/arg-type/+file/locking/^auto
blockdev-add/arg-type/+host_device/filename
blockdev-add/arg-type/+qcow2/discard-no-unref
blockdev-add/arg-type/+qcow2/data-file
blockdev-add/arg-type/+qcow2/overlap-check/template
blockdev-add/arg-type/+qcow2/backing/+raw/offset
blockdev-add/arg-type/+throttle/throttle-group
blockdev-add/arg-type/+throttle/file/+file/filename
blockdev-add/arg-type/+blkdebug/set-state/new_state
blockdev-reopen/arg-type/options/+qcow2/lazy-refcounts
blockdev-create/arg-type/options/+qcow2/compression-type/^zstd
blockdev-create/arg-type/options/+qcow2/file/+file/filename
blockdev-create/arg-type/options/+file/preallocation/^falloc
netdev_add/arg-type/type/^user
netdev_add/arg-type/+user/ipv6-prefix
netdev_add/arg-type/+tap/vnet_hdr
netdev_add/arg-type/+tap/vhostforce
netdev_add/arg-type/+stream/addr/+unix/path
netdev_add/arg-type/+dgram/local/+inet/port
object-add/arg-type/qom-type/^iothread
object-add/arg-type/qom-type/^memory-backend-memfd
object-add/arg-type/+iothread/poll-max-ns
object-add/arg-type/+memory-backend-memfd/hugetlb
object-add/arg-type/+filter-dump/insert/^before
object-add/arg-type/+throttle-group/limits/bps-total-max-length
chardev-add/arg-type/backend/+socket/data/reconnect-ms
chardev-add/arg-type/backend/+pty/data/path
chardev-add/arg-type/backend/+file/data/logappend
device_add/$json-cli
device_add/$json-cli-hotplug
query-block/ret-type/inserted/image/format-specific/+qcow2/data/compat
query-jobs/ret-type/status/^concluded
set-action/arg-type/panic/^exit-failure
BLOCK_IO_ERROR/arg-type/qom-path
SHUTDOWN/arg-type/reason/^guest-panic
""".split()

ABSENT = """
blockdev-add/arg-type/+qcow2/encrypt
blockdev-add/arg-type/+file/nonsense
blockdev-add/arg-type/driver/^nbd
netdev_add/arg-type/type/^vde
object-add/arg-type/+iothread/filename
device_add/$nothing
migrate/arg-type/uri
""".split()


def entities() -> dict[str, dict[str, Any]]:
    """The schema by name, asked for once."""
    if not SCHEMA:
        SCHEMA.update({each["name"]: each for each in describe(COMMANDS, EVENTS)})
    return SCHEMA


def look(path: str) -> bool:
    """Whether there is such a thing: members by name, +variants, ^words, $features; lists and alternates are seen
    through, as libvirt does.
    """
    name, *parts = path.split("/")
    here = [entities()[name]] if name in entities() else []
    for part in parts:
        here = [found for each in here for found in step(each, part)]
    return bool(here)


def step(entity: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """What one part of a path leads to."""
    kind = entity["meta-type"]
    if kind == "array" and part[0] != "^":
        return step(entities()[entity["element-type"]], part)
    if kind == "alternate":
        return [found for each in entity["members"] for found in step(entities()[each["type"]], part)]
    if part[0] == "$":
        return [entity] if part[1:] in entity.get("features", ()) else []
    if part[0] == "^":
        return [entity] if any(each["name"] == part[1:] for each in entity.get("members", ())) else []
    if part[0] == "+":
        return [entities()[each["type"]] for each in entity.get("variants", ()) if each["case"] == part[1:]]
    if part in ("arg-type", "ret-type"):
        return [entities()[entity[part]]]
    return [entities()[each["type"]] for each in entity.get("members", ()) if each["name"] == part]


@pytest.mark.parametrize("path", FOUND)
def test_is_found(path: str) -> None:
    """What is served is found where managers look for it."""
    assert look(path)


@pytest.mark.parametrize("path", ABSENT)
def test_is_not_found(path: str) -> None:
    """What is not served is not promised."""
    assert not look(path)


def test_entities_refer_to_entities() -> None:
    """Every type that is spoken of is described, once."""
    listed = describe(COMMANDS, EVENTS)
    names = {each["name"] for each in listed}
    spoken = {each[key] for each in listed for key in ("arg-type", "ret-type", "element-type") if key in each}
    spoken |= {
        each["type"] for one in listed for each in (*one.get("members", ()), *one.get("variants", ())) if "type" in each
    }

    assert len(names) == len(listed)
    assert spoken <= names


@pytest.mark.parametrize("driver", ["file", "qcow2", "raw", "throttle", "blkdebug", "null-co", "host_device"])
def test_a_described_member_is_read(driver: str) -> None:
    """Each member that the schema promises for a driver is known to the driver: description and check are one."""
    from aioemu.blockdev.options import option_names
    from aioemu.blockdev.registry import find_driver

    options = next(each for each in COMMANDS if each.name == "blockdev-add").arguments.record.shape
    assert options is not None
    shape = options()
    described = {each.name for each in (*shape.members, *shape.cases[driver].members)} - {"driver"}

    assert described == option_names(find_driver(driver).options_type).keys() - {"encrypt"}
