"""Network filters of `-object`: what stands between a card and its back end. There is one kind: filter-dump."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioemu.devices.properties import Live, prop

if TYPE_CHECKING:
    from aioemu.machine.machine import Machine
    from aioemu.netdev.filter_dump import FilterDump


@dataclasses.dataclass(frozen=True, slots=True)
class FilterDumpProperties:
    """`-object filter-dump`. `position` and `insert` order it among filters that change frames; it changes none."""

    netdev: str = prop("", "str", "the back end that it watches", needed=True)
    file: str = prop("", "str", "where the pcap goes", needed=True)
    maxlen: int = prop(65536, "uint32", "bytes kept of each frame", least=1)
    queue: str = prop("all", "NetFilterDirection", "tx: what the back end sends; rx: what it is given")
    status: str = prop("on", "str", "on or off")
    position: str = prop("tail", "str", "where among the filters")
    insert: str = prop("behind", "NetfilterInsert", "on which side of that")


class HeldDump:
    """A dump as an object of the machine."""

    def __init__(self, dump: FilterDump) -> None:
        self.dump = dump

    def live(self) -> Mapping[str, Live]:
        """It can be turned off and on."""
        return {"status": Live("string", lambda: self.dump.status, self._set_status, "on or off")}

    def close(self) -> None:
        """The file is whole after this."""
        self.dump.close()

    def _set_status(self, value: str) -> None:
        self.dump.status = value


def make_filter_dump(machine: Machine, name: str, given: Any) -> HeldDump:
    """Watch a back end from now on."""
    from aioemu.netdev.filter_dump import FilterDump

    port = machine.nics.find(given.netdev).netdev.port
    dump = FilterDump(port, given.file, snap_bytes=given.maxlen, queue=given.queue)
    try:
        dump.status = given.status
    except BaseException:
        dump.close()
        raise
    return HeldDump(dump)
