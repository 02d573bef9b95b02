"""API 1.0's writes: who may write, the checks before an upstream is asked, how its refusals are passed on."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from fake_writer import FakeWriter
from fixtures_db import FixtureDb, fill_mixed

from mirror.errors import (
    BudgetSpent,
    CredentialsRefused,
    MirrorError,
    NotFound,
    OutcomeUnknown,
    UpstreamBusy,
    UpstreamRefused,
)
from mirror.model import Repository, RepositorySettings
from mirror.serve.exchange import LARGEST_BODY

if TYPE_CHECKING:
    from mirror.serve.writer import Writer

FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}


class World:
    """A mirror that takes writes."""

    def __init__(self, path: Path) -> None:
        self.filled = fill_mixed(path)
        self.tokens = make_tokens(self.filled.store)
        self.writer = FakeWriter(self.filled)
        checked: Writer = self.writer  # mypy holds the fake to the protocol
        self.served = client_of(path, writes=True, writer=checked)
        self.headers = basic("jespern", self.tokens["write"])

    def __call__(self, method: str, what: str, **options: Any) -> Any:
        """Write as jespern, with the write token."""
        return self.served(method, f"/1.0/{what}", **{"headers": self.headers, **options})


@pytest.fixture
def world(tmp_path: Path) -> World:
    """One for each test: they write."""
    return World(tmp_path / "mirror.db")


WRITES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("POST", "repositories", {"name": "new", "scm": "git"}),
    ("POST", "repositories/", {"name": "new"}),
    ("PUT", "repositories/jespern/django-piston/", {"description": "x"}),
    ("DELETE", "repositories/jespern/django-piston", {}),
    ("POST", "repositories/mcatalbas/codeigniter/fork", {"name": "mine"}),
)


@pytest.mark.parametrize(("method", "what", "form"), WRITES)
def test_writes_need_a_writer_and_the_setting(
    mixed_db: FixtureDb, method: str, what: str, form: dict[str, str]
) -> None:
    """405 for all callers, with how to change that and the methods that work."""
    token = make_tokens(mixed_db.store)["write"]
    writer = FakeWriter(mixed_db)
    for served in (
        client_of(mixed_db.path, writer=writer),
        client_of(mixed_db.path, writes=True),
    ):
        answer = served(method, f"/1.0/{what}", data=form, headers=bearer(token))
        assert answer.status_code == 405
        assert "read-only" in answer.json()["error"]["detail"]
        assert method not in answer.headers["allow"]
    assert writer.calls == []
    mixed_db.store.close()


@pytest.mark.parametrize(("method", "what", "form"), WRITES)
def test_writes_need_a_valid_token_with_the_scope(
    world: World, method: str, what: str, form: dict[str, str]
) -> None:
    """401 without a token, 403 without the scope; the writer is not called."""
    refused = {
        401: (
            {},
            bearer(world.tokens["revoked"]),
            bearer(world.tokens["expired"]),
            basic("jespern", "secret"),
        ),
        403: (bearer(world.tokens["read"]), bearer(world.tokens["user"])),
    }
    for status, headers in ((status, headers) for status, all_ in refused.items() for headers in all_):
        answer = world(method, what, data=form, headers=headers)
        assert answer.status_code == status
    assert world(method, what, data=form, headers={}).headers["www-authenticate"].startswith("Basic")
    assert world.writer.calls == []


def test_a_login_cookie_never_writes(world: World) -> None:
    """A page of another site could send it, so cookies only allow reading."""
    login = world.served("POST", "/-/mirror-login", data={"token": world.tokens["write"]})
    cookies = {"ds_actor": login.cookies["ds_actor"].strip('"'), "ds_csrftoken": "x"}
    answer = world("DELETE", "repositories/jespern/django-piston", headers={}, cookies=cookies)
    assert (answer.status_code, world.writer.calls) == (401, [])


def test_creating_answers_with_the_new_repository(world: World) -> None:
    """200 with state `creating`; it can be read at once. Scripts with a cookie jar can write too."""
    form = {"name": "MyRepo", "scm": "git", "is_private": "True", "has_wiki": "false"}
    answer = world("POST", "repositories/?format=json", data=form, cookies={"ds_csrftoken": "x"})
    assert answer.status_code == 200
    told = answer.json()
    assert (told["slug"], told["state"], told["size"], told["owner"]) == ("myrepo", "creating", 0, "jespern")
    ((verb, full_name, sent, by),) = world.writer.calls
    assert (verb, full_name, by) == ("create", "jespern/myrepo", "writer")
    assert sent == RepositorySettings(name="MyRepo", scm="git", is_private=True, has_wiki=False)
    assert world("GET", "repositories/jespern/myrepo").json()["state"] == "available"


def test_a_repository_is_created_for_a_team_but_not_anonymously(world: World) -> None:
    """`owner` takes precedence over the caller; without either, the field is missing."""
    assert world("POST", "repositories", data={"name": "x", "owner": "1team"}).json()["owner"] == "1team"
    answer = world("POST", "repositories", data={"name": "x"}, headers=bearer(world.tokens["write"]))
    assert (answer.status_code, "owner" in answer.json()["error"]["fields"]) == (400, True)


def test_updating_moves_the_slug(world: World) -> None:
    """Fields that are not sent keep their values; the name is found in any case."""
    answer = world("PUT", "repositories/JESPERN/Django-Piston/", data={"name": "Piston2"})
    assert (answer.status_code, answer.json()["slug"]) == (200, "piston2")
    assert world.writer.calls[0][2] == RepositorySettings(name="Piston2")


def test_deleting_has_no_body(world: World) -> None:
    """204, then 404."""
    answer = world("DELETE", "repositories/jespern/django-piston")
    assert (answer.status_code, answer.content) == (204, b"")
    assert world("GET", "repositories/jespern/django-piston").status_code == 404
    assert world("DELETE", "repositories/jespern/django-piston").status_code == 404
    assert len(world.writer.calls) == 1


def test_a_fork_belongs_to_the_caller(world: World) -> None:
    """To the caller, or to the given owner."""
    told = world("POST", "repositories/mcatalbas/codeigniter/fork/", data={"name": "mine"}).json()
    assert (told["owner"], told["slug"], told["is_fork"]) == ("jespern", "mine", True)


PISTON = "repositories/jespern/django-piston"
"""A repository of the world, as a path."""


def as_a_form(told: dict[str, Any], **edited: str) -> dict[str, str]:
    """Return what an old client sends of an object that it read: no null, and no object in it."""
    plain = {name: str(value) for name, value in told.items() if isinstance(value, str | int)}
    return {**plain, **edited}


def test_what_was_read_is_sent_back_with_one_edit(world: World) -> None:
    """The edit is made. The owner in another case, the slug of the new name, or any dates, are no change."""
    told = world("GET", PISTON).json()
    dates = ("created_on", "last_updated", "utc_created_on", "utc_last_updated")
    told |= dict.fromkeys(dates, "0001-01-01T00:00:00Z")
    form = as_a_form(told, description="Edited", owner="JESPERN", name="Piston 2", slug="piston-2")
    assert world("PUT", PISTON, data=form).status_code == 200
    sent = world.writer.calls[0][2]
    assert isinstance(sent, RepositorySettings)
    assert (sent.name, sent.description, sent.scm) == ("Piston 2", "Edited", None)


UNCHANGEABLE = (
    "owner",
    "slug",
    "scm",
    "size",
    "resource_uri",
    "state",
    "is_fork",
    "followers_count",
)


@pytest.mark.parametrize("name", UNCHANGEABLE)
def test_what_cannot_be_changed_is_refused_by_name(world: World, name: str) -> None:
    """Nothing is written in part, whether as a form or as JSON, for any differing value."""
    for value in ("git", "7", "nonsense"):
        for sent in ({"data": {name: value, "description": "x"}}, {"json": {name: value}}):
            answer = world("PUT", PISTON, **sent)
            assert answer.status_code == 400
            assert answer.json()["error"]["fields"] == {name: ["This field cannot be changed."]}
    assert not world.writer.calls


@pytest.mark.parametrize(("method", "what", "form"), [row for row in WRITES if row[0] != "DELETE"])
@pytest.mark.parametrize("sent", [{"unknown": "x"}, {"is_privat": "true"}, {"project": "KEY"}, {"x y": ""}])
def test_an_unknown_field_is_refused_by_name(
    world: World, method: str, what: str, form: dict[str, str], sent: dict[str, str]
) -> None:
    """Otherwise a misspelt setting would be dropped, and the repository made public."""
    for body in ({"data": {**form, **sent}}, {"json": {**form, **sent, "z": {"a": 1}}}):
        answer = world(method, what, **body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["message"] == "Bad Request"
        assert error["fields"].keys() - {"z"} == sent.keys()
        assert next(iter(sent)) in error["detail"]
    assert not world.writer.calls


@pytest.mark.parametrize(
    "sent",
    [
        # All that the documentation of the time names, with empty boxes.
        {"scm": "hg", "is_private": "True", "description": "", "website": "", "language": "python",
         "has_issues": "false", "has_wiki": "", "no_forks": "false", "no_public_forks": "true",
         "owner": "jespern"},
        # How the answer is to look, which some clients put into every body.
        {"format": "json", "callback": "f"},
        # A signature of OAuth 1.0 in the body.
        {"oauth_consumer_key": "k", "oauth_signature": "s", "oauth_version": "1.0", "access_token": "t"},
        {"slug": "new-one", "scm": "git"},
    ],
    ids=lambda sent: next(iter(sent)),
)  # fmt: skip
def test_what_clients_of_the_time_sent_is_taken(world: World, sent: dict[str, str]) -> None:
    """In a creation and in a fork."""
    form = {"name": "New one", **sent}
    assert world("POST", "repositories/", data=form).status_code == 200
    assert world("POST", "repositories/mcatalbas/codeigniter/fork", data=form).status_code == 200


@pytest.mark.parametrize("flag", ["True", "true", "1", "on", "yes", "TRUE"])
def test_true_is_understood_in_every_spelling(world: World, flag: str) -> None:
    """As clients of that time wrote it."""
    world("PUT", "repositories/jespern/django-piston", data={"is_private": flag})
    assert world.writer.calls[0][2] == RepositorySettings(is_private=True)


@pytest.mark.parametrize("flag", ["False", "false", "0", "off", ""])
def test_false_is_understood_in_every_spelling(world: World, flag: str) -> None:
    """An empty field is an unchecked box."""
    world("PUT", "repositories/jespern/django-piston", data={"no_forks": flag})
    assert world.writer.calls[0][2] == RepositorySettings(fork_policy="allow_forks")


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "x", "scm": "svn"}, "scm"),
        ({"name": "x", "is_private": "perhaps"}, "is_private"),
        ({"name": "x", "website": "h" * 2001}, "website"),
    ],
)
def test_a_wrong_form_names_the_field(world: World, form: dict[str, str], field: str) -> None:
    """400 before the upstream is asked."""
    answer = world("POST", "repositories/", data=form)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["message"], list(error["fields"])) == ("Bad Request", [field])
    assert error["detail"].startswith(f"{field}: This field")
    assert world.writer.calls == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"name=x", "", 200),
        (b'{"name": "x", "is_private": true, "scm": null}', "application/json", 200),
        (b"name=x", "application/x-www-form-urlencoded; charset=utf-8", 200),
        (b"name=x", "text/plain", 415),
        (b"--b\r\n", "multipart/form-data; boundary=b", 415),
        (b"[1]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", 400),
        (b'{"name": "x", "owner": {"uuid": "{somebody}"}}', "application/json", 400),
        (b"name=%FF%FE", "application/x-www-form-urlencoded", 400),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a=1" for _ in range(300)), "application/x-www-form-urlencoded", 400),
        (b"name=" + b"x" * LARGEST_BODY, "application/x-www-form-urlencoded", 413),
    ],
)
def test_bodies_are_read_within_limits(world: World, content: bytes, kind: str, status: int) -> None:
    """Wrong types, broken text, too many fields, too much of it."""
    headers = {**world.headers, **({"Content-Type": kind} if kind else {})}
    answer = world("POST", "repositories", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert (len(world.writer.calls) == 1) is (status == 200)


def test_the_first_of_two_equal_fields_counts(world: World) -> None:
    """One value, never a mixture."""
    world("POST", "repositories", content="name=first&name=second", headers={**world.headers, **FORM_TYPE})
    assert world.writer.calls[0][1] == "jespern/first"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UpstreamRefused("Repository already exists.", status=400), 400, "Repository already exists."),
        (UpstreamRefused("no", status=403), 403, "no"),
        (UpstreamRefused("gone", status=410), 410, "gone"),
        (UpstreamRefused("odd", status=302), 503, "odd"),
        (UpstreamRefused("odd", status=418), 400, "odd"),
        (UpstreamRefused("not here", status=501), 501, "not here"),
        (NotFound("no such owner"), 404, "no such owner"),
        (UpstreamBusy("time-out"), 503, "The upstream did not do it; nothing was changed."),
        (
            OutcomeUnknown("lost"),
            503,
            "It is not known whether the write was done; check before you repeat it.",
        ),
        (CredentialsRefused("bad token"), 503, "The upstream did not do it; nothing was changed."),
        (
            BudgetSpent("later", resumes_at=datetime(2026, 1, 1, tzinfo=UTC)),
            503,
            "The upstream did not do it; nothing was changed.",
        ),
    ],
)
def test_the_upstreams_message_is_passed_on(
    world: World, error: MirrorError, status: int, message: str
) -> None:
    """Refusals have the form of API 1.0; if the upstream was not asked, it is 503."""
    world.writer.error = error
    answer = world("POST", "repositories", data={"name": "x"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, message)


def test_a_broken_writer_is_an_error_without_details(world: World, capfd: Any) -> None:
    """An unexpected error is logged but not shown; the token appears in neither."""

    def broken(owner: str, settings: RepositorySettings, *, by: str, upstream: str = "") -> Repository:
        raise ZeroDivisionError("secret detail")

    world.writer.create = broken  # type: ignore[method-assign]
    answer = world("POST", "repositories", data={"name": "x"})
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    out, err = capfd.readouterr()
    assert world.tokens["write"] not in out + err


def test_a_private_repository_is_written_by_holders_and_unknown_ones_are_404(world: World) -> None:
    """Repositories are found as for reading."""
    assert world("PUT", "repositories/jespern/arriving", data={"description": "x"}).status_code == 200
    assert world("PUT", "repositories/jespern/unknown", data={"description": "x"}).status_code == 404


def test_a_broken_request_body_writes_nothing(world: World) -> None:
    """An incomplete body has no effect."""
    sent = list[dict[str, Any]]()

    async def hang_up() -> None:
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": b"name=x", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(key.lower().encode(), value.encode()) for key, value in world.headers.items()]
        scope = {
            "type": "http", "method": "POST", "path": "/1.0/repositories", "raw_path": b"/1.0/repositories",
            "query_string": b"", "headers": headers, "scheme": "http", "http_version": "1.1",
        }  # fmt: skip
        await world.served.datasette.app()(scope, receive, send)

    asyncio.run(hang_up())
    assert sent[0]["status"] == 400
    assert world.writer.calls == []


def test_enabling_writes_changes_no_read(world: World) -> None:
    """GET at the same addresses, and the methods that they list."""
    asked: AsgiClient = world.served
    assert asked.get("/1.0/repositories/jespern/django-piston").status_code == 200
    allowed = asked("OPTIONS", "/1.0/repositories/jespern/django-piston").headers["allow"]
    assert allowed == "GET, HEAD, PUT, DELETE, OPTIONS"
    assert asked.get("/1.0/repositories/jespern/django-piston/fork").status_code == 405
