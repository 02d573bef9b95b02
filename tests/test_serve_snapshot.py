"""A published file beside a closed mirror: its tables and SQL are open, the mirror stays closed."""

from pathlib import Path

import pytest
from asgi_client import AsgiClient, bearer, client_of
from fixtures_db import SECRETS, SEEN, fill_mixed, fill_public, repository

from mirror.config import from_toml, read_config
from mirror.errors import ConfigError
from mirror.store import Store, tokens
from mirror.store.backup import Trust, back_up, restore_copy
from mirror.store.schema import mark_as_snapshot
from mirror.times import utc_now

META = "CREATE TABLE IF NOT EXISTS mirror_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
SQL = {"sql": "select full_name from repositories order by 1"}


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror that holds private rows."""
    fill_mixed(tmp_path / "mirror.db").store.close()
    return tmp_path / "mirror.db"


def published(mirror: Path, *more: str) -> Path:
    """Put a published file beside a mirror, in place of an earlier one."""
    work = mirror.with_name("work.db")
    work.unlink(missing_ok=True)
    filled = fill_public(work)
    filled.repositories([repository(name) for name in more])
    with filled.store.transaction() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS mirror_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
        )
        mark_as_snapshot(connection, SEEN)
    filled.store.close()
    return back_up(work, mirror.with_name("next.db")).replace(mirror.with_name("public.db"))


def serve(mirror: Path) -> AsgiClient:
    return client_of(mirror, public_snapshot=str(mirror.with_name("public.db")))


def test_everybody_queries_the_published_file(mirror: Path) -> None:
    """By SQL and tables; no answer has anything private, and the mirror stays closed."""
    published(mirror)
    served = serve(mirror)
    names = [row[0] for row in served.json("/public.json", params=SQL)["rows"]]
    assert "jespern/django-piston" in names
    answers = [
        served.get(path) for path in ("/public", "/public/repositories", "/public/changes.json", "/-/index")
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert not [secret for secret in SECRETS if any(secret in answer.content for answer in answers)]
    assert served.get("/mirror.json", params=SQL).status_code == 403
    assert served.get("/mirror/repositories.json").status_code == 403
    assert served.get("/2.0/repositories/jespern/django-piston").status_code == 200


def test_the_mirror_itself_is_still_served(mirror: Path) -> None:
    """APIs, pages and tokens are the mirror's; its tokens open the tables of both."""
    published(mirror)
    served = serve(mirror)
    with Store(mirror) as store:
        headers = bearer(tokens.create(store, "whole"))
    assert served.get("/2.0/repositories/jespern/arriving").status_code == 404
    assert served.get("/2.0/repositories/jespern/arriving", headers=headers).status_code == 200
    assert served.get("/mirror.json", params=SQL, headers=headers).status_code == 200
    assert served.get("/public.json", params=SQL, headers=headers).status_code == 200


def test_a_closed_page_links_to_the_open_one(mirror: Path) -> None:
    """With its age; its tables show their age in the footer."""
    published(mirror)
    served = serve(mirror)
    assert served.get("/2.0/repositories").status_code == 200
    closed = served.get("/mirror/repositories")
    assert closed.status_code == 403
    assert 'href="/public"' in closed.text
    assert "<time" in closed.text.partition("open to everybody")[0]


def test_a_file_that_is_published_later_is_attached(mirror: Path) -> None:
    """Without a restart; the next request reads a newer one."""
    served = serve(mirror)
    assert served.get("/public.json", params=SQL).status_code == 404
    published(mirror)
    before = served.json("/public.json", params=SQL)["rows"]
    published(mirror, "new/row")
    after = served.json("/public.json", params=SQL)["rows"]
    assert ["new/row"] in after
    assert ["new/row"] not in before


@pytest.mark.parametrize("there", ["a mirror", "text", "a folder"])
def test_another_file_is_not_attached(mirror: Path, there: str, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong file may contain anything: one log line says so."""
    path = mirror.with_name("public.db")
    if there == "a mirror":
        fill_public(path).store.close()
    elif there == "text":
        path.write_text("nothing of that sort")
    else:
        path.mkdir()
    served = serve(mirror)
    for _ in range(3):
        assert served.get("/public.json", params=SQL).status_code == 404
    assert len([one for one in caplog.records if "public_snapshot" in one.message]) == 1


def test_the_path_is_relative_to_the_configuration(tmp_path: Path) -> None:
    """To the folder of mirror.toml; the mirror itself is refused."""
    (tmp_path / "mirror.toml").write_text('[serve]\npublic_snapshot = "out/public.db"\n')
    assert read_config(tmp_path / "mirror.toml").serve.public_snapshot == str(tmp_path / "out/public.db")
    with pytest.raises(ConfigError, match="is the mirror itself"):
        from_toml('database = "a.db"\n[serve]\npublic_snapshot = "a.db"\n')


def test_a_published_file_is_not_restored(mirror: Path) -> None:
    """Private rows would be lost."""
    copy = published(mirror)
    before = mirror.read_bytes()
    with pytest.raises(ConfigError, match="a published file, without private rows"):
        restore_copy(copy, mirror, utc_now(), mode=0o600, trust=Trust(), limits={})
    assert mirror.read_bytes() == before


def test_a_published_file_offers_nothing_that_it_does_not_have(tmp_path: Path) -> None:
    """No page as of then, no requests and runs of the crawl; nobody has to log in."""
    served = client_of(published(tmp_path / "mirror.db", "new/row"))
    for path in ("/-/r/new/row", "/-/u/new"):
        page = served.get(path).text
        assert 'class="change' in page
        assert "at=20" not in page
    status = served.get("/-/mirror-status").text
    assert "A published file has no requests" in status
    assert "Contents of the mirror" in status
    assert not [title for title in ("budget", "Failures", "Last runs") if title in status]
    missing = served.get("/-/r/jespern/nowhere")
    assert missing.status_code == 404
    assert "A published snapshot" in missing.text
    assert "Log in" not in missing.text
