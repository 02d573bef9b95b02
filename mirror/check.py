"""Whether a mirror will work where it is: each check with what was found, and what to do about it.

Nothing is changed. Each upstream is asked a few requests, counted in the ledger; nothing is waited for.
"""

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from mirror.background.jobs import scheduled_work
from mirror.background.service import checked
from mirror.background.triggers import next_time
from mirror.config import Config, Duration, Retry, UpstreamConfig
from mirror.config_checks import open_files
from mirror.credentials import read_credential
from mirror.errors import (
    BudgetSpent,
    ConfigError,
    CredentialsRefused,
    MirrorError,
    NotFound,
    StoreError,
    UpstreamRefused,
)
from mirror.store import Store
from mirror.store.files import damage_explained, open_reader
from mirror.store.integrity import check_file
from mirror.store.ledger import RequestLedger
from mirror.store.lock import service_runs
from mirror.times import age_text, day_text, utc_now
from mirror.upstream.accounts import url_of
from mirror.upstream.connect import ConnectedUpstream, connect
from mirror.upstream.transport import Transport

LEAST_FREE = 256 * 1024 * 1024
"""Bytes that must be free on the disk."""
CLOCK_OFF = 60
"""Seconds by which this machine's clock may differ from the upstream's."""
ONCE = Retry(attempts=1)
TIMEOUT = 10.0
MOST_WORKSPACES = 5

CONFIGURATION, CREDENTIALS, UNUSABLE = 2, 3, 4
"""Exit codes, the more basic first."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check. `remedy` is what to do, None where nothing need be done.

    A check that is ok may have one too: an advice. `code` is the exit code of one that is not.
    """

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    code: int = 0

    def public(self) -> dict[str, object]:
        """Return it as `--json` tells it."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "remedy": self.remedy}


def exit_code(checks: list[Check]) -> int:
    """Return the exit code of what was found: that of the most basic fault, 0 without any."""
    return min((check.code for check in checks if not check.ok), default=0)


def faulty_configuration(error: ConfigError) -> Check:
    """Return the check of a configuration that cannot be read: without one, nothing else can be checked."""
    detail, _, remedy = str(error).partition("; ")
    return _bad("configuration", CONFIGURATION, detail, remedy or "mend the file; docs/configuration.md")


def run_checks(config: Config, *, where: str, transport: Transport | None = None) -> Iterator[Check]:
    """Check everything.

    :param where: from where the configuration was read.
    :param transport: replaces the network, in tests.
    """
    names = ", ".join(f"{one.name} ({one.kind})" for one in config.upstreams)
    yield Check(name="configuration", ok=True, detail=f"{where}: {names}")
    yield _schedules(config)
    for upstream in config.upstreams:
        yield from _upstream(config, upstream, transport)
    yield from _modes(config)
    yield _disk(config)
    yield from _file(config)
    yield _service(config)


def _bad(name: str, code: int, detail: str, remedy: str) -> Check:
    return Check(name=name, ok=False, detail=detail, remedy=remedy, code=code)


def _schedules(config: Config) -> Check:
    try:
        checked(config)
    except ConfigError as error:
        return _bad("schedules", CONFIGURATION, str(error), 'five cron fields, an interval like "15m", or ""')
    now, due = utc_now(), list[tuple[datetime, str]]()
    for work in scheduled_work(config):
        moment = next_time(work.schedule, zone=config.timezone, after=now)
        due += [(moment, work.id)] if moment else []
    if not due:
        return Check(
            name="schedules", ok=True, detail="none is set", remedy="run `mirror sync` yourself, by cron"
        )
    told = ", ".join(f"{name} {day_text(moment)}" for moment, name in sorted(due))
    return Check(name="schedules", ok=True, detail=f"next {told}")


def _upstream(config: Config, upstream: UpstreamConfig, transport: Transport | None) -> Iterator[Check]:
    """Check the credential of an upstream, what it may do, whether it answers, and its clock."""
    name = f"credential {upstream.name}"
    try:
        form = read_credential(upstream.credential).form
    except ConfigError as error:
        yield _refused(name, error)
        return
    asked = msgspec.structs.replace(
        upstream, retry=ONCE, timeout=Duration(min(float(upstream.timeout), TIMEOUT)), concurrency=1
    )
    try:
        with _connected(config, asked, transport) as connection:
            yield from _asked(config, upstream, connection, form)
    except ConfigError as error:
        yield _refused(name, error)
    except StoreError as error:
        yield _bad(f"reachability {upstream.name}", UNUSABLE, str(error), "see the check of the database")


def _refused(name: str, error: ConfigError) -> Check:
    detail, _, remedy = str(error).partition("; ")
    return _bad(name, CONFIGURATION, detail, remedy or "see `credential` in docs/configuration.md")


@contextmanager
def _connected(
    config: Config, upstream: UpstreamConfig, transport: Transport | None
) -> Iterator[ConnectedUpstream]:
    """Connect to an upstream; its requests count in the mirror's ledger, if there is a mirror yet."""

    def refuse(seconds: float, why: str) -> None:
        raise BudgetSpent(why, resumes_at=utc_now() + timedelta(seconds=seconds))

    with ExitStack() as stack:
        path = Path(config.database)
        if not path.exists():
            path = Path(stack.enter_context(TemporaryDirectory())) / "ledger.db"
        store = stack.enter_context(Store(path, config.mode))
        connection = connect(
            upstream, ledger=RequestLedger(store), wait=refuse, may_wait=False, transport=transport
        )
        stack.callback(connection.upstream.close)
        yield connection


def _asked(
    config: Config, upstream: UpstreamConfig, connection: ConnectedUpstream, form: str
) -> Iterator[Check]:
    reach, credential = f"reachability {upstream.name}", f"credential {upstream.name}"
    try:
        caller = None if form == "anonymous" else connection.upstream.fetch_current_user()
        rows = list(_listed(upstream, connection))
    except CredentialsRefused as error:
        yield _bad(credential, CREDENTIALS, str(error), "make a new one, or copy it again")
        return
    except BudgetSpent as error:
        yield Check(name=reach, ok=True, detail=f"not asked: {error}", remedy="run it again then")
        return
    except UpstreamRefused as error:
        yield _of_refusal(upstream, error, form)
        return
    except MirrorError as error:
        remedy = "check `url`, the network, proxies (https_proxy) and certificates (SSL_CERT_FILE)"
        yield _bad(reach, UNUSABLE, str(error), remedy)
        return
    who = f"{form}, of {caller.username}" if caller and caller.username else form
    if form == "anonymous":
        who = "none: only what is public is seen"
    yield Check(name=credential, ok=True, detail=who)
    yield _scopes(config, upstream, connection.budget.heard.get("x-oauth-scopes"), form)
    read = f", {', '.join(rows)} can be read" if rows else ""
    yield Check(name=reach, ok=True, detail=f"{url_of(upstream)} answers{read}")
    yield _clock(upstream, connection.budget.heard.get("date", ""))


def _listed(upstream: UpstreamConfig, connection: ConnectedUpstream) -> Iterator[str]:
    """Ask for a page of each of the first workspaces, or of the caller's; yield their names."""
    names = upstream.workspaces
    if names is None:
        connection.upstream.fetch_workspaces(None)
        return
    for name in names[:MOST_WORKSPACES]:
        connection.upstream.fetch_repositories(name, "created", None)
        yield name


def _of_refusal(upstream: UpstreamConfig, error: UpstreamRefused, form: str) -> Check:
    if error.status in (401, 403):
        return _bad(
            f"scopes {upstream.name}",
            CREDENTIALS,
            str(error),
            "give the token the scope to read repositories",
        )
    seen = "that exist and are public" if form == "anonymous" else "that this credential may see"
    return _bad(
        f"reachability {upstream.name}", CONFIGURATION, str(error),
        f"check `url`, and that `workspaces` names slugs {seen}",
    )  # fmt: skip


_VERBS = {"read": "read", "write": "write", "admin": "administer", "delete": "delete"}
_THINGS = {
    "repository": "repositories", "workspace": "workspaces", "account": "the account and its workspaces",
    "user": "the account", "project": "projects", "pullrequest": "pull requests", "webhook": "webhooks",
    "issue": "issues", "team": "workspaces", "email": "the account's e-mail addresses",
    "pipeline": "pipelines", "snippet": "snippets",
}  # fmt: skip


def scope_words(scope: str) -> str:
    """Say what a scope allows: ``repository:write`` and ``write:repository:bitbucket`` write repositories."""
    parts = scope.removesuffix(":bitbucket").split(":")
    verb = next((part for part in parts if part in _VERBS), "read")
    thing = next((part for part in parts if part not in _VERBS), "")
    return f"{_VERBS[verb]} {_THINGS.get(thing, thing)}"


def _scopes(config: Config, upstream: UpstreamConfig, told: str | None, form: str) -> Check:
    """Say what a credential may do, by the scopes that the upstream tells with its answers."""
    name = f"scopes {upstream.name}"
    if form == "anonymous":
        return Check(name=name, ok=True, detail="may read what is public, and nothing else")
    scopes = [scope for scope in re.split(r"[\s,]+", told or "") if scope]
    if not scopes:
        return Check(name=name, ok=True, detail="the upstream tells none; what was asked may be read")
    words = list(dict.fromkeys(map(scope_words, scopes)))
    detail = f"may {', '.join(words)}"
    verbs = {word.partition(" ")[0] for word in words if word.endswith(" repositories")}
    if not verbs:
        remedy = "give the token the scope to read repositories (read:repository:bitbucket)"
        return _bad(name, CREDENTIALS, f"{detail}; not repositories", remedy)
    if config.serve.writes and not verbs & {"write", "administer"}:
        remedy = "give the token scopes to write and administer repositories, or set writes = false"
        return _bad(name, CREDENTIALS, f"{detail}; `writes` is on, but it may not write", remedy)
    more = verbs - {"read"}
    if more and not config.serve.writes:
        remedy = "the mirror only reads: a token with scopes to read is safer"
        return Check(name=name, ok=True, detail=detail, remedy=remedy)
    return Check(name=name, ok=True, detail=detail)


def _clock(upstream: UpstreamConfig, date: str) -> Check:
    """Compare this machine's clock with the upstream's, which tells seconds."""
    name = f"clock {upstream.name}"
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return Check(name=name, ok=True, detail="the upstream tells no time")
    off = (utc_now() - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()
    if abs(off) <= CLOCK_OFF:
        return Check(name=name, ok=True, detail=f"within {max(1, round(abs(off)))} s of the upstream's")
    way = "ahead of" if off > 0 else "behind"
    remedy = "set the clock (timedatectl set-ntp true): budgets and cursors go by it"
    return _bad(name, UNUSABLE, f"{age_text(abs(off))} {way} the upstream's", remedy)


def _modes(config: Config) -> Iterator[Check]:
    lines = list(open_files(config))
    for line in lines:
        detail, _, remedy = line.partition("): ")
        yield _bad("file modes", CONFIGURATION, f"{detail})", remedy)
    if not lines:
        yield Check(name="file modes", ok=True, detail="neither the file nor a secret is open to others")


def _disk(config: Config) -> Check:
    """Check that the folder of the file can be written, and has room."""
    folder = Path(os.path.realpath(config.database)).parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return _bad("disk", UNUSABLE, f"{folder} cannot be written", "run it as the owner, or set `database`")
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e6:,.0f} MB are free in {folder}"
    if free < LEAST_FREE:
        return _bad("disk", UNUSABLE, detail, f"free at least {LEAST_FREE / 1e6:,.0f} MB")
    return Check(name="disk", ok=True, detail=detail)


def _file(config: Config) -> Iterator[Check]:
    """Check the file and its search index."""
    path = Path(config.database)
    if not path.exists():
        detail = f"{path}: no mirror there yet"
        yield Check(name="database", ok=True, detail=detail, remedy="`mirror sync` makes one")
        return
    try:
        with closing(open_reader(path)) as connection, damage_explained(path):
            count = _count(connection)
        complaints = check_file(path, repair=False)
    except (StoreError, NotFound) as error:
        detail, _, remedy = str(error).partition("; ")
        yield _bad("database", UNUSABLE, detail, remedy or "`mirror verify` says more")
        return
    index = [each.text for each in complaints if each.text.startswith("search index: ")]
    faults = [each.text for each in complaints if each.text not in index]
    told = f"{path}: {count:,} repositories"
    if faults:
        remedy = "restore a copy, or move the file away and run `mirror sync`"
        yield _bad("database", UNUSABLE, f"{path}: {faults[0]}", remedy)
        return
    yield Check(name="database", ok=True, detail=f"{told}; SQLite finds no fault")
    if index:
        yield _bad("index", UNUSABLE, index[0].removeprefix("search index: "), "`mirror verify --repair`")
    else:
        yield Check(name="index", ok=True, detail="it agrees with the rows")


def _count(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM repositories WHERE deleted_at IS NULL").fetchone()
    return int(row[0])


def _service(config: Config) -> Check:
    """Say whether a service keeps the mirror current; cron may do it as well, so none is no fault."""
    runs = service_runs(Path(config.database))
    if runs:
        return Check(name="service", ok=True, detail="one syncs by schedule")
    detail = "none runs" if runs is False else "whether one runs cannot be found out here"
    remedy = "`mirror run` or `mirror schedule` keeps it current, or cron with `mirror sync --no-wait`"
    return Check(name="service", ok=True, detail=detail, remedy=remedy)
