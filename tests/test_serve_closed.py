"""SQL of visitors never reads who holds tokens or who wrote what, on public mirrors either."""

from pathlib import Path

import pytest
from filled import fill_public
from served import Asking, bearer

from mirror.config import ServeConfig
from mirror.serve import tokens
from mirror.serve.app import build


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
def test_the_tables_are_closed_to_sql(tmp_path: Path, sql: str) -> None:
    """Anybody may run SQL on a public mirror, and a token holder on any; neither reads these."""
    filled = fill_public(tmp_path / "mirror.db")
    token = tokens.create(filled.store, "sesame", "read")
    asking = Asking(build(tmp_path / "mirror.db", ServeConfig()))
    assert asking.get("/mirror.json", params={"sql": "select 1"}).status_code == 200
    for headers in ({}, bearer(token)):
        answer = asking.get("/mirror.json", params={"sql": sql, "_shape": "array"}, headers=headers)
        assert answer.status_code == 400
        assert "prohibited" in answer.text or "not authorized" in answer.text
        assert "sesame" not in answer.text


def test_tokens_still_open_the_mirror(tmp_path: Path) -> None:
    """The mirror's own look-ups read what visitors may not."""
    filled = fill_public(tmp_path / "mirror.db")
    token = tokens.create(filled.store, "sesame", "read", user="jespern")
    asking = Asking(build(tmp_path / "mirror.db", ServeConfig()))
    assert asking.get("/1.0/user", headers=bearer(token)).status_code == 200
    assert asking.get("/1.0/user").status_code == 401
