"""Which part of the program may import which, and where outside packages may be used."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [*sorted((ROOT / "mirror").rglob("*.py")), ROOT / "scheduler.py"]

GROUND = frozenset(
    (
        "addresses",
        "api2_extras",
        "api2_objects",
        "api2_usual",
        "config",
        "config_checks",
        "credentials",
        "errors",
        "decoding",
        "model",
        "readable",
        "settings",
        "times",
    )
)
"""Values and rules without a network, a database or a clock of their own. They import one another only."""

MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    "upstream": GROUND,
    "search": GROUND,
    "store": GROUND | {"search"},
    "report": GROUND | {"store"},
    "queries": GROUND | {"store", "search"},
    "publish": GROUND | {"queries", "search", "store"},
    "lake": GROUND | {"publish", "search", "store"},
    "sync": GROUND | {"report", "store", "upstream"},
    "write": GROUND | {"store", "upstream"},
    "mcp": GROUND | {"queries", "search", "serve", "store"},
    "observe": GROUND | {"queries", "report", "store"},
    "serve": GROUND | {"observe", "queries", "search", "store"},
    "site": GROUND | {"publish", "queries", "serve", "search", "store"},
    "sandbox": GROUND,
    "operations": GROUND | {"report", "sandbox", "store", "sync", "upstream", "write"},
    "background": GROUND
    | {"lake", "observe", "operations", "publish", "queries", "report", "site", "store", "sync", "upstream"},
    "check": GROUND | {"background", "store", "upstream"},
    "cli": GROUND
    | {"background", "check", "lake", "mcp", "observe", "operations", "publish", "queries", "report"}
    | {"sandbox", "search", "serve", "site", "store", "sync", "upstream", "write"},
    "__init__": frozenset[str](),
    "__main__": frozenset({"cli"}),
    "scheduler": frozenset({"cli"}),
}
"""Every part of the program, a folder or a file below `mirror/`, with the other parts it may import."""

VERSION = "mirror"
"""`from mirror import __version__`: allowed everywhere."""


def part_of(path: Path) -> str:
    """Return the part that a file belongs to: its folder or file below `mirror/`."""
    parts = path.relative_to(ROOT).parts
    return (parts[1] if parts[0] == "mirror" else parts[0]).removesuffix(".py")


@cache
def read(path: Path) -> tuple[ast.Module, tuple[ast.AST, ...]]:
    """Parse a file once: its tree, and all nodes of it."""
    tree = ast.parse(path.read_text("utf-8"))
    return tree, tuple(ast.walk(tree))


@cache
def imports(path: Path, source: str | None = None) -> set[str]:
    """Return the absolute names of all modules that a file imports.

    Imports in functions and under `TYPE_CHECKING` count, and so do those by `importlib.import_module` and
    `__import__`; a name that is computed is `mirror.?`, which no part may import. `source` replaces the text
    of the file.
    """
    nodes = read(path)[1] if source is None else tuple(ast.walk(ast.parse(source)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {_named_by(node) for node in nodes if isinstance(node, ast.Call) and _imports(node.func)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[:-1]
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found.add(module)
            if module == "mirror":  # `from mirror import cli` names a part
                found |= {f"mirror.{alias.name}" for alias in node.names if alias.name != "__version__"}
    return found


def _imports(function: ast.expr) -> bool:
    """Return whether a called function imports the module that its first argument names."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _named_by(call: ast.Call) -> str:
    """Return the module that a dynamic import names, as far as its name is written out."""
    name = call.args[0] if call.args else None
    if isinstance(name, ast.JoinedStr):
        name = name.values[0]
    return str(name.value) if isinstance(name, ast.Constant) else "mirror.?"


def refused(part: str, names: set[str]) -> set[str]:
    """Return the parts among imported modules that a part may not import."""
    parts = {name.split(".")[1] for name in names if name.startswith("mirror.")}
    return parts - MAY_IMPORT[part] - {part}


def test_every_part_is_known() -> None:
    """A new file or folder below `mirror/` must be listed here, and every listed one must exist."""
    assert {part_of(path) for path in FILES} == set(MAY_IMPORT)


def test_a_part_imports_only_what_it_may() -> None:
    """Data flows one way; serving works offline, because it cannot import an upstream."""
    found = {str(path.relative_to(ROOT)): refused(part_of(path), imports(path)) for path in FILES}
    assert {place: parts for place, parts in found.items() if parts} == {}


def test_allowed_imports_form_no_cycle() -> None:
    """No part may reach itself through the parts that it may import; ground is one group."""
    for part in set(MAY_IMPORT) - GROUND:
        reached, to_visit = set[str](), set(MAY_IMPORT[part])
        while to_visit:
            reached |= to_visit
            to_visit = {other for each in to_visit for other in MAY_IMPORT[each]} - reached
        assert part not in reached, f"{part} reaches itself"
        if part == "serve":
            assert not reached & {"upstream", "sync", "write", "cli"}


@pytest.mark.parametrize(
    ("part", "module"),
    [
        ("search", "mirror.serve.exchange"),
        ("operations", "mirror.cli.main"),
        ("write", "mirror.serve.api1.routes"),
        ("times", "mirror.store"),
        ("queries", "mirror.serve.auth"),
    ],
)
def test_a_forbidden_import_is_refused(part: str, module: str) -> None:
    """The rule refuses imports against the flow of data."""
    assert refused(part, {module})


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("httpx", {"mirror/upstream/client.py", "mirror/upstream/transport.py"}),
        ("tenacity", {"mirror/upstream/response.py"}),
        ("apscheduler", {"mirror/background"}),
        ("click", {"mirror/cli"}),
        ("datasette", {"mirror/serve", "mirror/cli/serve.py"}),
        ("mcp", {"mirror/mcp/server.py"}),
        ("pyarrow", {"mirror/lake"}),
        ("duckdb", {"mirror/lake/merge.py"}),
        ("pyspark", {"mirror/lake/merge_spark.py"}),
        ("prometheus_client", {"mirror/observe", "mirror/serve/pages/status.py"}),
    ],
)
def test_a_package_is_used_in_one_place(package: str, allowed: set[str]) -> None:
    """So a change of such a package touches one place."""
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users
    assert all(any(user.startswith(place) for place in allowed) for user in users)


@pytest.mark.parametrize(
    "statement",
    [
        "import mirror.serve.auth",
        "from mirror.serve.auth import recognise",
        "from mirror import serve",
        "from ..serve import auth",
        "def lazily():\n    from mirror.serve import auth",
        "if TYPE_CHECKING:\n    from mirror.serve.auth import Actor",
        'importlib.import_module("mirror.serve.auth")',
        'import_module("mirror.serve")',
        '__import__("mirror.serve")',
        "importlib.import_module(name)",
    ],
)
def test_a_forbidden_import_is_found_in_any_form(statement: str) -> None:
    """At the top, in a function, for types only, or by name at run time."""
    path = ROOT / "mirror" / "search" / "no_such_file.py"
    assert refused("search", imports(path, statement))


WRITERS = ("mirror/store/", "mirror/search/index/", "mirror/publish/selection.py", "mirror/lake/build.py")
"""Where a statement may write the mirror: the store, and the search index in its own tables.

`publish/selection.py` and `lake/build.py` write new files; the first opens the mirror to read."""

_WRITES = re.compile(
    r"\b(INSERT (OR \w+ )?INTO|REPLACE INTO|UPDATE (OR \w+ )?\S+ (AS \w+ )?SET|DELETE FROM)\b"
)
_CURSORS = re.compile(r"\b(FROM|JOIN|INTO|UPDATE) cursors\b")


def statements(nodes: tuple[ast.AST, ...]) -> list[str]:
    """Return all texts of a file but docstrings, each in one line; an f-string inserts `x`."""
    found = list[str]()
    bare = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            found.append(node.value)
    return [" ".join(text.split()) for text in found]


def test_only_the_store_writes_the_file() -> None:
    """One writer: a statement that writes stands in `store/`, or in the search index for its own tables.

    `cursors` is read there alone as well, because its rows have types that only `store/cursors.py` knows.
    """
    for path in FILES:
        place = str(path.relative_to(ROOT))
        for text in statements(read(path)[1]):
            assert place.startswith(WRITERS) or not _WRITES.search(text), f"{place} writes: {text}"
            assert place.startswith("mirror/store/") or not _CURSORS.search(text), f"{place} reads: {text}"


@pytest.mark.parametrize(
    ("source", "is_write"),
    [
        ('db.execute("DELETE FROM changes WHERE id = ?", (1,))', True),
        ('SQL = f"UPDATE {table} SET a = 1"', True),
        ('x.executemany("""INSERT OR IGNORE\n   INTO tags VALUES (?)""", rows)', True),
        ('db.execute("UPDATE\\n repositories SET a = 1")', True),
        ('"""Docs may say DELETE FROM changes."""', False),
        ('db.execute("SELECT updated_at FROM repositories")', False),
    ],
)
def test_a_write_is_recognised(source: str, is_write: bool) -> None:
    """The rule above finds statements over several lines and with inserted names, and no others."""
    nodes = tuple(ast.walk(ast.parse(source)))
    assert any(_WRITES.search(text) for text in statements(nodes)) is is_write


def test_every_file_has_a_docstring() -> None:
    """The first docstring names the purpose of the file."""
    assert [str(path.relative_to(ROOT)) for path in FILES if not ast.get_docstring(read(path)[0])] == []


_NAMED = re.compile(r"`(mirror(?:\.\w+)+)`")


def is_defined(name: str) -> bool:
    """Return whether a dotted name is that of a module, or of what a module defines or imports at its top."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        module = ROOT.joinpath(*parts[:length])
        path = module.with_suffix(".py") if module.with_suffix(".py").exists() else module / "__init__.py"
        if path.exists():
            return length == len(parts) or parts[length] in _names_at_top(path)
    return False


def _names_at_top(path: Path) -> set[str]:
    found = set[str]()
    for node in read(path)[0].body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        else:
            found |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found


def test_names_in_docstrings_and_comments_exist() -> None:
    """A file, function or class that was moved is not named by its former place."""
    files = {"mirror.toml"}
    named = {name: path for path in FILES for name in _NAMED.findall(path.read_text("utf-8"))}
    assert named.keys() > files
    assert {
        name: path.name for name, path in named.items() if name not in files and not is_defined(name)
    } == {}


@pytest.mark.parametrize("name", ["mirror.store.no_such_file", "mirror.store.files.no_such_name"])
def test_a_name_of_nothing_is_noticed(name: str) -> None:
    """The rule above refuses a file or a function that does not exist."""
    assert not is_defined(name)
