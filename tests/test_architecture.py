"""Each room keeps to its neighbours, and outside packages to the rooms that may import them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [*sorted((ROOT / "mirror").rglob("*.py")), ROOT / "scheduler.py"]
GROUND = {
    *("errors", "times", "zones", "model", "config", "credentials"),
    *("names", "trie", "lenient_json", "git_names"),
}
NEIGHBOURS = {
    "errors": set[str](),
    "times": set[str](),
    "zones": set[str](),
    "names": set[str](),
    "model": GROUND,
    "config": GROUND,
    "credentials": GROUND,
    "upstream": GROUND | {"upstream"},
    "store": GROUND | {"store"},
    "report": GROUND | {"store"},
    "sync": GROUND | {"sync", "upstream", "store", "report"},
    "search": GROUND | {"search"},
    "lookup": GROUND,
    "status": GROUND | {"store"},
    "observe": GROUND | {"observe", "store", "status", "report"},
    "serve": GROUND | {"serve", "store", "search", "status", "lookup", "observe"},
    "sandbox": GROUND | {"sandbox"},
}
"""What each room may import of the others; rooms at the edge (cli, session, background) may all."""


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1].removesuffix(".py") if parts[0] == "mirror" and len(parts) > 1 else parts[0]


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[:-1]
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            found.add(".".join(filter(None, (base, node.module))))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_its_neighbours(path: Path) -> None:
    """Data flows one way, so nothing reaches back; 'offline' holds because serving cannot ask."""
    if room(path) not in NEIGHBOURS:
        return
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("mirror.")}
    assert rooms <= NEIGHBOURS[room(path)] | {room(path)}


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("httpx", {"mirror/upstream/client.py"}),
        ("tenacity", {"mirror/upstream/retry.py"}),
        ("apscheduler", {"mirror/background"}),
        ("click", {"mirror/cli"}),
        ("prometheus_client", {"mirror/observe", "mirror/serve/monitoring.py"}),
    ],
)
def test_a_package_has_one_room(package: str, allowed: set[str]) -> None:
    """Changing such a package touches one place."""
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users
    assert all(any(user.startswith(place) for place in allowed) for user in users)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_what_it_is_for(path: Path) -> None:
    """The first docstring names the room's purpose."""
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
