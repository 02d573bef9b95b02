"""Visitors' SQL never reads who holds tokens or who wrote what, on public mirrors either."""

from pathlib import Path

import pytest
from asgi_client import AsgiClient, bearer
from fixtures_db import FixtureDb

from mirror.config import ServeConfig
from mirror.serve.server import build
from mirror.store import tokens

SHOWN = ("full_name", "id")


@pytest.mark.parametrize(
    "sql",
    [
        "select * from api_tokens",
        "select count(*) from API_TOKENS",
        'select token_hash from "api_tokens"',
        "with t as (select name from api_tokens) select * from t",
        "select full_name, (select name from api_tokens) from repositories",
        "select * from writes",
        "select r.id from repositories r where exists (select 1 from writes)",
    ],
)
def test_closed_tables_are_refused_in_sql(public_db: FixtureDb, sql: str) -> None:
    """Strangers on a public mirror, and token holders on any mirror, cannot read them."""
    token = tokens.create(public_db.store, "sesame", "read")
    client = AsgiClient(build(public_db.path, ServeConfig()))
    assert client.get("/mirror.json", params={"sql": "select 1"}).status_code == 200
    for headers in ({}, bearer(token)):
        answer = client.get("/mirror.json", params={"sql": sql, "_shape": "array"}, headers=headers)
        assert answer.status_code == 200
        told = {value for row in answer.json() for name, value in row.items() if name not in SHOWN}
        assert told <= {None, 0, 1}
        assert "sesame" not in answer.text
        assert tokens.hashed(token) not in answer.text


def test_row_pages_with_closed_references_still_answer(public_path: Path) -> None:
    """Datasette counts rows of every table that refers to the shown one, closed ones included."""
    client = AsgiClient(build(public_path, ServeConfig()))
    for path in ("/mirror/repositories/1", "/mirror/users/1", "/mirror/upstreams/1", "/mirror"):
        assert client.get(path).status_code == 200, path


def test_pages_of_closed_tables_are_empty(public_db: FixtureDb) -> None:
    """For token holders, also with columns named like SQL keywords."""
    token = tokens.create(public_db.store, "sesame", "read")
    public_db.store.close()
    client = AsgiClient(build(public_db.path, ServeConfig()))
    for table in ("writes", "api_tokens", "webhook_deliveries"):
        page = client.get(f"/mirror/{table}", headers=bearer(token))
        assert (page.status_code, tokens.hashed(token) in page.text) == (200, False), table


def test_prepared_statements_are_not_shared_between_visitors(public_db: FixtureDb) -> None:
    """Statements are cached by text: the same text of another visitor changes nothing."""
    token = tokens.create(public_db.store, "sesame", "read", user="jespern")
    public_db.store.close()
    client = AsgiClient(build(public_db.path, ServeConfig()))
    guess = f"{tokens._LIVING} t.token_hash = ?"
    text = guess.replace("= ?", f"= '{tokens.hashed(token)}'").replace("> ?", "> ''")
    for _ in range(8):  # each of the reading threads
        assert "sesame" not in client.get("/mirror.json", params={"sql": text}).text
        assert client.get("/1.0/user", headers=bearer(token)).status_code == 200


def test_a_token_opens_the_closed_tables(public_db: FixtureDb) -> None:
    """The mirror's own queries read what visitors may not."""
    token = tokens.create(public_db.store, "sesame", "read", user="jespern")
    client = AsgiClient(build(public_db.path, ServeConfig()))
    assert client.get("/1.0/user", headers=bearer(token)).status_code == 200
    assert client.get("/1.0/user").status_code == 401
