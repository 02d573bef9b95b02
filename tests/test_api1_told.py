"""API 1.0 serves everything that a server of API 1.0 sent: parents, revisions, branches, files, switches."""

import json
from pathlib import Path
from typing import Any

import pytest
from asgi_client import bearer, client_of
from fixtures_db import SEEN, FixtureDb
from upstream_fakes import answer, faked

from mirror.model import RepositoryKey
from mirror.store import tokens
from mirror.store.refs import save_refs

CHANGESET = {
    "node": "a" * 12, "raw_node": "a" * 40, "author": "tksoh", "raw_author": "TK Soh <tk@example.com>",
    "timestamp": "2010-07-20 14:00:00", "utctimestamp": "2010-07-20 12:00:00+00:00", "message": "m",
    "parents": ["b" * 12], "branch": "stable", "revision": 1234, "size": -1,
    "files": [{"type": "added", "file": "a.py"}], "note": "planted-secret",
}  # fmt: skip
REPOSITORY = {
    "owner": "tortoisehg", "slug": "thg", "name": "thg", "scm": "hg", "is_private": False, "no_forks": None,
    "no_public_forks": None, "created_on": "2012-01-13T15:50:24.609", "last_updated": "2012-02-20 22:29:16",
    "utc_created_on": "2012-01-13 14:50:24+00:00", "utc_last_updated": "2012-02-20 21:29:16+00:00",
    "email_writers": False, "note": "planted-secret",
}  # fmt: skip


def crawled(path: Path, *, anonymous: bool) -> FixtureDb:
    """A mirror of a server of API 1.0."""
    filled = FixtureDb(path)
    filled.store.save_upstream("cloud", "legacy", "http://old.example/1.0")
    options: Any = {"kind": "legacy", "url": "http://old.example/1.0"}
    options |= {} if anonymous else {"credential": "me:password"}
    user = {"user": {"username": "tortoisehg"}, "repositories": [REPOSITORY]}
    upstream = faked(
        answer(user), answer({"stable": CHANGESET}), answer({"0.9": CHANGESET}), **options
    ).upstream
    filled.repositories(upstream.fetch_repositories("tortoisehg", "created", None).rows, first=True)
    key = RepositoryKey(uuid="", full_name="tortoisehg/thg")
    refs = [*upstream.fetch_refs(key, None).rows, *upstream.fetch_refs(key, "tags").rows]
    with filled.store.transaction() as connection:
        row_id = filled.id_of("tortoisehg/thg")
        save_refs(connection, row_id, refs, seen_at=SEEN)
    return filled


@pytest.mark.parametrize("anonymous", [True, False], ids=["anonymous", "authenticated"])
def test_an_api_1_upstream_is_served_without_loss(tmp_path: Path, *, anonymous: bool) -> None:
    """Every key unchanged; strangers get unknown keys only after a crawl without a credential."""
    filled = crawled(tmp_path / "mirror.db", anonymous=anonymous)
    secret = bearer(tokens.create(filled.store, "reader", "read"))
    filled.store.close()
    client = client_of(filled.path)
    for path, name in (("branches", "stable"), ("tags", "0.9")):
        found = client.json(f"/1.0/repositories/tortoisehg/thg/{path}", headers=secret)[name]
        assert {key: found[key] for key in CHANGESET} == CHANGESET
        shown = client.json(f"/1.0/repositories/tortoisehg/thg/{path}")[name]
        known = {key: value for key, value in CHANGESET.items() if key != "note"}
        assert {key: shown[key] for key in known} == known
        assert ("note" in shown) is anonymous
    expected = {**REPOSITORY, "last_updated": "2012-02-20T22:29:16.000"}
    one = client.json("/1.0/repositories/tortoisehg/thg", headers=secret)
    assert {key: one[key] for key in expected} == expected
    assert client.json("/1.0/users/tortoisehg", headers=secret)["repositories"] == [one]
    assert ("planted" in json.dumps(client.json("/1.0/repositories/tortoisehg"))) is anonymous
    assert "planted" not in client.get("/2.0/repositories/tortoisehg/thg/refs", headers=secret).text
