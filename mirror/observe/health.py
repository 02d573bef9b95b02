"""Whether the mirror is well, judged by the file, with the reasons if it is not.

It is unwell when somebody must act: no sync has ended for a long time, the budget is spent hour after hour,
the disk is nearly full, the file is damaged. An upstream that is unreachable for a while, or one bad
repository, is a warning at most.
"""

import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from mirror.errors import StoreError
from mirror.queries.crawl import upstreams
from mirror.queries.visibility import OPERATOR, Caller, hides, visible
from mirror.readable import size_text
from mirror.store.cursors import Cursors
from mirror.store.files import open_reader
from mirror.store.repair import latest_ahead
from mirror.store.rows import fetch, fetch_value
from mirror.times import age_text, from_text, to_text

PATIENCE = timedelta(days=2)
SPENT_FOR = timedelta(hours=3)
LEAST_FREE = 256 * 1024 * 1024  # the free space on the disk below which the mirror is unwell, in bytes

_ENDED = "('complete', 'incomplete')"
_LISTINGS = "('full', 'incremental')"
_LAST_RUN = "FROM sync_runs WHERE upstream_id = ? ORDER BY id DESC LIMIT 1"
_UNTOLD = "a token of the whole mirror is told what is wrong"
_WAITING = """SELECT f.kind, count(*) FROM sync_failures f LEFT JOIN repositories r ON r.id = f.repository_id
    WHERE f.upstream_id = :upstream AND NOT f.accepted AND %s GROUP BY f.kind"""
_OWN_NUMBER = "the % requests of this run are used%"


class Health(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The health of a mirror.

    :param status: ok, or unwell for these `reasons`.
    :param warnings: what is worth knowing even if all is well.
    :param copy: only if a copy is served: `as_of`, when a run last wrote into it; `age_seconds` since then;
        `replaced_at`, the time of its file.
    """

    status: str
    reasons: list[str]
    warnings: list[str]
    copy: dict[str, Any] | None = None


def read_health(
    connection: sqlite3.Connection,
    path: Path,
    now: datetime,
    *,
    patience: Mapping[str, float] | None = None,
    free: int | None = None,
    is_copy: bool = False,
    caller: Caller = OPERATOR,
) -> Health:
    """Check the file and its disk.

    :param patience: maps each configured upstream to the age, in seconds, at which its last complete sync is
        too old. Other upstreams in the file are ignored. By default all upstreams count, with two days.
    :param free: the free bytes on the disk; None asks the system.
    :param is_copy: whether to add the age of the copy.
    :param caller: is told nothing that depends on what is hidden from them, except the status.
    """
    reasons, warnings = list[str](), list[str]()
    try:
        is_open, known = not hides(connection, caller), {one.id for one in upstreams(connection, caller)}
        for upstream_id, name in fetch(connection, "SELECT id, name FROM upstreams ORDER BY id"):
            if patience and name not in patience:
                continue
            allowed = timedelta(seconds=(patience or {}).get(name, PATIENCE.total_seconds()))
            late = [f"{name}: {why}" for why in _late(connection, upstream_id, now, allowed)]
            other = [f"{name}: {why}" for why in _reasons(connection, upstream_id, now, allowed)]
            told = [*late, *other] if is_open else late if upstream_id in known else []
            reasons += told
            if len(told) < len(late) + len(other) and _UNTOLD not in reasons:
                reasons.append(_UNTOLD)
            if upstream_id in known:
                shown = "1" if is_open else visible(caller, "r")
                failures = fetch(connection, _WAITING % shown, {"upstream": upstream_id, **caller.values})
                warnings += [f"{name}: {why}" for why in _warnings(connection, upstream_id, failures)]
    except sqlite3.OperationalError as error:
        reasons.append(f"the file is busy or cannot be read: {error}")
    except sqlite3.DatabaseError as error:
        reasons.append(f"the file is damaged: {error}")
    left = shutil.disk_usage(path.parent).free if free is None else free
    if left < LEAST_FREE:
        reasons.append(f"the disk is nearly full: {size_text(left)} are free")
    found = Health(status="unwell" if reasons else "ok", reasons=reasons, warnings=warnings)
    if is_copy:
        found.copy = _copy_age(connection, path, now)
    return found


def _copy_age(connection: sqlite3.Connection, path: Path, now: datetime) -> dict[str, Any]:
    """Read the age of a copy from its rows."""
    # The times of the file change when it is moved.
    as_of = fetch_value(connection, "SELECT max(coalesce(finished_at, started_at)) FROM sync_runs")
    return {
        "as_of": as_of,
        "age_seconds": round((now - from_text(as_of)).total_seconds(), 1) if as_of else None,
        "replaced_at": to_text(datetime.fromtimestamp(path.stat().st_mtime, UTC)),
    }


def file_health(path: Path, now: datetime, *, patience: Mapping[str, float]) -> Health:
    """Check a file, which may not even open; `patience` as in `read_health`."""
    try:
        with closing(open_reader(path)) as connection:
            return read_health(connection, path, now, patience=patience)
    except StoreError as error:
        return Health(status="unwell", reasons=[str(error)], warnings=[])


def _ended(connection: sqlite3.Connection, upstream_id: int, now: datetime) -> datetime | None:
    """Return when the last sync of an upstream ended."""
    return _moment(
        connection,
        f"""SELECT finished_at FROM sync_runs WHERE upstream_id = :id AND state IN {_ENDED}
            AND kind IN {_LISTINGS} AND finished_at <= :now ORDER BY id DESC LIMIT 1""",
        {"id": upstream_id, "now": to_text(now)},
    )


def _late(
    connection: sqlite3.Connection, upstream_id: int, now: datetime, allowed: timedelta
) -> Iterator[str]:
    """Yield that the last sync of an upstream is too old."""
    ended = _ended(connection, upstream_id, now)
    first = "SELECT started_at FROM sync_runs WHERE upstream_id = :id ORDER BY id LIMIT 1"
    began = _moment(connection, first, {"id": upstream_id})
    # A first load may take days: while it makes progress, nobody has to act.
    if ended is not None and now - ended > allowed:
        yield f"the last sync ended {_ago(now - ended)} ago"
    elif ended is None and began is not None and not _advances(connection, upstream_id, now - allowed):
        yield f"no sync has ended in {_ago(now - began)}, and none makes progress"


def _reasons(
    connection: sqlite3.Connection, upstream_id: int, now: datetime, allowed: timedelta
) -> Iterator[str]:
    """Yield the other reasons why the mirror of one upstream is unwell."""
    ended, cursors = _ended(connection, upstream_id, now), Cursors(connection, upstream_id)
    listed = max((from_text(state.cursor) for _, state in cursors.workspaces() if state.cursor), default=None)
    ahead = latest_ahead(connection, upstream_id, now)
    if ahead is not None:
        yield f"the clock was ahead once: times up to {ahead} count as never until the next sync"
    if ended is not None and now - ended <= allowed and listed is not None and now - listed > allowed:
        yield f"syncs end, but the last one that listed repositories ended {_ago(now - listed)} ago"
    spent = _spent_since(connection, upstream_id)
    if ended is not None and spent is not None and now - spent > SPENT_FOR:
        error = fetch_value(connection, f"SELECT error {_LAST_RUN}", (upstream_id,))
        heard = "429" in (error or "")
        what = "the upstream has answered 429" if heard else "the request budget has been spent"
        yield f"{what} again and again for {_ago(now - spent)}"
    found = cursors.integrity.read()
    if found:
        yield f"the last check of the file found: {found}"


def _warnings(
    connection: sqlite3.Connection, upstream_id: int, failures: Iterable[tuple[str, int]]
) -> Iterator[str]:
    """Yield the warnings on the mirror of one upstream; `failures` are its kinds with their numbers."""
    restored = Cursors(connection, upstream_id).restored.read()
    if restored is not None:
        yield f"a copy was restored at {restored}: strangers get no answer before a full listing; mirror sync"
    if fetch_value(connection, f"SELECT state {_LAST_RUN}", (upstream_id,)) == "failed":
        yield "the last run failed; mirror status says why"
    for kind, count in failures:
        if kind == "absence":
            yield "many repositories are no longer listed; confirm that with --confirm-absence"
        else:
            wait = "failure of kind {} waits" if count == 1 else "failures of kind {} wait"
            yield f"{count:,} {wait.format(kind)} to be retried"


def _spent_since(connection: sqlite3.Connection, upstream_id: int) -> datetime | None:
    """Return since when every run has ended with a spent budget; None if the last one did not."""
    # A run that ends at its own `--max-requests` is paused too, but has budget left.
    return _moment(
        connection,
        f"""SELECT min(started_at) FROM sync_runs WHERE upstream_id = :id AND state = 'paused'
            AND id > coalesce((SELECT max(id) FROM sync_runs WHERE upstream_id = :id AND (
                state NOT IN ('paused', 'running') OR error LIKE '{_OWN_NUMBER}')), 0)""",
        {"id": upstream_id},
    )


def _advances(connection: sqlite3.Connection, upstream_id: int, since: datetime) -> bool:
    """Return whether a first load makes progress: a recent run has sent requests."""
    last = _moment(
        connection,
        """SELECT started_at FROM sync_runs WHERE upstream_id = :id AND (requests > 0 OR state = 'running')
           ORDER BY id DESC LIMIT 1""",
        {"id": upstream_id},
    )
    return last is not None and last >= since


def _moment(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any]) -> datetime | None:
    moment = fetch_value(connection, sql, values)
    return from_text(moment) if moment else None


def _ago(age: timedelta) -> str:
    return age_text(age.total_seconds())
