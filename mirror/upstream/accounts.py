"""The account of a configured upstream: its address, its bucket in the ledger, its hourly limit."""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from mirror.config import CLOUD_URL, SANDBOX_PORT, Config, UpstreamConfig
from mirror.credentials import Credential, read_credential
from mirror.errors import ConfigError
from mirror.upstream.budget import ANONYMOUS_LIMIT, AUTHENTICATED_LIMIT, limit_in_force

SANDBOX_URL = f"http://127.0.0.1:{SANDBOX_PORT}/2.0"


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
    """Return the hourly limit of requests where the upstream does not report one; None for no limit.

    Cloud: 60 for an anonymous address, 1,000 for an identity, each less a margin
    (support.atlassian.com/bitbucket-cloud/docs/api-request-limits). Others have no limit by default.
    """
    if config.kind != "cloud":
        return None
    return ANONYMOUS_LIMIT if credential.form == "anonymous" else AUTHENTICATED_LIMIT


def bucket_of(config: UpstreamConfig, credential: Credential) -> str:
    """Name the account in the ledger that requests count in; raises ConfigError for an impossible address."""
    url = url_of(config)
    try:
        host = urlsplit(url).netloc
        urlsplit(url).port  # noqa: B018 - it raises where the port is not a number
    except ValueError as error:
        raise ConfigError(f"upstream {config.name}: url {url!r} is not a web address: {error}") from None
    return f"{credential.bucket}@{host}"


def accounts_by_upstream(config: Config, told: Mapping[str, int]) -> dict[str, tuple[str, int | None]]:
    """Map each upstream to its bucket in the request ledger and the hourly limit in force.

    `told` are the limits that upstreams reported, by bucket. An upstream with an invalid address, or whose
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
            told=told.get(bucket),
            ours=upstream.requests_per_hour,
            default=default_limit(upstream, credential),
        )
        found[upstream.name] = (bucket, limit)
    return found
