"""`mirror repo` as people run it: what it prints, its exit codes, what it sends to the upstream."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import WARNINGS, Finished
from prepared_files import long_port
from write_harness import SECRET, WriteHarness, writable

from mirror.cli import main
from mirror.sandbox import Sandbox, World, running

PISTON = "jespern/django-piston"


class Desk:
    """A user with a configuration, a mirror and a credential in a file, beside the mirrored sandbox."""

    def __init__(self, made: WriteHarness, capsys: pytest.CaptureFixture[str]) -> None:
        self.made = made
        self._capsys = capsys
        self.folder = made.path.parent
        self.configure(SECRET)

    def configure(self, secret: str | None) -> None:
        """Write the configuration."""
        lines = [f'database = "{self.made.path}"', "[[upstream]]", 'name = "s"', 'kind = "sandbox"']
        lines += [f'url = "{self.made.served.url}"', 'workspaces = ["jespern", "erik"]', 'refs = "none"']
        if secret is not None:
            (self.folder / "secret").write_text(f"{secret}\n", "utf-8")
            lines.append(f'credential = "file:{self.folder / "secret"}"')
        (self.folder / "mirror.toml").write_text("\n".join(lines), "utf-8")

    def words(self, *words: str) -> list[str]:
        """Return the arguments of a command."""
        return ["--config", str(self.folder / "mirror.toml"), *words]

    def run(self, *words: str) -> Finished:
        """Run a command to its end, in this process, where nobody is at the terminal."""
        code = 0
        try:
            main(self.words(*words))
        except SystemExit as end:
            code = int(end.code or 0)
        said = self._capsys.readouterr()
        return Finished(code, said.out, said.err)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """One for each test: they write."""
    with writable(tmp_path) as made:
        yield Desk(made, capsys)


def test_create_sends_every_setting_and_prints_the_row(desk: Desk) -> None:
    """Every setting is sent; --json prints the saved row, as `mirror show` does."""
    made = desk.run(
        *("repo", "create", "jespern/new-idea", "--name", "New Idea", "--private", "--scm", "git"),
        *("--description", "An idea", "--website", "https://example.com/", "--language", "python"),
        *("--issues", "--wiki", "--fork-policy", "no_forks", "--json"),
    )
    assert (made.code, made.err) == (0, "")
    row = json.loads(made.out)
    wanted = {"full_name": "jespern/new-idea", "name": "New Idea", "is_private": 1, "scm": "git"}
    wanted |= {"description": "An idea", "website": "https://example.com/", "language": "python"}
    wanted |= {"has_issues": 1, "has_wiki": 1, "fork_policy": "no_forks", "refs_stale": 0}
    assert {key: row[key] for key in wanted} == wanted
    assert json.loads(desk.run("show", "jespern/new-idea", "--json").out)["repository"] == row


def test_update_and_fork_say_what_was_done(desk: Desk) -> None:
    """One line says what was done, with the current name."""
    updated = desk.run("repo", "update", PISTON, "--name", "New Piston", "--public")
    assert (updated.code, updated.out.partition(":")[0]) == (0, "jespern/new-piston is updated")
    forked = desk.run("repo", "fork", "jespern/new-piston", "--into", "erik")
    assert forked.out.startswith("erik/new-piston is forked from jespern/new-piston: public hg")
    assert desk.made.upstream("erik/new-piston") is not None


def test_delete_asks_nobody_without_a_terminal(desk: Desk) -> None:
    """A script must give --yes; --json prints the tombstone."""
    refused = desk.run("repo", "delete", PISTON)
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert desk.made.upstream(PISTON) is not None
    deleted = desk.run("repo", "delete", PISTON, "--yes", "--json")
    assert (deleted.code, json.loads(deleted.out)["gone_reason"]) == (0, "deleted")
    assert desk.made.upstream(PISTON) is None


def test_json_is_of_the_upstream_that_was_written_to(desk: Desk) -> None:
    """Another one may have a repository of the same name, which it must not print instead."""
    with running(Sandbox(World(30)), port=long_port()) as other:
        toml = desk.folder / "mirror.toml"
        section = toml.read_text("utf-8").partition("[[upstream]]")[2].replace('"s"', '"other"')
        section = section.replace(desk.made.served.url, other.url)
        toml.write_text(f"{toml.read_text('utf-8')}\n[[upstream]]{section}", "utf-8")
        assert desk.run("repo", "create", "jespern/idea", "--upstream", "s").code == 0

        def printed(*words: str) -> Any:
            row = json.loads(desk.run("repo", *words, "--upstream", "other", "--json").out)
            return row["upstream_id"], row["description"], row["gone_reason"]

        number, *created = printed("create", "jespern/idea", "--description", "a")
        assert created == ["a", None]
        assert desk.made.rows(f"SELECT name FROM upstreams WHERE id = {number}") == [("other",)]
        assert printed("update", "jespern/idea", "--description", "b") == (number, "b", None)
        assert printed("delete", "jespern/idea", "--yes") == (number, "b", "deleted")


@pytest.mark.parametrize(("word", "code"), [("y", 0), ("", 1)])
def test_delete_asks_at_a_terminal(desk: Desk, word: str, code: int) -> None:
    """Only "yes" deletes."""
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        [sys.executable, *WARNINGS, "-m", "mirror", *desk.words("repo", "delete", PISTON)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    os.write(ours, f"{word}\n".encode())
    _, err = started.communicate(timeout=30)
    os.close(ours)
    assert started.returncode == code, err
    assert f"delete {PISTON} upstream" in err
    assert (desk.made.upstream(PISTON) is None) is (word == "y")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", "idea"), 2, "write OWNER/SLUG"),
        (("create", "jespern/a/b"), 2, "write OWNER/SLUG"),
        (("create", "nobody/idea"), 1, "name it in `workspaces`"),
        (("create", "jespern/arriving"), 4, "already exists"),
        (("create", "jespern/idea", "--upstream", "other"), 2, "unknown upstream 'other' (configured: s)"),
        (("update", PISTON), 2, "nothing to change"),
        (("update", "jespern/nothing", "--public"), 1, "the mirror holds no repository"),
        (("fork", PISTON), 2, "--into WORKSPACE or --name"),
        (("fork", PISTON, "--into", "nobody"), 4, "No workspace"),
        (("delete", "jespern/nothing", "--yes"), 1, "the mirror holds no repository"),
    ],
)
def test_a_refusal_is_one_line_with_the_exit_code_of_its_cause(
    desk: Desk, words: tuple[str, ...], code: int, said: str
) -> None:
    """Each is one line on standard error, with the exit code of its cause."""
    ran = desk.run("repo", *words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_a_wrong_secret_ends_with_3_and_is_not_shown(desk: Desk) -> None:
    """Exit code 3, and no line has the secret."""
    desk.configure("wrong-secret-9071")
    ran = desk.run("repo", "create", "jespern/idea")
    assert ran.code == 3
    assert "wrong-secret-9071" not in ran.err


def test_without_a_credential_the_setting_is_named(desk: Desk) -> None:
    """Exit code 2, with the setting to change."""
    desk.configure(None)
    ran = desk.run("repo", "create", "jespern/idea")
    assert (ran.code, "set `credential" in ran.err) == (2, True)
