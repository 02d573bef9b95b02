"""Check whether a mirror will work on this machine; each check has its result and a remedy.

Nothing is changed. Each upstream gets a few requests, which count in the ledger. No check waits for budget.
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
from mirror.config_checks import open_files, unused_token
from mirror.credentials import read_credential
from mirror.errors import (
    IF_RENAMED,
    BudgetSpent,
    ConfigError,
    CredentialsRefused,
    MirrorError,
    NotFound,
    StoreError,
    UpstreamRefused,
)
from mirror.readable import repositories_text, size_text
from mirror.store import Store
from mirror.store.faults import damage_explained
from mirror.store.files import open_reader
from mirror.store.ledger import RequestLedger
from mirror.store.lock import service_runs
from mirror.store.repair import check_file
from mirror.store.rows import fetch
from mirror.times import age_text, day_text, utc_now
from mirror.upstream.connect import ConnectedUpstream, connect, url_of
from mirror.upstream.transport import Transport

CONFIGURATION, CREDENTIALS, UNUSABLE = 2, 3, 4
"""Exit codes, the most basic fault first."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. `remedy` is what to do, None if there is nothing to do.

    A check that is ok may have a remedy too: advice. `code` is the exit code of a failed check.
    """

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    code: int = 0

    def public(self) -> dict[str, object]:
        """Return the check as `--json` prints it."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "remedy": self.remedy}


def exit_code(checks: list[Check]) -> int:
    """Return the exit code of the most basic fault; 0 without faults."""
    return min((check.code for check in checks if not check.ok), default=0)


def faulty_configuration(error: ConfigError) -> Check:
    """Return the check of a configuration that cannot be read: without one, nothing else can be checked."""
    return _bad_by("configuration", CONFIGURATION, error, "mend the file; docs/configuration.md")


def _good(name: str, detail: str, advice: str | None = None) -> Check:
    """Return the result of a check that found no fault."""
    return Check(name=name, ok=True, detail=detail, remedy=advice)


def _bad(name: str, code: int, detail: str, remedy: str) -> Check:
    """Return the result of a check that found a fault."""
    return Check(name=name, ok=False, detail=detail, remedy=remedy, code=code)


def _bad_by(name: str, code: int, error: MirrorError, remedy: str) -> Check:
    """Return the result of a check that an error ended; the error's own remedy comes before `remedy`."""
    detail, _, its_own = str(error).partition("; ")
    return _bad(name, code, detail, its_own or remedy)


def run_checks(config: Config, *, where: str, transport: Transport | None = None) -> Iterator[Check]:
    """Run all checks.

    :param where: the source of the configuration, as shown to people.
    :param transport: replaces the network, in tests.
    """
    names = ", ".join(f"{one.name} ({one.kind})" for one in config.upstreams)
    yield _good("configuration", f"{where}: {names}")
    yield _check_schedules(config)
    for upstream in config.upstreams:
        yield from _check_upstream(config, upstream, transport)
    yield from _check_machine(config)


LEAST_FREE = 256 * 1024 * 1024
"""Bytes that must be free on the disk."""

_COUNT = "SELECT count(*) FROM repositories WHERE deleted_at IS NULL"


_FORM = 'a schedule is five cron fields, an interval like "15m", or ""'


def _check_schedules(config: Config) -> Check:
    """Check that each schedule can be read, and say what is due next."""
    try:
        checked(config)
    except ConfigError as error:
        return _bad("schedules", CONFIGURATION, str(error), f"correct it in the configuration; {_FORM}")
    now, due = utc_now(), list[tuple[datetime, str]]()
    for work in scheduled_work(config):
        moment = next_time(work.schedule, zone=config.timezone, after=now)
        due += [(moment, work.id)] if moment else []
    if not due:
        return _good("schedules", "none is set", "run `mirror sync` yourself, by cron")
    told = ", ".join(f"{name} {day_text(moment)}" for moment, name in sorted(due))
    return _good("schedules", f"next {told}")


def _check_machine(config: Config) -> Iterator[Check]:
    """Run all other checks of this machine."""
    yield from _check_modes(config)
    yield _check_disk(config)
    yield from _check_database(config)
    yield _check_service(config)


def _check_modes(config: Config) -> Iterator[Check]:
    """Check that neither the file nor a secret is open to other users of the machine."""
    lines = list(open_files(config))
    for line in lines:
        detail, _, remedy = line.partition("): ")
        yield _bad("file modes", CONFIGURATION, f"{detail})", remedy)
    if not lines:
        yield _good("file modes", "other users can read neither the file nor a secret")


def _check_disk(config: Config) -> Check:
    """Check that the folder of the file can be written, and has room."""
    folder = Path(os.path.realpath(config.database)).parent
    while not folder.exists():  # the first sync creates it
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return _bad("disk", UNUSABLE, f"{folder} cannot be written", "run it as the owner, or set `database`")
    free = shutil.disk_usage(folder).free
    detail = f"{size_text(free)} are free in {folder}"
    if free < LEAST_FREE:
        return _bad("disk", UNUSABLE, detail, f"free at least {size_text(LEAST_FREE)}")
    return _good("disk", detail)


def _check_database(config: Config) -> Iterator[Check]:
    """Check the file and its search index."""
    path = Path(config.database)
    if not path.exists():
        yield _good("database", f"{path}: no mirror there yet", "`mirror sync` makes one")
        return
    try:
        with closing(open_reader(path)) as connection, damage_explained(path):
            count = connection.execute(_COUNT).fetchone()[0]
            unnamed = _unnamed(config, connection)
        complaints = check_file(path, repair=False)
    except (StoreError, NotFound) as error:
        yield _bad_by("database", UNUSABLE, error, "`mirror verify` says more")
        return
    index = [each.text for each in complaints if each.text.startswith("search index: ")]
    faults = [each.text for each in complaints if each.text not in index]
    if faults:
        remedy = "restore a copy, or move the file away and run `mirror sync`"
        yield _bad("database", UNUSABLE, f"{path}: {faults[0]}", remedy)
        return
    yield _good("database", f"{path}: {repositories_text(count)}; SQLite finds no fault")
    if unnamed:
        detail = f"the file also has {' and '.join(unnamed)}, which the configuration does not name"
        yield _good("upstreams", detail, IF_RENAMED)
    if index:
        yield _bad("index", UNUSABLE, index[0].removeprefix("search index: "), "`mirror verify --repair`")
    else:
        yield _good("index", "it matches the rows")


def _unnamed(config: Config, connection: sqlite3.Connection) -> list[str]:
    """Return the upstreams with repositories in the file that the configuration does not name."""
    known = {upstream.name for upstream in config.upstreams}
    found = fetch(connection, "SELECT name FROM upstreams WHERE id IN (SELECT upstream_id FROM repositories)")
    return [name for (name,) in found if name not in known]


def _check_service(config: Config) -> Check:
    """Say whether a service keeps the mirror current; cron may do its work, so that none may be needed."""
    runs = service_runs(Path(config.database))
    if runs:
        return _good("service", "a service syncs by schedule")
    detail = "none runs" if runs is False else "whether one runs cannot be found out here"
    remedy = "`mirror run` or `mirror schedule` keeps it current, or cron with `mirror sync --no-wait`"
    return _good("service", detail, remedy)


CLOCK_OFF = 60
"""Seconds by which the clocks of this machine and of the upstream may differ."""
ONCE = Retry(attempts=1)  # people wait for the answer
TIMEOUT = 10.0  # seconds
MOST_WORKSPACES = 5
_SEE_CREDENTIAL = "see `credential` in docs/configuration.md"


def _check_upstream(config: Config, upstream: UpstreamConfig, transport: Transport | None) -> Iterator[Check]:
    """Check the credential of an upstream, what it may do, whether it answers, and its clock."""
    name = f"credential {upstream.name}"
    try:
        form = read_credential(upstream.credential).form
    except ConfigError as error:
        yield _bad_by(name, CONFIGURATION, error, _SEE_CREDENTIAL)
        return
    asked = msgspec.structs.replace(
        upstream, retry=ONCE, timeout=Duration(min(float(upstream.timeout), TIMEOUT)), concurrency=1
    )
    try:
        with _connected(config, asked, transport) as connection:
            yield from _checks_by_asking(config, upstream, connection, form)
    except ConfigError as error:
        yield _bad_by(name, CONFIGURATION, error, _SEE_CREDENTIAL)
    except StoreError as error:
        remedy = "see the checks of the disk and the database"
        yield _bad(f"reachability {upstream.name}", UNUSABLE, f"not tested: {error}", remedy)


@contextmanager
def _connected(
    config: Config, upstream: UpstreamConfig, transport: Transport | None
) -> Iterator[ConnectedUpstream]:
    """Connect to an upstream; its requests count in the mirror's ledger, if there is a mirror yet."""

    def refuse(seconds: float, why: str) -> None:
        raise BudgetSpent(why, resumes_at=utc_now() + timedelta(seconds=seconds))

    with ExitStack() as stack:
        path = Path(config.database)
        if not path.exists():  # a check must not create the mirror
            path = Path(stack.enter_context(TemporaryDirectory())) / "ledger.db"
        store = stack.enter_context(Store(path, config.mode))
        connection = connect(
            upstream, ledger=RequestLedger(store), wait=refuse, may_wait=False, transport=transport
        )
        stack.callback(connection.upstream.close)
        yield connection


def _checks_by_asking(
    config: Config, upstream: UpstreamConfig, connection: ConnectedUpstream, form: str
) -> Iterator[Check]:
    reach, credential = f"reachability {upstream.name}", f"credential {upstream.name}"
    try:
        caller = None if form == "anonymous" else connection.upstream.fetch_current_user()
        rows = list(_readable_workspaces(upstream, connection))
    except CredentialsRefused as error:
        yield _bad(credential, CREDENTIALS, str(error), "make a new one, or copy it again")
        return
    except BudgetSpent as error:
        yield _good(reach, f"not tested: {error}", "run it again then")
        return
    except UpstreamRefused as error:
        yield _of_refusal(upstream, error, form)
        return
    except StoreError:
        raise  # the ledger cannot be written
    except MirrorError as error:
        remedy = "check `url`, the network, proxies (https_proxy) and certificates (SSL_CERT_FILE)"
        yield _bad(reach, UNUSABLE, str(error), remedy)
        return
    who = f"{form}, of {caller.username}" if caller and caller.username else form
    if form == "anonymous":
        who = "none: only what is public is seen"
    advice = next(unused_token(msgspec.structs.replace(config, upstreams=(upstream,)), os.environ), None)
    yield _good(credential, who, advice)
    yield _scopes(config, upstream, connection.budget.latest_headers.get("x-oauth-scopes"), form)
    read = f", {', '.join(rows)} can be read" if rows else ""
    yield _good(reach, f"{url_of(upstream)} answers{read}")
    yield _clock(upstream, connection.budget.latest_headers.get("date", ""))


def _readable_workspaces(upstream: UpstreamConfig, connection: ConnectedUpstream) -> Iterator[str]:
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
        remedy = "give the token the scope to read repositories"
        if form == "anonymous":
            remedy = "name public workspaces in `workspaces`, or set `credential`"
        elif upstream.workspaces is None:  # a token of a workspace may not list its user's
            remedy = "name what to mirror in `workspaces`, or give the token the scope to read workspaces"
        return _bad(f"scopes {upstream.name}", CREDENTIALS, str(error), remedy)
    seen = "that exist and are public" if form == "anonymous" else "that this credential may see"
    remedy = f"check `url`, and that `workspaces` names slugs {seen}"
    return _bad(f"reachability {upstream.name}", CONFIGURATION, str(error), remedy)


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
    """Say what a credential may do, by the scopes that the upstream reports with its answers."""
    name = f"scopes {upstream.name}"
    if form == "anonymous":
        return _good(name, "may read what is public, and nothing else")
    scopes = [scope for scope in re.split(r"[\s,]+", told or "") if scope]
    if not scopes:
        return _good(name, "the upstream reports none; what was requested may be read")
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
        return _good(name, detail, remedy)
    return _good(name, detail)


def _clock(upstream: UpstreamConfig, date: str) -> Check:
    """Compare this machine's clock with the upstream's, which is exact to the second."""
    name = f"clock {upstream.name}"
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return _good(name, "the upstream sends no time")
    off = (utc_now() - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()
    if abs(off) <= CLOCK_OFF:
        return _good(name, f"within {max(1, round(abs(off)))} s of the upstream's")
    way = "ahead of" if off > 0 else "behind"
    remedy = "set the clock (timedatectl set-ntp true): budgets and cursors go by it"
    return _bad(name, UNUSABLE, f"{age_text(abs(off))} {way} the upstream's", remedy)
