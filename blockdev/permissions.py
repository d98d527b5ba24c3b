"""Who may do what with a node: each parent says what it does and what others may do, and conflicts are refused.

The rules of what a format does with its file and its backing file are those of QEMU's block layer (bdrv_default_perms),
and so are the words of a refusal. A change is checked over everything below it first, then made, or nothing is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any

from aioemu.errors import ConfigError

if TYPE_CHECKING:
    from aioemu.blockdev.node import Node, Parent


class Permission(IntFlag):
    """What a parent does with a child, or lets others do meanwhile. Bit n is byte n of the image locks."""

    NONE = 0
    CONSISTENT_READ = 1  # what it reads is what a guest may see
    WRITE = 2
    WRITE_UNCHANGED = 4  # writes that change no visible byte (copy-on-read)
    RESIZE = 8
    ALL = 15


P = Permission
NAMES = {
    P.CONSISTENT_READ: "consistent read",
    P.WRITE: "write",
    P.WRITE_UNCHANGED: "write unchanged",
    P.RESIZE: "resize",
}
Pair = tuple[Permission, Permission]


@dataclass(eq=False, slots=True)
class Edge:
    """A parent's hold on a node: what it does with it, and what it lets others do."""

    parent: Parent
    role: str
    child: Node[Any]
    used: Permission = P.NONE
    shared: Permission = P.ALL


def names_of(permissions: Permission) -> str:
    """As messages list them."""
    return ", ".join(name for bit, name in NAMES.items() if bit & permissions)


def filter_wants(used: Permission, shared: Permission) -> Pair:
    """A filter does with its child what is done with itself; writes that change nothing bother nobody."""
    return used, shared | P.WRITE_UNCHANGED


def data_wants(used: Permission, shared: Permission) -> Pair:
    """What holds the data of a part of an image: writes may make it longer, others must not resize it."""
    used |= P.CONSISTENT_READ
    if used & P.WRITE:
        used |= P.RESIZE
    return used, (shared | P.WRITE_UNCHANGED) & ~P.RESIZE


def metadata_wants(used: Permission, shared: Permission, *, writable: bool) -> Pair:
    """What holds an image's tables: they are written even where no guest writes, and by nobody else."""
    used |= P.CONSISTENT_READ
    if writable:
        used |= P.WRITE | P.RESIZE
    return used, (shared | P.WRITE_UNCHANGED) & ~(P.WRITE | P.RESIZE)


def backing_wants(used: Permission, shared: Permission) -> Pair:
    """A backing file is only read; it may change where whoever reads the image can bear that."""
    may_change = P.WRITE | P.RESIZE if shared & P.WRITE else P.NONE
    return used & P.CONSISTENT_READ, may_change | P.CONSISTENT_READ | P.WRITE_UNCHANGED


class Change:
    """New permissions of some edges, spread to everything below. Used once: `apply`."""

    def __init__(self) -> None:
        self._edges: dict[Edge, Pair] = {}
        self._nodes: dict[Node[Any], Pair] = {}
        self.reopening: Node[Any] | None = None  # was writable, and is not to be any more

    def set(self, edge: Edge, used: Permission, shared: Permission) -> None:
        """This edge will have these permissions. ConfigError when others disagree; nothing has changed then."""
        self._edges[edge] = (used, shared)
        self.refresh(edge.child)

    def refresh(self, node: Node[Any]) -> None:
        """Work out what is done with a node, and with its children."""
        edges = [(edge, *self._edges.get(edge, (edge.used, edge.shared))) for edge in reversed(node.parents)]
        _check(node, edges)
        used, shared = P.NONE, P.ALL
        for _, edge_used, edge_shared in edges:
            used |= edge_used
            shared &= edge_shared
        if used & (P.WRITE | P.WRITE_UNCHANGED | P.RESIZE) and node.read_only:
            if node is self.reopening:
                raise ConfigError(f"Read-only block node '{node.name}' cannot support read-write users")
            raise ConfigError(node.read_only_because or "Block node is read-only")
        if node.options.force_share:
            shared = P.ALL
        self._nodes[node] = (used, shared)
        for role, child in node.children.items():
            for edge in child.parents:
                if edge.parent is node and edge.role == role:
                    self.set(edge, *node.wants(role, used, shared))

    def apply(self) -> None:
        """Make the changes. Where a node refuses (an image lock), the others are put back and it is raised."""
        done: list[Node[Any]] = []
        try:
            for node, (used, shared) in self._nodes.items():
                done.append(node)
                node.take(used, shared)
        except BaseException:
            for node in done:
                node.settle(*cumulative(node))
            raise
        for edge, (used, shared) in self._edges.items():
            edge.used, edge.shared = used, shared
        for node, (used, shared) in self._nodes.items():
            node.settle(used, shared)


def cumulative(node: Node[Any]) -> Pair:
    """What all parents of a node together do, and let do."""
    used, shared = P.NONE, P.ALL
    for edge in node.parents:
        used |= edge.used
        shared &= edge.shared
    return used, P.ALL if node.options.force_share else shared


def _check(node: Node[Any], edges: list[tuple[Edge, Permission, Permission]]) -> None:
    """Each parent must allow what each other one does; the latest ones are named first, as QEMU does."""
    for one, _, shared in edges:
        for other, used, _ in edges:
            refused = used & ~shared
            if one is not other and refused:
                user, owner = (
                    f"{e.parent.describe()} (uses node '{node.name}' as '{e.role}' child)" for e in (other, one)
                )
                raise ConfigError(
                    f"Permission conflict on node '{node.name}': permissions '{names_of(refused)}' are both required "
                    f"by {user} and unshared by {owner}."
                )
