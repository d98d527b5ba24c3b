"""One client's conversation without its socket: negotiation, requests in order, answers, events as bytes.

`feed` takes what arrived; `next` gives back what to do, one thing at a time: bytes to send or a Call to carry out,
whose `answer` or `refusal` is then sent. Whether a request may run is judged when its turn comes, as its predecessors
may change that; only out-of-band requests, once agreed on, go before the queue. The client is not trusted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aioemu.errors import MonitorError
from aioemu.protocol.framing import Assembler, encode
from aioemu.protocol.lexer import Malformed
from aioemu.protocol.registry import Command, Encoded, Registry

QMP_VERSION = (10, 0, 0)  # of QEMU, whose protocol this is
QUEUE_LIMIT = 8  # requests that wait behind a running one before no more are read (docs/interop/qmp-spec)
HANDSHAKE = "qmp_capabilities"

_MISSING = object()
_REQUEST = frozenset(("execute", "exec-oob", "arguments", "id"))


class Capability(StrEnum):
    """What a client may ask for."""

    OOB = "oob"


@dataclass(slots=True)
class Call:
    """A request that may run now."""

    command: Command
    arguments: dict[str, Any]
    id: Any
    oob: bool


class Session:
    """The state between a client's connecting and its leaving."""

    def __init__(self, registry: Registry, package: str, pretty: bool = False) -> None:
        self.registry = registry
        self.negotiated = False
        self.oob = False
        self._package = package
        self._pretty = pretty
        self._input = Assembler()
        self._waiting: deque[Any] = deque()
        self._urgent: deque[Any] = deque()

    @property
    def full(self) -> bool:
        """Enough requests wait: read no more for now."""
        return len(self._waiting) >= QUEUE_LIMIT

    @property
    def in_value(self) -> bool:
        """A request has begun that is not whole yet."""
        return not self._input.idle

    @property
    def queued(self) -> int:
        return len(self._waiting) + len(self._urgent)

    def greeting(self) -> bytes:
        """The first line."""
        major, minor, micro = QMP_VERSION
        version = {"qemu": {"micro": micro, "minor": minor, "major": major}, "package": self._package}
        return self._line({"QMP": {"version": version, "capabilities": [each.value for each in Capability]}})

    def feed(self, data: bytes) -> None:
        """Take received bytes."""
        values = self._input.feed(data)
        if not self.oob:
            self._waiting += values
            return
        for value in values:
            (self._urgent if type(value) is dict and "exec-oob" in value else self._waiting).append(value)

    def next(self, busy: bool = False) -> bytes | Call | None:
        """The next thing to do; while `busy` only what goes before the queue."""
        if self._urgent:
            value = self._urgent.popleft()
        elif self._waiting and not busy:
            value = self._waiting.popleft()
        else:
            return None
        if isinstance(value, Malformed):
            return self._error(MonitorError(str(value)), _MISSING)
        request_id = value.get("id", _MISSING) if type(value) is dict else _MISSING
        try:
            return self._admit(value, request_id)
        except MonitorError as exc:
            return self._error(exc, request_id)

    def answer(self, call: Call, result: Any) -> bytes:
        """The reply that carries (result); None is the empty answer."""
        if self._pretty:
            return self._line(self._with_id({"return": {} if result is None else result}, call.id))
        if result is None:
            body = b"{}"
        elif type(result) is Encoded:
            body = result
        else:
            body = encode(result)
        if call.id is _MISSING:
            return b'{"return": %b}\r\n' % body
        return b'{"return": %b, "id": %b}\r\n' % (body, encode(call.id))

    def refusal(self, call: Call, error: MonitorError) -> bytes:
        """The reply that says why not."""
        return self._error(error, call.id)

    def event(self, fields: dict[str, Any]) -> bytes:
        """An event's line; empty before negotiation."""
        return self._line(fields) if self.negotiated else b""

    def negotiate(self, enable: list[Capability]) -> None:
        """Carry out qmp_capabilities."""
        self.negotiated = True
        self.oob = Capability.OOB in enable

    # ---- is it a request? ------------------------------------------------------------------------------------------

    def _admit(self, value: Any, request_id: Any) -> bytes | Call:
        name, oob = self._check_form(value)
        arguments = value.get("arguments", {})
        command = self.registry.commands.get(name)
        if not self.negotiated and (name != HANDSHAKE or oob):
            text = f"Expecting capabilities negotiation with '{HANDSHAKE}'"
            raise MonitorError(text, "CommandNotFound")
        if command is None:
            raise MonitorError(f"The command {name} has not been found", "CommandNotFound")
        if oob and not command.oob:
            raise MonitorError(f"The command {name} does not support OOB")
        if name == HANDSHAKE and self.negotiated:
            text = "Capabilities negotiation is already complete, command ignored"
            raise MonitorError(text, "CommandNotFound")
        return Call(command, arguments, request_id, oob)

    def _check_form(self, value: Any) -> tuple[str, bool]:
        """The command's name and whether it is to run out of band."""
        if type(value) is not dict:
            raise MonitorError("QMP input must be a JSON object")
        for key in value:
            if key not in _REQUEST or (key == "exec-oob" and not self.oob):
                raise MonitorError(f"QMP input member '{key}' is unexpected")
        if "exec-oob" in value and "execute" in value:
            raise MonitorError("QMP input member 'execute' clashes with 'exec-oob'")
        oob = "exec-oob" in value
        key = "exec-oob" if oob else "execute"
        if key not in value:
            raise MonitorError("QMP input lacks member 'execute'")
        if type(value[key]) is not str:
            raise MonitorError(f"QMP input member '{key}' must be a string")
        if type(value.get("arguments", {})) is not dict:
            raise MonitorError("QMP input member 'arguments' must be an object")
        return value[key], oob

    # ---- output ----------------------------------------------------------------------------------------------------

    def _error(self, error: MonitorError, request_id: Any) -> bytes:
        fields: dict[str, Any] = {} if request_id is _MISSING else {"id": request_id}
        return self._line({**fields, "error": {"class": error.error_class, "desc": str(error)}})

    def _with_id(self, fields: dict[str, Any], request_id: Any) -> dict[str, Any]:
        return fields if request_id is _MISSING else {**fields, "id": request_id}

    def _line(self, fields: Any) -> bytes:
        return encode(fields, self._pretty) + b"\r\n"
