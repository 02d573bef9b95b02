"""The examples of README.md and docs/ run, and their output has the documented shape."""

import contextlib
import json
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from doc_examples import DOCS, ROOT, Example, Place, differences, examples, has_shape, parsed, shape
from fixtures_db import FixtureDb, hg_ref, repository

from mirror.cli.main import mirror
from mirror.queries.past import register_past
from mirror.sandbox import RunningSandbox, Sandbox, World, running
from mirror.search import register
from mirror.search.refs.find import register_refs
from mirror.store.files import open_reader

NOT_RUN = {
    r"mirror (run|serve|sandbox\b.*|--config \S+ mcp)": "it serves until it is stopped: tests of the service",
    r"mirror export parquet s3:.*": "it needs an object store: tests/test_lake_s3.py",
    r"mirror lake .* --engine spark .*": "it needs Spark: tests/test_lake_spark.py",
    r"mirror plan-split --mirrors 40 .*": "it needs 40 workspaces; the example with 4 is run",
    r"mirror repo delete \S+": "it asks at a terminal: tests/test_cli_repo.py",
}
"""Examples whose output cannot be made here, and why."""


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    """What the examples' mirror is of."""
    with running(Sandbox(World(60))) as served:
        yield served


@pytest.fixture(scope="module")
def folder(sandbox: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a synced mirror of it, and with everything else that the examples name."""
    place = tmp_path_factory.mktemp("examples")
    (place / "secret").write_text("jespern:sandbox")
    (place / "secret").chmod(0o600)
    (place / "mirror.toml").write_text(
        'database = "data/mirror.db"\n[[upstream]]\nname = "box"\nkind = "sandbox"\n'
        f'url = "{sandbox.url}"\ncredential = "file:secret"\n[serve]\nwrites = true\n'
    )
    with contextlib.chdir(place):
        assert CliRunner().invoke(mirror, ["sync"]).exit_code == 0
        _add(place / "data" / "mirror.db")
        assert CliRunner().invoke(mirror, ["backup", "copy.db"]).exit_code == 0
    return place


def _add(path: Path) -> None:
    """Add repositories of another upstream: one with a past, and some that examples name."""
    filled = FixtureDb(path)
    filled.repositories(
        [
            repository(name, followers_count=9, clone_https=f"https://bitbucket.example/{name}.git")
            for name in (
                "ann/tool",
                "annasmith/django-video",
                "annasmith/web",
                "team-a/django-site",
                "team-a/x",
            )
        ]
    )
    looks = (("2026-11-03T09:40:12", "1f"), ("2026-11-03T10:10:40", "8b"))
    for moment, digits in looks:
        refs = [
            hg_ref(kind, name, "", target_hash=digits * 20)
            for kind, name in (("branch", "master"), ("tag", "hotfix-1"))
        ]
        commit = hg_ref("branch", "release/2.1", "1", target_hash="1a2b3c4f" * 5)
        filled.refs("ann/tool", [*refs, commit], at=f"{moment}.112233Z")
    filled.store.finish_search_index()
    filled.store.close()


@pytest.fixture
def place(sandbox: RunningSandbox, folder: Path, tmp_path: Path) -> Place:
    """A copy of the folder, whose examples may change it."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name in ("mnt/backup", "srv/www", "etc"):
        (tmp_path / name).mkdir(parents=True)
    return Place(tmp_path, sandbox.url)


def _faults(example: Example, place: Place) -> list[str]:
    """Return the faults of an example: its end, or the shape of its output."""
    code, text = place.run(example.command)
    if code:
        return [f"{example.command}: {code}: {text}"]
    if not example.shown:
        return [] if text else [f"{example.command}: prints nothing"]
    if example.shown.startswith("{"):
        shown, whole = parsed(example.shown)
        return [f"{example.command}: {one}" for one in differences(shown, json.loads(text), whole=whole)]
    if has_shape(example.shown, text):
        return []
    return [f"{example.command}: shown {shape(example.shown)}, printed {shape(text)}"]


@pytest.mark.parametrize("path", [path for path in DOCS if examples(path)], ids=lambda path: path.name)
def test_examples_print_what_is_shown(place: Place, path: Path) -> None:
    """All examples of a text in order, each without an error."""
    runnable = [one for one in examples(path) if not any(re.fullmatch(what, one.command) for what in NOT_RUN)]
    assert [fault for example in runnable for fault in _faults(example, place)] == []


@pytest.mark.parametrize("what", NOT_RUN)
def test_examples_that_are_not_run_are_commands(what: str) -> None:
    """Their names, options and arguments exist: click parses them without running them."""
    commands = [example.command for path in DOCS for example in examples(path)]
    for command in [one for one in commands if re.fullmatch(what, one)] or ["no example: remove the reason"]:
        context, words = mirror.make_context("mirror", shlex.split(command)[1:]), ["mirror"]
        group: click.Command = mirror
        while isinstance(group, click.Group):
            name, found, rest = group.resolve_command(context, context._protected_args + context.args)
            assert found is not None
            group, words = found, [*words, str(name)]
            context = group.make_context(words[-1], rest, parent=context)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("3 found\na/b  git  1,000  An API", "101 found\nc/d  hg  7  x <b>\ne/f  git  8\n", True),
        ("3 found\na/b  git  1  An API", "3 found, 1 shown\na/b  git  1  An API\n", False),
        ("3 found\na/b  git  1  An API", "a/b  git  1  An API\n", False),
        ("3 found", "3 found\na/b  git  1  An API\n", False),
        ("seen 2026-11-03 09:40 UTC at 1f3870be274f", "seen 2020-01-01 00:00 UTC at 8b1a9953c461\n", True),
        ("seen 2026-11-03 09:40 UTC", "last seen 2026-11-03 09:40 UTC\n", False),
        ("seen 2026-11-03 09:40 UTC", "seen 2026-11-03 09:40 CET\n", False),
        ("owner  size\na  1 kB", "owner  bytes\na  1 kB\n", False),
        ("first\n…", "first\nsecond\nthird\n", True),
        ("first\n…", "zeroth\nfirst\n", False),
    ],
)
def test_differences_of_shape_are_seen(shown: str, printed: str, same: bool) -> None:
    """Of words, kinds of lines, columns and time zones; not of numbers, names and hashes."""
    assert has_shape(shown, printed) is same


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_sql_that_is_shown_runs(folder: Path, path: Path) -> None:
    """Each statement of a block of SQL runs on a mirror, except those for files of other programs."""
    connection = open_reader(folder / "data" / "mirror.db")
    register(connection)
    register_refs(connection)
    register_past(connection)
    for block in _blocks(path, "sql"):
        for statement in filter(str.strip, block.split(";")):
            if not re.search(r"read_(csv|parquet)|sqlite_scan|ATTACH|COPY|LOAD|lake", statement):
                connection.execute(statement).fetchall()
    connection.close()


def test_duckdb_reads_the_inventory(folder: Path) -> None:
    """The recipe unchanged."""
    duckdb = pytest.importorskip("duckdb", reason="an extra")
    printed = CliRunner().invoke(mirror, ["--config", str(folder / "mirror.toml"), "inventory", "--csv"])
    (folder / "inventory.csv").write_text(printed.output)
    (recipe,) = [block for block in _blocks(ROOT / "docs/recipes.md", "sql") if "read_csv" in block]
    with contextlib.chdir(folder):
        assert ("annasmith", 2, 2000) in duckdb.sql(recipe).fetchall()


def test_the_compose_file_runs_the_image_of_the_service() -> None:
    """With the ports, configuration and volume that the image expects."""
    text = (ROOT / "contrib/compose.yaml").read_text("utf-8")
    service = yaml.safe_load(text)["services"]["mirror"]
    image = (ROOT / "contrib" / "Containerfile").read_text("utf-8")
    assert (ROOT / "contrib" / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert "EXPOSE 8001" in image
    assert service["ports"] == ["127.0.0.1:8001:8001"]
    assert {volume.split(":")[1] for volume in service["volumes"]} == {"/data", "/etc/mirror.toml"}
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", image, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split())


def test_the_views_of_the_readme_exist(folder: Path) -> None:
    """The statement in `sqlite3 data/mirror.db "..."` runs."""
    for statement in re.findall(r'sqlite3 data/mirror\.db "(.*?)"', (ROOT / "README.md").read_text("utf-8")):
        with sqlite3.connect(folder / "data" / "mirror.db") as connection:
            connection.execute(statement).fetchall()
