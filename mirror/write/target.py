"""Which upstream a write goes to: the one that has the namespace, by the mirror or the configuration."""

from collections.abc import Iterable

import msgspec

from mirror.config import Config, UpstreamConfig
from mirror.errors import ConfigError, NotFound
from mirror.model import RepositoryKey
from mirror.store import Store


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A mirrored repository that is to be written, and the upstream that has it."""

    upstream: UpstreamConfig
    row_id: int
    key: RepositoryKey
    is_private: bool
    fork_policy: str | None


def choose_upstream(
    config: Config, store: Store, owner: str, upstream: str = ""
) -> tuple[UpstreamConfig, str]:
    """Choose the upstream that has a namespace; return it with the namespace as it is spelled there.

    `upstream` is the name that the user gave, "" for none. Raises NotFound where no upstream is known to have
    the namespace, ConfigError where several have it, where `upstream` is unknown, and without a credential.
    """
    mirrored = store.rows(
        """SELECT up.name, u.username FROM users u JOIN upstreams up ON up.id = u.upstream_id
           WHERE u.username = ? COLLATE NOCASE AND u.is_owner AND u.deleted_at IS NULL""",
        (owner,),
    )
    spellings = {
        candidate.name: workspace
        for candidate in config.upstreams
        for workspace in candidate.workspaces or ()
        if workspace.lower() == owner.lower()
    } | dict(mirrored)
    if upstream:
        return _writable(_configured(config, upstream)), spellings.get(upstream, owner)
    names = [candidate.name for candidate in config.upstreams if candidate.name in spellings]
    if not names and spellings:
        raise _no_longer_configured(owner, spellings, config)
    if not names:
        raise NotFound(
            f"no upstream is known to hold {owner}: name it in `workspaces` of one and run `mirror sync`,"
            f" or say which with --upstream ({_names(config)})"
        )
    if len(names) > 1:
        raise _ambiguous(owner, names)
    return _writable(_configured(config, names[0])), spellings[names[0]]


def find_target(config: Config, store: Store, full_name: str, upstream: str = "") -> Target:
    """Find a living repository of the mirror by its name, in any case; raises as `choose_upstream` does."""
    rows = store.rows(
        """SELECT up.name, r.id, r.uuid, r.full_name, r.scm, r.is_private, r.fork_policy
           FROM repositories r JOIN upstreams up ON up.id = r.upstream_id
           WHERE r.full_name = ? COLLATE NOCASE AND r.deleted_at IS NULL ORDER BY r.id""",
        (full_name,),
    )
    if not rows:
        raise NotFound(f"the mirror holds no repository {full_name}; `mirror sync` brings what is new")
    holders = {row[0]: row for row in reversed(rows)}
    if upstream:
        chosen = _configured(config, upstream)
        if upstream not in holders:
            raise NotFound(f"the mirror holds no repository {full_name} of upstream {upstream}")
    else:
        names = [candidate.name for candidate in config.upstreams if candidate.name in holders]
        if not names:
            raise _no_longer_configured(full_name, holders, config)
        if len(names) > 1:
            raise _ambiguous(full_name, names)
        chosen = _configured(config, names[0])
    _, row_id, uuid, name, scm, is_private, fork_policy = holders[chosen.name]
    return Target(
        upstream=_writable(chosen),
        row_id=row_id,
        key=RepositoryKey(uuid=uuid, full_name=name, scm=scm),
        is_private=bool(is_private),
        fork_policy=fork_policy,
    )


def _configured(config: Config, name: str) -> UpstreamConfig:
    for upstream in config.upstreams:
        if upstream.name == name:
            return upstream
    raise ConfigError(f"unknown upstream {name!r} (configured: {_names(config)})")


def _writable(upstream: UpstreamConfig) -> UpstreamConfig:
    """Return the upstream; raises ConfigError for one without a credential, before anything is asked."""
    if upstream.credential is None:
        raise ConfigError(
            f"upstream {upstream.name} has no credential, and nobody may write without one:"
            f' set `credential = "env:NAME"` or "file:PATH" in its section'
        )
    return upstream


def _ambiguous(what: str, names: Iterable[str]) -> ConfigError:
    return ConfigError(f"{what} is in {' and in '.join(names)}; say which one with --upstream")


def _no_longer_configured(what: str, names: Iterable[str], config: Config) -> ConfigError:
    return ConfigError(
        f"{what} was mirrored from {', '.join(names)}, which the configuration no longer names:"
        f" there is {_names(config)}"
    )


def _names(config: Config) -> str:
    return ", ".join(upstream.name for upstream in config.upstreams)
