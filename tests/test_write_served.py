"""API 1.0 of a mirror whose writes pass through to a sandbox: what an old script gets."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
import pytest
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from prepared_files import long_port
from write_harness import WriteHarness, writable

from mirror.cli.serve import application, arrange
from mirror.config import Config, UpstreamConfig
from mirror.errors import NotFound
from mirror.model import RepositorySettings
from mirror.sandbox import Fault, Sandbox, World, running
from mirror.serve.state import served as served_state
from mirror.store import Store, tokens
from mirror.write import PassThrough
from mirror.write.record import Confirm

if TYPE_CHECKING:
    from mirror.serve.writer import Writer


class Served:
    """A served mirror, its sandbox, and a login that may write."""

    def __init__(self, made: WriteHarness) -> None:
        self.made = made
        writer: Writer = made.writes  # mypy holds it to the protocol
        self.ask: AsgiClient = client_of(made.path, writes=True, writer=writer)
        with Store(made.path) as store:
            self.login = basic("jespern", make_tokens(store)["write"])

    def __call__(self, method: str, path: str, **fields: str) -> tuple[int, object]:
        """Ask with a form; return status and JSON."""
        answer = self.ask(method, f"/1.0/{path}", data=fields, headers=self.login)
        return answer.status_code, answer.json() if answer.content else None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """One for each test: they write."""
    with writable(tmp_path) as made:
        yield Served(made)


def test_a_repository_is_created_updated_forked_and_deleted(served: Served) -> None:
    """By forms of 2010; each answer and each next read agree."""
    status, created = served("POST", "repositories/", name="New Idea", is_private="True", scm="git")
    assert status == 200
    assert isinstance(created, dict)
    assert (created["slug"], created["is_private"], created["scm"], created["state"]) == (
        "new-idea",
        True,
        "git",
        "creating",
    )
    status, renamed = served("PUT", "repositories/jespern/new-idea", name="Better", no_public_forks="true")
    assert isinstance(renamed, dict)
    assert (status, renamed["slug"], renamed["no_public_forks"]) == (200, "better", True)
    assert served.made.upstream("jespern/better")["fork_policy"] == "no_public_forks"
    assert served("GET", "repositories/jespern/new-idea")[0] == 404
    status, forked = served("POST", "repositories/jespern/django-piston/fork", name="copy", owner="erik")
    assert isinstance(forked, dict)
    assert (status, forked["owner"], forked["fork_of"]["slug"]) == (200, "erik", "django-piston")
    assert served("DELETE", "repositories/jespern/better") == (204, None)
    assert served("GET", "repositories/jespern/better")[0] == 404
    assert [row[1:] for row in served.made.written()] == [
        ("create", "jespern/new-idea", "done"),
        ("update", "jespern/better", "done"),
        ("fork", "erik/copy", "done"),
        ("delete", "jespern/better", "done"),
    ]
    assert {row[0] for row in served.made.written()} == {"writer"}


def test_refusals_are_passed_on(served: Served) -> None:
    """A duplicate is 400 with the upstream's message, a missing right 403, an unknown owner 404."""
    status, said = served("POST", "repositories/", name="arriving")
    assert status == 400
    assert "already exists" in str(said)
    served.made.sandbox.add_fault(Fault("403", where="*/repositories/*"))
    assert served("POST", "repositories/", name="idea")[0] == 403
    assert served("POST", "repositories/", name="idea", owner="nobody")[0] == 404
    status, said = served("POST", "repositories/", name="日本")
    assert (status, "cannot be turned into an address" in str(said)) == (400, True)


def test_an_unreachable_upstream_is_503(served: Served) -> None:
    """Nothing was changed, and the mirror keeps answering."""
    served.made.sandbox.add_fault(Fault("503", where="*/repositories/*", nth=None))
    status, said = served("PUT", "repositories/jespern/django-piston", description="new")
    assert status == 503
    assert "nothing was changed" in str(said)
    assert served("GET", "repositories/jespern/django-piston")[0] == 200


def test_a_lost_answer_is_reported_as_unknown(served: Served) -> None:
    """If the outcome is unknown, the answer says so."""
    served.made.sandbox.add_fault(Fault("drop", where="*/repositories/*"))
    status, said = served("POST", "repositories/", name="idea")
    assert status == 503
    assert "nothing was changed" not in str(said)
    assert "check before you repeat it" in str(said)


def test_an_unwritable_mirror_is_reported_as_unknown(served: Served) -> None:
    """Because the upstream has done it."""
    with Store(served.made.path) as store:
        store.connection.execute(
            """CREATE TRIGGER full_disk BEFORE INSERT ON changes
               BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"""
        )
    status, said = served("POST", "repositories/", name="idea")
    assert status == 503
    assert "the upstream has done it" in str(said)
    assert "nothing was changed" not in str(said)


def test_making_a_writer_reads_and_asks_nothing(tmp_path: Path) -> None:
    """Making it reads and asks nothing: not even the credential has to be there yet."""
    with writable(tmp_path) as made:
        writer = PassThrough(made.config)
        assert made.asked() == 0
        assert callable(writer.create)


@pytest.mark.parametrize("spelled", [str, str.upper])
def test_a_write_reaches_the_repository_that_is_shown(served: Served, spelled: Callable[[str], str]) -> None:
    """Not another row of that name: one that has lost it since, or one that is spelled in another case."""
    made = served.made
    rows = made.rows("SELECT id, slug, uuid FROM repositories WHERE full_name LIKE 'jespern/%' ORDER BY id")
    (other, lost, uuid), (_, slug, _), *_ = rows

    def misname() -> None:  # a write looks the other one up, and saves its present name
        with closing(sqlite3.connect(made.path)) as connection, connection:
            connection.execute(
                "UPDATE repositories SET slug = ?, full_name = ?, last_seen_at = '2020' WHERE id = ?",
                (spelled(slug), f"jespern/{spelled(slug)}", other),
            )

    def descriptions() -> list[object]:
        return [made.upstream(f"jespern/{name}")["description"] for name in (lost, slug)]

    misname()
    path = f"repositories/jespern/{slug}"
    assert served("PUT", path, description="shown")[0] == 200
    assert served.ask.json(f"/1.0/{path}", headers=served.login)["description"] == "shown"
    assert descriptions()[1] == "shown" != descriptions()[0]
    misname()
    by_uuid = served.ask(
        "PUT", f"/2.0/repositories/jespern/{quote(uuid)}", json={"description": "other"}, headers=served.login
    )
    assert (by_uuid.json()["uuid"], descriptions()) == (uuid, ["other", "shown"])


def test_a_user_forks_nothing_that_became_private(served: Served) -> None:
    """The mirror may not know yet, and its credential may see more than the user."""
    made, path = served.made, "/2.0/repositories/jespern/django-piston"
    with Store(made.path) as store:
        erik = bearer(tokens.create(store, "of erik", "read,write", user="erik"))
    assert served.ask("POST", f"{path}/forks", json={"name": "one"}, headers=erik).status_code == 201
    made.sandbox.do("make_private", "jespern/django-piston")
    assert served.ask.get(path, headers=erik).status_code == 200
    refused = served.ask("POST", f"{path}/forks", json={"name": "two"}, headers=erik)
    assert refused.status_code == 409
    assert made.upstream("erik/two") is None
    assert served.ask.get(path, headers=erik).status_code == 404
    assert served("POST", "repositories/jespern/django-piston/fork", name="mine", owner="erik")[0] == 200
    assert made.upstream("erik/mine")["is_private"] is True


def test_a_user_forks_nothing_private_that_was_transferred(served: Served) -> None:
    """The members of its former workspace may not see it in the new one; a public one may be forked."""
    made, path = served.made, "/2.0/repositories/erik/secret"
    with Store(made.path) as store:
        erik = bearer(tokens.create(store, "of erik", "read,write", user="erik"))
    made.sandbox.do("create", "erik/secret", is_private=True)
    made.sync()
    assert served.ask("POST", f"{path}/forks", json={"name": "one"}, headers=erik).status_code == 201
    made.sandbox.do("transfer", "erik/secret", to="mcatalbas")
    assert served.ask.get(path, headers=erik).status_code == 200
    assert served.ask("POST", f"{path}/forks", json={"name": "two"}, headers=erik).status_code == 409
    assert made.upstream("erik/two") is None
    assert served.ask.get(path, headers=erik).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_write_names_no_private_repository_of_another_workspace(served: Served, method: str) -> None:
    """Who owned it before the transfer may not see it there."""
    made, path = served.made, "/2.0/repositories/jespern/django-piston"
    with Store(made.path) as store:
        login = bearer(tokens.create(store, "own", "write", user="jespern"))
    made.sandbox.do("rename", "jespern/django-piston", name="Hidden")
    made.sandbox.do("transfer", "jespern/hidden", to="erik")
    public = served.ask(method, path, json={}, headers=login)
    made.sandbox.do("make_private", "erik/hidden")
    private = served.ask(method, path, json={}, headers=login)
    assert (public.status_code, private.status_code) == (409, 409)
    assert ("hidden" in public.text, "hidden" in private.text) == (True, False)


class LateWriter(PassThrough):
    """Revokes the token of a write once its body was read."""

    def confirmed(self, confirm: Confirm) -> PassThrough:
        """Revoke before the upstream is asked for anything."""
        with Store(Path(self._config.database)) as store:
            tokens.revoke(store, "slow")
        return super().confirmed(confirm)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", ""), ("PUT", "jespern/arriving"), ("DELETE", "jespern/arriving"), ("POST", "erik/x/fork")],
)
def test_a_token_that_is_revoked_while_the_body_arrives_writes_nothing(
    served: Served, method: str, path: str
) -> None:
    """Its right is read again right before the write is sent."""
    made = served.made
    with Store(made.path) as store:
        login = basic("jespern", tokens.create(store, "slow", "write"))
    ((name,), *_) = made.rows("SELECT full_name FROM repositories WHERE full_name GLOB 'erik/*'")
    path = path.replace("erik/x", name)
    ask = client_of(made.path, writes=True, writer=LateWriter(made.config, environ=made.environ))
    answer = ask(method, f"/1.0/repositories/{path}", data={"name": "late"}, headers=login)
    assert answer.status_code == 401
    assert made.upstream("jespern/late") is None
    assert made.upstream("jespern/arriving") is not None
    assert made.written() == []


def test_the_fork_of_one_that_became_private_is_private(served: Served) -> None:
    """By its present state, which the mirror may not know yet."""
    served.made.sandbox.do("make_private", "jespern/django-piston")
    assert served("POST", "repositories/jespern/django-piston/fork", name="mine", owner="erik")[0] == 200
    assert served.made.upstream("erik/mine")["is_private"] is True


@pytest.fixture
def beside(served: Served) -> Iterator[WriteHarness]:
    """Another upstream in the same mirror, of which only erik is mirrored; it has a jespern, too."""
    made = served.made
    with running(Sandbox(World(30)), port=long_port()) as other:
        other.sandbox.do("create", "erik/tool")
        second = msgspec.structs.replace(
            made.config.upstreams[0], name="other", url=other.url, workspaces=("erik",)
        )
        first = msgspec.structs.replace(made.config.upstreams[0], workspaces=("jespern",))
        made.config = msgspec.structs.replace(made.config, upstreams=(first, second))
        harness = WriteHarness(other, made.path)
        harness.config = msgspec.structs.replace(made.config, upstreams=(second,))
        harness.sync()
        served.ask = client_of(made.path, writes=True, writer=made.writer(made.config))
        yield harness


def test_a_user_writes_to_the_own_upstream_only(served: Served, beside: WriteHarness) -> None:
    """Not to a namespace of the same name on another upstream, where it may be somebody else's."""
    with Store(served.made.path) as store:
        login = bearer(tokens.create(store, "own", "write", user="jespern"))
    answer = served.ask("POST", "/1.0/repositories/erik/tool/fork", data={"name": "grabbed"}, headers=login)
    assert answer.status_code == 404
    assert beside.upstream("jespern/grabbed") is None
    # Without the section of the own upstream, the name is another's.
    renamed = msgspec.structs.replace(beside.config.upstreams[0], workspaces=("erik", "jespern"))
    alone = msgspec.structs.replace(beside.config, upstreams=(renamed,))
    ask = client_of(served.made.path, writes=True, writer=served.made.writer(alone))
    answer = ask("POST", "/1.0/repositories/", data={"name": "grabbed"}, headers=login)
    assert answer.status_code == 503
    assert beside.upstream("jespern/grabbed") is None


def test_a_write_answers_with_no_namesake_of_another_upstream(served: Served, beside: WriteHarness) -> None:
    """A fork whose address is that of an older repository is done, but the answer does not show that one."""
    assert served("POST", "repositories/", name="tool", owner="jespern")[0] == 200
    status, said = served("POST", "repositories/erik/tool/fork", name="tool", owner="jespern")
    assert beside.upstream("jespern/tool")["parent"]["full_name"] == "erik/tool"
    assert (status, "another repository" in str(said)) == (503, True)


def test_writes_follow_a_configuration_that_is_read_again(public_path: Path) -> None:
    """After SIGHUP, with its upstreams and credentials, as syncs do."""
    before = Config(database=str(public_path), upstreams=(UpstreamConfig(name="old"),))
    datasette = application(before)
    arrange(datasette, before)
    arrange(datasette, msgspec.structs.replace(before, upstreams=(UpstreamConfig(name="new"),)))
    with pytest.raises(NotFound, match=r"--upstream \(new\)"):
        served_state(datasette).writer.create("nobody", RepositorySettings(name="x"), by="")
