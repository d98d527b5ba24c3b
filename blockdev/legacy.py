"""Images by file name: `-drive file=`, the backing file that a header names, `json:` names; the format may be guessed.

What a name means is QEMU's: `json:{...}` holds options, `file:` and a plain path are files, a block device of the host
is one, any other `word:` is a protocol, of which there are few here. Every name may come from an image's header.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioemu.blockdev.options import NodeOptions, option_names, read_options
from aioemu.blockdev.probe import PROBE_BYTES, probe
from aioemu.blockdev.registry import DRIVERS, find_driver
from aioemu.config.keyval import parse_json, unflatten
from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.blockdev.graph import Graph
    from aioemu.blockdev.node import Node

_PROTOCOL = re.compile(r"([A-Za-z0-9+.-]+):", re.ASCII)
INHERITED = ("read-only", "auto-read-only", "force-share", "cache")
PROTOCOLS = {"file": "file", "host_device": "host_device", "null-co": "null-co", "null-aio": "null-aio"}


async def open_image(graph: Graph, filename: str | None, given: Mapping[str, Any], *, depth: int = 0) -> Node[Any]:
    """Open an image by name and options, where the format and the protocol may be left out."""
    options = dict(given)
    if filename is not None and filename.startswith("json:"):
        options = _with_json(filename, options)
        filename = options.pop("filename", None)
    driver = options.get("driver")
    if driver is not None and not isinstance(driver, str):
        raise ConfigError("Invalid parameter type for 'driver', expected: string", "driver")
    if driver is not None and "file" not in option_names(find_driver(driver).options_type):
        return await graph.open(_named(driver, options, filename), depth=depth, legacy=True)
    if driver is not None and filename is None and "file" not in options:
        raise ConfigError('A block device must be specified for "file"', "file")
    options["file"] = _file_options(options.get("file"), filename, options.pop("aio", None))
    if driver is None:
        return await _open_guessed(graph, options, depth)
    if isinstance(options["file"], Mapping):
        options["file"] = with_driver(options["file"])
    return await graph.open(options, depth=depth, legacy=True)


def _named(driver: str, options: dict[str, Any], filename: str | None) -> dict[str, Any]:
    """Options of a driver that has no file below it."""
    if filename is not None and driver.startswith("null-"):
        if filename != f"{driver}://":
            raise ConfigError(f"The only allowed filename for this driver is '{driver}://'", "file")
        return options
    if filename is not None and "filename" in option_names(find_driver(driver).options_type):
        return {**options, "filename": filename}
    return options


def _file_options(given: Any, filename: str | None, aio: Any) -> Any:
    """What is below the format: a node's name, or options with the file name among them."""
    if isinstance(given, str) and filename is None:
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError("Invalid parameter type for 'file', expected: object", "file")
    options = dict(given or {})
    if filename is not None:
        if options.get("filename") is not None:
            raise ConfigError("Can't specify 'file' and 'filename' options at the same time", "file")
        options["filename"] = filename
    if not options.get("filename") and "driver" not in options:
        raise ConfigError("Must specify either driver or file", "file")
    if aio is not None and not str(options.get("driver", "")).startswith("null-"):
        options.setdefault("aio", aio)
    return options


def names_file(options: Mapping[str, Any]) -> bool:
    """Whether the options of an image say which file it is in, whatever else names one."""
    below = options.get("file")
    return isinstance(below, str) or (isinstance(below, Mapping) and "filename" in below)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Options with dotted keys, however they were nested."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _with_json(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a `json:` name holds, nested or with dotted keys, with the options over it."""
    named = parse_json("Could not parse the JSON options", name.removeprefix("json:"))
    return unflatten("json:", {**dict(flat(named)), **dict(flat(options))}.items())


def with_driver(options: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol that a file name stands for, unless the options say it."""
    if "driver" in options or "filename" not in options:
        return dict(options)
    name = str(options["filename"])
    if name.startswith("blkdebug:"):
        return _blkdebug(name.removeprefix("blkdebug:"), options)
    match = _PROTOCOL.match(name)
    if match is not None and "/" not in match.group(1):
        driver = PROTOCOLS.get(match.group(1))
        if driver is None or driver not in DRIVERS:
            raise ConfigError(f"Unknown protocol '{match.group(1)}'", "filename")
        rest = {key: value for key, value in options.items() if key != "filename"}
        path = name[match.end() :]
        return {**rest, "driver": driver, **({"filename": path} if driver == "file" else {})}
    return {**options, "driver": "host_device" if _is_device(name) else "file"}


def _blkdebug(rest: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`blkdebug:[CONFIG]:IMAGE`."""
    config, colon, image = rest.partition(":")
    if not colon:
        raise ConfigError("blkdebug requires both config file and image path", "filename")
    told = {key: value for key, value in options.items() if key not in ("filename", "aio")}
    below = {"filename": image, **({"aio": options["aio"]} if "aio" in options else {})}
    return {**told, "driver": "blkdebug", "image": with_driver(below), **({"config": config} if config else {})}


def _is_device(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # no name at all
        return False
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


async def _open_guessed(graph: Graph, options: dict[str, Any], depth: int) -> Node[Any]:
    """Open the file, look at its beginning, and put the format that it has on top."""
    from aioemu.blockdev.graph import inherit

    given = options["file"]
    if isinstance(given, str):
        below = graph.find(given)
    else:
        told: dict[str, Any] = {key: options[key] for key in INHERITED if key in options}
        plain = read_options(NodeOptions, told)
        below = await graph.open(inherit(plain, "file", with_driver(given)), depth=depth + 1, legacy=True)
    try:
        name = probe(await below.read(0, PROBE_BYTES))
        if name not in DRIVERS:
            raise ConfigError(f"'{below.filename}' is a {name} image: format '{name}' is not available", "format")
        made = await graph.open(
            {**options, "driver": name, "file": below.name}, depth=depth, legacy=True, probed=name == "raw"
        )
        if not isinstance(given, str):
            below.inherits_from, below.explicit = made, with_driver(given)
        return made
    except BaseException:
        await graph.release(below)
        raise
