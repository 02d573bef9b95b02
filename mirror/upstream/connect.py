"""From a configured upstream to one that can be asked: addresses, credential and budget put together."""

import os
import random as random_numbers
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from mirror.config import CLOUD_URL, SANDBOX_PORT, UpstreamConfig
from mirror.credentials import Credential, read_credential
from mirror.errors import ConfigError
from mirror.times import Clock, utc_now
from mirror.upstream.api1 import Legacy, WritableLegacy
from mirror.upstream.budget import ANONYMOUS_LIMIT, AUTHENTICATED_LIMIT, Budget, Ledger, Wait
from mirror.upstream.client import Http, Transport
from mirror.upstream.cloud import Cloud, Sandbox, WritableCloud, WritableSandbox
from mirror.upstream.datacenter import DataCenter, WritableDataCenter
from mirror.upstream.git import GIT_AGENT, TOKEN_USER, GitRefs, git_credential, git_root
from mirror.upstream.protocol import Upstream, WritableUpstream
from mirror.upstream.urls import Family

SANDBOX_URL = f"http://127.0.0.1:{SANDBOX_PORT}/2.0"


class Connection(NamedTuple):
    """An upstream and what it may spend."""

    upstream: Upstream
    budget: Budget


def connect(
    config: UpstreamConfig,
    *,
    ledger: Ledger,
    wait: Wait,
    clock: Clock = utc_now,
    may_wait: bool = True,
    max_requests: int | None = None,
    timer: Callable[[], float] | None = None,
    random: random_numbers.Random | None = None,
    environ: Mapping[str, str] = os.environ,
    transport: Transport | None = None,
) -> Connection:
    """Make the upstream of a configuration; nothing is asked yet.

    `wait` sleeps, telling why; `may_wait` false ends a run whose budget is spent; `max_requests` bounds
    this run; `timer` measures waits, in seconds, by the clock unless given. Raises ConfigError for a
    credential that cannot be read.
    """
    url, credential = url_of(config), read_credential(config.credential, environ)
    budget = Budget(
        ledger,
        bucket=_bucket(config, credential),
        git_bucket=f"git-{_bucket(config, credential)}",
        limit=config.requests_per_hour,
        default=default_limit(config, credential),
        clock=clock,
        wait=wait,
        may_wait=may_wait,
        max_requests=max_requests,
        timer=timer,
    )
    pool = partial(
        Http,
        budget=budget,
        retry=config.retry,
        timeout=config.timeout,
        clock=clock,
        random=random,
        concurrency=config.concurrency,
        transport=transport,
    )
    http = pool(url=url, credential=credential, origins=Family(url).origins)
    if config.kind == "datacenter":
        api: Upstream = DataCenter(config.name, http, projects=config.workspaces or ())
    else:
        api = _KINDS[config.kind](config.name, http)
    if config.refs != "git":
        return Connection(api, budget)
    if config.kind == "legacy":
        raise ConfigError(f'upstream {config.name}: refs = "git" is not for kind "legacy"; use refs = "api"')
    is_datacenter = config.kind == "datacenter"
    git = pool(
        url=git_root(url, datacenter=is_datacenter),
        credential=credential if is_datacenter else git_credential(credential),
        token_user=TOKEN_USER,
        user_agent=GIT_AGENT,
    )
    return Connection(GitRefs(api, git), budget)


def connect_writable(
    config: UpstreamConfig,
    *,
    ledger: Ledger,
    wait: Wait,
    clock: Clock = utc_now,
    environ: Mapping[str, str] = os.environ,
    transport: Transport | None = None,
) -> WritableUpstream:
    """Make an upstream for one write; raises ConfigError as `connect` does.

    It spends from the same buckets as a sync, but nobody waits an hour for a write: `wait` is asked for
    short pauses alone, and BudgetSpent tells of longer ones.
    """
    url, credential = url_of(config), read_credential(config.credential, environ)
    budget = Budget(
        ledger,
        bucket=_bucket(config, credential),
        limit=config.requests_per_hour,
        default=default_limit(config, credential),
        clock=clock,
        wait=wait,
        may_wait=False,
    )
    http = Http(
        url=url,
        credential=credential,
        budget=budget,
        retry=config.retry,
        timeout=config.timeout,
        clock=clock,
        origins=Family(url).origins,
        transport=transport,
    )
    return _WRITABLE[config.kind](config.name, http)


def _bucket(config: UpstreamConfig, credential: Credential) -> str:
    """Name the account in the ledger that requests count in; raises ConfigError for an impossible address."""
    url = url_of(config)
    try:
        host = urlsplit(url).netloc
        urlsplit(url).port  # noqa: B018 - it raises where it is no number
    except ValueError as error:
        raise ConfigError(f"upstream {config.name}: url {url!r} is no web address: {error}") from None
    return f"{credential.bucket}@{host}"


_KINDS: dict[str, Callable[[str, Http], Upstream]] = {
    "cloud": Cloud,
    "sandbox": Sandbox,
    "legacy": Legacy,
}
_WRITABLE: dict[str, Callable[[str, Http], WritableUpstream]] = {
    "cloud": WritableCloud,
    "sandbox": WritableSandbox,
    "datacenter": WritableDataCenter,
    "legacy": WritableLegacy,
}


def url_of(config: UpstreamConfig) -> str:
    """Return the base address of the API: as configured, its path completed, or the kind's default."""
    if not config.url:
        return SANDBOX_URL if config.kind == "sandbox" else CLOUD_URL
    url = config.url.rstrip("/")
    if config.kind == "datacenter":
        return url if "/rest/api/" in url else f"{url}/rest/api/1.0"
    if config.kind == "legacy":
        return url if url.endswith("/1.0") else f"{url}/1.0"
    return url


def default_limit(config: UpstreamConfig, credential: Credential) -> int | None:
    """Return how many requests an hour may be asked of an upstream that says nothing of it itself.

    Cloud: 60 for an anonymous address, 1,000 for an identity, each less a margin
    (support.atlassian.com/bitbucket-cloud/docs/api-request-limits). Others have no limit by default.
    """
    if config.kind != "cloud":
        return None
    return ANONYMOUS_LIMIT if credential.form == "anonymous" else AUTHENTICATED_LIMIT
