"""filter-dump: a file that the tools of the field open, with everything that passed the back end."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aioemu.errors import ConfigError, HostError
from aioemu.netdev.filter_dump import FilterDump
from aioemu.netdev.port import Box
from tests.netdev.stack import ARP, BROADCAST, IPV4, arp, ether, ping

Boxes = Callable[..., Box]


def records(path: Path) -> list[bytes]:
    data, found = path.read_bytes()[24:], []
    while data:
        kept = struct.unpack("=I", data[8:12])[0]
        found.append(data[16 : 16 + kept])
        data = data[16 + kept :]
    return found


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is the reader")
def test_tshark_reads_what_passed(boxes: Boxes, tmp_path: Path) -> None:
    """Both directions, in order, with the host's time; whole when close returns."""
    a, b = boxes(), boxes()
    a.join(b)
    dump = FilterDump(b, str(tmp_path / "wire.pcap"))
    a.send(ether(ARP, arp(1, "10.0.2.15", "10.0.2.2"), BROADCAST))
    b.send(ether(IPV4, ping("10.0.2.2", "10.0.2.15")))
    assert dump.counts == (2, 0)
    dump.close()

    fields = ["-e", "frame.protocols", "-e", "icmp.type", "-e", "frame.time_epoch"]
    command = ["tshark", "-r", str(tmp_path / "wire.pcap"), "-T", "fields", *fields]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0].startswith("eth:ethertype:arp\t\t1")
    assert lines[1].startswith("eth:ethertype:ip:icmp:data\t8\t1")


def test_frames_are_cut_and_directions_chosen(boxes: Boxes, tmp_path: Path) -> None:
    """maxlen= keeps the beginning, queue=tx what the back end sends, rx what it is given; status turns it off."""
    a, b = boxes(), boxes()
    a.join(b)
    sent, given = (FilterDump(b, str(tmp_path / queue), snap_bytes=20, queue=queue) for queue in ("tx", "rx"))
    from_a, from_b = ether(0x88B5, bytes(100)), ether(0x88B6, b"\1" * 100)
    a.send(from_a)
    b.send(from_b)
    given.status = "off"
    a.send(from_a)
    for dump in (sent, given):
        dump.close()
        dump.close()

    assert records(tmp_path / "tx") == [from_b[:20]]
    assert records(tmp_path / "rx") == [from_a[:20]]
    a.send(from_a)


def test_the_port_may_go_first(boxes: Boxes, tmp_path: Path) -> None:
    """The file is whole when the back end has gone; what is asked of the filter afterwards is answered."""
    a, b = boxes(), boxes()
    a.join(b)
    dump = FilterDump(b, str(tmp_path / "wire"))
    a.send(ether(0x88B5, b"last"))
    b.close()

    assert records(tmp_path / "wire") == [ether(0x88B5, b"last")]
    dump.status = "off"
    assert dump.counts == (0, 0)
    dump.close()


def test_a_reader_that_stops_costs_a_bounded_buffer(boxes: Boxes, tmp_path: Path) -> None:
    """A pipe whose reader sleeps: senders do not wait, frames beyond the buffer are counted, the end is not held up."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    a, b = boxes(16), boxes(16)
    a.join(b)
    dump = FilterDump(b, str(tmp_path / "pipe"))
    for _ in range(3000):
        a.send(ether(0x88B5, bytes(9000)))
    kept, lost = dump.counts

    assert kept + lost == 3000
    assert lost > 500
    dump.close()
    os.close(reader)


def test_what_cannot_be_opened_is_named(boxes: Boxes, tmp_path: Path) -> None:
    """A folder that is not there, a pipe without a reader, a direction that is none."""
    box = boxes()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nowhere" / "file", tmp_path / "pipe"):
        with pytest.raises(HostError, match=str(path)):
            FilterDump(box, str(path))
    with pytest.raises(ConfigError, match="for queue"):
        FilterDump(box, str(tmp_path / "file"), queue="both")
