"""The stored queries of whoever cleans up or asks what became of something, each on a filled file."""

from pathlib import Path
from typing import Any

import pytest
from filled import LATER, Filled, hg_ref, owner, repository
from served import Asking, asking

from mirror.store.runs import finish_run, start_run
from mirror.times import to_text, utc_now

MAIN, PARENT, MERGE, APART = "a", "b", "c", "d"


@pytest.fixture
def ask(tmp_path: Path) -> "Ask":
    """A public mirror with branches merged and not, something empty, something gone, something renamed."""
    filled = Filled(tmp_path / "mirror.db")
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
    return Ask(asking(tmp_path / "mirror.db"))


class Ask:
    """Asks a stored query by its name."""

    def __init__(self, served: Asking) -> None:
        self.served = served

    def __call__(self, query: str, /, **parameters: str) -> list[dict[str, Any]]:
        answer = self.served.get(f"/mirror/{query}.json", params={"_shape": "array", **parameters})
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows


def test_merged_branches_as_far_as_heads_tell(ask: Ask) -> None:
    """The main branch's own commit, a parent of it, what a tag merged; neither main nor what stands apart."""
    rows = {row["branch"]: row["why"] for row in ask("merged_branches")}
    assert rows == {"same": "is the main branch", "up": "was merged", "in-tag": "was merged"}
    assert ask("merged_branches", days="36500") == []
    assert ask("merged_branches", owner="nobody") == []
    assert len(ask("merged_branches", owner="OLD")) == 3


def test_empty_repositories_are_those_that_were_read_and_hold_nothing(ask: Ask) -> None:
    """What was never read is not called empty."""
    assert [row["full_name"] for row in ask("empty_repositories")] == ["old/bare"]


def test_gone_ones_come_with_the_reason(ask: Ask) -> None:
    """A tombstone tells when and why."""
    (row,) = ask("gone")
    assert (row["full_name"], row["gone_reason"]) == ("old/lost", "absent")
    assert ask("gone", owner="new") == []


def test_a_former_name_leads_to_the_present_one(ask: Ask) -> None:
    """By any part of the name then, in any case."""
    (row,) = ask("former_names", name="OLD/WO")
    assert (row["former_name"], row["full_name"]) == ("old/work", "old/kept")
    assert ask("former_names", name="kept") == []


def test_the_history_of_a_name_reaches_before_it_was_called_so(ask: Ask) -> None:
    """Edits of the description are there, and the renaming."""
    kinds = {row["kind"]: row for row in ask("history_of_a_name", name="Old/Kept")}
    assert {"renamed", "updated"} <= set(kinds)
    assert "now told" in kinds["updated"]["new"]


def test_requests_are_counted_by_day(ask: Ask) -> None:
    """Requests and waits of the runs, within the days asked for."""
    (row,) = ask("requests_by_day")
    assert (row["upstream"], row["runs"], row["requests"], row["waited_seconds"]) == ("cloud", 1, 40, 2.0)
    assert ask("requests_by_day", days="-1") == []


def test_what_was_never_read_is_least_fresh(ask: Ask) -> None:
    """It comes before what was read, and gone ones are left out."""
    names = [row["full_name"] for row in ask("least_fresh")]
    assert names[0] == "new/one"
    assert set(names) == {"new/one", "old/kept", "old/bare"}
