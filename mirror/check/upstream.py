"""Checks of an upstream: whether it answers, the credential and its scopes, the clock."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from mirror.check.machine import CONFIGURATION, CREDENTIALS, UNUSABLE, Check, bad, good
from mirror.config import Config, Duration, Retry, UpstreamConfig
from mirror.config_checks import unused_token
from mirror.credentials import read_credential
from mirror.errors import (
    BudgetSpent,
    ConfigError,
    CredentialsRefused,
    MirrorError,
    StoreError,
    UpstreamRefused,
)
from mirror.store import Store
from mirror.store.ledger import RequestLedger
from mirror.times import age_text, utc_now
from mirror.upstream.connect import ConnectedUpstream, connect, url_of
from mirror.upstream.transport import Transport

CLOCK_OFF = 60
"""Seconds by which the clocks of this machine and of the upstream may differ."""
ONCE = Retry(attempts=1)  # people wait for the answer
TIMEOUT = 10.0  # seconds
MOST_WORKSPACES = 5


def check_upstream(config: Config, upstream: UpstreamConfig, transport: Transport | None) -> Iterator[Check]:
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
        remedy = "see the checks of the disk and the database"
        yield bad(f"reachability {upstream.name}", UNUSABLE, f"not tested: {error}", remedy)


def _refused(name: str, error: ConfigError) -> Check:
    detail, _, remedy = str(error).partition("; ")
    return bad(name, CONFIGURATION, detail, remedy or "see `credential` in docs/configuration.md")


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


def _asked(
    config: Config, upstream: UpstreamConfig, connection: ConnectedUpstream, form: str
) -> Iterator[Check]:
    reach, credential = f"reachability {upstream.name}", f"credential {upstream.name}"
    try:
        caller = None if form == "anonymous" else connection.upstream.fetch_current_user()
        rows = list(_listed(upstream, connection))
    except CredentialsRefused as error:
        yield bad(credential, CREDENTIALS, str(error), "make a new one, or copy it again")
        return
    except BudgetSpent as error:
        yield good(reach, f"not tested: {error}", "run it again then")
        return
    except UpstreamRefused as error:
        yield _of_refusal(upstream, error, form)
        return
    except StoreError:
        raise  # the ledger cannot be written
    except MirrorError as error:
        remedy = "check `url`, the network, proxies (https_proxy) and certificates (SSL_CERT_FILE)"
        yield bad(reach, UNUSABLE, str(error), remedy)
        return
    who = f"{form}, of {caller.username}" if caller and caller.username else form
    if form == "anonymous":
        who = "none: only what is public is seen"
    advice = next(unused_token(msgspec.structs.replace(config, upstreams=(upstream,)), os.environ), None)
    yield good(credential, who, advice)
    yield _scopes(config, upstream, connection.budget.heard.get("x-oauth-scopes"), form)
    read = f", {', '.join(rows)} can be read" if rows else ""
    yield good(reach, f"{url_of(upstream)} answers{read}")
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
        return bad(
            f"scopes {upstream.name}",
            CREDENTIALS,
            str(error),
            "give the token the scope to read repositories",
        )
    seen = "that exist and are public" if form == "anonymous" else "that this credential may see"
    return bad(
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
    """Say what a credential may do, by the scopes that the upstream reports with its answers."""
    name = f"scopes {upstream.name}"
    if form == "anonymous":
        return good(name, "may read what is public, and nothing else")
    scopes = [scope for scope in re.split(r"[\s,]+", told or "") if scope]
    if not scopes:
        return good(name, "the upstream reports none; what was requested may be read")
    words = list(dict.fromkeys(map(scope_words, scopes)))
    detail = f"may {', '.join(words)}"
    verbs = {word.partition(" ")[0] for word in words if word.endswith(" repositories")}
    if not verbs:
        remedy = "give the token the scope to read repositories (read:repository:bitbucket)"
        return bad(name, CREDENTIALS, f"{detail}; not repositories", remedy)
    if config.serve.writes and not verbs & {"write", "administer"}:
        remedy = "give the token scopes to write and administer repositories, or set writes = false"
        return bad(name, CREDENTIALS, f"{detail}; `writes` is on, but it may not write", remedy)
    more = verbs - {"read"}
    if more and not config.serve.writes:
        remedy = "the mirror only reads: a token with scopes to read is safer"
        return good(name, detail, remedy)
    return good(name, detail)


def _clock(upstream: UpstreamConfig, date: str) -> Check:
    """Compare this machine's clock with the upstream's, which is exact to the second."""
    name = f"clock {upstream.name}"
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return good(name, "the upstream sends no time")
    off = (utc_now() - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()
    if abs(off) <= CLOCK_OFF:
        return good(name, f"within {max(1, round(abs(off)))} s of the upstream's")
    way = "ahead of" if off > 0 else "behind"
    remedy = "set the clock (timedatectl set-ntp true): budgets and cursors go by it"
    return bad(name, UNUSABLE, f"{age_text(abs(off))} {way} the upstream's", remedy)
