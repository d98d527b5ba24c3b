"""Disks: nodes and drives, carried whole for the machine's block graph, which knows what their keys mean."""

from __future__ import annotations

from aioemu.cli.draft import Draft
from aioemu.cli.readers.groups import need
from aioemu.cli.reading import Argument
from aioemu.config import OptionGroup


def blockdev(draft: Draft, arg: Argument) -> None:
    """A node; its id is `node-name`, which stays among the values."""
    need(arg, "driver")
    kind = arg.opts.text("driver")
    draft.add_group(arg.where, OptionGroup("blockdev", kind, None, arg.opts.rest()))


def drive(draft: Draft, arg: Argument) -> None:
    """A drive: dotted keys stay as they are, for `file` is a name beside the `file.` that are options."""
    name = arg.opts.identifier()
    draft.add_group(arg.where, OptionGroup("drive", None, name, arg.opts.rest()))
