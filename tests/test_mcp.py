"""`mirror mcp`, called by the SDK's own client: in this process, and once as a separate process."""

import asyncio
import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Folder
from fixtures_db import SECRETS, FixtureDb, fill_mixed, fill_public, repository
from lives import live, moment

from mirror.errors import ConfigError
from mirror.mcp import sql
from mirror.mcp.tools import NO_PROOF, Tools
from mirror.queries.visibility import ANONYMOUS, OPERATOR, Caller
from mirror.store import tokens
from mirror.store.runs import finish_run, start_run

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)

TOOLS = {"find_repositories", "show_repository", "find_refs", "changes_since", "is_current", "query_sql"}


@pytest.fixture(scope="module", autouse=True)
def sdk() -> Any:
    """The official SDK, which takes a second to import."""
    return pytest.importorskip("mcp", reason="the extra is not installed")


class Asked:
    """A server of a file for a caller, called by the SDK's client through streams in memory."""

    def __init__(self, path: Path, caller: Caller) -> None:
        from mirror.mcp.server import build

        self._server = build(Tools(path, caller, lambda: NOW))

    def _call(self, tool: str, arguments: dict[str, Any]) -> Any:
        from mcp import Client

        async def ask() -> Any:
            async with Client(self._server) as client:
                return await client.call_tool(tool, arguments)

        return asyncio.run(ask())

    def __call__(self, tool: str, **arguments: Any) -> Any:
        """Return an answer; it is the same as text and as a structure."""
        result = self._call(tool, arguments)
        assert not result.is_error, result.content
        assert json.loads(result.content[0].text) == result.structured_content
        assert result.structured_content["as_of"]
        return result.structured_content

    def schema(self, tool: str) -> dict[str, Any]:
        """Return what a tool takes."""
        (schema,) = (one.input_schema for one in asyncio.run(self._server.list_tools()) if one.name == tool)
        return dict(schema)

    def refused(self, tool: str, **arguments: Any) -> str:
        """Return the message of an error."""
        result = self._call(tool, arguments)
        assert result.is_error, result.structured_content
        text: str = result.content[0].text
        return text


def _synced(filled: FixtureDb, at: str) -> None:
    """Write down a complete sync."""
    with filled.store.transaction() as connection:
        run = start_run(connection, filled.upstream_id, "full", at=at)
        finish_run(connection, run, kind="full", state="complete", at=at, counts={}, error=None)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with private repositories of every sort, read in full a day ago."""
    filled = fill_mixed(tmp_path_factory.mktemp("mcp") / "mirror.db")
    filled.repositories([repository("new/unread")])
    tokens.create(filled.store, "reader", "read")
    _synced(filled, "2026-11-02T12:00:00.000000Z")
    filled.store.close()
    return filled.path


@pytest.fixture(scope="module")
def operator(path: Path) -> Asked:
    """As `mirror mcp`."""
    return Asked(path, OPERATOR)


@pytest.fixture(scope="module")
def public(path: Path) -> Asked:
    """As `mirror mcp --public`."""
    return Asked(path, ANONYMOUS)


def test_the_tools_read_alone_and_say_so(sdk: Any, operator: Asked) -> None:
    """Each is marked as read-only and has a description."""

    async def listed() -> Any:
        async with sdk.Client(operator._server) as client:
            return (await client.list_tools()).tools

    tools = asyncio.run(listed())
    assert {tool.name for tool in tools} == TOOLS
    assert all(tool.annotations.read_only_hint and tool.description for tool in tools)


def test_repositories_are_found_by_part_of_a_name(operator: Asked) -> None:
    """With the exact number, and the age of the data."""
    found = operator("find_repositories", query="piston", limit=1)
    assert found["count"] == 2
    assert [row["full_name"] for row in found["repositories"]] == ["jespern/django-piston"]
    assert found["as_of"] == [
        {"upstream": "cloud", "complete_sync": "2026-11-02T12:00:00.000000Z", "age": "24 h"}
    ]
    assert operator("find_repositories", query="arriving")["count"] == 1


def test_nothing_found_is_no_proof_that_there_is_nothing(operator: Asked, public: Asked) -> None:
    """In searches, by name, and for an owner that is not mirrored."""
    assert NO_PROOF in operator("find_repositories", query="nowhere/at-all")["notes"]
    assert NO_PROOF in operator.refused("show_repository", full_name="nobody/nothing")
    hidden = public.refused("show_repository", full_name="jespern/arriving")
    assert hidden.replace("jespern/arriving", "x/y") == public.refused("show_repository", full_name="x/y")


def test_a_repository_comes_with_its_refs(operator: Asked) -> None:
    """Counted, newest first, at most as many as requested."""
    found = operator("show_repository", full_name="jespern/django-piston", limit=2)
    assert found["repository"]["main_branch"] == "default"
    assert found["tags"]["count"] == 4
    assert len(found["tags"]["newest"]) == 2
    assert found["branches"]["newest"][0]["commit"] == "a" * 40


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_a_parameter_that_a_tool_does_not_have_is_refused(operator: Asked, tool: str) -> None:
    """If it were ignored, the answer would be to another question: all refs instead of the matches."""
    assert f"{tool} has no parameter 'colour' (it has: " in operator.refused(tool, colour="red")
    assert operator.schema(tool)["additionalProperties"] is False


def test_a_misspelt_parameter_is_told_the_right_one(operator: Asked) -> None:
    """Also if the other parameters are right."""
    told = operator.refused("find_refs", querry="v1", kind="tag")
    assert "no parameter 'querry'; did you mean 'query'?" in told


def test_refs_that_were_not_read_are_unknown_not_none(operator: Asked) -> None:
    """Null, and a note that says why."""
    found = operator("find_refs", full_name="new/unread")
    assert found["branches"] is found["tags"] is None
    assert found["notes"] == ["Branches and tags: not read yet, so they are unknown, not none."]


def test_refs_are_found_by_part_of_their_name(operator: Asked) -> None:
    """Of one kind, if requested."""
    found = operator("find_refs", full_name="jespern/django-piston", query="0.2", kind="tag")
    assert "branches" not in found
    assert {row["name"] for row in found["tags"]["newest"]} == {"0.2.1", "0.2.2", "0.2.3"}


def test_refs_are_found_everywhere(operator: Asked, public: Asked) -> None:
    """By name and commit, with their repository; strangers get public ones only."""
    found = operator("find_refs", query="secret-b")
    assert [(row["repository"], row["name"]) for row in found["refs"]] == [
        ("jespern/arriving", "secret-branch")
    ]
    assert "not read yet" in found["notes"][0]
    assert operator("find_refs", query="b" * 12)["refs"][0]["name"] == "0.2.1"
    hidden = public("find_refs", query="secret-b")
    assert (hidden["count"], hidden["notes"][0]) == (0, NO_PROOF)
    assert operator("query_sql", sql="SELECT mirror_refs_count('secret-b')")["rows"] == [[1]]


def test_changes_since_a_moment(operator: Asked, public: Asked) -> None:
    """Of all, of an owner, of a repository; faults are named, and unknown is not "no changes"."""
    assert operator("changes_since", since="2026-11-01", repository="jespern/shown")["changes"]
    rows = operator("changes_since", since="2026-11-01", owner="jespern")["changes"]
    assert {row["owner"] for row in rows} == {"jespern"}
    assert "last sync in as_of" in operator("changes_since", since="2026-11-03T11:00")["notes"][0]
    assert "is not a time" in operator.refused("changes_since", since="yesterday")
    assert not _secrets(public("changes_since", since="2026-01-01", limit=50))


def test_whether_the_mirror_is_current(path: Path, operator: Asked, tmp_path: Path) -> None:
    """Within the requested age, with nothing unread; never without a complete sync."""
    told = operator("is_current", max_age="2d")
    assert told["current"] is False
    assert told["repositories_without_refs_read"] > 0
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("a/b")])
    filled.refs("a/b", [])
    asked = Asked(filled.path, OPERATOR)
    assert asked("is_current")["current"] is False
    assert "No complete sync yet" in asked("is_current")["notes"][0]
    _synced(filled, "2026-11-02T12:00:00.000000Z")
    assert asked("is_current", max_age="2d")["current"] is True
    assert asked("is_current", max_age="23h")["current"] is False
    assert "is not a duration" in asked.refused("is_current", max_age="long")
    filled.store.close()


def test_one_question_in_sql(operator: Asked) -> None:
    """Rows up to the limit; long texts and BLOBs are cut; errors are SQLite's."""
    found = operator("query_sql", sql="-- names\nSELECT full_name FROM repositories ORDER BY 1", limit=2)
    assert (found["columns"], len(found["rows"]), found["more"]) == (["full_name"], 2, True)
    wide = operator("query_sql", sql="SELECT printf('%5000s', 'x'), zeroblob(7), 9e999")["rows"]
    assert [len(wide[0][0]), *wide[0][1:]] == [sql.LONGEST_CELL, "<7 bytes>", "inf"]
    everything = "SELECT printf('%300s', t.name) FROM tags t, tags u, tags v, tags w, tags x, tags y"
    rows = operator("query_sql", sql=everything, limit=10_000)
    assert rows["more"]
    assert len(json.dumps(rows)) < sql.MOST_CHARACTERS * 1.3
    assert "no such column" in operator.refused("query_sql", sql="SELECT wrong FROM users")
    assert operator("query_sql", sql="SELECT json(mirror_search('arriving', 5))")["rows"] != [["[]"]]


def test_the_past_is_asked_for_by_a_moment(tmp_path: Path) -> None:
    """By the tool and in SQL, by the name of then or of today; strangers see no private time."""
    filled = live(tmp_path / "mirror.db")
    _synced(filled, moment(95))
    filled.store.close()
    ask = Asked(filled.path, OPERATOR)
    shown = ask("show_repository", full_name="bob/new", at="2026-11-01T00:25")
    assert (shown["repository"]["full_name"], shown["repository"]["size"]) == ("ann/old", 5)
    assert shown["branches"]["newest"][0]["commit"] == "1" * 40
    assert shown["past"]["looks"]["refs"] == {"before": moment(20), "after": moment(60)}
    assert "past" not in ask("show_repository", full_name="bob/new")
    assert "is known since" in ask.refused("show_repository", full_name="bob/new", at="2026-10-01")
    assert "future" in ask.refused("show_repository", full_name="bob/new", at="2999-01-01")
    assert "not a time" in ask.refused("show_repository", full_name="bob/new", at="then")
    public = Asked(filled.path, ANONYMOUS)
    assert "ann/old" not in public.refused("show_repository", full_name="bob/new", at="2026-11-01T00:45")
    query = """SELECT mirror_repository_at('bob/new', '2026-11-01T00:25') ->> 'full_name',
        (SELECT value ->> 'target_hash' FROM json_each(mirror_refs_at('ann/old', '2026-11-01T00:25'))
            WHERE value ->> 'name' = 'master'), json_array_length(mirror_refs('master', 5))"""
    assert ask("query_sql", sql=query)["rows"] == [["ann/old", "1" * 40, 0]]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM repositories",
        "SELECT 1; DELETE FROM repositories",
        "WITH x AS (SELECT 1) DELETE FROM repositories",
        "PRAGMA query_only = 0",
        "ATTACH 'x.db' AS x",
        "COMMIT",
        "SELECT load_extension('x')",
        "SELECT * FROM sqlite_stmt",
        "SELECT token_hash FROM (SELECT 1 AS token_hash) FULL JOIN api_tokens USING (token_hash)",
        "VACUUM",
        "",
    ],
)
def test_sql_that_does_more_than_read_is_refused(operator: Asked, path: Path, statement: str) -> None:
    """The file does not change."""
    before = path.read_bytes()
    assert operator.refused("query_sql", sql=statement)
    assert path.read_bytes() == before


def test_sql_of_comments_alone_is_refused_at_once(operator: Asked) -> None:
    """Trying all ways to join them took twice as long for each further one."""
    assert "only one SELECT" in operator.refused("query_sql", sql="/**/" * 2_000 + "x")
    assert operator("query_sql", sql="/**/" * 20 + "-- one\nSELECT 1")["rows"]


def test_sql_shows_no_token(operator: Asked) -> None:
    """Closed tables read as empty."""
    assert operator("query_sql", sql="SELECT token_hash, name FROM api_tokens")["rows"] == [[None, None]]


def test_sql_is_bounded_in_time(path: Path) -> None:
    """By an injected clock, on which each reading takes a second."""
    ticks = iter(range(10_000_000))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(ConfigError, match="took longer than 2 s"):
        sql.ask(path, OPERATOR, endless, limit=1, clock=lambda: float(next(ticks)))


def test_the_public_sees_nothing_private(public: Asked, tmp_path: Path) -> None:
    """In any tool; SQL is closed once the file has a private row, as on the pages."""
    assert "known to be public" in public.refused("query_sql", sql="SELECT 1")
    for tool, arguments in (
        ("find_repositories", {"query": ""}),
        ("find_repositories", {"query": "arriving"}),
        ("show_repository", {"full_name": "mcatalbas/copy"}),
        ("is_current", {}),
    ):
        assert not _secrets(public(tool, **arguments))
    fill_public(tmp_path / "mirror.db").store.close()
    open_one = Asked(tmp_path / "mirror.db", ANONYMOUS)
    assert open_one("query_sql", sql="SELECT count(*) FROM repositories")["rows"][0][0] > 0
    assert open_one("query_sql", sql="SELECT count(user_id) FROM members")["rows"] == [[0]]
    named = "WITH mirror_shown_users AS (SELECT username FROM main.users) SELECT * FROM mirror_shown_users"
    assert "reserved" in open_one.refused("query_sql", sql=named)


def _secrets(answer: Any) -> list[bytes]:
    text = json.dumps(answer).encode()
    return [secret for secret in SECRETS if secret in text]


def test_a_process_speaks_the_protocol_alone_on_its_output(sdk: Any, path: Path, folder: Folder) -> None:
    """Started like an editor does; its output has no other line."""
    (folder.path / "mirror.toml").write_text(f'database = "{path}"')
    server = sdk.StdioServerParameters(
        command=sys.executable, args=["-m", "mirror", "mcp", "--public"], cwd=folder.path,
        env=folder.environment(),
    )  # fmt: skip

    async def ask() -> Any:
        async with sdk.Client(sdk.stdio_client(server)) as client:
            return await client.call_tool("find_repositories", {"query": "piston"})

    assert asyncio.run(ask()).structured_content["count"] == 2
    done = folder.run("mcp", stdin="this is no protocol\n")
    assert done.code == 0
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in done.out.splitlines())


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ("| true", 0, ""),
        ("> /dev/full", 4, "mirror: the answer cannot be read or written: No space left on device\n"),
    ],
)
def test_an_editor_that_has_gone_is_no_error(
    path: Path, folder: Folder, ends: str, code: int, said: str
) -> None:
    """Nobody reads the answer; a full disk is one line."""
    (folder.path / "mirror.toml").write_text(f'database = "{path}"\n')
    client = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    }
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shlex.join(folder.command('mcp'))} {ends}"],
        cwd=folder.path, env=folder.environment(), input=f"{hello}\n" * 2, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, said)


def test_without_a_mirror_and_without_the_extra_it_says_what_to_do(folder: Folder) -> None:
    """In one line, with the right exit code."""
    (folder.path / "mirror.toml").write_text('database = "none.db"')
    missing = folder.run("mcp", stdin="")
    assert (missing.code, missing.out) == (4, "")
    assert "no mirror there yet" in missing.err
    (folder.path / "without.py").write_text(
        "import sys\nsys.modules['mcp'] = None\nfrom mirror.cli.main import main\nmain(['mcp'])\n"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, "without.py"], cwd=folder.path, env=folder.environment(), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "pip install 'bitbucket-mirror[mcp]'" in done.stderr
