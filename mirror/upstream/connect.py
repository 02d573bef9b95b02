"""Connect to a configured upstream: its address, its credential and its budget put together."""

import os
import random as random_numbers
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from mirror.config import UpstreamConfig
from mirror.credentials import read_credential
from mirror.errors import ConfigError
from mirror.times import Clock, utc_now
from mirror.upstream.budget import Budget, Ledger, Wait
from mirror.upstream.client import Http
from mirror.upstream.endpoint import ApiAddresses, bucket_of, default_limit, url_of
from mirror.upstream.git import GIT_AGENT, TOKEN_USER, GitRefs, git_credential, git_root
from mirror.upstream.protocol import Upstream
from mirror.upstream.transport import Transport


class ConnectedUpstream(NamedTuple):
    """An upstream and what it may spend."""

    upstream: Upstream
    budget: Budget


def connect(
    config: UpstreamConfig,
    *,
    ledger: Ledger,
    wait: Wait,
    for_write: bool = False,
    clock: Clock = utc_now,
    may_wait: bool = True,
    max_requests: int | None = None,
    timer: Callable[[], float] | None = None,
    random: random_numbers.Random | None = None,
    environ: Mapping[str, str] = os.environ,
    transport: Transport | None = None,
) -> ConnectedUpstream:
    """Make the upstream of a configuration; nothing is asked yet.

    :param ledger: counts the requests of the account, across runs and processes.
    :param wait: sleeps for a number of seconds and tells the user why.
    :param for_write: the upstream is for one write, whose refs are read by the API: git may lag behind it.
    :param may_wait: False ends a run whose budget is spent, instead of waiting for the next hour.
    :param max_requests: limits this run; None for no limit of its own.
    :param timer: measures waits, in seconds; the clock's own seconds by default.
    :param random: spreads retries.
    :param transport: replaces the network, in tests.

    Raises ConfigError for a credential that cannot be read, an invalid address, and git for kind legacy.
    """
    url, credential = url_of(config), read_credential(config.credential, environ)
    bucket = bucket_of(config, credential)
    budget = Budget(
        ledger,
        bucket=bucket,
        git_bucket=f"git-{bucket}",
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
    http = pool(url=url, credential=credential, origins=ApiAddresses(url).origins)
    is_datacenter, git = config.kind == "datacenter", None
    if config.refs == "git" and not for_write:
        if config.kind == "legacy":
            raise ConfigError(
                f'upstream {config.name}: refs = "git" is not for kind "legacy"; use refs = "api"'
            )
        git = GitRefs(
            pool(
                url=git_root(url, datacenter=is_datacenter),
                credential=credential if is_datacenter else git_credential(credential),
                token_user=TOKEN_USER,
                user_agent=GIT_AGENT,
            )
        )
    return ConnectedUpstream(_upstream(config, http, git), budget)


def _upstream(config: UpstreamConfig, http: Http, git: GitRefs | None) -> Upstream:
    """Make the upstream of a kind; the others are not imported."""
    if config.kind == "datacenter":
        from mirror.upstream.datacenter import DataCenter  # noqa: PLC0415

        return DataCenter(config.name, http, git, projects=config.workspaces or ())
    if config.kind == "legacy":
        from mirror.upstream.api1 import Api1  # noqa: PLC0415

        return Api1(config.name, http)
    from mirror.upstream.cloud import Cloud, SandboxUpstream  # noqa: PLC0415

    return (SandboxUpstream if config.kind == "sandbox" else Cloud)(config.name, http, git)
