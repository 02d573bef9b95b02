"""The stored queries, each on a filled file: the right rows, no gone ones, limited work."""

import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from asgi_client import AsgiClient, bearer, client_of, make_tokens
from fixtures_db import PUBLIC, FixtureDb, fill_many, hg_ref, repository

from mirror.search import register
from mirror.serve.sql_access import Reach, functions_of, restrict
from mirror.serve.sql_limits import BoundedConnection
from mirror.serve.stored_queries import QUERIES
from mirror.times import to_text, utc_now

ROWS, STEPS_OF_A_ROW = 10_000, 40


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of many repositories, each with a branch and two tags."""
    path = tmp_path_factory.mktemp("many") / "mirror.db"
    fill_many(path, ROWS, tags=2).store.close()
    return path


@pytest.fixture
def questions(public_db: FixtureDb) -> "Questions":
    """A mirror with results for each query, each with a gone twin."""
    public_db.repositories([repository("gone/stale", size=10**12, is_private=True), repository("gone/open")])
    public_db.repositories([repository("mcatalbas/hidden", is_private=True)])
    public_db.refs("gone/stale", [hg_ref("branch", "old", "1"), hg_ref("tag", "0.2.1", "1")])
    public_db.refs("gone/stale", [hg_ref("branch", "old", "1"), hg_ref("tag", "0.2.1", "2")])
    for name in ("mcatalbas/codeigniter", "dchambers/django-piston"):
        public_db.refs(name, [hg_ref("branch", "master", "3"), hg_ref("branch", "old", "4")])
    public_db.refs("dchambers/django-piston", [hg_ref("branch", "master", "3"), hg_ref("tag", "1.0", "5")])
    public_db.refs("dchambers/django-piston", [hg_ref("branch", "master", "3"), hg_ref("tag", "1.0", "6")])
    public_db.repositories([PUBLIC[3]], at=to_text(utc_now()))
    public_db.failure("gone/open")
    for gone in ("gone/stale", "gone/open"):
        public_db.gone(gone, at="2026-11-03T00:00:00.000000Z")
    public_db.failure("mcatalbas/codeigniter")
    token = make_tokens(public_db.store)["read"]
    return Questions(public_db, client_of(public_db.path), token)


class Questions:
    """Asks stored queries by name."""

    def __init__(self, filled: FixtureDb, served: AsgiClient, token: str) -> None:
        self.filled, self.served, self.token = filled, served, token

    def __call__(self, query: str, /, **parameters: str) -> list[dict[str, Any]]:
        answer = self.served.get(
            f"/mirror/{query}.json", params={"_shape": "array", **parameters}, headers=bearer(self.token)
        )
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        assert not any("gone/" in str(row) for row in rows if row.get("kind") != "deleted")
        return rows


def test_stale_repositories_are_found_by_days_and_owner(questions: Questions) -> None:
    """Without updates for long, of all owners or of one."""
    questions.filled.store.connection.execute(
        "UPDATE repositories SET updated_at = ? WHERE full_name = 'dchambers/django-piston'",
        [to_text(utc_now())],
    )
    names = [row["full_name"] for row in questions("stale")]
    assert "jespern/django-piston" in names
    assert "dchambers/django-piston" not in names
    assert [row["full_name"] for row in questions("stale", owner="JESPERN")] == ["jespern/django-piston"]
    assert questions("stale", days="36500") == []


def test_stale_branches_leave_the_main_branch_out(questions: Questions) -> None:
    """An old main branch means an old repository, which another query lists."""
    rows = questions("stale_branches")
    assert [(row["full_name"], row["branch"]) for row in rows] == [("mcatalbas/codeigniter", "old")]


def test_common_languages_and_large_repositories_come_first(questions: Questions) -> None:
    """The most common languages, the largest repositories."""
    assert {row["language"]: row["repositories"] for row in questions("languages_used")} == {
        "(not said)": 4,
        "php": 1,
        "python": 1,
    }
    assert questions("biggest")[0]["full_name"] == "jespern/django-piston"
    assert len(questions("biggest", owner="mcatalbas")) == 2


def test_tags_of_a_name_takes_a_full_name_or_a_slug(questions: Questions) -> None:
    """One repository's tags, or those of every repository called so."""
    one = [row["tag"] for row in questions("tags_of_a_name", name="Jespern/Django-Piston")]
    assert one[0] == "0.2.2"
    assert sorted(one) == ["0.2.1", "0.2.2", "0.2.3", "tip"]
    both = {row["full_name"] for row in questions("tags_of_a_name", name="django-piston")}
    assert both == {"jespern/django-piston", "dchambers/django-piston"}
    assert questions("tags_of_a_name") == []


def test_who_has_a_tag(questions: Questions) -> None:
    """By the tag's whole name."""
    assert [row["full_name"] for row in questions("repositories_with_tag", tag="0.2.1")] == [
        "jespern/django-piston"
    ]


def test_changes_of_a_week_are_listed(questions: Questions) -> None:
    """Only recent changes, with names instead of numbers."""
    assert questions("changed_this_week") == []
    kinds = {row["kind"] for row in questions("changed_this_week", days="36500")}
    assert {"created", "tag_moved", "deleted"} <= kinds


def test_a_pseudo_tag_is_no_tag(questions: Questions) -> None:
    """Mercurial's tip is no tag; unread repositories are not listed."""
    questions.filled.store.connection.execute(
        "UPDATE repositories SET refs_synced_at = NULL WHERE full_name = 'ubernostrum/django-registration'"
    )
    assert [row["full_name"] for row in questions("without_tags")] == ["mcatalbas/codeigniter"]


def test_gone_repositories_take_no_place_among_those_with_most_branches(questions: Questions) -> None:
    """Most first, with the old ones among them; gone repositories take no place."""
    names = [(row["full_name"], row["branches"]) for row in questions("most_branches")]
    assert [count for _, count in names] == sorted((count for _, count in names), reverse=True)
    assert ("mcatalbas/codeigniter", 2) in names
    assert questions("most_branches", owner="MCATALBAS") == [
        {"full_name": "mcatalbas/codeigniter", "branches": 2, "old_branches": ANY, "updated_at": ANY}
    ]


def test_names_under_many_owners(questions: Questions) -> None:
    """The same slug under several owners, forks counted."""
    (row,) = questions("names_under_many_owners")
    assert (row["slug"], row["owners"], row["forks"]) == ("django-piston", 2, 1)


def test_sizes_whose_sum_is_too_large_are_summed(questions: Questions) -> None:
    """An upstream may send any number that SQLite can hold."""
    huge = [repository(f"huge/{name}", language="go", size=2**63 - 1) for name in "abc"]
    questions.filled.repositories(huge)
    (owner,) = [row for row in questions("who_owns_most") if row["owner"] == "huge"]
    (language,) = [row for row in questions("languages_used") if row["language"] == "go"]
    assert (owner["bytes"], language["bytes"]) == (2**63 - 1, 2**63 - 1)
    assert questions.served.get("/-/u/huge", headers=bearer(questions.token)).status_code == 200


def test_owners_of_both_kinds_and_of_most_are_found(questions: Questions) -> None:
    """Owners of both kinds, and owners with the most repositories."""
    (mixed,) = questions("private_among_public")
    assert (mixed["full_name"], mixed["public_of_owner"]) == ("mcatalbas/hidden", 1)
    first = questions("who_owns_most")[0]
    assert (first["owner"], first["repositories"], first["private"]) == ("mcatalbas", 2, 1)


def test_moved_tags_and_pending_failures_are_found(questions: Questions) -> None:
    """Tags to ask somebody about, and what the crawl will retry."""
    (moved,) = questions("tags_that_moved")
    assert (moved["full_name"], moved["tag"], moved["new_hash"]) == (
        "dchambers/django-piston",
        "1.0",
        "6" * 40,
    )
    (failure,) = questions("failures_waiting")
    assert (failure["subject"], failure["status"]) == ("mcatalbas/codeigniter", 500)


def test_every_query_has_a_title_a_description_and_a_page(questions: Questions) -> None:
    """The list is for people who write no SQL."""
    page = questions.served.get("/mirror", headers=bearer(questions.token)).text
    for name, query in QUERIES.items():
        assert query.title in page, name
        assert len(query.description) > 20, name
        assert questions.served.get(f"/mirror/{name}", headers=bearer(questions.token)).status_code == 200


@pytest.mark.parametrize("reach", [Reach.PUBLIC, Reach.EVERYTHING])
def test_no_query_takes_more_steps_than_needed(many: Path, reach: Reach) -> None:
    """By SQLite's step count, no query compares rows with rows, or looks up the owner of every row."""
    connection = sqlite3.connect(many, factory=BoundedConnection)
    register(connection)
    restrict(connection, reach, functions_of(connection))
    for name, query in QUERIES.items():
        steps = [0]

        def count(steps: list[int] = steps) -> None:
            steps[0] += 1

        connection.set_progress_handler(count, 1000)
        values = dict.fromkeys(query.parameters, "") | dict.fromkeys(query.needs, "project-7")
        values |= {"tag": "v1.0", "owner": "owner7"} if query.needs else {}
        connection.execute(query.sql, values).fetchall()
        assert steps[0] <= STEPS_OF_A_ROW * ROWS / 1000, name
    connection.close()


def test_no_two_questions_have_the_same_title() -> None:
    """In the list of a database's stored queries, only the title tells them apart."""
    titles = [question.title for question in QUERIES.values()]
    assert sorted(set(titles)) == sorted(titles)
