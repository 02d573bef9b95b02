"""The past of a repository: equal to the mirror at each look, and unknown where it was not recorded."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Folder
from examples import examples
from fixtures_db import FixtureDb, hg_ref, owner, repository
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lives import live, moment
from older_files import older

from mirror.errors import NotFound
from mirror.model import Ref, Repository
from mirror.queries.past import details_of, known_since, past_copy, past_exported, past_named, past_of
from mirror.queries.past_state import Past
from mirror.queries.repositories import repository_details
from mirror.queries.visibility import ANONYMOUS, OPERATOR, Caller
from mirror.store.changes import DESCRIBED, MEASURED
from mirror.times import to_text

KNOWN = (
    "full_name",
    "slug",
    "is_private",
    "deleted_at",
    "gone_reason",
    "last_seen_at",
    *DESCRIBED,
    *MEASURED,
)
"""Columns whose past is recorded, or told by the looks."""
State = tuple[dict[str, Any], dict[tuple[str, str], tuple[str, str | None]]]


def held(connection: sqlite3.Connection, row_id: int) -> State:
    """The recorded values that the file has of a repository now."""
    connection.row_factory = None
    found = connection.execute(f"SELECT {', '.join(KNOWN)} FROM repositories WHERE id = ?", (row_id,))
    row = dict(zip(KNOWN, found.fetchone(), strict=True))
    refs = {
        (kind, name): (target, date)
        for kind, table in (("branch", "branches"), ("tag", "tags"))
        for name, target, date in connection.execute(
            f"SELECT name, target_hash, target_date FROM {table} WHERE repository_id = ?", (row_id,)
        )
    }
    return row, refs


def told(past: Past) -> State:
    """The same values of the past."""
    row = {name: past.columns[name] for name in KNOWN}
    rows = [ref.row for ref in past.refs]
    return row, {(ref.kind, ref.name): (ref.target_hash, ref.target_date) for ref in rows}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("refs"), st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"))),
        st.tuples(st.just("row"), st.fixed_dictionaries({
            "name": st.sampled_from(("one", "two")),
            "owner": st.sampled_from(("ann", "bob")),
            "is_private": st.booleans(),
            "description": st.sampled_from(("", "x", None)),
            "has_wiki": st.sampled_from((None, False, True)),
            "main_branch": st.sampled_from((None, "a", "b")),
            "size": st.sampled_from((None, 1, 2)),
            "updated_at": st.sampled_from((None, "2026-10-01T00:00:00.000000Z")),
            "followers_count": st.sampled_from((None, 3)),
        })),
        st.tuples(st.just("gone"), st.just(None)),
    ),
    min_size=2,
    max_size=12,
)  # fmt: skip


@dataclass
class History:
    """A repository with some changes, and the content of the file after each of them."""

    filled: FixtureDb
    held: dict[str, State] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    row_id: int = 0
    said: Repository = field(default_factory=lambda: repository("ann/one", uuid="{it}"))

    def step(self, kind: str, value: Any, at: str) -> None:
        """Make one change, and record the content of the file."""
        if kind == "row":
            self.said = repository(
                f"{value['owner']}/{value['name']}",
                owner(value["owner"]),
                uuid="{it}",
                **{name: value[name] for name in value if name not in ("owner", "name")},
            )
        if kind == "row" or not self.row_id:
            self.filled.repositories([self.said], at=at)
            self.row_id = self.filled.store.value("SELECT id FROM repositories WHERE uuid = '{it}'")
        name = self.filled.store.value("SELECT full_name FROM repositories WHERE id = ?", (self.row_id,))
        is_gone = self.filled.store.value("SELECT deleted_at FROM repositories WHERE id = ?", (self.row_id,))
        if kind == "refs" and not is_gone:
            self.filled.refs(name, list(refs_of(value)), at=at)
        if kind == "gone" and not is_gone:
            self.filled.gone(name, at=at)
        with self.filled.store.reading() as connection:
            self.held[at] = held(connection, self.row_id)
        self.private[at] = bool(self.held[at][0]["is_private"])


def refs_of(named: dict[str, str]) -> Iterator[Ref]:
    """A branch and a tag of each name; the third commit has no date."""
    for name, digit in named.items():
        date = None if digit == "3" else f"2010-07-0{digit}T12:00:00.000000Z"
        yield hg_ref("branch", name, digit, target_date=date)
        yield hg_ref("tag", f"v-{name}", digit, target_date=date)


def same(past: State, then: State) -> bool:
    """Whether the past equals the file; a flag that became known as off counts as always off."""
    past[0].pop("last_seen_at")
    before = {name: value for name, value in then[0].items() if name != "last_seen_at"}
    return past[1] == then[1] and all(
        past[0][name] == value or (value is None and past[0][name] == 0 and name.startswith("has_"))
        for name, value in before.items()
    )


@settings(max_examples=examples(25), suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_the_past_is_what_the_mirror_held_at_each_look(tmp_path_factory: Any, steps: list[Any]) -> None:
    """After each step, for all steps before; a stranger's past has no private moment."""
    path = tmp_path_factory.mktemp("past") / "mirror.db"
    filled = FixtureDb(path)
    history = History(filled)
    for number, (kind, value) in enumerate(steps):
        history.step(kind, value, moment(2 * number))
    connection = filled.store.connection
    for at, then in history.held.items():
        assert same(told(past_of(connection, OPERATOR, history.row_id, at)), then), at
    looks = list(history.held)
    for at, following in zip(looks, [*looks[1:], None], strict=True):
        between = to_text(datetime.fromisoformat(at) + timedelta(seconds=30))
        seen = past_of(connection, OPERATOR, history.row_id, between)
        assert same(told(seen), history.held[at])
        assert (seen.looks.before or between) <= between
        assert following is None or seen.looks.after is None or seen.looks.after >= following
        for moment_of_look in (at, between):
            try:
                shown = past_of(connection, ANONYMOUS, history.row_id, moment_of_look)
            except NotFound:
                continue
            assert not history.private[at]
            assert not shown.columns["is_private"]
            assert shown.since >= max(
                (look for look in looks[1:] if history.private[looks[looks.index(look) - 1]]), default=""
            )
    filled.store.close()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FixtureDb]:
    """A repository with a past."""
    filled = live(tmp_path_factory.mktemp("lived") / "mirror.db")
    yield filled
    filled.store.close()


def test_which_commit_was_master_at(lived: FixtureDb) -> None:
    """One ref, with the looks before and after, and what the next look found."""
    past = past_named(lived.store.connection, OPERATOR, "ann/old", moment(10))
    ref = past.refs_by_name()["branch", "master"]
    assert ref.row.target_hash == "1" * 40
    assert (ref.looks.before, ref.looks.after, ref.next_target) == (moment(1), moment(20), "1" * 40)
    later = past_named(lived.store.connection, OPERATOR, "ann/old", moment(25)).refs_by_name()
    assert later["branch", "master"].looks.after == moment(30)
    assert later["branch", "master"].next_target == "2" * 40
    gone = past_named(lived.store.connection, OPERATOR, "bob/new", moment(75)).refs_by_name()
    assert (gone["branch", "master"].looks.after, gone["branch", "master"].next_target) == (moment(90), None)


def test_a_name_is_that_of_the_moment(lived: FixtureDb) -> None:
    """A former name finds its repository; today's name shows the name of then."""
    for name, at, is_called, described in (
        ("ann/old", 10, "ann/old", "first"),
        ("ANN/OLD", 85, "ann/old", "another"),
        ("bob/new", 10, "ann/old", "first"),
        ("ann/mid", 55, "ann/mid", "then"),
        ("ann/mid", 75, "bob/new", "last"),
    ):
        past = past_named(lived.store.connection, OPERATOR, name, moment(at))
        assert (past.full_name, past.columns["description"]) == (is_called, described)


def test_strangers_learn_only_the_name_of_a_former_owner_without_public_repositories(
    lived: FixtureDb,
) -> None:
    """What is known of the account today may come from what is hidden from them."""
    connection = lived.store.connection
    (ann,) = connection.execute("SELECT id FROM users WHERE username = 'ann'").fetchone()
    connection.execute(
        "UPDATE users SET display_name = 'Ann Doe', last_seen_at = ? WHERE id = ?", (moment(0), ann)
    )
    connection.execute("UPDATE repositories SET is_private = 1 WHERE owner_id = ?", (ann,))
    past = past_named(connection, ANONYMOUS, "bob/new", moment(55))
    for caller, shown in ((ANONYMOUS, None), (OPERATOR, "Ann Doe")):
        with past_copy(connection, caller, [past]) as copy:
            people = copy.execute("SELECT username, display_name FROM users").fetchall()
        assert list(map(tuple, people)) == [("ann", shown)]


def test_what_is_not_recorded_is_not_told(lived: FixtureDb) -> None:
    """No value of today replaces one of the past; Mercurial's moving tag is left out."""
    past = past_named(lived.store.connection, OPERATOR, "ann/old", moment(10))
    assert past.columns["size"] == 5
    assert "forks_count" in past.not_recorded
    assert ("tag", "tip") not in past.refs_by_name()
    moved = past_named(lived.store.connection, OPERATOR, "bob/new", moment(75))
    gone = moved.refs_by_name()["branch", "master"].row
    assert (gone.target_date, gone.target_author) == ("2010-07-20T12:00:00.000000Z", None)
    today = past_named(lived.store.connection, OPERATOR, "bob/new", moment(100))
    assert (today.columns["size"], today.not_recorded) == (7, ())


def test_sizes_from_before_they_were_recorded_are_not_told(tmp_path: Path) -> None:
    """An older file knows them since its last look; the first look at other repositories is no proof."""
    older(tmp_path / "mirror.db", "m030_what_moved_that_should_not")
    with closing(sqlite3.connect(tmp_path / "mirror.db")) as connection:
        connection.execute(
            "UPDATE repositories SET size = 1, first_seen_at = ?, last_seen_at = ?", (moment(0), moment(9))
        )
        connection.commit()
    filled = FixtureDb(tmp_path / "mirror.db")
    grown = repository("alice/tool-1", owner("alice", uuid="u"), uuid="1", size=2)
    filled.repositories([grown], at=moment(20))
    for at, size in ((5, None), (9, 1), (19, 1), (20, 2)):
        past = past_of(filled.store.connection, OPERATOR, 1, moment(at))
        assert (past.columns["size"], "size" in past.not_recorded) == (size, size is None)
    filled.store.close()


def test_before_it_was_seen_nothing_is_known(lived: FixtureDb) -> None:
    """One line says since when; refs are unread before their first listing."""
    with pytest.raises(NotFound, match=r"nothing of bob/new at .* is known since 2026-11-01T00:00:00Z"):
        past_named(lived.store.connection, OPERATOR, "bob/new", moment(-1))
    early = past_named(lived.store.connection, OPERATOR, "ann/old", moment(0))
    assert (early.refs, early.columns["refs_synced_at"]) == ([], None)
    with pytest.raises(NotFound, match="holds no repository no/such"):
        past_named(lived.store.connection, OPERATOR, "no/such", moment(10))


def test_the_public_past_begins_at_no_change_of_a_private_repository(tmp_path: Path) -> None:
    """Else its moment would be told; the refs of what was made public are read again after that change."""
    filled = FixtureDb(tmp_path / "mirror.db")
    shown, other = (repository(f"ann/{name}", is_private=True) for name in ("shown", "other"))
    filled.repositories([shown, other], at=moment(0), first=True)
    filled.refs("ann/shown", [hg_ref("branch", "master", "1")], at=moment(1))
    filled.repositories([repository("ann/shown")], at=moment(10))
    filled.repositories([repository("ann/other", is_private=True, description="edited")], at=moment(20))
    filled.refs("ann/shown", [hg_ref("branch", "master", "1")], at=moment(30))
    for caller in (ANONYMOUS, Caller(user_ids=(99,))):
        assert known_since(filled.store.connection, caller, filled.id_of("ann/shown")) == moment(10)
    filled.store.close()


def test_strangers_see_no_private_time(lived: FixtureDb) -> None:
    """Not by a former name either, and not before the refs were read again as public."""
    for minute in (0, 10, 40, 49):
        with pytest.raises(NotFound):
            past_named(lived.store.connection, ANONYMOUS, "bob/new", moment(minute))
    with pytest.raises(NotFound, match="holds no repository"):
        past_named(lived.store.connection, ANONYMOUS, "ann/none", moment(65))
    shown = past_named(lived.store.connection, ANONYMOUS, "bob/new", moment(65))
    assert (shown.full_name, shown.since) == ("ann/mid", moment(50))
    assert shown.looks.before == moment(50)


def test_json_has_the_keys_of_today_and_the_bounds(lived: FixtureDb) -> None:
    """A program that reads one can read the other."""
    connection = lived.store.connection
    past = past_named(connection, OPERATOR, "bob/new", moment(25))
    details, today = details_of(connection, past), repository_details(connection, OPERATOR, "bob/new")
    assert details is not None
    assert today is not None
    told = past_exported(details, past)
    assert set(told) == set(today.exported()) | {"at", "known_since", "looks", "exact_to", "not_recorded"}
    assert set(told["repository"]) == set(today.exported()["repository"])
    assert (told["repository"]["full_name"], told["owner"]) == ("ann/old", "ann")
    (branch,) = told["branches"]
    assert branch["target_hash"] == "1" * 40
    assert (branch["seen_at"], branch["next_look"], branch["next_target"]) == (
        moment(20), moment(30), "2" * 40,
    )  # fmt: skip


def test_show_tells_the_past(lived: FixtureDb) -> None:
    """`--at` in the machine's zone; a future or unreadable time is refused in one line."""
    folder = Folder(lived.path.parent)
    (folder.path / "mirror.toml").write_text(
        'database = "mirror.db"\n[[upstream]]\nname = "box"\nkind = "sandbox"\nurl = "http://x"\n'
    )
    shown = folder.run("show", "bob/new", "--at", "2026-11-01T00:25Z")
    assert "2026-11-01 00:20 UTC; 2026-11-01 00:30" in shown.out.replace("\n", " ")
    assert "at 222222222222" in shown.out
    for words, said in ((["--at", "2999-01-01"], "future"), (["--at", "x"], "not a time")):
        wrong = folder.run("show", "bob/new", *words)
        assert (wrong.code, said in wrong.err, wrong.err.count("\n")) == (2, True, 1)
    early = folder.run("show", "bob/new", "--at", "2026-10-01")
    assert (early.code, "is known since" in early.err) == (1, True)


@pytest.mark.parametrize(("zone", "given"), [("UTC", "00:25"), ("XYZ-5", "05:25"), ("XYZ5", "00:25Z")])
def test_moments_of_options_are_in_the_zone_of_the_machine(lived: FixtureDb, zone: str, given: str) -> None:
    """Of `--at` and `--since` alike, unless they name one."""
    folder, when = Folder(lived.path.parent), f"2026-11-01T{given}"
    (folder.path / "mirror.toml").write_text('database = "mirror.db"\n')
    shown = json.loads(folder.run("show", "bob/new", "--at", when, "--json", TZ=zone).out)
    assert shown["at"] == moment(25)
    lines = folder.run("changes", "--since", when, "--json", TZ=zone).out.splitlines()
    assert min(json.loads(line)["at"] for line in lines) == moment(30)
