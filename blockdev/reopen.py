"""blockdev-reopen: nodes take on other options while they are in use; an image may get another backing file, or none.

Nodes that were opened by a parent's options follow it, with new options of their own where those are given. All of them
are checked before the first one changes. Not done: another node in the place of a child than `backing`, taking changes
back where one of several nodes fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aioemu.blockdev.node import Node
from aioemu.blockdev.options import NOT_GIVEN, NodeOptions, children_of, option_names
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
    explicit: Given
    backing: Node[Any] | None  # as it is now, where it does not change

    @property
    def order(self) -> int:
        """Nodes that are to be written come before those on top of them, the others after."""
        return _height(self.node) * (-1 if self.options.read_only else 1)

    @property
    def changes(self) -> bool:
        """Whether anything will be different."""
        kept = {name: getattr(self.node.options, name) for name in _children_fields(self.options)}
        return replace(self.options, **kept) != self.node.options or self.backing is not self.node.backing


async def reopen_nodes(graph: Graph, given: Sequence[Given]) -> None:
    """Have nodes take on new options; those not given go back to their defaults. The caller holds the graph's lock."""
    steps: dict[Node[Any], Step] = {}
    for each in given:
        _plan(graph, _named(graph, each), each, each, steps)
    for step in steps.values():
        step.node.check_reopen(step.options)
    for step in sorted(steps.values(), key=lambda step: step.order):
        await _reopen(step.node, step.options)
        step.node.explicit = step.explicit
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


def _plan(
    graph: Graph, node: Node[Any], given: Given, explicit: Given, steps: dict[Node[Any], Step], *, own: bool = True
) -> None:
    """What a node, and those that inherit from it, are to become. ConfigError for what cannot change.

    (own): the options come from the client, and not from what was said of the node when it was opened.
    """
    if given.get("driver") != node.driver:
        raise ConfigError("Cannot change the option 'driver'", "driver")
    if given.get("node-name", node.name) != node.name:
        raise ConfigError("Cannot change the option 'node-name'", "node-name")
    left = dict(given)
    if node.is_filter and node.file.read_only and node.file.inherits_from is not node:
        left.setdefault("read-only", True)
    options = graph.check(left, strict=own)
    if options.force_share != node.options.force_share:
        raise ConfigError("Cannot change the option 'force-share'", "force-share")
    backing = node.backing
    for role in children_of(node.options_type):
        child, now = left.get(role, NOT_GIVEN), node.children.get(role)
        if role == BACKING and child is NOT_GIVEN and now is not None and own:
            raise ConfigError(f"backing is missing for '{node.name}'", BACKING)
        if role == BACKING and (child is None or (isinstance(child, str) and (now is None or child != now.name))):
            backing = _backing(graph, node, child)
        elif now is not None:
            _plan_child(graph, node, options, role, child, steps)
        elif child is not NOT_GIVEN and child is not None:
            raise ConfigError(f"Cannot change the option '{role}'", role)
    step = Step(node, options, explicit, backing)
    if own or step.changes:
        steps.setdefault(node, step)


def _plan_child(
    graph: Graph, node: Node[Any], options: NodeOptions, role: str, given: Any, steps: dict[Node[Any], Step]
) -> None:
    """The child in this role, which stays: with options of its own, or those it was opened with."""
    from aioemu.blockdev.graph import inherit  # which imports this

    child = node.children[role]
    inherits = child.inherits_from is node
    if isinstance(given, Mapping):
        if not inherits:
            raise ConfigError(f"Cannot change the option '{role}.{next(iter(given), 'driver')}'", role)
        _plan(graph, child, inherit(options, role, given), given, steps)
    elif given is NOT_GIVEN or given == child.name:
        if inherits:
            kept = {name: below.name for name, below in child.children.items()}
            told = {**inherit(options, role, child.explicit), **kept, "driver": child.driver}
            _plan(graph, child, told, child.explicit, steps, own=False)
    elif isinstance(given, str):
        _find(graph, given)
        raise ConfigError(f"Cannot change the option '{role}'", role)
    else:
        raise ConfigError(f"Invalid parameter type for '{role}', expected: BlockdevRef", role)


def _children_fields(options: NodeOptions) -> list[str]:
    """The fields of a schema that stand for children."""
    known = option_names(type(options))
    return [known[role].name for role in children_of(type(options))]


def _find(graph: Graph, name: str) -> Node[Any]:
    if name not in graph.nodes:
        raise EmuError(f"Cannot find device='' nor node-name='{name}'")
    return graph.find(name)


def _backing(graph: Graph, node: Node[Any], name: str | None) -> Node[Any] | None:
    """The node that is to be below another one from now on."""
    now = node.backing
    if now is not None and now.implicit:
        raise ConfigError("Cannot replace implicit backing child of " + node.name, BACKING)
    if name is None:
        return None
    child = _find(graph, name)
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
