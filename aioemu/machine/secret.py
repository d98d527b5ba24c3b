"""`-object secret`: a password or key, from the command line or a file, for whoever names it.

It can be given and is never shown. Not here: secrets that are encrypted with another one (`keyid=`).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioemu.devices.properties import Live, prop
from aioemu.errors import ConfigError, HostError

if TYPE_CHECKING:
    from aioemu.machine.machine import Machine

SIZE_LIMIT = 1 << 20  # of a file: a thousand times the longest key


@dataclass(frozen=True, slots=True)
class SecretProperties:
    """`-object secret`: either `data` or `file`."""

    data: str | None = prop(None, "str", "the secret itself")
    file: str | None = prop(None, "str", "where it is")
    format: str = prop("raw", "QCryptoSecretFormat", "how it is written")
    keyid: str | None = prop(None, "str", "refused: the secret that it would be encrypted with")
    iv: str | None = prop(None, "str", "refused, as keyid is")


class Secret:
    """The bytes, once read."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    def live(self) -> Mapping[str, Live]:
        """That there is one is all that is told."""
        return {"data": Live("str", lambda: ""), "loaded": Live("bool", lambda: True)}


def make_secret(machine: Machine, name: str, given: Any) -> Secret:
    """Read it. ConfigError and HostError name what is wrong, and never the secret."""
    if given.keyid is not None or given.iv is not None:
        raise ConfigError("'keyid' and 'iv' are not supported: encrypted secrets cannot be read")
    if (given.data is None) == (given.file is None):
        both = given.data is not None
        raise ConfigError(
            "'file' and 'data' are mutually exclusive" if both else "Either 'file' or 'data' must be provided"
        )
    value = given.data.encode() if given.data is not None else _read(machine, given.file)
    if given.format == "base64":
        try:
            value = base64.b64decode(value.strip(), validate=True)
        except binascii.Error as exc:
            raise ConfigError("Base64 data contains invalid characters") from exc
    return Secret(value)


def _read(machine: Machine, path: str) -> bytes:
    try:
        with open(machine.fds.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            value = file.read(SIZE_LIMIT + 1)
    except OSError as exc:
        raise HostError(f"Unable to read {path}", exc.errno) from exc
    if value is None or len(value) > SIZE_LIMIT:
        raise ConfigError(f"Unable to read {path}: longer than {SIZE_LIMIT} bytes, or nothing in it yet")
    return value
