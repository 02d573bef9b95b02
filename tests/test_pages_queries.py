"""The stored queries for cleaning up and for questions about the past, each on a filled file."""

from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient, bearer, client_of
from fixtures_db import LATER, FixtureDb, hg_ref, owner, repository

from mirror.store import tokens
from mirror.store.ledger import RequestLedger
from mirror.store.runs import finish_run, start_run
from mirror.times import to_text, utc_now

MAIN, PARENT, MERGE, APART = "a", "b", "c", "d"


@pytest.fixture
def ask(tmp_path: Path) -> "Ask":
    """A public mirror with merged and unmerged branches, and empty, gone and renamed repositories."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("old/work"), repository("old/bare"), repository("old/lost")], first=True)
    main = hg_ref("branch", "master", MAIN, target_parents=(PARENT * 40,))
    merge = hg_ref("tag", "1.0", MERGE, target_parents=(MAIN * 40, "e" * 40))
    merged = [
        hg_ref("branch", name, digit) for name, digit in (("same", MAIN), ("up", PARENT), ("in-tag", "e"))
    ]
    filled.refs("old/work", [main, merge, *merged, hg_ref("branch", "apart", APART)])
    filled.refs("old/bare", [])
    filled.repositories([repository("old/kept", uuid="{old/work}", description="now told")], at=LATER)
    filled.gone("old/lost")
    with filled.store.transaction() as connection:
        now = to_text(utc_now())
        run = start_run(connection, filled.upstream_id, "full", at=now)
        counts = {"requests": 40, "slept_seconds": 2.0}
        finish_run(connection, run, kind="full", state="complete", at=now, counts=counts, error=None)
    filled.repositories([repository("new/one", owner("new"))])
    filled.store.close()
    return Ask(client_of(tmp_path / "mirror.db"))


class Ask:
    """Asks a stored query by its name."""

    def __init__(self, served: AsgiClient, headers: dict[str, str] | None = None) -> None:
        self.served, self.headers = served, headers

    def __call__(self, query: str, /, **parameters: str) -> list[dict[str, Any]]:
        answer = self.served.get(
            f"/mirror/{query}.json", params={"_shape": "array", **parameters}, headers=self.headers
        )
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows


def test_merged_branches_as_far_as_heads_tell(ask: Ask) -> None:
    """The main branch's own commit, a parent of it, one merged by a tag; not main, nor unmerged ones."""
    rows = {row["branch"]: row["why"] for row in ask("merged_branches")}
    assert rows == {"same": "is the main branch", "up": "was merged", "in-tag": "was merged"}
    assert ask("merged_branches", days="36500") == []
    assert ask("merged_branches", owner="nobody") == []
    assert len(ask("merged_branches", owner="OLD")) == 3


def test_empty_repositories_have_read_refs_and_none(ask: Ask) -> None:
    """Unread ones are not called empty."""
    assert [row["full_name"] for row in ask("empty_repositories")] == ["old/bare"]


def test_gone_repositories_have_a_reason(ask: Ask) -> None:
    """With the time and the reason of a tombstone."""
    (row,) = ask("gone")
    assert (row["full_name"], row["gone_reason"]) == ("old/lost", "absent")
    assert ask("gone", owner="new") == []


def test_a_former_name_leads_to_the_present_one(ask: Ask) -> None:
    """By any part of the former name, in any case."""
    (row,) = ask("former_names", name="OLD/WO")
    assert (row["former_name"], row["full_name"]) == ("old/work", "old/kept")
    assert ask("former_names", name="kept") == []


def test_the_history_of_a_name_includes_former_names(ask: Ask) -> None:
    """With edits of the description, and the renaming."""
    kinds = {row["kind"]: row for row in ask("history_of_a_name", name="Old/Kept")}
    assert {"renamed", "updated"} <= set(kinds)
    assert "now told" in kinds["updated"]["new"]


def test_requests_are_counted_by_day(ask: Ask) -> None:
    """Requests and waits of runs within the given days."""
    (row,) = ask("requests_by_day")
    assert (row["upstream"], row["runs"], row["requests"], row["waited_seconds"]) == ("cloud", 1, 40, 2.0)
    assert ask("requests_by_day", days="-1") == []


def test_unread_repositories_are_least_fresh(ask: Ask) -> None:
    """They come before read ones; gone ones are left out."""
    names = [row["full_name"] for row in ask("least_fresh")]
    assert names[0] == "new/one"
    assert set(names) == {"new/one", "old/kept", "old/bare"}


def test_the_newest_tag_of_each_repository_is_found(tmp_path: Path) -> None:
    """Of one owner, by the tag's own date if it has one; Mercurial's tip does not count."""
    filled = FixtureDb(tmp_path / "mirror.db")
    filled.repositories([repository("ann/one"), repository("ann/none"), repository("bob/two")], first=True)
    tags = [hg_ref("tag", "1.0", "1"), hg_ref("tag", "0.9", "2", date="2026-05-01T00:00:00.000000Z")]
    filled.refs("ann/one", [*tags, hg_ref("tag", "tip", "3", target_date="2026-09-01T00:00:00.000000Z")])
    filled.refs("bob/two", [hg_ref("tag", "1.0", "1")])
    filled.store.close()
    (row,) = Ask(client_of(tmp_path / "mirror.db"))("newest_tags", owner="ANN")
    assert (row["full_name"], row["newest_tag"], row["tags"]) == ("ann/one", "0.9", 2)


def test_old_branches_and_old_forks_are_counted(tmp_path: Path) -> None:
    """Old branches are counted separately; a fork is older than its parent."""
    filled = FixtureDb(tmp_path / "mirror.db")
    parent = repository("ann/one", uuid="{one}", updated_at=to_text(utc_now()))
    fork = repository("bob/one", parent_uuid="{one}", parent_full_name="ann/one")
    filled.repositories([parent, fork], first=True)
    young = hg_ref("branch", "young", "2", target_date=to_text(utc_now()))
    filled.refs("ann/one", [hg_ref("branch", "master", "1"), young])
    filled.refs("bob/one", [hg_ref("branch", "master", "1")])
    filled.store.close()
    ask = Ask(client_of(tmp_path / "mirror.db"))
    counted = [(row["full_name"], row["branches"], row["old_branches"]) for row in ask("most_branches")]
    assert counted == [("ann/one", 2, 1), ("bob/one", 1, 1)]
    assert len(ask("most_branches", owner="bob")) == 1
    (behind,) = ask("forks_left_behind")
    assert (behind["full_name"], behind["parent"]) == ("bob/one", "ann/one")
    assert behind["days_behind"] > 365
    assert ask("forks_left_behind", days="36500") == []


def test_find_ranks_as_the_search_does(ask: Ask) -> None:
    """By any part of a name, or among one owner's repositories."""
    assert [row["full_name"] for row in ask("find", part="KEP")] == ["old/kept"]
    assert {row["full_name"] for row in ask("find", part="old/")} == {"old/kept", "old/bare"}
    assert ask("find", part="nowhere") == []


def test_edits_and_visibility_changes_are_listed(tmp_path: Path) -> None:
    """Former descriptions, and when a repository was made private or public."""
    filled = FixtureDb(tmp_path / "mirror.db")
    now = to_text(utc_now())
    filled.repositories([repository("ann/one")], first=True)
    filled.repositories([repository("ann/one", description="told")], at=now)
    filled.repositories([repository("ann/one", description="told", is_private=True)], at=now)
    filled.repositories([repository("ann/one", description="told")], at=now)
    token = tokens.create(filled.store, "reader", "read")
    filled.store.close()
    ask = Ask(client_of(tmp_path / "mirror.db"), bearer(token))
    (edit,) = ask("edits")
    assert (edit["full_name"], "told" in edit["after"]) == ("ann/one", True)
    assert ask("edits", days="-1") == []
    assert [row["kind"] for row in ask("shown_and_hidden")] == ["made_public", "made_private"]
    assert ask("shown_and_hidden", owner="bob") == []


def test_the_budget_and_the_cost_of_runs(ask: Ask, tmp_path: Path) -> None:
    """Requests of the rolling hour beside the limit, and those of each run."""
    filled = FixtureDb(tmp_path / "mirror.db")
    ledger = RequestLedger(filled.store)
    ledger.learn("token@api.example.com", 1000)
    for _ in range(3):
        ledger.reserve("token@api.example.com", None, utc_now())
    filled.store.close()
    (budget,) = ask("budget_of_the_hour")
    assert (budget["used"], budget["hourly_limit"], budget["left_over"]) == (3, 1000, 997)
    assert budget["first_returns_at"] > to_text(utc_now())
    (run,) = ask("cost_of_runs")
    assert (run["kind"], run["requests"], run["waited_seconds"]) == ("full", 40, 2.0)
