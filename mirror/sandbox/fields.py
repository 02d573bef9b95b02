"""The `fields` parameter of API 2.0: dotted paths to send, `-path` to leave out, `+path` to add."""

from typing import Any

Tree = dict[str, "Tree"]


def select(value: Any, fields: str) -> Any:
    """Keep of a value what the parameter asks for."""
    paths = [path.strip() for path in fields.split(",") if path.strip()]
    wanted = _tree(path for path in paths if path[0] not in "+-")
    if wanted:
        value = _keep(value, wanted)
    unwanted = _tree(path[1:] for path in paths if path[0] == "-")
    return _drop(value, unwanted) if unwanted else value


def _tree(paths: Any) -> Tree:
    tree: Tree = {}
    for path in paths:
        branch = tree
        for part in path.split("."):
            branch = branch.setdefault(part, {})
    return tree


def _keep(value: Any, tree: Tree) -> Any:
    if not tree or "*" in tree:
        return value
    if isinstance(value, list):
        return [_keep(item, tree) for item in value]
    if isinstance(value, dict):
        return {key: _keep(value[key], tree[key]) for key in tree if key in value}
    return value


def _drop(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_drop(item, tree) for item in value]
    if isinstance(value, dict):
        return {
            key: _drop(item, tree[key]) if key in tree else item
            for key, item in value.items()
            if key not in tree or tree[key]
        }
    return value
