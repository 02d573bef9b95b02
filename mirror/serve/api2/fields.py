"""The `fields` parameter: which parts of an answer are sent.

``a,b.c`` sends only these, ``-a`` leaves one out, ``+a`` adds one to the default or to what is left; ``*`` is
every key. Paths that an answer does not have are ignored. Source:
developer.atlassian.com/cloud/bitbucket/rest/intro/#partial-response.
"""

from collections.abc import Iterable
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

MOST_PATHS = 500
DEEPEST = 20

Tree = dict[str, "Tree"]


class Selection(msgspec.Struct, frozen=True):
    """Which paths of an answer to keep (None: all), and what to change then, in order: ``-`` or ``+``."""

    kept: Tree | None = None
    changes: tuple[tuple[str, Tree], ...] = ()

    def reaches_into(self, name: str) -> bool:
        """Return whether objects with that name are sent in part, not as a whole or not at all."""
        trees = (self.kept, *(tree for _, tree in self.changes))
        return any(_reaches(tree, name) for tree in trees if tree)

    def of(self, value: Any) -> Any:
        """Return the selected parts of a value, as new objects."""
        found = value if self.kept is None else _keep(value, self.kept)
        for sign, tree in self.changes:
            found = _drop(found, tree) if sign == "-" else _joined(found, _keep(value, tree))
        return found

    def wants(self, name: str) -> bool:
        """Return whether an answer can contain anything below a key; if not, it need not be computed."""
        wanted = self.kept is None or name in self.kept or "*" in self.kept
        for sign, tree in self.changes:
            if sign == "+":
                wanted = wanted or name in tree or "*" in tree
            elif tree.get(name) == {} or tree.get("*") == {}:
                wanted = False
        return wanted


def selection(text: str | None) -> Selection:
    """Read the parameter. A space before a path is an unescaped ``+``.

    Signed paths apply in their order, so a ``+`` after a ``-`` brings a part back.
    """
    paths = [path for path in (text or "").split(",") if path.strip()][:MOST_PATHS]
    wanted = [path.strip() for path in paths if path[0] not in "+- "]
    signed = [("-" if path[0] == "-" else "+", path[1:].strip()) for path in paths if path[0] in "+- "]
    changes = [(sign, _tree(path for _, path in alike)) for sign, alike in groupby(signed, key=itemgetter(0))]
    return Selection(_tree(wanted) if wanted else None, tuple(changes))


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
    if not isinstance(value, dict):
        return value
    left = {}
    for key, item in value.items():
        branches = [tree[name] for name in (key, "*") if name in tree]
        if {} not in branches:
            left[key] = reduce(_drop, branches, item)
    return left


def _joined(value: Any, added: Any) -> Any:
    """Return a value with the parts that were added to it."""
    if isinstance(value, dict) and isinstance(added, dict):
        joined = {**value}
        for key, item in added.items():
            joined[key] = _joined(value[key], item) if key in value else item
        return joined
    if isinstance(value, list) and isinstance(added, list) and len(value) == len(added):
        return [_joined(one, more) for one, more in zip(value, added, strict=True)]
    return added
