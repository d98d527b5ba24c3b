"""The conversation: greeting, negotiation, ids, errors, order, events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from aioemu.machine.runstate import RunState
from tests.protocol.rig import Rig


def error(reply: Any) -> tuple[str, str]:
    return reply["error"]["class"], reply["error"]["desc"]


async def test_greeting_is_one_line_and_comes_at_once(rig: Rig) -> None:
    """The greeting is one CRLF line below 1024 bytes with QEMU's spacing, whoever sends nothing yet."""
    client = await rig.client()

    line = await client.line()

    assert line.startswith(b'{"QMP": {"version": {"qemu": {"micro": ')
    assert line.endswith(b'"capabilities": ["oob"]}}\r\n')
    assert len(line) < 1024


async def test_nothing_works_before_negotiation(rig: Rig) -> None:
    """Before qmp_capabilities every command, known or not, is CommandNotFound; no event arrives."""
    client = await rig.client()
    await client.message()
    text = "Expecting capabilities negotiation with 'qmp_capabilities'"

    assert error(await client.command("query-status")) == ("CommandNotFound", text)
    assert error(await client.command("nope")) == ("CommandNotFound", text)
    rig.machine.powerdown()
    assert await client.command("qmp_capabilities") == {"return": {}}
    rig.machine.powerdown()
    assert (await client.message())["event"] == "POWERDOWN"


async def test_second_negotiation_is_refused(rig: Rig) -> None:
    """qmp_capabilities works once per connection."""
    client = await rig.negotiated()

    reply = await client.command("qmp_capabilities")

    assert error(reply) == ("CommandNotFound", "Capabilities negotiation is already complete, command ignored")


async def test_unknown_capability_leaves_the_session_unnegotiated(rig: Rig) -> None:
    """A capability that was not offered is an error, and the client may try again."""
    client = await rig.client()
    await client.message()

    assert error(await client.command("qmp_capabilities", enable=["nope"]))[0] == "GenericError"
    assert "error" in await client.command("query-status")
    assert await client.command("qmp_capabilities", enable=["oob"]) == {"return": {}}


@pytest.mark.parametrize(
    "text", ["1", '"x"', "null", "true", "[null, 1.5]", '{"a": {"b": []}}', "18446744073709551615", '"\\u00E9"']
)
async def test_ids_come_back_as_they_were(rig: Rig, text: str) -> None:
    """An id of any JSON type is echoed in answers and errors."""
    client = await rig.negotiated()

    await client.send(f'{{"execute": "query-status", "id": {text}}}'.encode())
    assert (await client.line()).decode().endswith(f', "id": {text}}}\r\n')
    await client.send(f'{{"execute": "nope", "id": {text}}}'.encode())
    assert (await client.line()).decode().startswith(f'{{"id": {text}, "error": ')


FORMS = {
    "[]": "QMP input must be a JSON object",
    "{}": "QMP input lacks member 'execute'",
    '{"execute": true}': "QMP input member 'execute' must be a string",
    '{"execute": "query-status", "arguments": []}': "QMP input member 'arguments' must be an object",
    '{"execute": "query-status", "arguments": null}': "QMP input member 'arguments' must be an object",
    '{"execute": "query-status", "control": 1}': "QMP input member 'control' is unexpected",
    '{"exec-oob": "query-status"}': "QMP input member 'exec-oob' is unexpected",
    '{"execute": "query-status", "arguments": {"x": 1}}': "Parameter 'x' is unexpected",
    '{"execute": "getfd"}': "Parameter 'fdname' is missing",
    '{"execute": "getfd", "arguments": {"fdname": 1}}': "Invalid parameter type for 'fdname', expected: string",
    '{"execute": "a", "execute": "b"}': "JSON parse error, duplicate key",
    '{"execute": foo}': "JSON parse error, invalid keyword 'foo'",
}


@pytest.mark.parametrize("text", FORMS)
async def test_malformed_requests_are_named(rig: Rig, text: str) -> None:
    """What is wrong with a request is said in the words tools match; the session goes on."""
    client = await rig.negotiated()

    assert error(await client.ask(text.encode())) == ("GenericError", FORMS[text])
    assert "return" in await client.command("query-status")


async def test_id_of_a_request_with_an_extra_member_is_echoed(rig: Rig) -> None:
    """A well-formed request keeps its id even where it is refused."""
    client = await rig.negotiated()

    assert (await client.ask(b'{"execute": "query-status", "foo": 1, "id": 7}'))["id"] == 7


async def test_unknown_command(rig: Rig) -> None:
    """The name comes back in the error."""
    client = await rig.negotiated()

    assert error(await client.command("nope")) == ("CommandNotFound", "The command nope has not been found")


async def test_oob_is_for_commands_that_allow_it(rig: Rig) -> None:
    """With oob agreed on, a command that cannot run out of band says so."""
    client = await rig.negotiated("oob")

    reply = await client.ask(b'{"exec-oob": "query-status"}')
    assert error(reply) == ("GenericError", "The command query-status does not support OOB")
    reply = await client.ask(b'{"exec-oob": "query-status", "execute": "query-status"}')
    assert error(reply) == ("GenericError", "QMP input member 'execute' clashes with 'exec-oob'")


async def test_oob_overtakes_the_queue(rig: Rig) -> None:
    """An out-of-band command is answered while others wait, by id, up to the limit of the queue."""
    rig.machine.gate = asyncio.Event()
    client = await rig.negotiated("oob")

    await client.send(b'{"execute":"stop","id":"slow"}' + b'{"execute":"query-status","id":"queued"}' * 3)
    reply = await client.ask(b'{"exec-oob":"query-yank","id":"fast"}')
    assert reply == {"return": [], "id": "fast"}
    rig.machine.gate.set()
    assert [each["id"] for each in await client.messages(4)] == ["slow", "queued", "queued", "queued"]


async def test_queue_is_bounded_even_with_oob(rig: Rig) -> None:
    """Beyond eight waiting requests nothing is read, not even out of band, until there is room."""
    rig.machine.gate = asyncio.Event()
    client, other = await rig.negotiated("oob"), await rig.negotiated()
    await client.send(b'{"execute":"stop","id":0}' + b'{"execute":"query-status","id":1}' * 8)
    for _ in range(10):
        assert "return" in await other.command("query-status")
    await client.send(b'{"exec-oob":"query-yank","id":2}')
    for _ in range(10):
        assert "return" in await other.command("query-status")
    rig.machine.gate.set()

    ids = [each["id"] for each in await client.messages(10)]
    assert ids[0] == 0
    assert sorted(ids) == [0, *[1] * 8, 2]


async def test_status_has_no_member_but_two(rig: Rig) -> None:
    """Clients decode query-status strictly."""
    client = await rig.negotiated()

    assert await client.command("query-status") == {"return": {"status": "prelaunch", "running": False}}


async def test_events_precede_the_reply_of_their_command(rig: Rig) -> None:
    """RESUME, STOP, RESET, POWERDOWN and SHUTDOWN come before the answer, without `data` where it is empty."""
    client = await rig.negotiated()

    for command, event in (("cont", "RESUME"), ("stop", "STOP"), ("system_powerdown", "POWERDOWN")):
        message = await client.command(command)
        assert message.pop("timestamp").keys() == {"seconds", "microseconds"}
        assert message == {"event": event}
        assert await client.message() == {"return": {}}
    message = await client.command("system_reset")
    assert message["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
    assert await client.message() == {"return": {}}
    assert (await client.command("quit"))["data"] == {"guest": False, "reason": "host-qmp-quit"}
    assert await client.message() == {"return": {}}
    assert rig.machine.ended.done()


async def test_repeated_stop_and_cont_are_silent(rig: Rig) -> None:
    """Only a transition has an event."""
    client = await rig.negotiated()

    assert await client.command("stop") == {"return": {}}
    assert (await client.command("cont"))["event"] == "RESUME"
    assert await client.message() == {"return": {}}
    assert await client.command("cont") == {"return": {}}


async def test_a_machine_that_needs_a_reset_does_not_continue(rig: Rig) -> None:
    """What the machine refuses is a GenericError with its words."""
    client = await rig.negotiated()
    rig.machine.state = RunState.SHUTDOWN

    assert error(await client.command("cont")) == ("GenericError", "Resetting the Virtual Machine is required")


async def test_five_hundred_commands_in_one_write(rig: Rig) -> None:
    """Pipelined commands are answered in order, none lost, however they are run together."""
    client = await rig.negotiated()

    await client.send(b"".join(b'{"execute":"query-status","id":%d}' % number for number in range(500)))

    assert [message["id"] for message in await client.messages(500)] == list(range(500))


async def test_slow_command_keeps_its_place(rig: Rig) -> None:
    """What follows a command that takes its time waits for it; other clients do not."""
    rig.machine.gate = asyncio.Event()
    slow, other = await rig.negotiated(), await rig.negotiated()

    await slow.send(b'{"execute":"stop","id":1}' + b'{"execute":"query-status","id":2}' * 100)
    for _ in range(50):
        assert "return" in await other.command("query-status")
    rig.machine.gate.set()

    assert [message["id"] for message in await slow.messages(101)] == [1, *[2] * 100]


async def test_split_at_every_byte(rig: Rig) -> None:
    """A request needs no newline and may come one byte at a time."""
    client = await rig.negotiated()
    for byte in b"{'execute': 'query-status', 'id': 'it\\'s'}":
        await client.send(bytes([byte]))
        await asyncio.sleep(0)

    assert (await client.message())["id"] == "it's"


async def test_bytes_outside_ascii_are_escaped(rig: Rig) -> None:
    """Output is ASCII with QEMU's escapes."""
    client = await rig.negotiated()

    await client.send('{"execute":"query-status","id":"é\\u007f😀"}'.encode())

    assert b'"id": "\\u00E9\\u007F\\uD83D\\uDE00"' in await client.line()


async def test_pretty_mode_is_json_over_many_lines(rig: Rig) -> None:
    """-qmp-pretty indents; default monitors stay one line."""
    client = await rig.client(await rig.serve("pretty", pretty=True))
    first = await client.reader.readuntil(b"\n}\r\n")
    assert json.loads(first)["QMP"]["capabilities"] == ["oob"]

    await client.send(b'{"execute":"qmp_capabilities"}{"execute":"query-status","id":1}')

    assert json.loads(await client.reader.readuntil(b"\n}\r\n")) == {"return": {}}
    assert json.loads(await client.reader.readuntil(b"\n}\r\n"))["id"] == 1


async def test_every_client_has_its_own_session(rig: Rig) -> None:
    """Any number of clients of one socket negotiate for themselves and all get every event."""
    clients = [await rig.negotiated() for _ in range(20)]
    stranger = await rig.client()
    await stranger.message()

    assert (await clients[0].command("cont"))["event"] == "RESUME"
    for client in clients[1:]:
        assert (await client.message())["event"] == "RESUME"
    assert error(await stranger.command("query-status"))[0] == "CommandNotFound"
