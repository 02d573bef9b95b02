"""A search for refs equals a scan of all refs, whatever happened to them and whatever the index contains."""

import tempfile
from pathlib import Path
from typing import Any

from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refs_oracle import HIDDEN, RefPlayground, naive
from search_oracle import OWNERS

from mirror.search.index.refs.changes import apply_refs_backlog, rebuild_refs_index
from mirror.search.index.refs.layout import Sizes
from mirror.search.index.refs.verify import check_refs_index
from mirror.search.refs.find import search_refs

STORABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SHARED = st.text("ab/É ﬁ\0\t", max_size=4)
NAMES = SHARED | SHARED | STORABLE | st.sampled_from(["master", "Master", "a" * 40, "ab" * 30, "1234567"])
HASHES = st.sampled_from(
    ["a" * 40, "1234567" + "0" * 33, "1234567f" + "1" * 32, "ABCDEF012345", "odd", "12345678"]
)
DATES = st.sampled_from(
    [None, "odd", "1969-01-01T00:00:00.000000Z", "2020-01-01T00:00:00.000000Z",
     "2020-01-01T00:00:00.900000Z", "2021-06-30T12:00:00.500000Z", "9999-01-01T00:00:00.000000Z"]
)  # fmt: skip
IDS = st.integers(1, 9)
KINDS = st.sampled_from(["branch", "tag"])
REF = st.tuples(IDS, KINDS, NAMES, HASHES, DATES)
CHANGED = st.one_of(
    st.builds(lambda yes: {"is_private": yes}, st.booleans()),
    st.builds(lambda when: {"deleted_at": when}, st.sampled_from([None, "2026-02-02T00:00:00.000000Z"])),
    st.builds(lambda last: {"public_from": last}, st.sampled_from([0, HIDDEN])),
)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.tuples(st.integers(1, len(OWNERS)), st.booleans())),
    st.tuples(st.just("put"), st.lists(REF, min_size=1, max_size=8)),
    st.tuples(st.just("put"), st.lists(REF, min_size=1, max_size=8)),
    st.tuples(st.just("drop"), st.tuples(IDS, KINDS, st.integers(0, 2))),
    st.tuples(st.just("change"), st.tuples(IDS, CHANGED)),
    st.tuples(st.just("remove"), IDS),
    st.tuples(st.sampled_from(["apply", "apply", "rebuild", "killed"]), st.none()),
)
ASKED = st.tuples(
    st.text("abÉ/", max_size=2)
    | NAMES
    | st.sampled_from(["m", "aster", "1234567", "1234567F", "a" * 40, ""]),
    st.fixed_dictionaries(
        {
            "limit": st.sampled_from([0, 1, 5, 50]),
            "offset": st.sampled_from([0, 0, 1, 4, 9]),
            "visible_private": st.booleans(),
            "private_of": st.sampled_from([(), (), (1, 2)]),
            "kind": st.sampled_from([None, None, "branch", "tag"]),
            "owner": st.sampled_from([None, None, None, "BOB", "nobody"]),
            "exact": st.booleans(),
            "gone": st.booleans(),
        }
    ),
)


def _do(mirror: RefPlayground, kind: str, what: Any, sizes: Sizes) -> None:
    if kind == "add":
        mirror.add("tool", owner_id=what[0], is_private=what[1])
    elif kind == "put":
        for ref in what:
            mirror.put(*ref)
    elif kind == "drop":
        mirror.drop(*what)
    elif kind == "change":
        mirror.change(what[0], **what[1])
    elif kind == "remove":
        mirror.remove(what)
    elif kind == "killed":  # the transaction is lost, and the file is as it was
        connection = mirror.connection
        connection.execute("BEGIN")
        apply_refs_backlog(connection, sizes)
        connection.execute("ROLLBACK")
    else:
        with mirror.store.transaction() as connection:
            (apply_refs_backlog if kind == "apply" else rebuild_refs_index)(connection, sizes)


@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
@given(
    sizes=st.builds(Sizes, st.integers(17, 60), st.integers(1, 6), st.integers(0, 300), st.integers(1, 4)),
    history=st.lists(st.tuples(STEPS, st.lists(ASKED, max_size=4)), min_size=3, max_size=16),
)
def test_a_search_equals_a_scan_after_any_history(sizes: Sizes, history: list[tuple[Any, list[Any]]]) -> None:
    """Saves, moves, deletions, visibility, index updates and queries in any order, with any Unicode."""
    with tempfile.TemporaryDirectory() as folder:
        mirror = RefPlayground(Path(folder) / "mirror.db")
        with mirror.store:
            for number in range(4):
                mirror.add("tool", owner_id=1 + number, is_private=number == 2)
            for (kind, what), questions in history:
                _do(mirror, kind, what, sizes)
                for query, asked in questions:
                    found = search_refs(mirror.connection, query, **asked)
                    refs = [(ref.repository, ref.kind, ref.name) for ref in found.refs]
                    told = found.count, found.repositories, refs
                    assert told == naive(mirror.connection, query, **asked), query
            assert check_refs_index(mirror.connection) == []
