"""The text monitor: prompt, editing, commands and their words, for people and for tools that scrape."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioemu.protocol.hmp.arguments import Expression, UsageError
from aioemu.protocol.hmp.readline import LineEditor
from tests.protocol.rig import TIMEOUT_S, Client, Rig

BANNER = rb"QEMU \d+\.\d+\.\d+ monitor - type 'help' for more information\r\n\(qemu\) "


async def line(rig: Rig, text: str) -> str:
    answer = await rig.hub.execute("human-monitor-command", {"command-line": text})
    assert isinstance(answer, str)
    return answer


async def prompt(client: Client) -> str:
    data = await asyncio.wait_for(client.reader.readuntil(b"(qemu) "), TIMEOUT_S)
    return data.decode()


async def test_help_has_the_layout_that_tools_read(rig: Rig) -> None:
    """Each line is names, usage, two dashes, text; `info` alone lists its subjects the same way."""
    for each in (await line(rig, "help")).split("\r\n")[:-1]:
        assert re.fullmatch(r"\S+ .*-- .+", each), each
    subjects = (await line(rig, "info")).split("\r\n")[:-1]
    assert all(re.fullmatch(r"info \S+ .*-- .+", each) for each in subjects)
    assert "info status  -- show the current VM status (running|paused)" in subjects


async def test_errors_are_text(rig: Rig) -> None:
    """Unknown commands, wrong arguments and failures are text, never errors of the protocol."""
    assert await line(rig, "nope x") == "unknown command: 'nope'\r\n"
    assert await line(rig, "stop now") == (
        'stop|s: extraneous characters at the end of line\r\nTry "help stop" for more information\r\n'
    )
    assert await line(rig, "object_del zz") == "Error: object 'zz' not found\r\n"
    assert await line(rig, "") == ""


async def test_commands_act(rig: Rig) -> None:
    """Text commands do what those of the protocol do."""
    assert await line(rig, "c") == ""
    assert await line(rig, "info status") == "VM status: running\r\n"
    assert await line(rig, "stop") == ""
    assert await line(rig, "info status") == "VM status: paused\r\n"
    assert await line(rig, "chardev-add ringbuf,id=r,size=16") == ""
    assert await line(rig, "ringbuf_write r hello") == ""
    assert await line(rig, "ringbuf_read r 5") == "hello\r\n"
    assert await line(rig, "object_add iothread,id=i1") == ""
    assert "i1" in rig.machine.objects.made


async def test_memory_dumps(rig: Rig) -> None:
    """xp shows cells of any size in any base, and says where memory ends."""
    assert await line(rig, "xp /4xb 0x10") == "0000000000000010: 0x10 0x11 0x12 0x13\r\n"
    assert await line(rig, "xp/2xg 0") == "0000000000000000: 0x0706050403020100 0x0f0e0d0c0b0a0908\r\n"
    assert await line(rig, "xp /5xw 0") == (
        "0000000000000000: 0x03020100 0x07060504 0x0b0a0908 0x0f0e0d0c\r\n0000000000000010: 0x13121110\r\n"
    )
    assert "Cannot access memory" in await line(rig, "xp /xw 0xffff0000")
    assert "at most" in await line(rig, "xp /99999999xg 0")


async def test_prompt_banner_and_echo(rig: Rig) -> None:
    """A client gets banner and prompt at once, its typing echoed, answers between prompts."""
    client = await rig.client(await rig.serve("hmp", "readline"))
    assert re.fullmatch(BANNER, (await prompt(client)).encode())

    await client.send(b"info status\n")

    assert await prompt(client) == "info status\r\nVM status: paused (prelaunch)\r\n(qemu) "


async def test_every_client_has_its_own_line(rig: Rig) -> None:
    """Two people at one monitor do not type into each other's line; commands queue in order."""
    path = await rig.serve("hmp", "readline")
    one, two = await rig.client(path), await rig.client(path)
    await prompt(one)
    await prompt(two)
    await one.send(b"info na")
    await two.send(b"info uuid\r\ninfo name\r\n")

    assert "0000" in await prompt(two)
    assert "fake" in await prompt(two)
    await one.send(b"me\n")
    assert "fake" in await prompt(one)


async def test_quit_at_the_prompt(rig: Rig) -> None:
    """`q` ends the machine."""
    client = await rig.client(await rig.serve("hmp", "readline"))
    await prompt(client)
    await client.send(b"q\n")

    await asyncio.wait_for(rig.machine.ended, TIMEOUT_S)


async def test_completion_and_history(rig: Rig) -> None:
    """Tab completes commands and subjects, arrows recall lines."""
    client = await rig.client(await rig.serve("hmp", "readline"))
    await prompt(client)

    await client.send(b"info sta\t\r")
    assert "info status" in await prompt(client)
    await client.send(b"\x1b[A\r")
    assert b"info status" in await asyncio.wait_for(client.reader.readuntil(b"VM status"), TIMEOUT_S)
    await prompt(client)
    await client.send(b"info history\r")
    assert "0: 'info status '" in await prompt(client)


def edit(keys: bytes, *, split: bool = False) -> list[str]:
    editor = LineEditor("> ", lambda text: [])
    parts = [keys[i : i + 1] for i in range(len(keys))] if split else [keys]
    return [line for part in parts for _, line in editor.feed(part) if line is not None]


@pytest.mark.parametrize("split", [False, True])
def test_editing_keys(split: bool) -> None:
    """Cursor keys, deletion and Ctrl keys do what they do in a shell, however the bytes arrive."""
    assert edit(b"stp\x1b[Do\r", split=split) == ["stop"]
    assert edit(b"xstop\x01\x04\r\n", split=split) == ["stop"]
    assert edit(b"stopp\x7f\r", split=split) == ["stop"]
    assert edit(b"info nope\x17status\r", split=split) == ["info status"]
    assert edit(b"abc\x15stop\x02\x0b\x05p\n", split=split) == ["stop"]
    assert edit(b"one\rtwo\r\x1bOA\x1bOA\r", split=split) == ["one", "two", "one"]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_keys_are_survived(parts: list[bytes]) -> None:
    """No input raises or makes a line longer than the limit."""
    editor = LineEditor("> ", lambda text: ["help", "history"])
    for part in parts:
        for _, line in editor.feed(part):
            assert line is None or len(line) <= 4095


@given(st.text(alphabet="0123456789abcx+-*/%&|^~() $", max_size=60))
def test_any_expression_is_survived(text: str) -> None:
    """An expression has a value or a message."""
    try:
        value, _ = Expression(text).read()
    except UsageError:
        return
    assert -(1 << 63) <= value < 1 << 63


def test_nested_expression_is_bounded() -> None:
    """Parentheses do not exhaust the stack."""
    with pytest.raises(UsageError):
        Expression("(" * 100000).read()


async def test_caller_of_human_monitor_command_may_choose_the_processor(rig: Rig, tmp_path: Path) -> None:
    """cpu-index is checked."""
    client = await rig.negotiated()
    reply = await client.command("human-monitor-command", **{"command-line": "info cpus", "cpu-index": 9})

    assert reply["error"]["desc"] == "Parameter 'cpu-index' expects a CPU number"
