"""Connect to a configured upstream: its address, its account, and what that may spend.

Commands that only show accounts import this file too, so what sends requests is imported by `connect` itself.
"""

import os
import random as random_numbers
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from mirror.addresses import origins_of
from mirror.config import CLOUD_URL, SANDBOX_PORT, Config, UpstreamConfig
from mirror.credentials import Credential, read_credential
from mirror.errors import ConfigError
from mirror.times import Clock, utc_now
from mirror.upstream.budget import ANONYMOUS_LIMIT, AUTHENTICATED_LIMIT, Budget, Ledger, Wait, limit_in_force

if TYPE_CHECKING:
    from mirror.upstream.client import Http
    from mirror.upstream.git import GitRefs
    from mirror.upstream.protocol import Upstream
    from mirror.upstream.transport import Transport

SANDBOX_URL = f"http://127.0.0.1:{SANDBOX_PORT}/2.0"


def url_of(config: UpstreamConfig) -> str:
    """Return the base address of the API: as configured with its path completed, or the kind's default."""
    if not config.url:
        return SANDBOX_URL if config.kind == "sandbox" else CLOUD_URL
    url = config.url.rstrip("/")
    if config.kind == "datacenter":
        return url if "/rest/api/" in url else f"{url}/rest/api/1.0"
    if config.kind == "legacy":
        return url if url.endswith("/1.0") else f"{url}/1.0"
    return url


def default_limit(config: UpstreamConfig, credential: Credential) -> int | None:
    """Return the hourly limit of requests if the upstream does not report one; None for no limit.

    Cloud: 60 for an anonymous address, 1,000 for an identity, each less a margin
    (support.atlassian.com/bitbucket-cloud/docs/api-request-limits). Others have no limit by default.
    """
    if config.kind != "cloud":
        return None
    return ANONYMOUS_LIMIT if credential.form == "anonymous" else AUTHENTICATED_LIMIT


def bucket_of(config: UpstreamConfig, credential: Credential) -> str:
    """Name the account in the ledger for an upstream; raises ConfigError for an impossible address."""
    url = url_of(config)
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it raises if the port is not a number
    except ValueError as error:
        raise ConfigError(f"upstream {config.name}: url {url!r} is not a web address: {error}") from None
    # However the address is written, it is one server, which counts once.
    host = parts.netloc.lower().removesuffix(":443" if parts.scheme == "https" else ":80")
    return f"{credential.bucket}@{host}"


def accounts_by_upstream(config: Config, reported: Mapping[str, int]) -> dict[str, tuple[str, int | None]]:
    """Map each upstream to its bucket in the request ledger and the hourly limit in force.

    `reported` are the limits that upstreams sent, by bucket. An upstream with an invalid address, or whose
    credential cannot be read here (another user's environment), is left out.
    """
    found = dict[str, tuple[str, int | None]]()
    for upstream in config.upstreams:
        try:
            credential = read_credential(upstream.credential, os.environ)
            bucket = bucket_of(upstream, credential)
        except ConfigError:
            continue
        limit = limit_in_force(
            reported=reported.get(bucket),
            ours=upstream.requests_per_hour,
            default=default_limit(upstream, credential),
        )
        found[upstream.name] = (bucket, limit)
    return found


class ConnectedUpstream(NamedTuple):
    """An upstream and its budget of requests."""

    upstream: "Upstream"
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
    transport: "Transport | None" = None,
) -> ConnectedUpstream:
    """Make the upstream of a configuration, without sending a request.

    :param ledger: counts the requests of the account, across runs and processes.
    :param wait: sleeps for a number of seconds and tells the user why.
    :param for_write: the upstream is for one write; its refs are read by the API, since git may lag behind.
    :param may_wait: False ends a run whose budget is spent, instead of waiting for the next hour.
    :param max_requests: limits this run; None for no limit of its own.
    :param timer: measures waits, in seconds; the clock's own seconds by default.
    :param random: spreads retries.
    :param transport: replaces the network, in tests.

    Raises ConfigError for a credential that cannot be read, an invalid address, and git for kind legacy.
    """
    from mirror.upstream.client import Http  # noqa: PLC0415

    url, credential = url_of(config), read_credential(config.credential, environ)
    bucket = bucket_of(config, credential)
    budget = Budget(
        ledger,
        bucket=bucket,
        limit=config.requests_per_hour,
        default=default_limit(config, credential),
        clock=clock,
        wait=wait,
        may_wait=may_wait,
        max_requests=max_requests,
        timer=timer,
    )
    http_with = partial(
        Http,
        budget=budget,
        retry=config.retry,
        timeout=config.timeout,
        clock=clock,
        random=random,
        transport=transport,
    )
    http = http_with(url=url, credential=credential, origins=origins_of(url))
    git = None if for_write else _git_refs(config, credential, http_with)
    return ConnectedUpstream(_upstream(config, http, git), budget)


def _git_refs(
    config: UpstreamConfig, credential: Credential, http_with: "Callable[..., Http]"
) -> "GitRefs | None":
    """Make what reads refs by git; None if the API reads them. Raises ConfigError for kind legacy."""
    if config.refs != "git":
        return None
    if config.kind == "legacy":
        raise ConfigError(f'upstream {config.name}: refs = "git" is not for kind "legacy"; use refs = "api"')
    from mirror.upstream.git import GIT_AGENT, TOKEN_USER, GitRefs, git_credential, git_root  # noqa: PLC0415

    is_datacenter = config.kind == "datacenter"
    http = http_with(
        url=git_root(url_of(config), datacenter=is_datacenter),
        credential=credential if is_datacenter else git_credential(credential),
        token_user=TOKEN_USER,
        user_agent=GIT_AGENT,
    )
    return GitRefs(http)


def _upstream(config: UpstreamConfig, http: "Http", git: "GitRefs | None") -> "Upstream":
    """Make the upstream of a kind; the others are not imported."""
    if config.kind == "datacenter":
        from mirror.upstream.datacenter import DataCenter  # noqa: PLC0415

        return DataCenter(config.name, http, git, projects=config.workspaces or ())
    if config.kind == "legacy":
        from mirror.upstream.api1 import Api1  # noqa: PLC0415

        return Api1(config.name, http)
    from mirror.upstream.cloud import Cloud, SandboxUpstream  # noqa: PLC0415

    return (SandboxUpstream if config.kind == "sandbox" else Cloud)(config.name, http, git)
