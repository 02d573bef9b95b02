"""The login for closed pages: whom it lets in, where it leads, when it ends."""

from contextlib import closing
from pathlib import Path

import pytest
from asgi_client import basic, bearer, client_of
from callers import MixedMirror
from fixtures_db import FixtureDb, fill_mixed

from mirror.queries.visibility import ANONYMOUS
from mirror.serve.auth import caller_of, login_cookie
from mirror.serve.guarded_database import mirrors
from mirror.serve.pages.datasette import local_path
from mirror.store import tokens


def test_a_login_ends_with_its_token(mixed: MixedMirror, mixed_db: FixtureDb) -> None:
    """Revoking the token of a login closes the tables to its cookie, and ends it for Datasette."""
    token = tokens.create(mixed_db.store, "browser", "read")
    served = client_of(mixed_db.path)
    refused = served("POST", "/-/mirror-login", data={"token": mixed.tokens["bad"]})
    assert (refused.status_code, refused.headers.get("set-cookie", "").count("ds_actor")) == (403, 0)
    answer = served("POST", "/-/mirror-login", data={"token": token, "next": "/mirror/users"})
    assert (answer.status_code, answer.headers["location"]) == (302, "/mirror/users")
    assert "HttpOnly" in answer.headers["set-cookie"]
    cookies = {"ds_actor": answer.cookies["ds_actor"].strip('"')}
    assert token not in str(answer.headers)
    assert served.get("/mirror/repositories.json", cookies=cookies).status_code == 200
    assert served.get("/-/actor.json", cookies=cookies).json()["actor"]["id"] == "browser"
    tokens.revoke(mixed_db.store, "browser")
    assert served.get("/mirror/repositories.json", cookies=cookies).status_code == 403
    assert served.get("/-/actor.json", cookies=cookies).json() == {"actor": None}
    mixed_db.store.close()


def test_a_foreign_page_cannot_log_anybody_in(mixed: MixedMirror) -> None:
    """With a cookie, the form requires its own CSRF token."""
    answer = mixed.served(
        "POST",
        "/-/mirror-login",
        data={"token": mixed.tokens["read"]},
        cookies={"ds_csrftoken": "x"},
    )
    assert answer.status_code == 403
    assert "ds_actor" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize(
    "address",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "evil", "javascript:alert(1)", "//["],
)
def test_a_login_redirects_to_this_site_only(address: str) -> None:
    """The next address is on this server."""
    assert local_path(address) == "/"


def test_a_partial_address_raises_no_error(tmp_path: Path) -> None:
    """Neither as the target of a login, nor in the Host header of a trusted request."""
    fill_mixed(tmp_path / "mirror.db")
    served = client_of(tmp_path / "mirror.db", trust_basic_user=True)
    assert served.get("/-/mirror-login?next=//[").status_code == 200
    for path in ("/1.0/user", "/mirror/repositories.json"):
        answer = served.get(path, headers={**basic("jespern", "x"), "Host": "["})
        assert answer.status_code == 401


def test_what_is_closed_says_how_to_open_it(mixed: MixedMirror) -> None:
    """People get the login form, programs get JSON."""
    page = mixed.served.get("/mirror/repositories")
    assert (page.status_code, "mirror token create" in page.text) == (403, True)
    answer = mixed.served.get("/mirror/repositories.json")
    assert (answer.status_code, answer.json()["status"]) == (403, 403)


def test_a_login_is_valid_for_its_file_only(tmp_path: Path) -> None:
    """In another file, the same token number may belong to somebody else."""
    path, newer = tmp_path / "mirror.db", tmp_path / "newer.db"
    first, second = fill_mixed(path), fill_mixed(newer)
    served = client_of(path)
    made = [tokens.create(db.store, name, "read") for db, name in ((first, "guest"), (second, "boss"))]
    with closing(first.store), closing(second.store):
        living = tokens.find(first.store.connection, made[0])
    assert living is not None
    (database,) = mirrors(served.datasette)
    cookies = {"ds_actor": login_cookie(served.datasette, database, living)}
    assert served.get("/mirror.json", cookies=cookies).status_code == 200
    newer.replace(path)
    for journal in ("mirror.db-wal", "mirror.db-shm"):
        (tmp_path / journal).unlink(missing_ok=True)
    assert served.get("/mirror.json", cookies=cookies).status_code == 403
    assert served.get("/1.0/repositories/jespern/arriving", cookies=cookies).status_code == 404


def test_a_token_called_root_is_not_the_root_of_datasette(mixed_db: FixtureDb) -> None:
    """Datasette knows its root by the name alone, and shows it what others asked for, and of whom."""
    token = tokens.create(mixed_db.store, "root", "read", user="jespern")
    mixed_db.store.close()
    served = client_of(mixed_db.path)
    for path in ("/-/permissions", "/_internal.json?sql=select+1"):
        statuses = [served.get(path, headers=headers).status_code for headers in (bearer(token), {})]
        assert statuses == [403, 403], path


def test_the_actor_of_one_mirror_is_a_stranger_on_another() -> None:
    """Ids of rows and scopes are of one file. The root of Datasette names none, and sees all files."""
    reader = {
        "id": "root",
        "mirror": "mirror",
        "mirror_user": "ann",
        "mirror_ids": [3],
        "mirror_scope": "read",
    }
    assert caller_of(reader, "other") is ANONYMOUS
    assert caller_of(reader, "mirror").user_ids == (3,)
    user = {key: value for key, value in reader.items() if key != "mirror_scope"}
    assert not caller_of(user, "mirror").sees_all
    assert caller_of({"id": "root"}, "other").sees_all
