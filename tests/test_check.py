"""`mirror check` and misspelt settings: what is wrong, the remedy, and the exit code."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from cli_runner import Folder, small_sandbox
from fixtures_db import FixtureDb, repository
from prepared_files import copy_empty

from mirror.check import Check, exit_code, run_checks, scope_words
from mirror.config import from_toml
from mirror.config_checks import unused_token
from mirror.errors import ConfigError

CLOUD = '[[upstream]]\nname = "cloud"\nworkspaces = ["team"]\ncredential = "env:CHECK_TOKEN"\n'
PAGE = {"values": [], "pagelen": 100, "size": 0, "page": 1}
USER = {"type": "user", "uuid": "{u}", "username": "anna", "display_name": "Anna"}


def cloud(
    *, scopes: str = "repository", status: int = 200, off: float = 0.0
) -> Callable[[httpx.Request], httpx.Response]:
    """Answer as Bitbucket Cloud does, with given scopes, a status, and a clock that is off by seconds."""

    def answer(request: httpx.Request) -> httpx.Response:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=off), usegmt=True)
        headers = {"Date": date, **({"X-OAuth-Scopes": scopes} if scopes else {})}
        if status != 200:
            return httpx.Response(status, json={"error": {"message": "no"}}, headers=headers)
        body = USER if request.url.path.endswith("/user") else PAGE
        return httpx.Response(200, json=body, headers=headers)

    return answer


def checks(
    tmp_path: Path, answer: Callable[[httpx.Request], httpx.Response], text: str = CLOUD
) -> dict[str, Check]:
    """Check a configuration whose upstream answers so."""
    config = from_toml(f'database = "{tmp_path}/mirror.db"\n{text}')
    found = list(run_checks(config, where="mirror.toml", transport=httpx.MockTransport(answer)))
    assert all(each.remedy for each in found if not each.ok)
    return {each.name: each for each in found}


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECK_TOKEN", "anna@example.com:a-very-secret-token")


def test_a_healthy_setup_passes_every_check(tmp_path: Path) -> None:
    """Every part has a check; nothing is created on the disk."""
    found = checks(tmp_path, cloud())
    assert list(found) == [
        "configuration", "schedules", "credential cloud", "scopes cloud", "reachability cloud", "clock cloud",
        "file modes", "disk", "database", "service",
    ]  # fmt: skip
    assert exit_code(list(found.values())) == 0
    assert found["credential cloud"].detail == "basic, of anna"
    assert found["scopes cloud"].detail == "may read repositories"
    assert list(tmp_path.iterdir()) == []
    assert "a-very-secret-token" not in repr(found)


@pytest.mark.parametrize(
    ("scopes", "writes", "ok", "told"),
    [
        ("read:repository:bitbucket read:user:bitbucket", False, True, "repositories, read the account"),
        ("repository:admin repository:delete", True, True, "administer repositories, delete repositories"),
        ("account project", False, False, "read projects; not repositories"),
        ("repository", True, False, "it may not write"),
        ("", False, True, "the upstream reports none"),
    ],
)  # fmt: skip
def test_scopes_are_explained_in_words(
    tmp_path: Path, scopes: str, writes: bool, ok: bool, told: str
) -> None:
    """What a token may do, and whether that is enough for the configuration."""
    copy_empty(tmp_path / "mirror.db")
    text = CLOUD + f"[serve]\nwrites = {str(writes).lower()}\n"
    found = checks(tmp_path, cloud(scopes=scopes), text)
    assert told in found["scopes cloud"].detail
    assert found["scopes cloud"].ok == ok
    assert exit_code(list(found.values())) == (0 if ok else 3)


def test_both_spellings_of_a_scope_give_the_same_words() -> None:
    """Those of OAuth and those of API tokens."""
    assert (
        scope_words("repository:write") == scope_words("write:repository:bitbucket") == "write repositories"
    )
    assert scope_words("pullrequest") == "read pull requests"


def refusing(request: httpx.Request) -> httpx.Response:
    """Fail like a port without a listener."""
    raise httpx.ConnectError("[Errno 111] Connection refused", request=request)


@pytest.mark.parametrize(
    ("upstream", "token", "is_unused"),
    [
        ('name = "a"', "t", True),
        ('name = "a"', "", False),
        ('name = "a"\ncredential = "env:BITBUCKET_TOKEN"', "t", False),
        ('name = "a"\ncredential = "env:OTHER"', "t", False),
        ('name = "a"\nkind = "sandbox"', "t", False),
        ('name = "a"\n[[upstream]]\nname = "b"\ncredential = "env:BITBUCKET_TOKEN"', "t", False),
    ],
)
def test_a_token_that_nothing_uses_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: str, token: str, *, is_unused: bool
) -> None:
    """Otherwise the mirror would read only public data without any hint."""
    text = f'database = "{tmp_path}/mirror.db"\n[[upstream]]\n{upstream}'
    told = list(unused_token(from_toml(text), {"BITBUCKET_TOKEN": token}))
    assert [line.split(":")[0] for line in told] == [
        "BITBUCKET_TOKEN is set, but a has no credential and reads only what is public"
    ] * is_unused
    if is_unused:
        monkeypatch.setenv("BITBUCKET_TOKEN", token)
        assert (
            checks(tmp_path, cloud(), '[[upstream]]\nname = "a"\nworkspaces = ["team"]\n')[
                "credential a"
            ].remedy
            in told
        )


@pytest.mark.parametrize("answer", [refusing, cloud(status=500), cloud(status=502)])
@pytest.mark.parametrize("kind", ["cloud", "datacenter", "legacy", "sandbox"])
@pytest.mark.parametrize("more", ["", 'workspaces = ["team"]', 'credential = "env:CHECK_TOKEN"'])
def test_an_upstream_that_does_not_answer_is_never_passed(
    tmp_path: Path, answer: Callable[[httpx.Request], httpx.Response], kind: str, more: str
) -> None:
    """Of any kind; requests that are usually retried are sent once."""
    copy_empty(tmp_path / "mirror.db")
    more = 'workspaces = ["team"]' if kind == "legacy" and not more else more
    text = f'[[upstream]]\nname = "one"\nkind = "{kind}"\nurl = "https://bitbucket.example/x"\n{more}\n'
    found = checks(tmp_path, answer, text)
    assert not found["reachability one"].ok
    assert exit_code(list(found.values())) == 4


@pytest.mark.parametrize(
    ("answer", "name", "code"),
    [
        (cloud(status=401), "credential cloud", 3),
        (cloud(status=403), "scopes cloud", 3),
        (cloud(status=404), "reachability cloud", 2),
        (cloud(status=500), "reachability cloud", 4),
        (cloud(off=3600), "clock cloud", 4),
        (cloud(off=-3600), "clock cloud", 4),
    ],
)
def test_the_upstreams_answer_decides_the_exit_code(
    tmp_path: Path, answer: Callable[[httpx.Request], httpx.Response], name: str, code: int
) -> None:
    """3 for a refused credential, 2 for a wrong name, 4 for anything unreachable or a wrong clock."""
    copy_empty(tmp_path / "mirror.db")
    found = checks(tmp_path, answer)
    assert [each for each in found if not found[each].ok] == [name]
    assert exit_code(list(found.values())) == code


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        ("", "name public workspaces in `workspaces`, or set `credential`"),
        ('credential = "env:CHECK_TOKEN"', "name what to mirror in `workspaces`, or give"),
        ('credential = "env:CHECK_TOKEN"\nworkspaces = ["team"]', "give the token the scope"),
    ],
)
def test_a_refusal_has_the_remedy_of_its_configuration(tmp_path: Path, more: str, remedy: str) -> None:
    """A token of a workspace may not list workspaces, and nobody may without a credential."""
    copy_empty(tmp_path / "mirror.db")
    found = checks(tmp_path, cloud(status=403), f'[[upstream]]\nname = "cloud"\n{more}')
    assert str(found["scopes cloud"].remedy).startswith(remedy)


def test_each_local_fault_has_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that never fires, an unset secret, an open file, a damaged file."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("team/app")], first=True)
    filled.store.close()
    path = tmp_path / "mirror.db"
    assert checks(tmp_path, cloud())["index"].ok
    path.chmod(0o644)
    monkeypatch.delenv("CHECK_TOKEN")
    found = checks(tmp_path, cloud(), CLOUD + 'schedule = "0 0 30 2 *"\n')
    assert not found["schedules"].ok
    assert "export CHECK_TOKEN" in (found["credential cloud"].remedy or "")
    assert (found["file modes"].remedy or "").startswith("chmod 0600")
    assert exit_code(list(found.values())) == 2
    path.chmod(0o600)
    path.write_bytes(b"no database" * 1000)
    for journal in tmp_path.glob("mirror.db-*"):
        journal.unlink()
    found = checks(tmp_path, cloud(), CLOUD)
    assert not found["database"].ok
    assert exit_code([found["database"]]) == 4


def test_an_upstream_that_is_not_configured_any_more_is_named(tmp_path: Path) -> None:
    """After a new `name`, every repository would be there twice, and nothing would say why."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("team/app")], first=True)
    filled.store.close()
    found = checks(tmp_path, cloud(), CLOUD.replace('"cloud"', '"renamed"'))["upstreams"]
    assert (found.ok, found.detail) == (
        True,
        "the file also has cloud, which the configuration does not name",
    )
    assert "upstreams" not in checks(tmp_path, cloud())


def test_a_ledger_that_cannot_be_written_is_no_fault_of_the_network(tmp_path: Path) -> None:
    """For example on a full disk: the remedy does not mention proxies."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.store.close()
    with closing(sqlite3.connect(tmp_path / "mirror.db")) as connection:
        connection.execute("DROP TABLE request_ledger")
    reachability = checks(tmp_path, cloud())["reachability cloud"]
    assert not reachability.ok
    assert reachability.remedy == "see the checks of the disk and the database"


def test_the_command_prints_the_contract(folder: Folder) -> None:
    """JSON of one shape, also if the configuration cannot be read; the code shows the kind of fault."""
    with small_sandbox(20) as box:
        folder.configure(box.url)
        done = folder.run("check", "--json")
        told = json.loads(done.out)
        assert done.code == 0, done.out
        assert told["ok"] is True
        assert {tuple(each) for each in told["checks"]} == {("name", "ok", "detail", "remedy")}
    folder.configure("http://127.0.0.1:9/2.0")
    done = folder.run("check")
    assert done.code == 4
    assert "BAD  reachability box" in done.out
    assert "remedy: " in done.out
    (folder.path / "mirror.toml").write_text('[[upstream]]\nname = "a"\nkind = "clud"\n')
    done = folder.run("check", "--json")
    assert done.code == 2
    assert json.loads(done.out)["checks"][0]["name"] == "configuration"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('kind = "clud"', "'clud' is not allowed; did you mean 'cloud'? allowed: cloud, datacenter, legacy"),
        ('refs = "gti"', "did you mean 'git'? allowed: api, git, none"),
        ('refs = "x"', "'x' is not allowed; allowed: api, git, none"),
        ('workspaces = "a"', 'did you mean workspaces = ["a"]?'),
        ('accept_missing = "a/b"', 'did you mean accept_missing = ["a/b"]?'),
        ("timeout = 30", 'did you mean timeout = "30s"?'),
        ('concurrency = "4"', "did you mean concurrency = 4?"),
        ('shedule = "1h"', "unknown setting 'shedule'; did you mean 'schedule'? known here: "),
        ("credential = 12345", "credential: Expected"),
        ("retry = { atempts = 3 }", "did you mean 'attempts'?"),
    ],
)
def test_a_misspelt_setting_gets_a_suggestion(line: str, said: str) -> None:
    """Names, values, lists without brackets, quoted numbers; with the allowed values."""
    with pytest.raises(ConfigError) as error:
        from_toml(f'[[upstream]]\nname = "a"\n{line}\n')
    assert said in str(error.value)
    assert "12345" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[upstreams]]\nname = "a"', "did you mean 'upstream'?"),
        ('[upstream]\nname = "a"', "did you mean [[upstream]]?"),
        ('[serve]\nwrites = "yes"', "did you mean writes = true?"),
        ('[serve]\nport = "8001"', "did you mean port = 8001?"),
        ('[log]\nlevel = "warn"', "did you mean 'warning'? allowed: debug, "),
        ("database = 5", 'did you mean database = "5"?'),
    ],
)
def test_a_misspelt_section_gets_a_suggestion(text: str, said: str) -> None:
    """Like misspelt settings."""
    with pytest.raises(ConfigError) as error:
        from_toml(text + "\n")
    assert said in str(error.value)


def test_a_misspelt_command_gets_a_suggestion(folder: Folder) -> None:
    """Commands, subcommands, and names of upstreams."""
    for words, said in (
        (["serch", "x"], "did you mean 'search'? (there are: init, check, "),
        (["repo", "crate"], "did you mean 'create'?"),
        (["zzzzzz"], "No such command 'zzzzzz' (there are: "),
        (["sync", "sandbx"], "did you mean 'sandbox'?"),
    ):
        done = folder.run(*words)
        assert done.code == 2
        assert said in done.err


def test_a_read_only_folder_is_reported(tmp_path: Path) -> None:
    """With exit code 4; not for root, who may write everywhere."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    assert not checks(tmp_path, cloud())["disk"].ok
