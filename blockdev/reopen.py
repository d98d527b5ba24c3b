"""blockdev-reopen: nodes take on other options while they are in use; an image may get another backing file, or none.

All of them are checked before the first one changes. Not done: other children than `backing`, taking changes back where
one of several nodes fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioemu.blockdev.node import Node
from aioemu.blockdev.options import NOT_GIVEN, NodeOptions, children_of, read_options
from aioemu.blockdev.permissions import Change, Permission
from aioemu.errors import ConfigError, EmuError

if TYPE_CHECKING:
    from aioemu.blockdev.graph import Graph

Given = Mapping[str, Any]
BACKING = "backing"


@dataclass(frozen=True)
class Step:
    """What one node is to become."""

    node: Node[Any]
    options: NodeOptions
    backing: Node[Any] | None  # as it is now, where it does not change

    @property
    def order(self) -> int:
        """Nodes that are to be written come before those on top of them, the others after."""
        return _height(self.node) * (-1 if self.options.read_only else 1)


async def reopen_nodes(graph: Graph, given: Sequence[Given]) -> None:
    """Have nodes take on new options; those not given go back to their defaults. The caller holds the graph's lock."""
    steps = [_plan(graph, _named(graph, each), each) for each in given]
    for step in steps:
        step.node.check_reopen(step.options)
    for step in sorted(steps, key=lambda step: step.order):
        await _reopen(step.node, step.options)
        if step.backing is not step.node.backing:
            async with step.node.quiet():
                old = _replace_backing(graph, step.node, step.backing)
            if old is not None:
                await graph.release(old)


def _named(graph: Graph, given: Given) -> Node[Any]:
    if "node-name" not in given:
        raise ConfigError("node-name not specified", "node-name")
    node = graph.nodes.get(given["node-name"])
    if node is None:
        raise EmuError(f"Failed to find node with node-name='{given['node-name']}'")
    return node


def _plan(graph: Graph, node: Node[Any], given: Given) -> Step:
    """ConfigError for what cannot change."""
    if given.get("driver") != node.driver:
        raise ConfigError("Cannot change the option 'driver'", "driver")
    left = {key: value for key, value in given.items() if key != "driver"}
    backing = node.backing
    for role in children_of(node.options_type):
        child, now = left.get(role, NOT_GIVEN), node.children.get(role)
        if role == BACKING and child is NOT_GIVEN and now is not None:
            raise ConfigError(f"backing is missing for '{node.name}'", BACKING)
        if child is NOT_GIVEN or child == (now.name if now is not None else None):
            continue
        if role != BACKING or not (child is None or isinstance(child, str)):
            raise ConfigError(f"Cannot change the option '{role}'", role)
        backing = _backing(graph, node, child)
    if node.is_filter and node.file.read_only:
        left.setdefault("read-only", True)
    return Step(node, read_options(node.options_type, left, strict=True), backing)


def _backing(graph: Graph, node: Node[Any], name: str | None) -> Node[Any] | None:
    """The node that is to be below another one from now on."""
    now = node.backing
    if now is not None and now.implicit:
        raise ConfigError("Cannot replace implicit backing child of " + node.name, BACKING)
    if name is None:
        return None
    child = graph.find(name)
    graph.refuse_loop(node, child)
    return child


async def _reopen(node: Node[Any], options: NodeOptions) -> None:
    before, node.read_only = node.read_only, options.read_only
    change = Change()
    if options.read_only and not before:
        change.reopening = node
    try:
        change.refresh(node)
    finally:
        node.read_only = before
    if not options.read_only:
        change.apply()
        await node.reopen(options)
        return
    if not before:
        await node.flush()
    await node.reopen(options)
    change.apply()


def _replace_backing(graph: Graph, node: Node[Any], child: Node[Any] | None) -> Node[Any] | None:
    """Put another image below a node, or none: what it did not write reads otherwise at once. The old one."""
    old = node.children.pop(BACKING, None)
    edges = [] if old is None else [edge for edge in old.parents if edge.parent is node and edge.role == BACKING]
    if child is not None:
        try:
            graph.attach(node, BACKING, child, *node.wants(BACKING, Permission.NONE, Permission.ALL))
        except BaseException:
            if old is not None:
                node.children[BACKING] = old
            raise
        node.children[BACKING] = child
    node.request_alignment = max((each.request_alignment for each in node.children.values()), default=1)
    node.changed(0, node.size)  # nothing of the old one is used any more when this returns
    for edge in edges:
        graph.detach(edge)
    return old


def _height(node: Node[Any]) -> int:
    """How many nodes there are below it, one below the other."""
    return 1 + max(map(_height, node.children.values()), default=0)
