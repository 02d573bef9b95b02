"""Commands as people run them: what they print, their exit codes, what they leave behind."""

import json
import re
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click
import pytest
from cli_runner import Folder, small_sandbox

from mirror.cli.main import COMMANDS as LISTED
from mirror.cli.main import FILES, mirror
from mirror.sandbox import RunningSandbox

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    """A sandbox that no test of this file edits."""
    with small_sandbox() as served:
        yield served


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory, box: RunningSandbox) -> Folder:
    """A folder whose mirror is complete; tests only read it."""
    folder = Folder(tmp_path_factory.mktemp("synced"))
    folder.configure(box.url)
    assert folder.run("sync").code == 0
    return folder


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        yield " ".join([*names, name]), command


COMMANDS = dict(commands(mirror))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_with_an_example(name: str) -> None:
    """A sentence about what it does, and an example to copy."""
    assert f"    mirror {name}" in cleandoc(COMMANDS[name].help or "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_is_documented(name: str) -> None:
    """Options have a sentence; arguments have one in the command's help that begins with their name."""
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "").endswith("."), parameter.name
        else:
            metavar = parameter.make_metavar(click.Context(COMMANDS[name]))
            word = re.split(r"[^A-Z]", metavar.strip("["))[0]
            assert f"\n{word}" in cleandoc(COMMANDS[name].help or ""), parameter.name


def test_help_shows_whole_summaries(synced: Folder) -> None:
    """No sentence is cut in the lists of commands."""
    for group in ((), ("repo",), ("token",)):
        assert "..." not in synced.run(*group, "--help").out.partition("Commands:")[2]


@pytest.mark.parametrize("name", LISTED)
def test_lists_of_commands_show_the_first_sentence_of_the_help(name: str) -> None:
    """The sentences are stored beside the names, so that a list imports no command."""
    context = click.Context(mirror)
    command = mirror.get_command(context, name)
    assert command is not None
    assert LISTED[name][1] == command.get_short_help_str(1000)


@pytest.mark.parametrize("name", FILES)
def test_every_command_is_in_the_readme(name: str) -> None:
    """The README's table names it."""
    assert f"`mirror {name}" in README


def test_a_first_sync_prints_its_counts(folder: Folder, box: RunningSandbox) -> None:
    """New, changed, gone, requests, time; a second one finds nothing to do."""
    folder.configure(box.url)
    first = folder.run("sync")
    assert first.code == 0
    assert "box: complete" in first.out
    assert "new, 0 changed, 0 gone" in first.out
    second = folder.run("sync")
    assert second.code == 0
    assert "repositories  0 new, 0 changed, 0 gone" in second.out


def test_an_upstream_that_is_named_twice_is_synced_once(synced: Folder) -> None:
    """A second run would only repeat the requests."""
    assert synced.run("sync", "box", "box").out.count("box: complete") == 1


def test_a_plan_asks_nothing_that_the_mirror_knows(synced: Folder) -> None:
    """If everything is listed, it sends no request and plans one for each workspace."""
    before = ledger(synced)
    plan = synced.run("sync", "--plan")
    assert plan.code == 0
    assert "expected to be done" in plan.out
    assert ledger(synced) == before


def ledger(folder: Folder) -> int:
    connection = sqlite3.connect(folder.path / "data/mirror.db")
    (count,) = connection.execute("SELECT coalesce(sum(requests), 0) FROM request_ledger").fetchone()
    connection.close()
    return int(count)


def test_a_search_as_json_is_the_contract(synced: Folder) -> None:
    """The keys that programs rely on, with the exact count."""
    answer = json.loads(synced.run("search", "django-", "--json").out)
    assert set(answer) >= {"query", "count", "fuzzy", "repositories"}
    assert answer["query"] == "django-"
    assert answer["count"] == len(answer["repositories"]) or len(answer["repositories"]) == 20
    keys = {
        "owner",
        "slug",
        "name",
        "full_name",
        "scm",
        "is_private",
        "description",
        "followers_count",
        "updated_at",
    }
    assert all(keys <= set(row) for row in answer["repositories"])
    assert "ubernostrum/django-registration" in [row["full_name"] for row in answer["repositories"]]


def test_refs_as_json_are_the_contract(synced: Folder) -> None:
    """The keys that programs rely on, with both exact counts; a commit in the result can be searched."""
    answer = json.loads(synced.run("refs", "MASTER", "--exact", "--limit", "3", "--json").out)
    assert set(answer) == {"query", "count", "repositories", "refs"}
    assert answer["count"] == answer["repositories"] > 3 == len(answer["refs"])
    first = answer["refs"][0]
    assert list(first) == ["owner", "slug", "kind", "name", "target_hash", "target_date", "url", "commit_url"]
    assert (first["kind"], first["name"]) == ("branch", "master")
    told = synced.run("refs", first["target_hash"][:12], "--owner", first["owner"]).out
    assert f"{first['owner']}/{first['slug']}" in told
    assert "repositor" in told.splitlines()[0]
    assert synced.run("refs", "zzqq").out == "No branch or tag matches 'zzqq'\n"


def test_a_search_into_a_pipe_has_no_highlights(synced: Folder) -> None:
    """No escape sequences without a terminal."""
    found = synced.run("search", "PISTON")
    assert "jespern/django-piston" in found.out
    assert "\x1b" not in found.out


def test_an_empty_search_says_so(synced: Folder) -> None:
    """With exit code 0."""
    found = synced.run("search", "zzzzqqqqxxxx")
    assert (found.code, found.out.strip()) == (0, "No repository matches 'zzzzqqqqxxxx'")


def test_show_lists_branches_and_tags(synced: Folder) -> None:
    """Of the documented example, in any case."""
    shown = synced.run("show", "JESPERN/django-piston")
    assert shown.code == 0
    for word in ("0.2.1", "0.2.2", "0.2.3", "default", "public hg"):
        assert word in shown.out
    as_json = json.loads(synced.run("show", "jespern/django-piston", "--json").out)
    assert {tag["name"] for tag in as_json["tags"]} == {"0.2.1", "0.2.2", "0.2.3", "tip"}


def test_status_as_json_is_the_contract(synced: Folder) -> None:
    """The keys that programs rely on."""
    (upstream,) = json.loads(synced.run("status", "--json").out)["upstreams"]
    keys = [
        "name",
        "repositories",
        "branches",
        "tags",
        "last_complete_sync",
        "freshness_seconds",
        "budget",
        "failures",
    ]
    assert set(upstream) >= set(keys)
    assert set(upstream["budget"]) >= {"limit", "left", "resets_at"}
    assert upstream["repositories"] > 0
    assert upstream["failures"] == []


def test_status_fits_a_terminal(synced: Folder) -> None:
    """In eighty columns."""
    assert max(map(len, synced.run("status").out.splitlines())) <= 80


def test_an_upstream_with_a_new_name_is_told_before_it_is_listed(
    synced: Folder, folder: Folder, box: RunningSandbox
) -> None:
    """By the sync that would read everything again, only then, and by the status."""
    (folder.path / "mirror.toml").write_text(
        f'[[upstream]]\nname = "new"\nkind = "sandbox"\nurl = "{box.url}"\nrefs = "none"\n'
    )
    shutil.copytree(synced.path / "data", folder.path / "data")
    told = "new is new, and has the address of box, which the configuration does not name"
    first, second = folder.run("sync"), folder.run("sync")
    assert (told in first.out + first.err, told in second.out + second.err) == (True, False)
    shown = folder.run("status").out
    assert "box: the configuration does not name it" in shown
    assert "new: the configuration" not in shown
    names = {
        one["name"]: one["configured"] for one in json.loads(folder.run("status", "--json").out)["upstreams"]
    }
    assert names == {"box": False, "new": True}


def test_changes_print_one_line_each(folder: Folder) -> None:
    """A rename, an edit, a deletion and a tag, as text and as JSON."""
    fields = {"description": "", "website": f"a\n{'x' * 99}"}
    with small_sandbox() as served:
        folder.configure(served.url)
        folder.run("sync")
        served.sandbox.do("rename", "ubernostrum/django-profiles", name="django-faces")
        served.sandbox.do("edit", "jespern/django-piston", fields=fields)
        served.sandbox.do("create_tag", "jespern/django-piston", name="v9")
        served.sandbox.do("delete", "ubernostrum/django-registration")
        assert folder.run("sync").code == 0
    lines = [json.loads(line) for line in folder.run("changes", "--since", "1h", "--json").out.splitlines()]
    told = {(line["kind"], line["repository"]): (line["old"], line["new"]) for line in lines}
    assert told["renamed", "ubernostrum/django-faces"] == (
        "ubernostrum/django-profiles",
        "ubernostrum/django-faces",
    )
    assert json.loads(told["updated", "jespern/django-piston"][1]) == fields
    printed = folder.run("changes", "--since", "1h").out.splitlines()
    edited = "description: Piston is a Django mini-framework creating APIs. -> nothing"
    assert {(line[22:37].strip(), line[38:].partition(" v9 at ")[0]) for line in printed} >= {
        ("renamed", "ubernostrum/django-faces  ubernostrum/django-profiles -> ubernostrum/django-faces"),
        ("updated", "ubernostrum/django-faces  name: django-profiles -> django-faces"),
        ("deleted", "ubernostrum/django-registration, no longer visible"),
        ("tag_created", "jespern/django-piston"),
        (
            "updated",
            f"jespern/django-piston  {edited}; website: nothing -> a {'x' * 57}…",
        ),
    }


def test_a_sync_leaves_its_rows_to_the_search_index(synced: Folder) -> None:
    """The end of a first load builds the index; nothing stays pending."""
    connection = sqlite3.connect(synced.path / "data/mirror.db")
    highest, known, waiting = connection.execute(
        """SELECT (SELECT max(id) FROM repositories), (SELECT up_to FROM search_state),
               (SELECT count(*) FROM search_pending)"""
    ).fetchone()
    connection.close()
    assert (known, waiting) == (highest, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["frobnicate"], 2, "No such command"),
        (["sync", "--frob"], 2, "No such option"),
        (["sync", "nobody"], 2, "unknown upstream 'nobody' (configured: box)"),
        (["--config", "nowhere.toml", "sync"], 2, "nowhere.toml: no such file"),
        (["show", "django-piston"], 2, "OWNER/SLUG"),
        (["show", "no/such"], 1, "holds no repository no/such"),
        (["changes", "--since", "soon"], 2, "soon"),
        (["verify", "--sample", "few"], 2, "few"),
        (["search", "a", "--limit", "-1"], 2, "--limit"),
        (["sandbox", "--fault", "frob"], 2, "--fault"),
        (["sandbox", "--repositories", "99999999"], 2, "0 to 16777215 repositories"),
        (["token", "create", "x", "--scope", "god"], 2, "scope"),
        (["token", "revoke", "nobody"], 1, "nobody"),
        (["init"], 2, "mirror.toml exists"),
        (["serve", "--port", "99999"], 2, "--port"),
        (["serve", "--public", "--host", "127.0.0.1"], 2, "--host and --public exclude each other"),
        (["serve", "--host", "192.0.2.1"], 4, "`host` must be an address of this machine"),
        (["serve", "--host", "a" * 99], 4, "`host` must be an address of this machine"),
        (["restore", "one\ntwo"], 2, "one\\ntwo: no such file"),
        (["backup", ""], 2, "FILE is empty"),
        (["backup", "s3://bucket/copies/"], 2, "FILE is s3://bucket/copies/; give a path on this machine"),
        (["restore", " "], 2, "FILE is empty"),
        (["publish", ""], 2, "FILE is empty"),
        (["site", ""], 2, "DIR is empty"),
        (["init", ""], 2, "PATH is empty"),
        (["--config", "", "status"], 2, "--config is empty"),
        (["init", "none/mirror.toml"], 2, "its folder does not exist"),
        (["publish", "none/public.db"], 4, "the file or its folder does not exist"),
        (["publish", "data"], 2, "data: a folder; give a file"),
        (["plan-split", "--mirrors", "999"], 2, "run `mirror sync` first"),
        (["completions", "ksh"], 2, "Invalid value for 'SHELL'"),
    ],
)
def test_wrong_input_is_one_line_and_the_right_code(
    synced: Folder, arguments: list[str], code: int, says: str
) -> None:
    """Never a traceback, always a remedy."""
    ran = synced.run(*arguments)
    assert ran.code == code
    assert says in ran.err
    assert ran.out == ""


LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["search", LONG], 0),
        (["search", LONG, "--in", "description"], 0),
        (["refs", LONG], 0),
        (["inventory", "--owner", LONG], 1),
        (["show", LONG], 2),
        (["show", f"jespern/{LONG}"], 1),
        (["changes", "--since", LONG], 2),
        (["token", "revoke", LONG], 1),
        (["backup", LONG], 4),
        (["--config", LONG, "status"], 2),
        ([LONG], 2),
        ([f"--{LONG}"], 2),
        (["search", "x", LONG], 2),
        (["search", "x", "--limit", LONG], 2),
    ],
)
def test_a_long_text_is_not_printed_back_whole(synced: Folder, arguments: list[str], code: int) -> None:
    """The beginning and the end stay of what is said about it."""
    ran = synced.run(*arguments)
    said = ran.out + ran.err
    assert ran.code == code
    assert "x…x" in said
    assert len(said) < 1100


def test_json_repeats_a_long_query_whole(synced: Folder) -> None:
    """Programs compare it with what they asked."""
    assert json.loads(synced.run("search", LONG, "--json").out)["query"] == LONG


def test_reading_without_a_mirror_says_how_to_get_one(folder: Folder) -> None:
    """Every reading command, and serving."""
    for arguments in (["search", "x"], ["show", "a/b"], ["changes"], ["status"], ["verify"], ["serve"]):
        ran = folder.run(*arguments)
        assert ran.code == 4
        assert "`mirror sync` makes one" in ran.err


def test_a_write_into_a_folder_says_that_it_is_one(folder: Folder, box: RunningSandbox) -> None:
    """As every other command."""
    folder.configure(box.url, 'credential = "env:TOKEN"')
    (folder.path / "data/mirror.db").mkdir(parents=True)
    ran = folder.run("repo", "create", "jespern/new", TOKEN="sandbox")
    assert (ran.code, "a folder; give the path of a file" in ran.err) == (4, True)


def test_sync_reads_what_init_writes(folder: Folder) -> None:
    """Once `credential` is uncommented, it says that the secret is missing."""
    assert folder.run("init").code == 0
    path = folder.path / "mirror.toml"
    path.write_text(path.read_text().replace("# credential", "credential"))
    ran = folder.run("sync", BITBUCKET_TOKEN="")
    assert ran.code == 2
    assert "BITBUCKET_TOKEN" in ran.err


def test_a_dead_upstream_is_reported_and_the_mirror_stays(folder: Folder, box: RunningSandbox) -> None:
    """Exit code 4, with the reason once; the mirror can still be searched. A plan says what it waits for."""
    folder.configure(box.url)
    folder.run("sync")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    folder.configure(f"http://127.0.0.1:{port}/2.0", 'retry = { attempts = 2, first_delay = "0.1s" }')
    ran = folder.run("sync")
    assert ran.code == 4
    reasons = [line for line in ran.out.splitlines() if "cannot connect" in line]
    assert len(reasons) == 1
    assert "jespern/django-piston" in folder.run("search", "piston").out
    assert "try 2 of 2" in folder.run("sync", "--plan", "--full").err


def test_a_wrong_secret_is_refused_once_and_never_shown(folder: Folder, box: RunningSandbox) -> None:
    """Exit code 3, the three forms are listed, the secret appears nowhere."""
    folder.configure(box.url, 'credential = "env:BOX_SECRET"')
    ran = folder.run("sync", BOX_SECRET="jespern:wrong-sesame")
    assert ran.code == 3
    assert "Basic" in ran.out
    for form in ("ACCOUNT-EMAIL:TOKEN", "oauth:KEY:SECRET", "TOKEN alone"):
        assert form in ran.out
    everything = ran.out + ran.err + (folder.path / "data/mirror.db").read_bytes().decode("latin-1")
    assert "wrong-sesame" not in everything


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be looked at" * 99])
def test_a_file_that_is_not_a_mirror_is_left_alone(
    folder: Folder, box: RunningSandbox, content: bytes
) -> None:
    """Another file is named, not overwritten; an empty one may become a mirror."""
    folder.configure(box.url)
    (folder.path / "data").mkdir()
    path = folder.path / "data/mirror.db"
    path.write_bytes(content)
    ran = folder.run("sync")
    assert ran.code == (4 if content else 0)
    if content:
        assert "not an SQLite database" in ran.err
        assert path.read_bytes() == content


def test_another_programs_database_and_a_newer_mirror_are_refused(
    folder: Folder, box: RunningSandbox
) -> None:
    """Each in one line, and unchanged."""
    folder.configure(box.url)
    (folder.path / "data").mkdir()
    path = folder.path / "data/mirror.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    commands = (["sync"], ["search", "x"], ["serve"], ["schedule"], ["run", "--port", "0"])
    for command in commands:
        ran = folder.run(*command)
        assert (ran.code, "not a mirror" in ran.err) == (4, True)
    path.unlink()
    assert folder.run("sync").code == 0
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    for command in commands:
        ran = folder.run(*command)
        assert (ran.code, "newer version" in ran.err) == (4, True)


def test_a_port_in_use_is_one_line(synced: Folder) -> None:
    """With the option that helps."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in ("serve", "run", "sandbox"):
            ran = synced.run(command, "--port", port)
            assert ran.code == 4
            assert "--port" in ran.err
