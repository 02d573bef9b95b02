"""The index as the store uses it: pages, bulk loads, interruptions, damage."""

import multiprocessing
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from examples import examples
from forked_command import fork_server
from hypothesis import given
from hypothesis import strategies as st
from index_writer import SEEN, page, save, write_until_killed
from prepared_files import opened
from search_oracle import Oracle, Playground, found_in_each_way, naive

from mirror.errors import StoreError
from mirror.search import search
from mirror.search.index import format as index_format
from mirror.search.index.backlog import (
    FLUSH_FROM,
    MERGED_AT_ONCE,
    PREPARE_FROM,
    apply_backlog,
    flush_step,
    prepare_pending,
    rebuild_index,
    update_after_page,
)
from mirror.search.index.build import build_index
from mirror.search.index.check import check_index
from mirror.search.names import normalise, normalise_all, searched_text, searched_texts
from mirror.store import Store
from mirror.store.repair import check_file


def same_as_rows(store: Store) -> bool:
    """Return whether some searches equal a scan, and the index passes its check."""
    oracle = Oracle(store.connection)
    for query in ("", "tool", "tool-3", "7-1", "-next", "9"):
        found = search(store.connection, query, fuzzy=False)
        if (found.count, found.ids) != oracle.find(query):
            return False
    return check_index(store.connection) == []


def test_a_first_load_defers_the_index_and_later_pages_update_it(tmp_path: Path) -> None:
    """Searches are exact without an index, with one, and with pending rows."""
    with opened(tmp_path / "mirror.db") as store:
        store.save_upstream("cloud", "cloud", "https://bitbucket.example")
        for first in range(0, 600, 100):
            save(store, page(first), first=True)
        assert store.row("SELECT up_to FROM search_state")[0] == 0
        assert same_as_rows(store)
        store.finish_search_index()
        assert store.row("SELECT count(*) FROM search_common")[0] > 10
        save(store, page(0, 450, suffix="-next"), first=False)
        save(store, page(600), first=False)
        assert store.row("SELECT count(*) FROM search_pending")[0] == 550  # too many to look at one by one
        assert same_as_rows(store)
        with store.transaction() as connection:  # by another writer, which prepares nothing
            connection.execute("UPDATE repositories SET name = name || ' tool-9' WHERE id % 40 = 0")
        assert same_as_rows(store)
        store.finish_search_index()
        assert store.row("SELECT count(*) FROM search_pending")[0] == 0
        assert same_as_rows(store)


def test_a_push_does_not_change_the_index(tmp_path: Path) -> None:
    """The columns that a push changes are not searched."""
    mirror = Playground(tmp_path / "mirror.db")
    mirror.add("tool")
    mirror.store.finish_search_index()
    mirror.change(1, updated_at=SEEN, last_seen_at=SEEN, size=7, description="new")
    assert not flush_step(mirror.connection)


def test_a_follower_more_rewrites_one_column(tmp_path: Path) -> None:
    """Other columns and the bits of dense paths, forty bytes a repository, stay as they are."""
    mirror = Playground(tmp_path / "mirror.db")
    for number in range(30):
        mirror.add(f"tool-{number}", followers_count=number)
    with mirror.store.transaction() as connection:
        rebuild_index(connection, 1)
    assert mirror.store.row("SELECT count(*) FROM search_dense")[0]
    statements = list[str]()
    mirror.change(3, followers_count=70)
    with mirror.store.transaction() as connection:
        connection.set_trace_callback(statements.append)
        apply_backlog(connection)
        connection.set_trace_callback(None)
    written = [said for said in statements if said.startswith("INSERT OR REPLACE INTO search_columns")]
    assert [said.split("'")[1] for said in written if "'stamp'" not in said] == ["followers"]
    assert not [said for said in statements if said.startswith("INSERT OR REPLACE INTO search_dense")]
    assert check_index(mirror.connection) == []


def test_a_longer_name_changes_only_the_lists_that_it_is_new_to(tmp_path: Path) -> None:
    """Its old name was listed in the others, which would grow with each change."""
    mirror = Playground(tmp_path / "mirror.db")
    for number in range(30):
        mirror.add(f"tool-{number}")
    with mirror.store.transaction() as connection:
        rebuild_index(connection, 3)
    before = set(mirror.store.rows("SELECT path, ids FROM search_rare"))
    mirror.change(8, name="tool-7-next", slug="tool-7-next")
    with mirror.store.transaction() as connection:
        apply_backlog(connection)
    after = set(mirror.store.rows("SELECT path, ids FROM search_rare"))
    changed = [path.rstrip(b"\xfe") for path, _ in after - before]
    assert len(changed) > 3
    assert not [path for path in changed if path in searched_text("tool-7", "tool-7")]
    assert check_index(mirror.connection) == []


def test_a_text_leaves_and_joins_a_crowd_with_the_same_ends(tmp_path: Path) -> None:
    """A crowd is not in the lists of its ends, so that a text that keeps an end may be new to its list."""
    mirror = Playground(tmp_path / "mirror.db")
    for number in range(20):
        mirror.add("dot" if number < 10 else f"{number} dot")
    with mirror.store.transaction() as connection:
        rebuild_index(connection, 3)
    assert mirror.store.row("SELECT count(*) FROM search_crowds")[0] == 1
    mirror.change(3, name="a dot", slug="a-dot")
    mirror.change(12, name="dot", slug="dot")
    with mirror.store.transaction() as connection:
        apply_backlog(connection, 3)
    assert check_index(mirror.connection) == []


def test_a_page_looks_only_at_the_rows_that_it_changed(tmp_path: Path) -> None:
    """However many rows wait."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store.transaction() as connection:
        for number in range(600):
            mirror.add(f"tool-{number}")
        rebuild_index(connection)

    def steps(first: int) -> int:
        """Return how many tens of steps SQLite takes to prepare twenty rows."""
        counted = list[None]()
        with mirror.store.transaction() as connection:
            connection.execute(
                "UPDATE repositories SET name = name || ' x' WHERE id BETWEEN ? AND ?", (first, first + 19)
            )
            connection.set_progress_handler(lambda: counted.append(None), 10)
            update_after_page(connection)
            connection.set_progress_handler(None, 0)
        return len(counted)

    alone = steps(1)
    with mirror.store.transaction() as connection:
        connection.execute("UPDATE repositories SET name = name || ' x' WHERE id > 50")
        update_after_page(connection)
    assert mirror.store.row("SELECT count(*) FROM search_pending")[0] == 570
    assert steps(21) < 1.5 * alone


def test_few_rows_are_read_one_by_one_until_a_sync_ends(tmp_path: Path) -> None:
    """As a write leaves them: a segment of a row each would make many, and a write longer."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store.transaction() as connection:
        for number in range(600):
            mirror.add(f"tool-{number}")
        rebuild_index(connection)
    segments = "SELECT rows FROM search_segments"
    for number in range(1, PREPARE_FROM + 1):
        assert mirror.store.rows(segments) == []
        with mirror.store.transaction() as connection:
            mirror.change(number, name=f"kingfisher {number}", slug=f"kingfisher-{number}")
            update_after_page(connection)
        assert search(mirror.connection, "kingfisher").count == number
    assert mirror.store.rows(segments) == [(PREPARE_FROM,)]
    with mirror.store.transaction() as connection:
        mirror.change(50, name="nightingale", slug="nightingale")
        update_after_page(connection)
    mirror.store.finish_search_index()
    assert mirror.store.rows(segments) == [(PREPARE_FROM,), (1,)]


@pytest.mark.parametrize(
    "unfit",
    ["DELETE FROM repositories WHERE id <= ?", "UPDATE repositories SET created_at = 'today' WHERE id <= ?"],
)
def test_rows_that_no_segment_holds_do_not_make_each_write_a_segment(tmp_path: Path, unfit: str) -> None:
    """They stay until a flush, however many they are; other rows wait for one another as without them."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store.transaction() as connection:
        for number in range(600):
            mirror.add(f"tool-{number}")
        rebuild_index(connection)
        connection.execute(unfit, (PREPARE_FROM,))
    segments = "SELECT rows FROM search_segments"
    for number in range(1, PREPARE_FROM + 1):
        assert mirror.store.rows(segments) == []
        with mirror.store.transaction() as connection:
            if number % 2:
                mirror.change(100 + number, name=f"kingfisher {number}", slug=f"kingfisher-{number}")
            else:
                mirror.add(f"kingfisher-{number}")
            update_after_page(connection)
        assert search(mirror.connection, "kingfisher").count == number
    assert mirror.store.rows(segments) == [(PREPARE_FROM,)]
    assert check_index(mirror.connection) == []


def test_a_long_sync_applies_the_backlog(tmp_path: Path) -> None:
    """So a search never has many pending rows to read."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store.transaction() as connection:
        connection.executemany(
            """INSERT INTO repositories (id, upstream_id, uuid, owner_id, slug, name, full_name, is_private,
                first_seen_at, last_seen_at) VALUES (?, 1, ?, 1, ?, ?, '', 0, '', '')""",
            [(number, number, f"s{number}", f"name {number % 999}") for number in range(1, FLUSH_FROM + 1)],
        )
    with mirror.store.transaction() as connection:
        update_after_page(connection)
    assert mirror.store.row("SELECT count(*) FROM search_common")[0] > 0
    assert check_index(mirror.connection) == []


def test_a_build_by_few_suffixes_at_once_makes_the_same_index(tmp_path: Path) -> None:
    """However much memory it takes, and with crowds and long paths."""
    mirror = Playground(tmp_path / "mirror.db")
    names = [
        "dotfiles",
        "dotfiles",
        "a" * 40,
        "a" * 41,
        "tool one",
        "tool two",
        "Straße  é",
        "x\ny",
        "",
        "\0",
    ]
    for number in range(60):
        mirror.add(names[number % 10], slug=names[number % 7], is_private=number % 3 == 0)

    def built(at_once: int) -> list[tuple[Any, ...]]:
        with mirror.store.transaction() as connection:
            build_index(connection, 2, at_once)
        tables = [f"SELECT * FROM search_{table} ORDER BY 1, 2" for table in ("common", "rare", "crowds")]
        return [tuple(row) for table in tables for row in mirror.store.rows(table)]

    whole = built(1_000_000)
    assert len(whole) > 100
    for at_once in (1, 7, 50, 300):
        assert built(at_once) == whole


@given(st.lists(st.text(max_size=5) | st.text("Aa \t\n-É"), max_size=9))
def test_many_names_are_normalised_as_each_alone(names: list[str]) -> None:
    """The build normalises them together, because it is faster."""
    names = [name.encode(errors="ignore").decode() for name in names]  # no file has half a surrogate
    assert normalise_all(names) == [normalise(name) for name in names]
    assert searched_texts(names, names[::-1]) == list(map(searched_text, names, names[::-1]))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE search_common SET repositories = repositories + 1 WHERE path = x'746f6f6c'",
        "UPDATE search_common SET best = x'01000000' WHERE path = x'746f6f6c'",
        "DELETE FROM search_common WHERE path = x'746f'",
        "UPDATE search_rare SET ids = x'' WHERE path = (SELECT max(path) FROM search_rare)",
        "DELETE FROM search_rare WHERE path = (SELECT min(path) FROM search_rare)",
        "UPDATE search_state SET up_to = up_to - 1",
        "UPDATE repositories SET name = 'other' WHERE id = 3; DELETE FROM search_pending",
        "UPDATE repositories SET language = 'go' WHERE id = 3; DELETE FROM search_pending",
        "UPDATE search_columns SET data = zeroblob(length(data)) WHERE name = 'followers'",
        "DELETE FROM search_columns WHERE name = 'flags'",
        """INSERT INTO search_columns SELECT name, 1, data FROM search_columns WHERE name = 'flags';
            UPDATE search_state SET up_to = 20000""",
    ],
)
def test_the_check_finds_damage_and_a_rebuild_repairs_it(tmp_path: Path, damage: str) -> None:
    """In any part of the index, or in the rows."""
    with opened(tmp_path / "mirror.db") as store:
        store.save_upstream("cloud", "cloud", "https://bitbucket.example")
        for first in range(0, 500, 100):
            save(store, page(first), first=True)
        store.rebuild_search_index()
        assert check_index(store.connection) == []
        store.connection.executescript(damage)
        assert check_index(store.connection) != []
        store.rebuild_search_index()
        assert same_as_rows(store)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (
            "UPDATE search_pending SET turn = 9 WHERE id = 3",
            "no segment has the pending repository 3 as it is",
        ),
        (
            "DROP TRIGGER search_updated; UPDATE repositories SET followers_count = 99 WHERE id = 3",
            "no segment has the pending repository 3 as it is",
        ),
        (
            "DROP TRIGGER search_updated; UPDATE repositories SET scm = 'hg' WHERE id = 3",
            "no segment has the pending repository 3 as it is",
        ),
        ("DELETE FROM search_pending WHERE id = 3", "a segment has 3, which is not pending"),
        (
            """UPDATE search_pending SET turn = NULL, was_name = 'x', was_slug = 'x', was_collection = 0
                WHERE id = 3""",
            "segments disagree about the pending repository 3",
        ),
        ("DELETE FROM search_segments", "no segment has the pending repository 3 as it is"),
    ],
)
def test_the_check_finds_wrong_segments(tmp_path: Path, damage: str, fault: str) -> None:
    """Searches count and rank pending rows by segments alone."""
    with opened(tmp_path / "mirror.db") as store:
        store.save_upstream("cloud", "cloud", "https://bitbucket.example")
        save(store, page(0), first=True)
        store.finish_search_index()
        save(store, page(0, suffix="-next"), first=False)
        assert check_index(store.connection) == []
        store.connection.executescript(damage)
        assert fault in check_index(store.connection)
        store.rebuild_search_index()
        assert check_index(store.connection) == []


def test_a_segment_whose_rows_all_changed_again_is_no_damage(tmp_path: Path) -> None:
    """It is still there, but no pending row is in it any more."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        row_id = mirror.add("tool")
        with mirror.store.transaction() as connection:
            prepare_pending(connection)
        mirror.change(row_id, name="other", slug="other")
        assert not mirror.store.mend_search_index()
        assert search(mirror.connection, "other").count == 1


def test_a_damaged_segment_is_one_line(tmp_path: Path) -> None:
    """A search does not answer with what a damaged segment says; a repair needs no segment."""
    path = tmp_path / "mirror.db"
    with Store(path) as store:
        store.save_upstream("cloud", "cloud", "https://bitbucket.example")
        save(store, page(0), first=True)
        store.finish_search_index()
        save(store, page(0, suffix="-next"), first=False)
        store.connection.execute(
            "UPDATE search_segments SET data = CAST(replace(data, x'6e657874', x'6e657875') AS BLOB)"
        )
        with pytest.raises(
            StoreError, match="is damaged; `mirror sync` or `mirror verify --repair` builds it anew"
        ):
            search(store.connection, "next")
    assert not [one for one in check_file(path, repair=False) if one.mended]
    assert check_file(path, repair=True)[-1].mended
    assert check_file(path, repair=False) == []


def changed_at_random(mirror: Playground, choose: random.Random, rows: int) -> None:
    """Change some of the first `rows` rows, and add two."""
    for row_id in choose.sample(range(1, rows + 1), choose.choice((1, 2, 30))):
        name = choose.choice(("django", "flask", f"tool-{choose.randrange(40)}", "É x"))
        said = choose.choice(
            (
                {"name": name, "slug": name},
                {"followers_count": choose.randrange(9)},
                {"is_private": choose.randrange(2)},
                {"deleted_at": choose.choice((None, SEEN))},
                {"scm": choose.choice(("git", "hg", "svn"))},
                {"language": choose.choice(("go", "Go", None))},
                {"created_at": choose.choice((None, SEEN, "odd"))},
                {"owner_id": choose.randint(1, 5)},
            )
        )
        mirror.change(row_id, **said)
    mirror.fill(2, seed=choose.randrange(999))


_ASKED: list[dict[str, Any]] = [
    {},
    {"visible_private": False},
    {"scm": "hg"},
    {"language": "go", "gone": True},
]


@pytest.mark.parametrize("seed", range(examples(2)))
def test_many_pages_are_searched_like_one(tmp_path: Path, seed: int) -> None:
    """Segments supersede each other and are merged, so that there are never many."""
    choose = random.Random(seed)
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        with mirror.store.transaction():
            mirror.fill(400)
        mirror.store.rebuild_search_index()
        for turn in range(70):
            with mirror.store.transaction() as connection:
                changed_at_random(mirror, choose, 400)
                update_after_page(connection)
            if turn % 7 == 0:
                changed_at_random(mirror, choose, 40)  # by another writer, which prepares nothing
            if turn % 5:
                continue
            oracle = Oracle(mirror.connection)
            for query in ("", "d", "django", "tool-1", "flask", "kit", "é", "bob/t"):
                for asked in _ASKED:
                    count, ids = oracle.find(query, limit=60, **asked)
                    for offset in (0, 40):
                        found = found_in_each_way(mirror.connection, query, offset=offset, **asked)
                        assert found == (count, ids[offset : offset + 20])
        sizes = [size for (size,) in mirror.store.rows("SELECT rows FROM search_segments ORDER BY last_turn")]
        assert len(sizes) < 3 * MERGED_AT_ONCE
        assert max(sizes) > 200
        assert check_index(mirror.connection) == []
        with mirror.store.transaction() as connection:
            apply_backlog(connection, 3)
        assert check_index(mirror.connection) == []


def test_a_short_backlog_is_kept_and_a_long_one_is_flushed(tmp_path: Path) -> None:
    """The end of a sync writes no lists for a few changes; a rebuild is quicker than many."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        with mirror.store.transaction():
            mirror.fill(300)
        mirror.store.finish_search_index()
        for changed, waiting in ((18, 18), (19, 0)):  # a fifteenth of the others is 18
            for row_id in range(1, changed + 1):
                mirror.change(row_id, followers_count=50 + changed)
            mirror.store.finish_search_index()
            assert mirror.store.row("SELECT count(*) FROM search_pending")[0] == waiting
            assert same_as_rows(mirror.store)


def test_a_reused_row_id_is_one_repository(tmp_path: Path) -> None:
    """The last row is deleted, the index is updated, and the next row gets the same id and name."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        with mirror.store.transaction():
            for number in range(300):
                mirror.add("zebra" if number == 299 else f"tool-{number}")
        mirror.store.rebuild_search_index()
        mirror.remove(300)
        mirror.store.finish_search_index()
        assert check_index(mirror.connection) == []
        assert mirror.add("zebra") == 300
        for _ in range(2):
            for query in ("tool", "zebra", "bra", "9", ""):
                found = search(mirror.connection, query, fuzzy=False)
                ids = found.ids
                assert (found.count, ids) == naive(mirror.connection, query)
            mirror.store.finish_search_index()
            assert check_index(mirror.connection) == []


def test_a_row_id_that_the_index_has_seen_free_is_given_to_nobody(tmp_path: Path) -> None:
    """The rows with the two highest ids are gone, the lower one since before the index was built."""
    mirror = Playground(tmp_path / "mirror.db")
    with mirror.store:
        for number in range(12):
            mirror.add(f"tool-{number}")
        mirror.remove(11)
        mirror.store.rebuild_search_index()
        mirror.remove(12)
        save(mirror.store, page(20, 1), first=False)
        assert same_as_rows(mirror.store)


@pytest.mark.parametrize("delay", [0.02, 0.15, 0.4, 0.9, 1.5])
def test_searches_are_correct_after_a_kill_at_any_point(tmp_path: Path, delay: float) -> None:
    """Rows and index are written together or not at all."""
    path = tmp_path / "mirror.db"
    with opened(path) as store:
        store.save_upstream("cloud", "cloud", "https://bitbucket.example")
    here, there = multiprocessing.Pipe()
    writer = fork_server().Process(target=write_until_killed, args=(path, there))
    writer.start()
    assert here.poll(30)
    time.sleep(delay)
    writer.kill()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    with Store(path) as store:
        assert same_as_rows(store)
        store.finish_search_index()
        assert same_as_rows(store)


@given(st.sets(st.integers(1, 2**32 - 1)), st.lists(st.integers(1, 2**32 - 1)))
def test_posting_lists_survive_packing(ids: set[int], later: list[int]) -> None:
    """With appended ids; and `max_ids` bounds their number."""
    packed = index_format.pack_list(ids) + index_format.pack_appended(later)
    assert index_format.unpack_list(packed) == [*sorted(ids), *later]
    assert len(ids) + len(later) <= index_format.max_ids(packed) <= len(ids) + 5 * len(later)


@given(st.lists(st.integers(1, 2**31 - 1)), st.lists(st.integers(1, 2**31 - 1)))
def test_best_lists_survive_packing(ranked: list[int], joined: list[int]) -> None:
    """Ranked ids in order, unranked ones separately."""
    packed = index_format.pack_best([*ranked, *(row_id | index_format.UNRANKED for row_id in joined)])
    assert index_format.unpack_best(packed) == (ranked, joined)
