"""The block nodes of one machine by name: opened from options with everything below them, closed when nobody is left.

A node belongs to the monitor (it was asked for by name), to its parents, or to both; it is closed when the last of them
lets go. Control operations take turns. Not here: devices (backend), `-drive` (legacy), how permissions spread.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from aioemu.blockdev.node import Node, Parent
from aioemu.blockdev.options import NOT_GIVEN, NodeOptions, children_of, option_names, read_options
from aioemu.blockdev.permissions import Change, Edge, Permission
from aioemu.blockdev.registry import DRIVERS, find_driver
from aioemu.blockdev.threads import BlockThreads
from aioemu.blockdev.throttle import Throttles
from aioemu.config.grammar import did_you_mean
from aioemu.errors import ConfigError, EmuError, HostError

NAME_LIMIT = 31  # characters of a node's name, as QEMU's
DEPTH_LIMIT = 128  # nodes on top of each other: longer chains of backing files are loops or attacks
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)
Given = Mapping[str, Any]


class Graph:
    """All nodes of a machine. `warn` tells the user something (a format and its arguments)."""

    def __init__(self, warn: Callable[..., None], throttles: Throttles | None = None) -> None:
        self._warn = warn
        self.throttles = throttles if throttles is not None else Throttles()
        self.nodes: dict[str, Node[Any]] = {}
        self.owned: set[str] = set()  # names that the monitor holds on to
        self.open_file: Callable[[str, int], int] = os.open
        self.event: Callable[..., None] = lambda name, /, **fields: None  # tells programs that something happened
        self.reserved: Callable[[str], bool] = lambda name: False  # whether a name is a drive's
        self._depth: dict[Node[Any], int] = {}
        self._made = 0
        self.lock = asyncio.Lock()
        self._threads: BlockThreads | None = None

    @property
    def warn(self) -> Callable[..., None]:
        return self._warn

    @property
    def threads(self) -> BlockThreads:
        """Where calls of this machine's disks go that may block."""
        if self._threads is None:
            self._threads = BlockThreads()
        return self._threads

    # ---- by name -----------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Node[Any]:
        """The node of this name."""
        node = self.nodes.get(name)
        if node is None or not node.opened:
            raise EmuError(f"Cannot find device='{name}' nor node-name='{name}'")
        return node

    async def add(self, given: Given, *, strict: bool = False) -> Node[Any]:
        """`blockdev-add`: a new node that the monitor holds on to. `strict`: values have JSON's types."""
        async with self.lock:
            if "node-name" not in given:
                self._read(given, "", strict=strict)
                raise ConfigError("'node-name' must be specified for the root node", "node-name")
            node = await self.open(given, strict=strict)
            self.owned.add(node.name)
            return node

    async def remove(self, name: str) -> None:
        """`blockdev-del`: the monitor lets go of a node, which nobody else may hold."""
        async with self.lock:
            node = self.nodes.get(name)
            if node is None:
                raise EmuError(f"Failed to find node with node-name='{name}'")
            if any(edge.role == "root" for edge in node.parents):
                raise EmuError(f"Node {name} is in use")
            if image := next((each.parent for each in node.parents if each.role == "backing"), None):
                raise EmuError(
                    f"Node '{name}' is busy: node is used as backing hd of {image.describe().removeprefix('node ')}"
                )
            if name not in self.owned:
                raise EmuError(f"Node {name} is not owned by the monitor")
            if node.parents:
                raise EmuError(f"Block device {name} is in use")
            self.owned.discard(name)
            await self.release(node)

    async def reopen(self, given: Sequence[Given]) -> None:
        """`blockdev-reopen`: nodes take on new options; those not given go back to their defaults.

        Nodes that are to be written come before those on top of them, the others after.
        """
        from aioemu.blockdev.reopen import reopen_nodes

        async with self.lock:
            await reopen_nodes(self, given)

    # ---- opening -----------------------------------------------------------------------------------------------------

    async def open(
        self,
        given: Given,
        *,
        path: str = "",
        depth: int = 0,
        legacy: bool = False,
        strict: bool = False,
        **made: Any,
    ) -> Node[Any]:
        """Open a node and what is below it. `made` are attributes that only the graph gives (`probed`).

        `legacy` is for options of `-drive`, which speaks of formats and protocols.
        """
        if depth > DEPTH_LIMIT:
            raise ConfigError(
                f"more than {DEPTH_LIMIT} block nodes on top of each other: do backing files form a loop?"
            )
        driver, options = self._read(given, path, legacy=legacy, strict=strict)
        node = driver(self._name(options.node_name), options)
        for name, value in made.items():
            setattr(node, name, value)
        self.nodes[node.name] = node
        self._depth[node] = depth
        try:
            for role in children_of(driver.options_type):
                child = getattr(options, role.replace("-", "_"))
                if legacy and role == "backing" and isinstance(child, Mapping):
                    continue  # what is not said of it is in the image's header: `open_backing`
                if child is not NOT_GIVEN and child is not None:
                    await self.open_child(node, role, child, path=f"{path}{role}.", legacy=legacy, strict=strict)
            await node.open(self)
        except BaseException:
            await self._close(node)
            raise
        node.opened = True
        self.nodes[node.name] = self.nodes.pop(node.name)  # after those below it
        return node

    async def open_child(
        self, node: Node[Any], role: str, given: Any, *, path: str = "", legacy: bool = False, strict: bool = False
    ) -> Node[Any]:
        """Open options (or find a node by its name) as a child of `node`."""
        if isinstance(given, str):
            child = self.find(given)
            self.refuse_loop(node, child)
        else:
            if legacy:
                from aioemu.blockdev.legacy import with_driver  # file names that say it

                given = with_driver(given)
            inherited = inherit(node.options, role, given)
            child = await self.open(
                inherited,
                path=path,
                depth=self._depth[node] + 1,
                legacy=legacy,
                strict=strict,
                inherits_from=node,
                explicit=given,
            )
        await self._adopt(node, role, child)
        return child

    async def open_backing(self, node: Node[Any], filename: str, driver: str | None) -> Node[Any]:
        """Open the image that a header names: read-only, a relative name beside the image.

        What `-drive` says of it (`backing.*`) comes before what the header says.
        """
        from aioemu.blockdev.legacy import names_file, open_image  # names and probing

        said = getattr(node.options, "backing", NOT_GIVEN)
        given: dict[str, Any] = {} if driver is None else {"driver": driver}
        given |= said if isinstance(said, Mapping) else {}
        place = None if not filename or names_file(given) else beside(node, filename)
        inherited = inherit(node.options, "backing", given)
        try:
            child = await open_image(self, place, inherited, depth=self._depth[node] + 1)
            child.inherits_from, child.explicit = node, {**given, "driver": child.driver}
        except ConfigError as exc:
            raise ConfigError(f"Could not open backing file: {exc}", exc.option) from exc
        except HostError as exc:
            raise HostError(f"Could not open backing file: {exc.action}", exc.errno) from exc
        await self._adopt(node, "backing", child)
        return child

    async def _adopt(self, node: Node[Any], role: str, child: Node[Any]) -> None:
        try:
            self.attach(node, role, child, *node.wants(role, Permission.NONE, Permission.ALL))
        except BaseException:
            await self.release(child)
            raise
        node.children[role] = child

    def check(self, given: Given, *, strict: bool) -> NodeOptions:
        """Options of a node that is there, read anew. Not `strict`: what was said of it when it was opened."""
        return self._read(given, "", strict=strict, legacy=not strict)[1]

    def _read(
        self, given: Given, path: str, *, legacy: bool = False, strict: bool = False
    ) -> tuple[type[Node[Any]], NodeOptions]:
        left = dict(given)
        name = left.pop("driver", None)
        if name is None:
            raise ConfigError(f"Parameter '{path}driver' is missing", f"{path}driver")
        if not isinstance(name, str):
            raise ConfigError(f"Invalid parameter type for '{path}driver', expected: string", f"{path}driver")
        if name not in DRIVERS and not legacy:
            raise ConfigError(f"Parameter 'driver' does not accept value '{name}'{did_you_mean(name, DRIVERS)}")
        driver = find_driver(name)
        has_backing = "backing" in option_names(driver.options_type)
        if left.get("backing") == "" and (has_backing or legacy):
            self.warn('Use of "backing": "" is deprecated; use "backing": null instead')
            del left["backing"]
            left |= {"backing": None} if has_backing else {}
        if legacy:
            _refuse_unknown(driver, left)
        options = read_options(driver.options_type, left, path=path, strict=strict)
        if options.detect_zeroes == "unmap" and options.discard != "unmap" and not legacy:
            raise ConfigError(
                "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
                "detect-zeroes",
            )
        if options.force_share and not options.read_only:
            raise ConfigError("force-share=on can only be used with read-only images", "force-share")
        return driver, options

    def _name(self, given: str | None) -> str:
        if given is None:
            self._made += 1
            return f"#block{self._made:03d}"
        if _NAME.fullmatch(given) is None:
            raise ConfigError(f"Invalid node-name: '{given}'", "node-name")
        if self.reserved(given):
            raise ConfigError(f"node-name={given} is conflicting with a device id", "node-name")
        if given in self.nodes:
            raise ConfigError(f"Duplicate nodes with node-name='{given}'", "node-name")
        if len(given) > NAME_LIMIT:
            raise ConfigError("Node name too long", "node-name")
        return given

    def refuse_loop(self, node: Node[Any], child: Node[Any]) -> None:
        """ConfigError where the child stands on the node."""
        seen = [child]
        for each in seen:
            if each is node:
                raise ConfigError(f"Making '{child.name}' a child of '{node.name}' would create a cycle")
            seen += [below for below in each.children.values() if below not in seen]

    # ---- parents -----------------------------------------------------------------------------------------------------

    def attach(
        self, parent: Parent, role: str, child: Node[Any], used: Permission, shared: Permission = Permission.ALL
    ) -> Edge:
        """Put a parent on a node. ConfigError when other parents, or other programs, do not allow it."""
        edge = Edge(parent, role, child)
        child.parents.append(edge)
        try:
            self.permit(edge, used, shared)
        except BaseException:
            child.parents.remove(edge)
            raise
        return edge

    def permit(self, edge: Edge, used: Permission, shared: Permission) -> None:
        """Change what a parent does. All of it, or an error and nothing."""
        change = Change()
        change.set(edge, used, shared)
        change.apply()

    def detach(self, edge: Edge) -> None:
        """Take a parent away; `release` closes the node if that was the last."""
        edge.child.parents.remove(edge)
        change = Change()
        change.refresh(edge.child)
        change.apply()

    async def release(self, node: Node[Any]) -> None:
        """Close a node, and what only it held, if nobody holds it any more."""
        if not node.parents and node.name not in self.owned and self.nodes.get(node.name) is node:
            await self._close(node)

    async def _close(self, node: Node[Any]) -> None:
        """Close a node without parents; its children go on living where others hold them."""
        node.opened = False
        try:
            await node.close()
        finally:
            children = list(node.children.values())
            for child in children:
                for edge in [each for each in child.parents if each.parent is node]:
                    self.detach(edge)
            node.children.clear()
            self.nodes.pop(node.name, None)
            self._depth.pop(node, None)
            for child in children:
                await self.release(child)

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def close(self, *, now: bool = False) -> None:
        """Close every node, parents before children; each is tried, the first error is raised."""
        errors: list[EmuError] = []
        self.owned.clear()
        while roots := [node for node in self.nodes.values() if not any(e.parent in self._depth for e in node.parents)]:
            for node in roots:
                node.parents.clear()
                try:
                    await self.release(node)
                except EmuError as exc:
                    errors.append(exc)
        threads, self._threads = self._threads, None
        if threads is not None and now:
            threads.end_now()
        elif threads is not None:
            await threads.end()
        if errors:
            raise errors[0]

    def close_now(self) -> None:
        """The same without waiting for the loop: calls block. For an end that nobody can wait for."""
        for node in self.nodes.values():
            node.blocking = True
        run_now(self.close(now=True))


def run_now(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise EmuError("a block node could not be closed: a request is still under way")


def inherit(options: NodeOptions, role: str, given: Given) -> dict[str, Any]:
    """What a child is told, where its own options say nothing: QEMU's bdrv_inherited_options."""
    told: dict[str, Any] = {"force-share": options.force_share}
    told["cache"] = {"direct": options.cache.direct, "no-flush": options.cache.no_flush}
    if role == "backing":
        told |= {"read-only": True, "auto-read-only": False}
    else:
        told |= {"read-only": options.read_only, "auto-read-only": options.auto_read_only, "discard": "unmap"}
    merged = {**told, **given}
    if isinstance(given.get("cache"), Mapping):
        merged["cache"] = {**told["cache"], **given["cache"]}
    return merged


def _refuse_unknown(driver: type[Node[Any]], given: Given) -> None:
    """Options that the driver does not have, in the words that `-drive` has for them."""
    for name in given.keys() - option_names(driver.options_type).keys():
        kind = "format" if driver.is_format else "protocol"
        verb = "does not" if driver.is_format else "doesn't"
        value = given[name]
        while isinstance(value, Mapping) and value:  # with the dots that it was given with
            key, value = next(iter(value.items()))
            name = f"{name}.{key}"
        raise ConfigError(f"Block {kind} '{driver.driver}' {verb} support the option '{name}'", name)


def beside(node: Node[Any], filename: str) -> str:
    """A relative file name as seen from the image that says it."""
    if os.path.isabs(filename) or re.match(r"[A-Za-z0-9+.-]+:", filename):
        return filename
    image = node.filename
    if not image or image.startswith("json:"):
        raise ConfigError(f"Cannot use relative backing file names for '{image}'")
    return os.path.join(os.path.dirname(image), filename)
