"""The number of forks is the same everywhere, without those that the caller may not see."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from fixtures_db import FixtureDb, owner, repository

from mirror.queries.search import find_repositories
from mirror.queries.visibility import ANONYMOUS
from mirror.store import Store

PARENT = repository("ann/tool", forks_count=3, updated_at="2026-10-30T10:00:00.000000Z")
FORKS = {"bob/tool": False, "jespern/tool": True, "brodie/tool": True}


def _filled(path: Path) -> FixtureDb:
    filled = FixtureDb(path)
    fork: dict[str, Any] = {"parent_uuid": PARENT.uuid, "parent_full_name": PARENT.full_name}
    rows = [repository(name, is_private=private, **fork) for name, private in FORKS.items()]
    filled.repositories([PARENT, repository("ann/alone", forks_count=0), *rows], first=True)
    return filled


def _counts(served: AsgiClient, **how: Any) -> dict[str, int]:
    """Read the parent's number of forks wherever it is shown."""
    table = csv.DictReader(io.StringIO(served.get("/-/search.csv?q=tool&owner=ann", **how).text))
    (found,) = served.json("/-/search.json?q=tool&owner=ann", **how)["repositories"]
    pages = {path: served.get(path, **how).text for path in ("/-/search?q=tool&owner=ann", "/")}
    listed = served.json("/1.0/repositories/ann", **how)
    return {
        "2.0": served.json("/2.0/repositories/ann/tool", **how)["forks_count"],
        "1.0": served.json("/1.0/repositories/ann/tool", **how)["forks_count"],
        "1.0, listed": next(one for one in listed if one["slug"] == "tool")["forks_count"],
        "1.0, of a fork": served.json("/1.0/repositories/bob/tool", **how)["fork_of"]["forks_count"],
        "search.json": found["forks_count"],
        "search.csv": int(next(table)["forks_count"]),
        **{path: int(re.findall(r"<span>(\d+) forks?</span>", page)[0]) for path, page in pages.items()},
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A repository with a public fork and two private ones."""
    filled = _filled(tmp_path / "mirror.db")
    filled.members(owner("brodie"), (owner("mcatalbas"),))
    filled.store.close()
    return tmp_path / "mirror.db"


def test_strangers_see_public_forks_only(path: Path) -> None:
    """In both APIs, in searches, on pages; a token shows the upstream's number."""
    with Store(path) as store:
        token = make_tokens(store)["read"]
    served = client_of(path)
    assert set(_counts(served).values()) == {1}
    assert set(_counts(served, headers=bearer(token)).values()) == {3}


def test_a_trusted_user_counts_own_forks(path: Path) -> None:
    """As owner and as member, wherever the number is shown."""
    served = client_of(path, trust_basic_user=True)
    for user in ("jespern", "mcatalbas"):
        counts = _counts(served, headers=basic(user, "any"))
        assert set(counts.values()) == {2}


def test_a_gone_fork_changes_no_count(path: Path, tmp_path: Path) -> None:
    """The upstream does not count it any more; a number is never negative."""
    filled = _filled(tmp_path / "other.db")
    filled.gone("jespern/tool")
    assert _told(filled) == 2
    filled.repositories([repository("ann/tool", forks_count=0)])
    assert _told(filled) == 0
    filled.repositories([repository("eve/tool", parent_uuid=PARENT.uuid, is_private=True)])
    filled.repositories([repository("ann/tool", forks_count=1)])
    assert _told(filled) == 0
    filled.store.close()


def _told(filled: FixtureDb) -> int | None:
    found = find_repositories(filled.store.connection, ANONYMOUS, "tool", owner="ann")
    return found.repositories[0].forks_count
