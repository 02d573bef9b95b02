"""The `fields` parameter: which parts of an answer are sent.

``a,b.c`` sends only these, ``-a`` leaves one out, ``+a`` adds one to the default; ``*`` is every key. Paths
that an answer does not have are ignored. Source:
developer.atlassian.com/cloud/bitbucket/rest/intro/#partial-response.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

MOST_PATHS = 500
DEEPEST = 20

Tree = dict[str, "Tree"]


class Selection(msgspec.Struct, frozen=True):
    """Which paths of an answer to keep (None: all), and which of these to drop."""

    kept: Tree | None = None
    dropped: Tree | None = None

    def reaches_into(self, name: str) -> bool:
        """Return whether any object of that name is sent in part, rather than as a whole or not at all."""
        return any(_reaches(tree, name) for tree in (self.kept, self.dropped) if tree)

    def of(self, value: Any) -> Any:
        """Return the selected parts of a value, as new objects."""
        if self.kept is not None:
            value = _keep(value, self.kept)
        return _drop(value, self.dropped) if self.dropped else value

    def wants(self, *path: str) -> bool:
        """Return whether anything at a path can be in the answer; if not, it need not be computed."""
        tree, dropped = self.kept, self.dropped
        for place, part in enumerate(path):
            if tree:
                if part not in tree and "*" not in tree:
                    return False
                tree = tree.get(part, tree.get("*"))
            if dropped is not None:
                dropped = dropped.get(part)
                if dropped == {} and place < len(path):
                    return False
        return True


def selection(text: str | None) -> Selection:
    """Read the parameter. A space before a path is an unescaped ``+``."""
    paths = [path for path in (text or "").split(",") if path.strip()][:MOST_PATHS]
    wanted = [path.strip() for path in paths if path[0] not in "+- "]
    added = [path[1:].strip() for path in paths if path[0] in "+ "]
    dropped = [path[1:].strip() for path in paths if path[0] == "-"]
    return Selection(_tree([*wanted, *added]) if wanted else None, _tree(dropped) if dropped else None)


def _tree(paths: Iterable[str]) -> Tree:
    """Merge paths into a tree. A path selects everything below its end."""
    tree: Tree = {}
    for path in sorted(set(paths), key=len, reverse=True):
        branch = tree
        *before, last = path.split(".")[:DEEPEST]
        for part in before:
            branch = branch.setdefault(part, {})
        branch[last] = {}
    return tree


def _reaches(tree: Tree, name: str) -> bool:
    return any((key in (name, "*") and inner) or _reaches(inner, name) for key, inner in tree.items())


def _keep(value: Any, tree: Tree) -> Any:
    if not tree or tree.get("*") == {}:
        return value
    if isinstance(value, list):
        return [_keep(item, tree) for item in value]
    if isinstance(value, dict):
        if "*" in tree:
            return {key: _keep(item, tree.get(key, tree["*"])) for key, item in value.items()}
        return {key: _keep(value[key], inner) for key, inner in tree.items() if key in value}
    return value


def _drop(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_drop(item, tree) for item in value]
    if isinstance(value, dict):
        return {
            key: _drop(item, tree[key]) if key in tree else item
            for key, item in value.items()
            if tree.get(key) != {} and tree.get("*") != {}
        }
    return value
