"""The examples of README.md and docs/ run, and print what they are said to print, in shape."""

import contextlib
import re
import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from fixtures_db import hg_ref, repository
from prepared_files import copy_made

from mirror.cli.main import mirror
from mirror.queries.past_functions import register_past
from mirror.search import register
from mirror.search.refs.find import register_refs
from mirror.store import Store
from mirror.store.files import open_reader

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "contrib").glob("*.md"))]
READING = ("search", "show", "changes", "status", "inventory", "man", "completions", "refs")


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def _lines(path: Path) -> list[str]:
    """Return the lines of a text that are code: indented by four, or fenced."""
    text = path.read_text("utf-8")
    fenced = [line for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
              for line in block.splitlines()]  # fmt: skip
    return [line.strip() for line in text.splitlines() if line.startswith("    ")] + fenced


def _commands() -> list[tuple[str, str]]:
    """Return every `mirror ...` that is shown as code, with the file that shows it."""
    found = dict[tuple[str, str], None]()
    for path in DOCS:
        for line in _lines(path):
            command = re.match(r"(?:\$ )?(mirror(?: --config \S+)? [a-z].*)", line)
            if command:
                plain = re.split(r"\s+#|\s*(?:&&|\||>|;)", command[1])[0]
                found[path.name, plain.strip()] = None
    return list(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a mirror that has what the examples name."""
    place = tmp_path_factory.mktemp("examples")
    copy_made(place / "data" / "mirror.db", _fill)
    return place


def _fill(path: Path) -> None:
    from fixtures_db import FixtureDb

    filled = FixtureDb(path)
    names = ("jespern/django-piston", "redpanda/django-scripts", "annasmith/django-video", "annasmith/web")
    filled.repositories(
        [
            repository(name, followers_count=9, clone_https=f"https://bitbucket.example/{name}.git")
            for name in names
        ]
    )
    filled.refs("jespern/django-piston", [hg_ref("branch", "default", "a"), hg_ref("tag", "v1", "b")])
    filled.store.finish_search_index()
    filled.store.close()
    Store(path).close()


@pytest.mark.parametrize(("file", "command"), _commands())
def test_every_command_that_is_shown_is_one(file: str, command: str) -> None:
    """Its name, its options and its arguments: click parses the line, and does nothing."""
    words = [word for word in shlex.split(re.sub(r"\[.*?\]|\.\.\.", "", command))[1:] if word != "\\"]
    if words[0] == "--config":
        words = words[2:]
    context, group = click.Context(mirror, info_name="mirror"), mirror
    while isinstance(group, click.Group):
        found = group.get_command(context, words.pop(0))
        assert found is not None, command
        group = found  # type: ignore[assignment]
    try:
        group.make_context("mirror", words, resilient_parsing=False)
    except click.exceptions.MissingParameter:
        pass
    except click.exceptions.Exit:
        pass


@pytest.mark.parametrize("command", sorted({line for _, line in _commands() if line.split()[1] in READING}))
def test_commands_that_read_answer(folder: Path, command: str) -> None:
    """On a mirror that has what they name; one that finds nothing says so with 1, none fails otherwise."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(mirror, [word for word in shlex.split(command)[1:] if word != "\\"])
    code = getattr(done.exception, "exit_code", done.exit_code)
    assert code in (0, 1), (command, done.output, done.exception)
    assert done.output or code


def _shape(text: str) -> list[str]:
    """Return lines with what differs from mirror to mirror taken out: numbers, names, descriptions."""
    shapes = [re.sub(r"\d[\d,]*\b", "N", line.strip()) for line in text.splitlines()]
    return [re.sub(r"^\S+/\S+ {2,}(git|hg) {2,}N.*", "OWNER/SLUG  SCM  N  ABOUT", line) for line in shapes]


def test_the_search_of_the_readme_prints_that_shape(folder: Path) -> None:
    """The first line counts, then one line for each repository."""
    shown = re.search(r"    \$ (mirror search .*)\n((?:    .+\n)+)", (ROOT / "README.md").read_text("utf-8"))
    assert shown is not None
    words = [*shlex.split(shown[1])[1:-2], "--limit", "2"]
    with contextlib.chdir(folder):
        printed = _shape(CliRunner().invoke(mirror, words, catch_exceptions=False).output)
    assert printed[0] == _shape(shown[2])[0] == "N found, N shown"
    assert set(printed[1:]) == set(_shape(shown[2])[1:]) == {"OWNER/SLUG  SCM  N  ABOUT"}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_sql_that_is_shown_runs(folder: Path, path: Path) -> None:
    """Each statement of a block of SQL, on a mirror; those on files of other programs apart."""
    connection = open_reader(folder / "data" / "mirror.db")
    register(connection)
    register_refs(connection)
    register_past(connection)
    for block in _blocks(path, "sql"):
        for statement in filter(str.strip, block.split(";")):
            if not re.search(r"read_(csv|parquet)|sqlite_scan|ATTACH|COPY|LOAD|lake", statement):
                connection.execute(statement).fetchall()
    connection.close()


def test_the_loop_that_clones_gets_every_address(folder: Path) -> None:
    """The recipe as it stands, with echo in the place of git."""
    if shutil.which("jq") is None:
        pytest.skip("no jq here")
    (recipe,) = [block for block in _blocks(ROOT / "docs/recipes.md", "sh") if "git clone" in block]
    printed = CliRunner().invoke(mirror, ["--config", str(_toml(folder)), "search", "annasmith/", "--json"])
    (folder / "found.json").write_text(printed.output)
    script = re.sub(r"mirror search [^|]*", "cat found.json ", recipe).replace("git clone --mirror", "echo")
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == [
        "https://bitbucket.example/annasmith/django-video.git",
        "https://bitbucket.example/annasmith/web.git",
    ]


def test_duckdb_reads_the_inventory(folder: Path) -> None:
    """The recipe as it stands."""
    duckdb = pytest.importorskip("duckdb", reason="an extra")
    printed = CliRunner().invoke(mirror, ["--config", str(_toml(folder)), "inventory", "--csv"])
    (folder / "inventory.csv").write_text(printed.output)
    (recipe,) = [block for block in _blocks(ROOT / "docs/recipes.md", "sql") if "read_csv" in block]
    with contextlib.chdir(folder):
        assert ("annasmith", 2, 2000) in duckdb.sql(recipe).fetchall()


def test_the_compose_file_runs_the_image_of_the_service() -> None:
    """Its ports, its configuration and its volume are those that the image expects."""
    text = (ROOT / "contrib/compose.yaml").read_text("utf-8")
    service = yaml.safe_load(text)["services"]["mirror"]
    image = (ROOT / "contrib" / "Containerfile").read_text("utf-8")
    assert (ROOT / "contrib" / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert "EXPOSE 8001" in image
    assert service["ports"] == ["127.0.0.1:8001:8001"]
    assert {volume.split(":")[1] for volume in service["volumes"]} == {"/data", "/etc/mirror.toml"}


def _toml(folder: Path) -> Path:
    path = folder / "mirror.toml"
    path.write_text('database = "data/mirror.db"')
    return path


def test_the_views_of_the_readme_exist(folder: Path) -> None:
    """`sqlite3 data/mirror.db "..."` is a statement that runs."""
    for statement in re.findall(r'sqlite3 data/mirror\.db "(.*?)"', (ROOT / "README.md").read_text("utf-8")):
        with sqlite3.connect(folder / "data" / "mirror.db") as connection:
            connection.execute(statement).fetchall()
