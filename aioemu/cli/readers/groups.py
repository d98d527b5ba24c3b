"""Options that belong to parts with a grammar of their own: carried whole, with their type and id known.

The part that serves a group reads its values; a group that no part serves is refused when the machine is built.
"""

from __future__ import annotations

import os

from aioemu.cli.draft import Draft, Values
from aioemu.cli.reading import Argument
from aioemu.config import OptionGroup
from aioemu.config.grammar import Options
from aioemu.config.keyval import unflatten

# keys of -netdev that may be repeated: always a list
_REPEATED = ("hostfwd", "guestfwd", "dnssearch")


def add_group(draft: Draft, arg: Argument, option: str, implied: str | None = None, need_id: bool = False) -> None:
    """Carry the argument whole; `implied` names its type."""
    opts = arg.opts
    kind = opts.text(implied) if implied is not None else None
    name = opts.identifier()
    if need_id and name is None:
        opts.fail("Parameter 'id' is missing")
    draft.add_group(arg.where, OptionGroup(option, kind, name, _nested(opts)))


def _nested(opts: Options) -> Values:
    """The rest with dotted keys as dicts and repeatable keys as lists."""
    repeated = {key: opts.every(key) for key in _REPEATED if key in opts}
    lists = {key: v[0] if len(v) == 1 and isinstance(v[0], list) else v for key, v in repeated.items()}
    return {**unflatten(opts.where, opts.rest().items()), **lists}


def netdev(draft: Draft, arg: Argument) -> None:
    """A network back end."""
    need(arg, "type")
    add_group(draft, arg, "netdev", "type", need_id=True)


def net(draft: Draft, arg: Argument) -> None:
    """A card or a back end, the old way."""
    need(arg, "type")
    add_group(draft, arg, "net", "type")


def object_(draft: Draft, arg: Argument) -> None:
    """An object."""
    need(arg, "qom-type")
    add_group(draft, arg, "object", "qom-type", need_id=True)


def need(arg: Argument, key: str) -> None:
    """Refuse an argument without `key`."""
    if key not in arg.opts:
        arg.opts.fail(f"Parameter '{key}' is missing")


def fw_cfg(draft: Draft, arg: Argument) -> None:
    """A name, and its contents from a file or as text."""
    need(arg, "name")
    add_group(draft, arg, "fw_cfg", "name")


def vnc(draft: Draft, arg: Argument) -> None:
    """`-vnc none` is no server."""
    if arg.text != "none":
        add_group(draft, arg, "vnc", "vnc")


def add_fd(draft: Draft, arg: Argument) -> None:
    """Numbers are checked here: the descriptors are the process's."""
    fd, number = arg.opts.number("fd", -1, high=1 << 20), arg.opts.number("set", -1)
    opaque = arg.opts.text("opaque")
    arg.opts.close()
    if fd < 3:
        arg.opts.fail("fd cannot be a standard I/O stream")
    try:
        os.fstat(fd)
    except OSError as exc:
        arg.opts.fail(f"file descriptor {fd}: {exc.strerror}")
    draft.add_group(arg.where, OptionGroup("add-fd", None, None, {"fd": fd, "set": number, "opaque": opaque}))
