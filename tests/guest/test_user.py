"""Debian's kernel behind user networking: an address, names, both directions of connections, and the dump of it all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.guest, pytest.mark.timeout(180)]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs namespaces of its own")
def test_a_guest_is_online(tmp_path: Path) -> None:
    """DHCP, DNS, a connection to the host's loopback, large pings, a forwarded port; tshark reads what passed."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    script = (
        'ip link set lo up && mount --bind "$1/resolv.conf" "$(realpath /etc/resolv.conf)" && exec "$2" -m '
        'tests.guest.user_online "$1"'
    )
    command = ["unshare", "--mount", "--net", "sh", "-c", script, "sh", str(tmp_path), sys.executable]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=150)

    seen = json.loads((tmp_path / "seen").read_text())
    assert "leased 10.0.2.15/24 via 10.0.2.2 dns 10.0.2.3 host box" in seen["lease"]
    assert "192.0.2.77" in seen["name"]
    assert "3000000 bytes of 0" in seen["upload"]
    assert "2 packets received" in seen["ping"]
    assert seen["forwarded"] == "SSH-2.0-guest\n"
    assert "TCP[HOST_FORWARD]" in seen["usernet"]
    assert "host forwarding rule for tcp:127.0.0.1:8022 removed" in seen["removed"]
    if shutil.which("tshark"):
        tshark = [
            "tshark",
            "-r",
            str(tmp_path / "guest.pcap"),
            "-Y",
            "dhcp or dns",
            "-T",
            "fields",
            "-e",
            "_ws.col.Info",
        ]
        lines = subprocess.run(tshark, check=True, capture_output=True, text=True).stdout
        assert "DHCP ACK" in lines
        assert "any.example A 192.0.2.77" in lines
