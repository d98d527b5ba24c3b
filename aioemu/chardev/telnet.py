"""The telnet protocol (RFC 854) as far as a console needs it; no I/O here.

Offers binary, echo and suppress-go-ahead (RFC 856, 857, 858) once and ignores what the client asks; a break and an
interrupt are told apart from data. Subnegotiations are skipped. The client is not trusted: state is one number.
"""

from __future__ import annotations

IAC, DONT, DO, WONT, WILL, SB, SE, BRK = 255, 254, 253, 252, 251, 250, 240, 243
BINARY, ECHO, SUPPRESS_GO_AHEAD = 0, 1, 3
GREETING = bytes([IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, WILL, BINARY, IAC, DO, BINARY])
_DATA, _COMMAND, _OPTION, _SUB, _SUB_COMMAND, _AFTER_CR = range(6)


def encode(data: bytes) -> bytes:
    """Data as it goes on the wire: 255 is doubled."""
    return data.replace(b"\xff", b"\xff\xff")


class TelnetDecoder:
    """Takes the wire's bytes apart, cut anywhere."""

    def __init__(self) -> None:
        self._state = _DATA
        self.breaks = 0  # line breaks seen and not yet collected

    def decode(self, wire: bytes) -> bytes:
        """The data in `wire`; CR NUL, which clients send for a bare CR, becomes CR."""
        if self._state == _DATA and IAC not in wire and 13 not in wire:
            return wire
        out = bytearray()
        for byte in wire:
            self._state = self._step(byte, out)
        return bytes(out)

    def _step(self, byte: int, out: bytearray) -> int:
        """The state after `byte`."""
        if self._state in (_DATA, _AFTER_CR):
            if byte == IAC:
                return _COMMAND
            if self._state == _DATA or byte != 0:
                out.append(byte)
            return _AFTER_CR if byte == 13 else _DATA
        if self._state == _COMMAND:
            return self._command(byte, out)
        if self._state == _SUB:
            return _SUB_COMMAND if byte == IAC else _SUB
        if self._state == _SUB_COMMAND:
            return _DATA if byte == SE else _SUB
        return _DATA  # the option of a WILL, WONT, DO, DONT

    def _command(self, byte: int, out: bytearray) -> int:
        if byte == IAC:
            out.append(IAC)
        elif byte in (WILL, WONT, DO, DONT):
            return _OPTION
        elif byte == SB:
            return _SUB
        elif byte == BRK:
            self.breaks += 1
        return _DATA
