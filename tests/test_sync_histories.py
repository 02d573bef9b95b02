"""Random histories: changes between runs and while pages are read, and the mirror stays correct.

After each run nothing may be marked as gone that was never out of sight; after the edits have stopped, one
more run makes the mirror equal to the upstream row by row, and the one after that has nothing to do.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sync_harness import Clock, SyncHarness, WithoutNetwork, assert_matches_sandbox

from mirror.sandbox import (
    ANONYMOUS,
    TOKEN,
    Principal,
    Sandbox,
    World,
    repository_refs,
    visible_repositories,
)
from mirror.store.runs import Failure

MIRRORED = ("jespern", "erik", "ubernostrum")
ELSEWHERE = ("brodie", "mcatalbas")
SEED = 26
"""A world whose repositories have few refs, so that a history costs few requests."""


class Edit(NamedTuple):
    """A change by somebody; the numbers choose its target among what exists then."""

    action: str
    one: int
    other: int


ACTIONS = (
    "touch", "push", "create", "delete", "restore", "rename", "swap_names", "transfer", "rename_workspace",
    "make_private", "make_public", "edit", "create_branch", "delete_branch", "create_tag", "move_tag",
    "delete_tag",
)  # fmt: skip
edits = st.builds(Edit, st.sampled_from(ACTIONS), st.integers(0, 60), st.integers(0, 60))
between = st.lists(edits, max_size=4)
meanwhile = st.lists(st.tuples(st.integers(1, 14), edits), max_size=4)
cuts = st.none() | st.integers(1, 12)
"""After how many requests a run is cut short, before the rest happens."""
histories = st.lists(st.tuples(between, cuts, between, meanwhile), min_size=1, max_size=2)


class Theatre:
    """A mirror of the world before any history, copied for each one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._played = 0
        self._first = dict[bool, Path]()

    def begin(self, *, anonymous: bool) -> "Play":
        """Reset the world, with a mirror of its beginning."""
        if anonymous not in self._first:
            first = Play(self.folder / f"first-{anonymous}.db", anonymous=anonymous)
            assert first.crawl.sync().state == "complete"
            self._first[anonymous] = first.crawl.path
        self._played += 1
        path = self.folder / f"{self._played}.db"
        shutil.copy(self._first[anonymous], path)
        return Play(path, anonymous=anonymous)


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Theatre:
    """The world and mirror for the histories of this module."""
    return Theatre(tmp_path_factory.mktemp("histories"))


class Play:
    """One history: the sandbox, its mirror, and the repositories that were ever hidden."""

    def __init__(self, path: Path, *, anonymous: bool) -> None:
        clock = Clock()
        clock.wait(0 if path.name.startswith("first") else 3600)
        self.sandbox = Sandbox(World(0, seed=SEED, now=clock.now))
        self.caller: Principal = ANONYMOUS if anonymous else TOKEN
        options: dict[str, Any] = {"workspaces": MIRRORED, "absence_brake": 1.0}
        secret = None if anonymous else "sandbox"
        self.crawl = SyncHarness("http://sandbox", path, clock, secret=secret, **options)
        self.crawl.transport = WithoutNetwork(self.sandbox.answer, page_length=2)
        self._uuids = {self._slot(slug).uuid for slug in MIRRORED}
        self._created = 0
        self.out_of_sight = set[str]()
        self._lately = set[str]()
        """What went out of sight since the last run began; it may be back."""
        self._restored_lately = False
        self.needs_sweep = False
        """Whether one came back as another left between two runs: no total tells (`docs/crawling.md`)."""

    @property
    def slugs(self) -> list[str]:
        """The current names of the mirrored workspaces."""
        return [each.slug for each in self.sandbox.world.workspaces if each.uuid in self._uuids]

    def visible(self) -> set[str]:
        """Return the repositories that a mirror should show now, by uuid."""
        slugs = self.slugs
        return {
            row["uuid"]
            for row in visible_repositories(self.sandbox.world, self.caller)
            if row["full_name"].partition("/")[0] in slugs
        }

    def do(self, edit: Edit) -> None:
        """Make the change, if it is possible."""
        before = self.visible()
        try:
            self._do(edit)
        except ValueError:
            return  # there is a repository of that name already, or no such ref
        self._lately |= before - self.visible()
        self._restored_lately |= edit.action == "restore"
        self.out_of_sight |= self._lately

    def sync(self, *, meanwhile: bool = False, max_requests: int | None = None) -> None:
        """Sync; whatever happens meanwhile, only what was out of sight may be called gone.

        Then, what was deleted after it was listed has no refs to be asked for, what lost its last branch
        has a main branch and no ref, and nothing else may fail.
        """
        self.needs_sweep |= self._restored_lately and bool(self._lately)
        self._restored_lately = False
        self._lately.clear()
        sweeps = self.needs_sweep and not meanwhile
        summary = self.crawl.sync(max_requests=max_requests, full=sweeps)
        self.needs_sweep &= not sweeps
        unexpected = [
            failure for failure in summary.failures if not (meanwhile and self._is_explained(failure))
        ]
        assert not unexpected
        assert summary.state in ("complete", "incomplete", "paused" if max_requests else "complete")
        assert not self.sandbox.state()["errors"]
        gone = {
            row[0] for row in self.crawl.rows("SELECT uuid FROM repositories WHERE deleted_at IS NOT NULL")
        }
        assert gone <= self.out_of_sight

    def _is_explained(self, failure: Failure) -> bool:
        """Return whether a repository or its last ref was deleted between two looks."""
        world = self.sandbox.world
        if failure.kind == "refs" and failure.status == 404:
            lost = {row[0] for row in self.crawl.rows("SELECT uuid FROM repositories")} - self.visible()
            return failure.subject in lost | self._lately
        bare = {
            row["uuid"] for row in visible_repositories(world) if not repository_refs(world, row["full_name"])
        }
        return failure.kind == "refs" and "no ref is listed" in failure.error and failure.subject in bare

    def _slot(self, slug: str) -> Any:
        return self.sandbox.world.workspace(slug)

    def _do(self, edit: Edit) -> None:
        action, near = edit.action, [*self.slugs, *ELSEWHERE]
        self._created += 1
        if action == "create":
            self.sandbox.do(action, workspace=_one(near, edit.one), name=self._fresh, main_branch="main")
        elif action == "rename_workspace":
            self.sandbox.do(action, workspace=_one(self.slugs, edit.one), name=f"ws-{self._created}")
        elif rows := self._befallen(action, near):
            name = _one(rows, edit.one)
            self.sandbox.do(action, name, **self._details(edit, name, _one(rows, edit.other), near))

    @property
    def _fresh(self) -> str:
        return f"new {self._created}"

    def _befallen(self, action: str, near: list[str]) -> list[str]:
        """Return the repositories that a change is possible for."""
        world = self.sandbox.world
        if action == "restore":
            return [uuid for uuid in sorted(self.out_of_sight) if world.gone(uuid) is not None]
        return [
            name
            for row in visible_repositories(world)
            if (name := row["full_name"]).partition("/")[0] in near
        ]

    def _details(  # noqa: PLR0911 - a table
        self, edit: Edit, name: str, other: str, near: list[str]
    ) -> dict[str, Any]:
        """Say what exactly is done to a repository."""
        match edit.action:
            case "rename":
                return {"name": self._fresh}
            case "swap_names":
                return {"with": other}
            case "transfer":
                return {"to": _one(near, edit.other)}
            case "edit":
                return {"fields": {"description": self._fresh, "website": None}}
            case "create_branch" | "create_tag":
                return {"name": self._fresh.replace(" ", "-")}
            case "delete_branch" | "move_tag" | "delete_tag":
                is_tag = "tag" in edit.action
                refs = [
                    r["name"]
                    for r in repository_refs(self.sandbox.world, name)
                    if (r["type"] == "tag") is is_tag
                ]
                return {"name": _one(refs or ["none"], edit.other)}
            case _:
                return {}


def _one(of: list[str], number: int) -> str:
    return of[number % len(of)]


def play(theatre: Theatre, history: list[Any], *, anonymous: bool) -> None:
    """Run a history, and compare the mirror with the world after each part."""
    it = theatre.begin(anonymous=anonymous)
    for before, cut, then, meanwhile in history:
        for edit in before:
            it.do(edit)
        if cut is not None:
            it.sync(meanwhile=True, max_requests=cut)
        for edit in then:
            it.do(edit)
        if cut is not None:
            it.sync(meanwhile=True)  # goes on with what the one before had listed
        it.sandbox.reset()
        for number, edit in meanwhile:
            it.sandbox.on_request(number, lambda edit=edit: it.do(edit))  # type: ignore[misc]
        it.sync(meanwhile=True)
        it.sandbox.reset()  # what has not happened by now does not happen any more
        it.sync()
        assert_matches_sandbox(it.crawl, it.sandbox, it.slugs, it.caller)
    it.crawl.sync(later=2 * 86_400)  # leaves what was updated behind the overlap
    it.sandbox.reset()
    it.sync()
    assert it.sandbox.state()["by_kind"] == {"listing": len(MIRRORED)}


RETURNED_WHILE_ANOTHER_LEFT: list[Any] = [
    ([Edit("delete", 49, 0)], 4, [Edit("restore", 0, 0), Edit("delete", 38, 0)], [])
]
"""One repository comes back as another is deleted, so the total of the listing stays the same."""

RESTORED_AS_ANOTHER_WAS_DELETED: list[Any] = [
    ([], None, [Edit("delete", 0, 0)], []),
    ([], None, [Edit("restore", 0, 0), Edit("delete", 1, 0)], []),
]
"""The same between two incremental listings, which cannot tell; the next sweep does."""

RENAMED_BEFORE_ITS_MEMBERS: list[Any] = [
    ([Edit("rename_workspace", 0, 0)], 4, [Edit("rename_workspace", 0, 0)], [])
]
"""A run ends before the members of a renamed workspace are listed, and it is renamed again."""

RETURNED_WHILE_REFS_ARE_READ: list[Any] = [
    (
        [],
        None,
        [Edit("touch", 0, 0), Edit("touch", 28, 0)],
        [(5, Edit("delete", 0, 0)), (10, Edit("restore", 0, 0))],
    )
]
"""A repository is not there when its refs are read, and back by the end of the run."""


@pytest.mark.parametrize(
    ("history", "anonymous"),
    [
        (RETURNED_WHILE_ANOTHER_LEFT, False),
        (RESTORED_AS_ANOTHER_WAS_DELETED, False),
        (RENAMED_BEFORE_ITS_MEMBERS, False),
        (RETURNED_WHILE_REFS_ARE_READ, True),
    ],
)
def test_histories_that_once_went_wrong_end_well(
    theatre: Theatre, history: list[Any], anonymous: bool
) -> None:
    """A mirror with a token, or without, is equal to its upstream after each part of them."""
    play(theatre, history, anonymous=anonymous)


PATIENT = settings(
    max_examples=examples(12),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    print_blob=True,
)


@pytest.mark.timeout(900)  # a failure is made smaller first
@pytest.mark.parametrize("part", range(3))
@PATIENT
@given(history=histories)
def test_a_mirror_with_a_token_equals_its_upstream(theatre: Theatre, part: int, history: list[Any]) -> None:
    """After any changes between and during runs, one more run makes the mirror correct."""
    play(theatre, history, anonymous=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(2))
@PATIENT
@given(history=histories)
def test_an_anonymous_mirror_equals_its_upstream(theatre: Theatre, part: int, history: list[Any]) -> None:
    """The same without a credential, to which private means hidden."""
    play(theatre, history, anonymous=True)
