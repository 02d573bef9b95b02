"""What a search finds, in which order, and for whom."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from search_oracle import Playground, naive

from mirror.queries.rows import LISTED
from mirror.queries.search import find_repositories
from mirror.queries.visibility import OPERATOR
from mirror.search import SearchResult, search
from mirror.store.files import open_reader

ROWS: list[tuple[str, dict[str, Any]]] = [
    ("django", {"followers_count": 3}),
    ("Django", {"followers_count": 9, "owner_id": 2}),
    ("django-cms", {"followers_count": 50, "forks_count": 1, "language": "python"}),
    ("a-django-app", {"followers_count": 90, "scm": "hg", "parent_full_name": "ann/django"}),
    ("Secret Django", {"slug": "secret-django", "is_private": 1, "owner_id": 3}),
    ("old-django", {"deleted_at": "2026-01-01T00:00:00.000000Z"}),
    ("Straße", {"slug": "strasse-app", "owner_id": 4}),
    ("dotfiles", {"owner_id": 5}),
]
"""What is in the mirror: a name, and what differs from a plain repository; ids begin with 1."""


@pytest.fixture(params=["scanned", "indexed", "pending"])
def mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Playground:
    """A small mirror whose rows are not indexed, indexed, or indexed as they were before."""
    playground = Playground(tmp_path / "mirror.db")
    before = request.param == "pending"
    for name, said in ROWS:
        playground.add(f"was {name}" if before else name, **{"slug": "x" if before else name, **said})
    if request.param != "scanned":
        playground.store.finish_search_index()
    if before:
        for row_id, (name, said) in enumerate(ROWS, 1):
            playground.change(row_id, name=name, slug=said.get("slug", name))
    return playground


def names(found: SearchResult) -> list[str]:
    """Return the names on a page, in order."""
    return [ROWS[row_id - 1][0] for row_id in found.ids]


def test_exact_names_come_first_then_prefixes_then_the_others(mirror: Playground) -> None:
    """Within each class the most followed comes first. Case makes no difference."""
    found = search(mirror.connection, "DJANGO")
    assert names(found) == ["Django", "django", "django-cms", "a-django-app", "Secret Django"]
    assert found.count == 5
    assert not found.fuzzy


def test_hidden_repositories_are_neither_listed_nor_counted(mirror: Playground) -> None:
    """Not even the count reveals a private repository."""
    found = search(mirror.connection, "django", visible_private=False)
    assert found.count == 4
    assert "Secret Django" not in names(found)
    assert search(mirror.connection, "secret", visible_private=False, private=True).count == 0
    assert search(mirror.connection, "secert", visible_private=False) == search(
        mirror.connection, "secert", visible_private=False, fuzzy=False
    )


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"owner": "BOB"}, ["Django"]),
        ({"scm": "hg"}, ["a-django-app"]),
        ({"language": "Python"}, ["django-cms"]),
        ({"private": True}, ["Secret Django"]),
        ({"private": False, "forks": False}, ["Django", "django", "django-cms"]),
        ({"forks": True}, ["a-django-app"]),
        ({"gone": True, "offset": 5}, ["old-django"]),
        ({"limit": 2, "offset": 1}, ["django", "django-cms"]),
        ({"owner": "nobody"}, []),
    ],
)
def test_filters_apply_to_lists_and_counts(
    mirror: Playground, filters: dict[str, object], expected: list[str]
) -> None:
    """Alone and with pages."""
    assert names(search(mirror.connection, "django", **filters)) == expected  # type: ignore[arg-type]


def test_a_slash_searches_among_owners_by_prefix(mirror: Playground) -> None:
    """Without a part, all their repositories are listed."""
    assert names(search(mirror.connection, "bo/django")) == ["Django"]
    assert names(search(mirror.connection, "É/")) == ["Straße"]
    assert names(search(mirror.connection, "an/secret")) == ["Secret Django"]
    assert search(mirror.connection, "nobody/django", fuzzy=False).count == 0


def test_an_exact_owner_name_selects_this_owner_alone(mirror: Playground) -> None:
    """Even if none of their repositories match; `an` begins both, `ann` is one and begins `annie`."""
    assert search(mirror.connection, "an/").count == search(mirror.connection, "ann/").count + 1
    assert search(mirror.connection, "ANN/secret", fuzzy=False).count == 0
    assert search(mirror.connection, "bob/", owner="ann").count == 0
    assert search(mirror.connection, "an/", owner="annie").count == 1


def test_an_owner_of_hidden_repositories_alone_changes_no_answer(mirror: Playground) -> None:
    """A caller who may not know `ann` gets owners that begin with it; others get only hers."""
    mirror.store.connection.execute("UPDATE repositories SET is_private = 1 WHERE owner_id = 1")
    other = mirror.add("annies", owner_id=3)
    others = {"visible_private": False, "fuzzy": False}
    assert search(mirror.connection, "ann/", **others).ids == [other]  # type: ignore[arg-type]
    assert other not in search(mirror.connection, "ann/").ids
    own = search(mirror.connection, "ann/", visible_private=False, private_of=(1,), fuzzy=False)
    assert own.count == 3


def test_name_and_slug_are_both_searched_and_a_repository_is_one_entry(mirror: Playground) -> None:
    """ß is compared as ss. The better match of the two counts."""
    for query in ("straße", "STRASSE", "strasse-app", "app"):
        assert names(search(mirror.connection, query))[-1] == "Straße"
    assert search(mirror.connection, "strasse").count == 1
    assert search(mirror.connection, "Secret  Django").count == 1


def test_an_empty_query_lists_everything_by_popularity(mirror: Playground) -> None:
    """With private ones if the caller may see them, without gone ones."""
    found = search(mirror.connection, "")
    assert (found.count, names(found)[0]) == (7, "a-django-app")


@pytest.mark.parametrize(
    "query", ["\0", "dj\0ango", "\ud800", "x\udfff", "é" * 10_000, "/", "//", "%_*?[", '"', "'"]
)
def test_every_query_is_valid(mirror: Playground, query: str) -> None:
    """NUL, lone surrogates, wildcards and ten thousand letters are plain text."""
    if query.isprintable():
        assert search(mirror.connection, query, fuzzy=False).count == naive(mirror.connection, query)[0]
    else:
        assert search(mirror.connection, query, fuzzy=False).ids == []


def test_negative_limits_are_zero(mirror: Playground) -> None:
    """The count is still exact."""
    found = search(mirror.connection, "django", limit=-1, offset=-5)
    assert (found.count, found.ids) == (5, [])


def test_a_result_holds_what_a_list_shows(mirror: Playground) -> None:
    """The owner is the namespace, the rest are columns."""
    (row,) = find_repositories(mirror.connection, OPERATOR, "dotfiles").repositories
    assert (row.owner, row.slug, row.scm, row.is_private) == ("ann", "dotfiles", "git", 0)
    assert {"id", "full_name", "description", "website", "language", "deleted_at", "updated_at"} < set(LISTED)


def test_any_read_only_connection_works(mirror: Playground) -> None:
    """With any row factory, also while another connection writes."""
    with open_reader(mirror.store.path) as reader:
        mirror.connection.execute("BEGIN IMMEDIATE")
        mirror.connection.execute("UPDATE repositories SET is_private = 1")
        assert search(reader, "django", visible_private=False).count == 4
        mirror.connection.execute("ROLLBACK")
    reader.close()
    plain = sqlite3.connect(f"file:{mirror.store.path}?mode=ro", uri=True)
    assert names(search(plain, "dotfiles")) == ["dotfiles"]
    plain.close()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("dotflies", "dotfiles"), ("dotfile5", "dotfiles"), ("otfilse", "dotfiles"), ("djnago", "django")],
)
def test_one_or_two_typing_errors_are_corrected_when_nothing_matches(
    mirror: Playground, typed: str, meant: str
) -> None:
    """The answer says so."""
    if mirror.store.row("SELECT count(*) FROM search_pending")[0]:
        mirror.store.finish_search_index()  # until then, what is pending is found as it is written
    found = search(mirror.connection, typed)
    assert (found.fuzzy, found.corrected) == (True, (meant,))
    assert found.count == search(mirror.connection, meant).count > 0
    assert search(mirror.connection, typed, fuzzy=False).count == 0


def test_an_exact_name_is_not_corrected_even_on_request(mirror: Playground) -> None:
    """`fuzzy=True` corrects only queries that are no repository's name."""
    assert not search(mirror.connection, "dotfiles", fuzzy=True).fuzzy
    assert not search(mirror.connection, "qqqqqqqqqq", fuzzy=True).fuzzy
