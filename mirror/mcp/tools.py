"""The tools: each method answers one question from one snapshot of the file.

Every answer is small and includes the age of the data. No answer claims that something is missing at
Bitbucket if only the mirror lacks it. Clients show the docstrings and parameters to their users.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mirror.errors import ConfigError, NotFound, StoreError
from mirror.mcp import sql as guarded
from mirror.queries.changes import ChangeFilter, latest_changes
from mirror.queries.crawl import missing, upstreams
from mirror.queries.past import past_copy, past_named
from mirror.queries.refs import REFS_READ, RefsWanted, refs_page
from mirror.queries.repositories import repository_named
from mirror.queries.rows import ChangeRow, RefRow, RepositoryRow
from mirror.queries.search import SOME_UNREAD, find_refs, find_repositories
from mirror.queries.status import counts_of
from mirror.queries.visibility import Caller, hides, is_unconfirmed
from mirror.queries.web_links import RepositoryLinks, WebLinks
from mirror.search.find import one_snapshot
from mirror.store.faults import damage_explained
from mirror.store.files import open_reader, snapshot_moment
from mirror.store.lock import is_syncing
from mirror.times import age_text, from_text, moment_of, past_moment, seconds_of, to_text, utc_now

MOST = 50  # the largest number of items in an answer; rows of SQL have their own limit
MOST_ROWS = 200
LONGEST_TEXT = 200  # of descriptions and values, in characters

NO_PROOF = "That it is not here does not prove that it does not exist: the mirror knows what it has read."
Answer = dict[str, Any]
Kind = Literal["branch", "tag"]


class _Seen(NamedTuple):
    """A mirror, the name of a repository in it, and, if it is of the past, the reads around that moment."""

    connection: sqlite3.Connection
    full_name: str
    bounds: Answer


class Tools:
    """Answers from one mirror file, for one caller; `clock` returns the time in UTC."""

    def __init__(self, path: Path, caller: Caller, clock: Callable[[], datetime] = utc_now) -> None:
        self._path, self._caller, self._clock = path, caller, clock

    def find_repositories(
        self,
        query: str,
        owner: str = "",
        language: str = "",
        in_descriptions: bool = False,  # noqa: FBT001, FBT002 - a parameter of the protocol, given by name
        limit: int = 10,
        offset: int = 0,
    ) -> Answer:
        """Find repositories whose name contains a text, in any case; `owner/part` searches one owner's.

        An empty query lists all, the most popular first. `in_descriptions` also finds words of descriptions,
        after names. `count` is the exact number of matches. At most 50 are listed; `offset` skips the first
        ones.
        """
        with self._snapshot() as connection:
            found = find_repositories(
                connection,
                self._caller,
                query,
                limit=_limited(limit, MOST),
                offset=max(0, offset),
                owner=owner or None,
                language=language or None,
                descriptions=in_descriptions,
            )
            notes = list[str]()
            if not found.count:
                shown = counts_of(connection, self._caller).repositories
                notes = [f"None of the {shown:,} repositories that this mirror shows matches.", NO_PROOF]
            if found.fuzzy:
                notes.append(
                    f"Nothing matches as written; these names are the nearest: {', '.join(found.corrected)}."
                )
            listed = [_repository_summary(row, found.links(row)) for row in found.repositories]
            return self._answer(connection, {"count": found.count, "repositories": listed}, notes)

    def show_repository(self, full_name: str, limit: int = 20, at: str = "") -> Answer:
        """Show a repository, named owner/slug, with its newest branches and tags and how many there are.

        Branches and tags are null if the mirror did not read them yet. `at` is a moment of the past
        (2026-11-03, 2026-11-03T10:00 in UTC, 12h ago as 12h): shows the repository as the mirror knew it
        then, with the reads before and after it in `past`. Values that are not recorded are null.
        """
        with self._snapshot() as connection, self._seen(connection, full_name, at) as seen:
            row = self._repository_named(seen.connection, seen.full_name)
            refs = {
                name: self._refs(seen.connection, row, RefsWanted(kind=kind, size=_limited(limit, MOST)))
                for name, kind in _REFS.items()
            }
            links = WebLinks(seen.connection, self._caller).repositories([row])[row.id]
            told = {
                **_repository_summary(row, links),
                "clone_urls": links.clone_urls,
                **row.columns(*_DETAILS),
            }
            return self._answer(
                connection, {"repository": told, **refs, **seen.bounds}, _note_of_unread_refs(row)
            )

    @contextmanager
    def _seen(self, connection: sqlite3.Connection, full_name: str, at: str) -> "Iterator[_Seen]":
        """Yield the mirror, or a copy in memory with a repository of the past; raises NotFound."""
        if not at:
            yield _Seen(connection, full_name, {})
            return
        try:
            moment = past_moment(at, self._clock())
        except (ValueError, OverflowError) as error:
            raise ConfigError(str(error)) from None
        past = past_named(connection, self._caller, full_name.strip("/ "), moment)
        with past_copy(connection, self._caller, [past]) as copy:
            yield _Seen(copy, past.full_name, {"past": past.bounds()})

    def find_refs(
        self, query: str = "", full_name: str = "", kind: Kind | None = None, limit: int = 20
    ) -> Answer:
        """Find branches and tags whose name contains a text, or whose commit's hash begins with it.

        In all repositories; with `full_name`, owner/slug, in one, newest first, by name only. `kind` is
        branch or tag; without it, both. Each has the hash and date of its commit.
        """
        if not full_name:
            return self._refs_everywhere(query, kind, _limited(limit, MOST))
        with self._snapshot() as connection:
            row = self._repository_named(connection, full_name)
            wanted = {name: one for name, one in _REFS.items() if kind in (None, one)}
            refs = {
                name: self._refs(
                    connection, row, RefsWanted(kind=one, part=query, size=_limited(limit, MOST))
                )
                for name, one in wanted.items()
            }
            return self._answer(connection, {"repository": row.full_name, **refs}, _note_of_unread_refs(row))

    def _refs_everywhere(self, query: str, kind: Kind | None, limit: int) -> Answer:
        with self._snapshot() as connection:
            found = find_refs(connection, self._caller, query, kind=kind, limit=limit)
            unread = counts_of(connection, self._caller).refs_unread
            notes = [] if found.count else [NO_PROOF]
            notes += [note for note in found.notes if note != SOME_UNREAD]
            if unread:
                notes.append(f"The refs of {unread:,} repositories were not read yet; they may have more.")
            listed = [
                {
                    "repository": ref.repository.full_name,
                    "kind": ref.kind,
                    "name": ref.name,
                    "commit": ref.target_hash,
                    "date": ref.target_date,
                    "url": ref.links.url,
                }
                for ref in found.refs
            ]
            facts = {"count": found.count, "repositories": found.repositories, "refs": listed}
            return self._answer(connection, facts, notes)

    def changes_since(
        self, since: str = "7d", owner: str = "", repository: str = "", limit: int = 20
    ) -> Answer:
        """List changes that the mirror saw, latest first: repositories created, renamed, gone; refs moved.

        `since` is how long ago (24h, 7d) or a moment in UTC (2026-11-01). `owner` is a name, `repository` is
        owner/slug.
        """
        try:
            moment = to_text(moment_of(since, self._clock()))
        except (ValueError, OverflowError) as error:
            raise ConfigError(str(error)) from None
        with self._snapshot() as connection:
            of = self._repository_named(connection, repository).id if repository else None
            wanted = ChangeFilter(since=moment, owner=owner, repository_id=of)
            found = latest_changes(connection, self._caller, wanted, limit=_limited(limit, MOST))
            quiet = f"Nothing was seen to change since {moment[:19]}Z, up to the last sync in as_of."
            notes = [] if found.rows else [quiet]
            listed = [_change(row) for row in found.rows]
            facts = {"since": moment, "changes": listed, "more": found.more}
            return self._answer(connection, facts, notes)

    def is_current(self, max_age: str = "1d") -> Answer:
        """Say whether the mirror is current: whether each upstream was read completely within `max_age`.

        `max_age` is a duration such as 1h or 7d. Also reports what is missing, and whether a sync is running.
        """
        try:
            seconds = seconds_of(max_age)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        with self._snapshot() as connection:
            counts = counts_of(connection, self._caller)
            is_open = not hides(connection, self._caller)
            gaps = missing(connection, self._caller, is_open=is_open).missing or 0
            rows = upstreams(connection, self._caller)
            ages = [self._age(row.complete_at) for row in rows]
            is_current = bool(ages) and all(age is not None and age <= seconds for age in ages)
            facts = {
                "current": is_current and not gaps and not counts.refs_unread,
                "max_age": max_age,
                "repositories": counts.repositories,
                "repositories_without_refs_read": counts.refs_unread,
                "known_to_be_missing": gaps,
                "sync_running": is_syncing(self._path),
            }
            return self._answer(connection, facts, [])

    def query_sql(self, sql: str, limit: int = 50) -> Answer:
        """Answer one SELECT in SQLite's SQL over the mirror, within 2 seconds and 200 rows.

        Tables: repositories (id, owner_id, full_name, slug, name, description, language, size, is_private,
        main_branch, archived, created_at, updated_at, refs_synced_at, deleted_at), users (id, username,
        display_name, kind), branches and tags (repository_id, name, target_hash, target_date,
        target_author), changes (at, kind, repository_id, ref, old, new), projects, upstreams, sync_runs.
        Times are UTC text. A repository exists if deleted_at is NULL. Functions that return JSON:
        `mirror_search(part, limit)` ids, `mirror_refs(part, limit)` refs, `mirror_refs_at(full_name, moment)`
        and `mirror_repository_at(full_name, moment)` the past. `SELECT sql FROM sqlite_master` lists all
        columns. Long texts are cut.
        """
        found = guarded.ask(self._path, self._caller, sql, limit=_limited(limit, MOST_ROWS))
        with self._snapshot() as connection:
            facts = {"columns": found.columns, "rows": found.rows, "more": found.more}
            return self._answer(connection, facts, [] if found.rows else [NO_PROOF])

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one answer: it may be replaced between two answers. Raises StoreError."""
        connection = open_reader(self._path)
        with closing(connection), damage_explained(self._path), one_snapshot(connection):
            if is_unconfirmed(connection, self._caller):
                raise StoreError("a copy was restored; nothing is shown to the public until all is listed")
            yield connection

    def _answer(self, connection: sqlite3.Connection, facts: Answer, notes: list[str]) -> Answer:
        """Add the age of the data, and notes."""
        rows = upstreams(connection, self._caller)
        as_of = [{"upstream": row.name, **self._described_age(row.complete_at)} for row in rows]
        published = snapshot_moment(connection)
        if published:
            as_of = [{"published_snapshot": published, "age": self._described_age(published)["age"]}]
        elif any(row.complete_at is None for row in rows) or not rows:
            notes = [*notes, "No complete sync yet: what is not here may exist."]
        return {**facts, "as_of": as_of, **({"notes": notes} if notes else {})}

    def _described_age(self, moment: str | None) -> Answer:
        age = self._age(moment)
        return {"complete_sync": moment, "age": "never complete" if age is None else age_text(age)}

    def _age(self, moment: str | None) -> float | None:
        return max(0.0, (self._clock() - from_text(moment)).total_seconds()) if moment else None

    def _repository_named(self, connection: sqlite3.Connection, full_name: str) -> RepositoryRow:
        """Find a repository; raises NotFound, in the same words for a hidden one."""
        row = repository_named(connection, self._caller, full_name.strip("/ "), gone=True)
        if row is None:
            raise NotFound(f"this mirror shows no repository {full_name[:200]!r}. {NO_PROOF}")
        return row

    @staticmethod
    def _refs(connection: sqlite3.Connection, row: RepositoryRow, wanted: RefsWanted) -> Answer | None:
        """Read refs of one kind; None if the mirror did not read them."""
        if row.refs != REFS_READ:
            return None
        page = refs_page(connection, row.id, wanted)
        return {"count": page.count, "newest": [_ref(one) for one in page.rows]}


_REFS: dict[str, Kind] = {"branches": "branch", "tags": "tag"}
_DETAILS = (
    "scm", "main_branch", "website", "size", "project_key", "parent_full_name", "created_at",
    "refs_synced_at", "gone_reason",
)  # fmt: skip


def _limited(number: int, most: int) -> int:
    return max(1, min(number, most))


def _repository_summary(row: RepositoryRow, links: RepositoryLinks) -> Answer:
    return {
        "full_name": row.full_name,
        "url": links.url,
        "description": _short(row.description),
        "language": row.language,
        "states": list(row.states),
        "updated_at": row.updated_at,
    }


def _ref(row: RefRow) -> Answer:
    return {
        "name": row.name,
        "commit": row.target_hash,
        "date": row.made_at,
        "author": row.target_author_name or row.target_author,
    }


def _change(row: ChangeRow) -> Answer:
    return {
        "at": row.at,
        "kind": row.kind,
        "repository": row.repository,
        "owner": row.owner,
        "ref": row.ref,
        "old": _short(row.old),
        "new": _short(row.new),
    }


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _note_of_unread_refs(row: RepositoryRow) -> list[str]:
    return [] if row.refs == REFS_READ else [f"Branches and tags: {row.refs}, so they are unknown, not none."]
