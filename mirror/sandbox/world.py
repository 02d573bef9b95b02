"""The data of the simulated Bitbucket: generated from a seed on demand, with edits on top.

A repository without edits is not stored: `generate` computes it from its number. An edited or handmade one is
a row in memory, which hides the generated one. Listings are sorted arrays of numbers, created when first
needed and kept in order.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any

from mirror.sandbox.generate import END, Generator, Uuids, generated_refs, zipf_counts
from mirror.sandbox.model import (
    Person,
    Principal,
    SandboxClock,
    SandboxRef,
    SandboxRepository,
    SandboxWorkspace,
    utc_now,
)
from mirror.sandbox.population import Population, handmade_repositories

# A key and a number in one integer compare faster than a tuple. There are fewer than 2**24 repositories.
NUMBER_BITS = 24


class SortedNumbers:
    """Numbers of repositories, sorted by a key that differs for each."""

    __slots__ = ("_key", "_numbers")

    def __init__(self, numbers: Iterable[int], key: Callable[[int], Any]) -> None:
        self._key = key
        self._numbers = array("l", sorted(numbers, key=key))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __getitem__(self, cut: slice) -> "array[int]":
        return self._numbers[cut]

    def add(self, number: int) -> None:
        """Insert a number."""
        self._numbers.insert(self.position(self._key(number)), number)

    def drop(self, number: int) -> None:
        """Remove a number; its key must be what it was when it was added."""
        position = self.position(self._key(number))
        if self._numbers[position] != number:
            raise LookupError(f"repository {number} is not where its key belongs")
        del self._numbers[position]

    def sort(self, numbers: Iterable[int]) -> list[int]:
        """Return some numbers in this order."""
        return sorted(numbers, key=self._key)

    def position(self, key: Any) -> int:
        """Return the position of the first number whose key is not below `key`."""
        return bisect_left(self._numbers, key, key=self._key)


_MOST_WORKSPACES = 100_000
SORTS = ("created_on", "updated_on", "name", "full_name", "slug")


class World:
    """Workspaces, people, repositories and refs.

    :param repositories: the number of all repositories
    :param seed: the same seed and sizes give the same world
    :param workspaces: the number of generated workspaces, besides the eight fixed ones; by default one for
        every 250 repositories. A single one is called `big`.
    :param now: the source of the clock
    """

    def __init__(
        self,
        repositories: int = 200,
        seed: int = 1,
        workspaces: int | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        if not 0 <= repositories < 1 << NUMBER_BITS:
            raise ValueError(
                f"a world has from 0 to {(1 << NUMBER_BITS) - 1} repositories, not {repositories}"
            )
        if workspaces is not None and not 1 <= workspaces <= _MOST_WORKSPACES:
            raise ValueError(f"a world has from 1 to {_MOST_WORKSPACES} workspaces, not {workspaces}")
        self.seed = seed
        self.clock = SandboxClock(now, after=END)
        self._pushes = 1 << 40  # above the keys of all generated commits
        self._population = Population(seed, max(1, repositories // 250) if workspaces is None else workspaces)
        self._all_workspaces = self._population.workspaces
        self._uuids = Uuids(seed, 9)
        self._generator = Generator(seed, self._uuids, self._all_workspaces)
        self._generate = lru_cache(4096)(self._generated)  # an edit keeps its row in `_rows`, which hides it
        self._by_slug = {workspace.slug.lower(): workspace for workspace in self._all_workspaces}
        self._by_uuid = {workspace.uuid: workspace for workspace in self._all_workspaces}
        self._rows: dict[int, SandboxRepository] = {}
        self._by_name: dict[tuple[int, str], int] = {}
        self._rows_of: dict[int, set[int]] = {workspace.number: set() for workspace in self._all_workspaces}
        self._children: dict[int, set[int]] = {}
        self._former_commits: dict[int, dict[str, tuple[str, ...]]] = {}
        self._orders: dict[int, dict[tuple[str, bool], SortedNumbers]] = {}
        for row in handmade_repositories(repositories, self._all_workspaces, self._uuids):
            self.add(row)
        self._next_number = len(self._rows)
        populated = [workspace for workspace in self._all_workspaces if workspace.number >= 8]
        counts = zipf_counts(max(0, repositories - len(self._rows)), len(populated))
        for workspace, count in zip(populated, counts, strict=True):
            workspace.first, workspace.count = self._next_number, count
            self._next_number += count
        self._generated_numbers = range(len(self._rows), self._next_number)

    # Looking up

    @property
    def workspaces(self) -> list[SandboxWorkspace]:
        """All workspaces that are not deleted, in the order of their numbers."""
        return [workspace for workspace in self._all_workspaces if not workspace.deleted]

    def workspace(self, name: str) -> SandboxWorkspace | None:
        """Return a workspace by slug or uuid."""
        found = self.any_workspace(name)
        return None if found is None or found.deleted else found

    def any_workspace(self, name: str) -> SandboxWorkspace | None:
        """Return a workspace by slug or uuid, even if it is deleted."""
        return self._by_uuid.get(name) if name.startswith("{") else self._by_slug.get(name.lower())

    def person(self, name: str) -> Person | None:
        """Return a person by user name, uuid or account id."""
        if name.startswith("{"):
            number = self._population.uuids.number(name)
            known = number is not None and number < len(self._population.people)
            return self._population.people[number] if known and number is not None else None
        if (found := self._population.by_name.get(name.lower())) is not None:
            return found
        return next((each for each in self._population.people if each.account_id == name), None)

    def people(self) -> list[Person]:
        """Return everybody with an account."""
        return self._population.people

    def find(self, workspace: str, slug: str) -> SandboxRepository | None:
        """Return a repository by workspace and slug, each a slug in any case or a uuid."""
        if slug.startswith("{"):
            number = self._uuids.number(slug)
            row = None if number is None else self.get(number)
            here = row is not None and (workspace == "{}" or self.workspace(workspace) is row.workspace)
            return row if here else None
        home = self.workspace(workspace)
        if home is None:
            return None
        number = self._by_name.get((home.number, slug.lower()))
        if number is None:
            number = self._generator.number(home, slug.lower())
            if number in self._rows:  # moved, renamed or deleted since
                return None
        return None if number is None else self.get(number)

    def get(self, number: int) -> SandboxRepository | None:
        """Return the repository with this number, unless it is deleted."""
        row = self._rows.get(number)
        if row is None and number in self._generated_numbers:
            row = self._generate(number)
        return None if row is None or row.deleted or row.workspace.deleted else row

    def gone(self, name: str) -> SandboxRepository | None:
        """Return the last deleted repository with this uuid or full name."""
        rows = reversed(self._rows.values())
        return next(
            (row for row in rows if row.deleted and name.lower() in (row.uuid, row.full_name.lower())), None
        )

    def forks(self, row: SandboxRepository) -> list[SandboxRepository]:
        """Return the repositories forked from this one."""
        numbers = set(self._children.get(row.number, ()))
        if row.number in self._generated_numbers:
            found = self._generator.forks(self._home(row.number), row.number)
            numbers.update(number for number in found if number not in self._rows)
        return [fork for number in sorted(numbers) if (fork := self.get(number)) is not None]

    def refs_of(self, row: SandboxRepository) -> list[SandboxRef]:
        """Return branches and tags in byte order of their full names."""
        refs = generated_refs(row, self.seed) if row.refs is None else row.refs
        return sorted(refs, key=lambda ref: ref.path.encode())

    def commits_of(self, row: SandboxRepository) -> dict[str, tuple[str, ...]]:
        """Map the commits that refs point to, or pointed to before a push, to their parents."""
        now = {ref.target: ref.parents for ref in self.refs_of(row)}
        return {**now, **self._former_commits.get(row.number, {})}

    def commits_between(self, row: SandboxRepository, include: str, exclude: str | None) -> list[str] | None:
        """List a commit and its ancestors without those of `exclude`; None if one does not exist."""
        commits = self.commits_of(row)
        known = {*commits, *(parent for parents in commits.values() for parent in parents)}
        if not {include, exclude or include} <= known:
            return None
        excluded = set(_reachable(commits, exclude)) if exclude else set()
        return [commit for commit in _reachable(commits, include) if commit not in excluded]

    def can_see(self, caller: Principal, row: SandboxRepository) -> bool:
        """Return whether the caller may see a repository."""
        return not row.is_private or self.is_member(caller, row.workspace)

    def is_member(self, caller: Principal, workspace: SandboxWorkspace) -> bool:
        """Return whether the caller is a member of a workspace, or may see everything."""
        return caller.sees_all or (caller.kind == "person" and workspace.has_member(caller.name))

    # Listing

    def order(self, workspace: SandboxWorkspace, sort: str, caller: Principal) -> SortedNumbers:
        """Return the sorted numbers of the repositories in a workspace that the caller may see."""
        public_only = not self.is_member(caller, workspace)
        orders = self._orders.setdefault(workspace.number, {})
        order = orders.get((sort, public_only))
        if order is None:
            order = SortedNumbers(
                self._numbers(workspace, public_only=public_only), self._key(workspace, sort)
            )
            orders[sort, public_only] = order
        return order

    # Editing

    def add(self, row: SandboxRepository) -> None:
        """Add a new repository."""
        self._keep(row)
        self._file(row)

    @property
    def numbers(self) -> range:
        """The numbers of all repositories, also deleted ones."""
        return range(self._next_number)

    def new_number(self) -> int:
        """Return an unused repository number."""
        self._next_number += 1
        return self._next_number - 1

    def next_push(self) -> int:
        """Return an unused key for `new_ref`, so that no two pushes create the same commit."""
        self._pushes += 1
        return self._pushes

    def new_uuid(self, number: int) -> str:
        """Return the uuid of a repository number."""
        return self._uuids.of(number)

    @contextmanager
    def changing(self, row: SandboxRepository, *, touch: bool = True) -> Iterator[SandboxRepository]:
        """Yield a repository to be changed, then update all listings and, with `touch`, `updated_on`."""
        row = self._keep(self._rows.get(row.number, row))
        if row.refs is None:  # generate them now: they depend on dates and members
            row.refs = generated_refs(row, self.seed)
        self._unfile(row)
        try:
            yield row
        finally:
            if touch:
                row.updated = self.clock.tick()
            self._file(row)

    @contextmanager
    def changing_refs(
        self, row: SandboxRepository, *, touch: bool
    ) -> Iterator[dict[tuple[str, str], SandboxRef]]:
        """Yield the refs of a repository, by kind and name, to be changed."""
        with self.changing(row, touch=touch) as kept:
            before = {(ref.kind, ref.name): ref for ref in self.refs_of(kept)}
            refs = dict(before)
            yield refs
            kept.refs = list(refs.values())
            former = self._former_commits.setdefault(kept.number, {})
            for place, ref in before.items():
                if refs.get(place) is not ref:
                    former.setdefault(ref.target, ref.parents)

    def rename_workspace(self, workspace: SandboxWorkspace, slug: str) -> None:
        """Change the slug of a workspace, and so the full names of its repositories; no date changes."""
        if slug.lower() in self._by_slug:
            raise ValueError(f"there is a workspace {slug} already")
        del self._by_slug[workspace.slug.lower()]
        workspace.slug = slug
        self._by_slug[slug.lower()] = workspace

    # Inside

    def _generated(self, number: int) -> SandboxRepository:
        return self._generator.repository(self._home(number), number)

    def _home(self, number: int) -> SandboxWorkspace:
        """Return the workspace that a generated repository was generated in."""
        low, high = 8, len(self._all_workspaces) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._all_workspaces[middle].first <= number else (low, middle - 1)
        return self._all_workspaces[low]

    def _numbers(self, workspace: SandboxWorkspace, *, public_only: bool) -> Iterator[int]:
        rows, is_private = self._rows, self._generator.is_private
        for number in sorted(self._rows_of[workspace.number]):
            if not (public_only and rows[number].is_private):
                yield number
        for number in range(workspace.first, workspace.first + workspace.count):
            if number not in rows and not (public_only and is_private(number)):
                yield number

    def _key(self, workspace: SandboxWorkspace, sort: str) -> Callable[[int], Any]:
        rows, generator = self._rows, self._generator

        def created(number: int) -> int:
            row = rows.get(number)
            return (row.created if row else generator.created(workspace, number)) << NUMBER_BITS | number

        def updated(number: int) -> int:
            row = rows.get(number)
            return (row.updated if row else generator.updated(workspace, number)) << NUMBER_BITS | number

        def name(number: int) -> tuple[str, int]:
            row = rows.get(number) or self._generate(number)
            return row.name.lower() if sort == "name" else row.slug, number

        return {"created_on": created, "updated_on": updated}.get(sort, name)

    def _keep(self, row: SandboxRepository) -> SandboxRepository:
        """Store a row, which hides the generated repository of its number."""
        if row.number not in self._rows:
            self._rows[row.number] = row
            self._rows_of[row.workspace.number].add(row.number)
            self._by_name[row.workspace.number, row.slug.lower()] = row.number
            if row.parent is not None:
                self._children.setdefault(row.parent, set()).add(row.number)
        return row

    def _file(self, row: SandboxRepository) -> None:
        if row.deleted:
            return
        self._rows_of[row.workspace.number].add(row.number)
        self._by_name[row.workspace.number, row.slug.lower()] = row.number
        for (_, public_only), order in self._orders.get(row.workspace.number, {}).items():
            if not (public_only and row.is_private):
                order.add(row.number)

    def _unfile(self, row: SandboxRepository) -> None:
        if row.deleted:
            return
        for (_, public_only), order in self._orders.get(row.workspace.number, {}).items():
            if not (public_only and row.is_private):
                order.drop(row.number)
        self._rows_of[row.workspace.number].discard(row.number)
        del self._by_name[row.workspace.number, row.slug.lower()]


def _reachable(commits: dict[str, tuple[str, ...]], start: str) -> list[str]:
    """Return a commit and its known ancestors."""
    found, left = dict[str, None](), [start]
    while left:
        commit = left.pop(0)
        if commit not in found:
            found[commit] = None
            left += commits.get(commit, ())
    return list(found)
