"""What a search for refs means, and that its index is kept, checked and rebuilt."""

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient
from click.testing import CliRunner
from datasette.app import Datasette
from refs_oracle import RefPlayground, naive

from mirror.cli.main import mirror as mirror_command
from mirror.model import Ref
from mirror.queries.search import COMMITS_NOT_SEARCHED, SOME_UNREAD, find_refs
from mirror.queries.visibility import ANONYMOUS, OPERATOR, Caller
from mirror.search.index.refs import layout
from mirror.search.index.refs.changes import FLUSH_FROM, apply_refs_backlog, rebuild_refs_index
from mirror.search.index.refs.layout import Sizes, order_of, pack_numbers
from mirror.search.index.refs.verify import check_refs_index
from mirror.search.refs.find import register_refs, search_refs
from mirror.search.refs.reader import Chunk, page_of
from mirror.store.refs import save_refs
from mirror.store.repair import check_file
from mirror.store.schema import HIDDEN

OLD, NEW = "2015-01-01T00:00:00.000000Z", "2025-01-01T00:00:00.000000Z"
HASH = "1a2b3c4d5e" + "0" * 30


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[RefPlayground]:
    """Three living repositories, the second one private."""
    made = RefPlayground(tmp_path / "mirror.db")
    with made.store:
        for number, owner in enumerate((1, 2, 2)):
            made.add(f"tool-{number}", owner_id=owner, is_private=number == 1)
        yield made


def found(mirror: RefPlayground, query: str, **asked: Any) -> list[tuple[int, str]]:
    """Search as the operator; return repositories and names."""
    return [(ref.repository, ref.name) for ref in search_refs(mirror.connection, query, **asked).refs]


def index(mirror: RefPlayground) -> None:
    """Build the index."""
    mirror.store.finish_search_index()


@pytest.mark.parametrize("is_indexed", [False, True])
def test_results_are_ranked_by_match_then_by_age(mirror: RefPlayground, is_indexed: bool) -> None:
    """Names that are the query, that begin with it, that contain it, commits; each the newest first."""
    for repository, name, date in (
        (1, "my-1a2b3c4d", NEW), (3, "1a2b3c4d", OLD), (1, "1A2B3C4D", NEW), (1, "1a2b3c4d-x", OLD),
        (3, "1a2b3c4d/y", NEW),
    ):  # fmt: skip
        mirror.put(repository, "branch", name, "f" * 40, date)
    mirror.put(1, "tag", "other", HASH, NEW)
    mirror.put(3, "branch", "1a2b3c4d5", HASH, OLD)
    if is_indexed:
        index(mirror)
    assert found(mirror, "1a2b3c4D") == [
        (1, "1A2B3C4D"), (3, "1a2b3c4d"), (3, "1a2b3c4d/y"), (1, "1a2b3c4d-x"), (3, "1a2b3c4d5"),
        (1, "my-1a2b3c4d"), (1, "other"),
    ]  # fmt: skip
    assert found(mirror, HASH, exact=True) == [(1, "other"), (3, "1a2b3c4d5")]
    assert found(mirror, "1a2b3c4D", exact=True) == [(1, "1A2B3C4D"), (3, "1a2b3c4d")]
    assert found(mirror, "1a2b3c", kind="tag") == []


def test_what_is_hidden_has_no_influence(mirror: RefPlayground) -> None:
    """On counts and order: private, closed and gone repositories, before and after a flush."""
    mirror.put(1, "branch", "main", HASH, OLD)
    mirror.put(3, "branch", "main", HASH, OLD)

    def told() -> Any:
        return [find_refs(mirror.connection, ANONYMOUS, query).exported() for query in ("main", HASH[:7], "")]

    without = told()
    mirror.put(2, "branch", "main", HASH, NEW)
    mirror.put(2, "branch", "secret/main", HASH, NEW)
    for change in ({"is_private": 1}, {"is_private": 0, "public_from": HIDDEN}):
        mirror.change(2, **change)
        for _ in range(2):
            assert told() == without
            assert find_refs(mirror.connection, OPERATOR, "main").count == 4
            index(mirror)
    mirror.change(2, public_from=0, deleted_at=NEW)
    assert told() == without
    assert find_refs(mirror.connection, ANONYMOUS, "main", gone=True).count == 4


def test_members_find_what_is_their_own(mirror: RefPlayground) -> None:
    """The private refs of an owner are found by that owner."""
    mirror.put(2, "branch", "secret", HASH, NEW)
    index(mirror)
    bob, ann = Caller(user_ids=(2,)), Caller(user_ids=(1,))
    for query in ("secret", "e", HASH[:9]):
        assert find_refs(mirror.connection, bob, query).repositories == 1
        assert find_refs(mirror.connection, ann, query).count == 0
    assert find_refs(mirror.connection, bob, "", owner="BOB").count == 1
    assert find_refs(mirror.connection, ann, "", owner="BOB").count == 0


@pytest.mark.parametrize("sizes", [Sizes(80, 12, 300, 4), Sizes(40, 3, 20, 2), Sizes(400, 1, 0, 16)])
def test_deep_pages_equal_a_scan(tmp_path: Path, sizes: Sizes) -> None:
    """With more refs than nodes list; refs move, appear and vanish, names come and go."""
    mirror, draw = RefPlayground(tmp_path / "mirror.db"), random.Random(sizes.span)
    queries = ("", "e", "master", "mast", "release", "rel", "hotfix/", "fix", "v1/", "1a2b3c4", "x")
    asked: tuple[dict[str, Any], ...] = (
        {}, {"visible_private": False}, {"kind": "branch"}, {"exact": True}, {"gone": True, "kind": "tag"},
        {"visible_private": False, "private_of": (1, 2), "gone": True},
    )  # fmt: skip
    with mirror.store:
        mirror.fill_refs(60, 12)
        with mirror.store.transaction() as connection:
            rebuild_refs_index(connection, sizes)
        for step in range(4):
            for row_id in range(1 + step, 60, 7):
                # Some new names have a part of the paths that others share.
                name = draw.choice((f"hotfix/{step}", f"mastx{row_id}", f"relx/{step}", f"{step}release"))
                mirror.put(row_id, draw.choice(("branch", "tag")), name, HASH, draw.choice((NEW, OLD, None)))
                mirror.drop(row_id, "branch", step % 2)
                mirror.change(row_id, is_private=step % 2, deleted_at=draw.choice((None, None, NEW)))
            for _ in range(40):
                query, offset, filters = (
                    draw.choice(queries),
                    draw.choice((0, 20, 45, 150)),
                    draw.choice(asked),
                )
                got = search_refs(mirror.connection, query, offset=offset, **filters)
                refs = [(ref.repository, ref.kind, ref.name) for ref in got.refs]
                expected = naive(mirror.connection, query, offset=offset, **filters)
                assert (got.count, got.repositories, refs) == expected, (query, offset, filters)
            with mirror.store.transaction() as connection:
                apply_refs_backlog(connection, sizes)
            assert check_refs_index(mirror.connection) == []


def test_a_push_without_a_date_is_applied_to_spans(mirror: RefPlayground) -> None:
    """Git tells no dates, so with `refs = "git"` such pushes are often all that changed."""
    sizes = Sizes(80, 12, counted=0, block=4)
    mirror.put(1, "branch", "main", HASH, None)
    with mirror.store.transaction() as connection:
        rebuild_refs_index(connection, sizes)
    assert mirror.store.value("SELECT count(*) FROM search_ref_spans") == 1
    mirror.put(1, "branch", "main", "b" * 40, None)
    with mirror.store.transaction() as connection:
        apply_refs_backlog(connection, sizes)
    assert found(mirror, "b" * 40) == [(1, "main")]
    assert check_refs_index(mirror.connection) == []


@pytest.mark.parametrize("seed", range(8))
def test_a_page_of_chunks_equals_one_of_all_their_refs(seed: int) -> None:
    """Lists are cut into chunks; some refs are gone, some have joined."""
    draw = random.Random(seed)
    chunks, places = list[Chunk](), list[tuple[int, int, str]]()
    for name, which in ((name, which) for name in "abcdef" for which in range(2)):
        orders = sorted(draw.sample(range(2_000), draw.choice((1, 5, 60))))
        size = draw.choice((1, 7, 20))
        for some in (orders[at : at + size] for at in range(0, len(orders), size)):
            ages, ids = ([order // 100 for order in some], [order % 100 for order in some])
            start = order_of(ages[0], ids[0])
            chunks.append(Chunk(name, which, start, pack_numbers(ids), pack_numbers(ages)))
            places += [(order_of(*both), which, name) for both in zip(ages, ids, strict=True)]
    gone = set(draw.sample(sorted(set(places)), draw.choice((0, 9))))
    joined = [(order_of(draw.randrange(20), number), 0, "new") for number in range(draw.choice((0, 9)))]
    left = [place for place in places if place not in gone]
    expected = sorted([*left, *joined])
    for low in range(0, len(expected), 13):
        assert page_of(chunks, gone, joined, low, low + 20) == expected[low : low + 20]


def test_saving_refs_applies_a_long_backlog(mirror: RefPlayground) -> None:
    """Each save keeps the backlog short, except during a first load."""

    def save(number: int) -> None:
        refs = [Ref(kind="branch", name=f"b-{number}-{one}", target_hash=HASH) for one in range(FLUSH_FROM)]
        with mirror.store.transaction() as connection:
            save_refs(connection, 1, refs, seen_at=NEW)

    save(0)
    assert mirror.store.value("SELECT count(*) FROM search_ref_names") == 0
    index(mirror)
    save(1)
    assert mirror.store.value("SELECT count(*) FROM search_ref_pending") == 0
    assert find_refs(mirror.connection, OPERATOR, "b-1-").count == FLUSH_FROM
    assert find_refs(mirror.connection, OPERATOR, "b-0-").count == 0


def test_commits_are_searched_unless_they_are_not_wanted(mirror: RefPlayground) -> None:
    """Without them, the index has no hashes after any change; with them, it gets them at once."""
    mirror.put(1, "branch", "main", HASH, OLD)
    index(mirror)
    for wanted in (False, True):
        mirror.store.search_commits(wanted=wanted)
        mirror.put(3, "branch", f"b-{wanted}", HASH, NEW)
        for _ in range(2):
            assert found(mirror, HASH[:8]) == [(3, "b-False"), (3, "b-True"), (1, "main")] * wanted
            assert found(mirror, "b-") == [(3, "b-False"), (3, "b-True")][: 1 + wanted]
            index(mirror)
        assert check_refs_index(mirror.connection) == []
        assert bool(mirror.store.value("SELECT count(*) FROM search_ref_hashes")) == wanted


def test_what_is_not_known_is_not_told_as_none(mirror: RefPlayground, tmp_path: Path) -> None:
    """Command, JSON and page mention unindexed commits and unread refs."""
    (tmp_path / "mirror.toml").write_text(f'database = "{mirror.store.path}"')
    served = AsgiClient(Datasette([str(mirror.store.path)]))
    commits, unread = COMMITS_NOT_SEARCHED, SOME_UNREAD

    def notes(query: str) -> list[str]:
        words = ["--config", str(tmp_path / "mirror.toml"), "refs", query]
        printed = CliRunner().invoke(mirror_command, words, catch_exceptions=False).output
        told = json.loads(CliRunner().invoke(mirror_command, [*words, "--json"]).output)
        page = served.get("/-/refs", params={"q": query}).text
        answer = served.json("/-/refs.json", params={"q": query})
        for note in (commits, unread):
            expected = note in told.get("notes", [])
            assert (note in " ".join(printed.split()), note in unescape(page)) == (expected, expected)
        assert told.get("notes") == answer.get("notes")
        assert ("Seven digits" in page) == (
            told["count"] == 0 and mirror.store.value("SELECT commits FROM search_ref_state")
        )
        return list(told.get("notes", []))

    mirror.put(1, "branch", "main", HASH, OLD)
    mirror.put(1, "branch", "1a2b3c4", HASH, OLD)
    assert (notes("zzz"), notes("main"), notes(HASH), notes("f" * 7)) == ([unread], [], [], [unread])
    mirror.change(1, refs_stale=0)
    mirror.change(3, refs_stale=0, is_private=0)
    mirror.change(2, refs_synced_at=NEW)
    mirror.store.search_commits(wanted=False)
    for _ in range(2):
        assert (notes(HASH), notes("1A2B3C4"), notes("1a2b3c"), notes("main")) == (
            [commits],
            [commits],
            [],
            [],
        )
        assert (notes("f" * 64), notes("f" * 65), notes("zzz")) == ([commits], [], [])
        index(mirror)
    mirror.connection.execute("UPDATE upstreams SET refs = 'none'")
    assert (notes("zzz"), notes(HASH)) == ([unread], [commits, unread])


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE search_ref_common SET branches = branches + 1 WHERE node = {every}",
        "UPDATE search_ref_common SET with_either = with_either + 1 WHERE node = {every}",
        "UPDATE search_ref_common SET best_branches = substr(best_branches, 13) WHERE node = {every}",
        "DELETE FROM search_ref_paths WHERE path = x'6d'",
        "DELETE FROM search_ref_common WHERE node = {of_m}",
        "UPDATE search_ref_paths SET node = (SELECT max(node) FROM search_ref_paths)",
        "DELETE FROM search_ref_rare WHERE path = (SELECT min(path) FROM search_ref_rare)",
        "UPDATE search_ref_rare SET cost = cost + 1",
        "UPDATE search_ref_lists SET ages = substr(ages, 5), repositories = substr(repositories, 5)",
        "DELETE FROM search_ref_hashes",
        "UPDATE search_ref_blocks SET lists = substr(lists, 5), counts = substr(counts, 2)",
        "UPDATE search_ref_blocks SET counts = CAST(substr(counts, 2) || x'00' AS BLOB)",
        "UPDATE search_ref_blocks SET start = start + 1 WHERE start > 0",
        "UPDATE search_ref_spans SET start = start + 1 WHERE start = 0",
        "UPDATE search_ref_counts SET branches = tags, tags = branches WHERE node = {every}",
        "DELETE FROM search_ref_counts WHERE node = {every} AND collection = 0",
        "DELETE FROM search_ref_names WHERE name = 'master'",
        "INSERT INTO search_ref_names VALUES (999, 'nobody', x'ff6e6f626f6479ff')",
        "UPDATE branches SET target_date = '1999'; DELETE FROM search_ref_pending",
    ],
)
def test_damage_is_found_and_repaired(tmp_path: Path, damage: str) -> None:
    """Each part of the index is compared with the rows."""
    mirror = RefPlayground(tmp_path / "mirror.db")
    with mirror.store:
        mirror.fill_refs(12, 4)
        with mirror.store.transaction() as connection:
            rebuild_refs_index(connection, Sizes(40, 8, 20, 3))
        assert check_refs_index(mirror.connection) == []
        every, of_m = (f"(SELECT node FROM search_ref_paths WHERE path = x'{path}')" for path in ("", "6d"))
        mirror.connection.executescript(damage.format(every=every, of_m=of_m))
    assert any(
        complaint.text.startswith("search index of refs: ")
        for complaint in check_file(mirror.store.path, repair=False)
    )
    assert all(complaint.mended for complaint in check_file(mirror.store.path, repair=True))
    assert check_file(mirror.store.path, repair=False) == []


def test_sql_functions_return_refs_and_counts(mirror: RefPlayground) -> None:
    """For strangers, unless registered otherwise."""
    mirror.put(1, "tag", "v1", HASH, OLD)
    mirror.put(2, "tag", "v1", HASH, NEW)
    with closing(sqlite3.connect(mirror.store.path)) as connection:
        for sees_private, expected in ((False, [1]), (True, [2, 1])):
            register_refs(connection, visible_private=partial(bool, sees_private))
            (listed,) = connection.execute("SELECT mirror_refs('V', 5)").fetchone()
            assert [ref["repository"] for ref in json.loads(listed)] == expected
            assert json.loads(listed)[-1] == {"repository": 1, "kind": "tag", "name": "v1"}
            counts = connection.execute("SELECT mirror_refs_count('v'), mirror_refs_repositories(?)", (HASH,))
            assert counts.fetchone() == (len(expected), len(expected))
            assert connection.execute("SELECT mirror_refs(NULL)").fetchone()[0].count("kind") == len(expected)


@pytest.mark.parametrize(
    "query", ["\udcff", "%", "_", "'", '"', "*", "x" * 5000, "\0", "\n", "a\u202eb", "(NEAR"]
)
def test_any_text_is_a_query(mirror: RefPlayground, query: str) -> None:
    """Wildcards and quotes are plain text; text that cannot be stored matches nothing."""
    mirror.put(1, "branch", "main", HASH, OLD)
    is_storable = query != "\udcff"
    if is_storable:
        mirror.put(3, "branch", f"<{query}>", HASH, OLD)
    for _ in range(2):
        assert found(mirror, query) == [(3, f"<{query}>")] * is_storable
        index(mirror)


def test_the_number_that_hides_refs_is_that_of_the_store() -> None:
    """`search/` cannot import it."""
    assert layout.HIDDEN == HIDDEN
