"""What users and clients may write: anything is read or refused in words, and a refusal leaves nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioemu.blockdev.drive import Drive, read_drive
from aioemu.blockdev.graph import Graph
from aioemu.blockdev.options import children_of, read_options, write_options
from aioemu.blockdev.registry import DRIVERS, find_driver
from aioemu.cli.command_line import read_command_line
from aioemu.errors import ConfigError, EmuError
from aioemu.machine.machine import Machine

QEMU = shutil.which("qemu-system-x86_64")
WORDS = st.sampled_from("on off 1 0 -1 1M x raw qcow2 null-co none unmap ignore writeback 4096 virtio stop".split())
KEYS = """file if format driver id node-name cache cache.direct cache.no-flush cache.writeback aio discard detect-zeroes
    read-only readonly auto-read-only force-share copy-on-read werror rerror snapshot media index bus unit size offset
    throttling.iops-total throttling.iops-total-max bps bps_rd iops_size throttling.group file.filename file.driver
    file.locking backing foo file.foo backing.driver""".split()
VALUES = st.one_of(WORDS, st.text(max_size=8))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=6), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_drive_is_read_or_refused(values: dict[str, str]) -> None:
    """-drive never fails in another way than in words."""
    with contextlib.suppress(ConfigError):
        assert isinstance(read_drive("d", values), Drive)


@given(st.sampled_from(sorted(DRIVERS)), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5), st.booleans())
def test_any_options_are_read_or_refused(driver: str, values: dict[str, Any], strict: bool) -> None:
    """What is read can be written down again, and means the same."""
    schema = find_driver(driver).options_type
    try:
        options = read_options(schema, values, strict=strict)
    except ConfigError:
        return
    assert read_options(schema, write_options(options), strict=True) == options


SAFE = st.sampled_from(["null-co", "null-aio", "raw", "throttle", "copy-on-read", "blkdebug", "qcow2", 5, None])
TREES = st.recursive(
    st.fixed_dictionaries({"driver": SAFE}, optional=dict.fromkeys(("size", "node-name", "read-only", "cache"), JSON)),
    lambda inner: st.fixed_dictionaries(
        {"driver": SAFE, "file": st.one_of(inner, WORDS)}, optional={"image": inner, "offset": JSON, "backing": inner}
    ),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(TREES, max_size=4))
async def test_any_tree_is_opened_or_leaves_nothing(graph: Graph, trees: list[dict[str, Any]]) -> None:
    """Whatever a client asks for: nodes that could not be are gone, with everything below them."""
    for number, tree in enumerate(trees):
        before = set(graph.nodes)
        try:
            node = await graph.add({**tree, "node-name": f"top{number}"}, strict=True)
        except EmuError:
            assert set(graph.nodes) == before
            continue
        assert node.opened
        assert set(node.children) == {role for role in children_of(type(node).options_type) if role in node.children}
    for name in sorted(graph.owned, reverse=True):
        await graph.remove(name)
    assert not graph.nodes


CASES = """discard=bla discard=unmap discard=on detect-zeroes=unmap detect-zeroes=on,discard=on werror=bla werror=stop
    rerror=enospc rerror=ignore cache=bla cache=none cache=directsync if=bla media=bla media=disk aio=bla aio=native
    format=bla format=raw,foo=1 index=1,unit=1 copy-on-read=on cache.direct=x cache.no-flush=on node-name=4a
    driver=raw,format=raw file.filename=/x format=raw,file.foo=1 format=raw,file.driver=file format=raw,file.locking=off
    format=raw,aio=native,cache.direct=on force-share=on
    format=raw,force-share=on,read-only=on
    format=raw,size=1 format=raw,size=512 format=raw,size=1k,offset=1k format=raw,offset=3M format=null-co format=qcow2
    iops=x iops=1,iops_rd=1 iops=5 bps_max=1,bps=10 throttling.iops-total=5,throttling.iops-total-max=9 iops_size=5
    throttling.iops-total-max=3 bps=10,bps_max=20,throttling.bps-total-max-length=0 throttling.group=x read-only=on
    throttling.foo=1 throttling.iops-total.x=1 file.filename=IMAGE backing= format=raw,backing=
    readonly=on format=raw,read-only=maybe auto-read-only=on snapshot=maybe unit=x""".split()


@pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64")
@pytest.mark.parametrize("case", CASES)
async def test_drives_are_read_as_qemu_reads_them(tmp_path: Path, case: str) -> None:
    """What QEMU takes is taken, what it refuses is refused with its reason."""
    image = tmp_path / "a.img"
    image.write_bytes(bytes(1 << 20))
    prefix = "" if "if=" in case else "if=none,"
    words = ["-machine", "none", "-drive", f"file={image},{prefix}id=d,{case.replace('IMAGE', str(image))}"]
    assert QEMU is not None
    theirs = _qemu(words)
    machine = Machine(read_command_line(words)[0])
    try:
        await machine.open()
        ours = ""
    except ConfigError as exc:
        ours = str(exc)
    finally:
        machine.close()
    reason = theirs.partition(": ")[2].partition(": ")[2].strip() if theirs else ""
    assert bool(ours) == bool(theirs), f"ours: {ours}\nQEMU's: {theirs}"
    assert reason in ours, f"ours: {ours}\nQEMU's: {theirs}"


def _qemu(words: list[str]) -> str:
    """QEMU's refusal, or nothing."""
    assert QEMU is not None
    command = [QEMU, *words, "-display", "none", "-S", "-qmp", "stdio"]
    leave = '{"execute":"qmp_capabilities"}{"execute":"quit"}'
    done = subprocess.run(command, input=leave, capture_output=True, text=True, timeout=30, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("qemu-system")]
    return lines[0] if done.returncode and lines else ""
