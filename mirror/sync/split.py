"""Split a crawl into mirrors of equal load, each for its own credential.

No workspace is divided. The load of one is the hours that a first load of it takes within the usual budgets
of one credential.
"""

import heapq
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from mirror.config import Config, UpstreamConfig
from mirror.errors import ConfigError
from mirror.readable import repositories_text
from mirror.settings import toml_text
from mirror.store.cursors import Cursors
from mirror.sync.progress import GIT_REQUESTS, PAGE
from mirror.times import age_text
from mirror.upstream.budget import AUTHENTICATED_LIMIT, GIT_LIMIT


class KnownWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace, how many living repositories the mirror knows of it, and the hours that it takes."""

    name: str
    repositories: int
    hours: float


class Share(msgspec.Struct, kw_only=True):
    """The workspaces of one mirror."""

    workspaces: list[str]
    repositories: int = 0
    hours: float = 0.0


def hours_of(repositories: int, *, refs: str, members: bool) -> float:
    """Return how long the first load of a workspace takes, by requests: itself, its members, pages, refs."""
    api = 1 + members + max(1, -(-repositories // PAGE)) + (repositories if refs == "api" else 0)
    by_git = GIT_REQUESTS * repositories if refs == "git" else 0
    return api / AUTHENTICATED_LIMIT + by_git / GIT_LIMIT


def known_workspaces(connection: sqlite3.Connection | None, upstream: UpstreamConfig) -> list[KnownWorkspace]:
    """Return the workspaces that an upstream's configuration names, else all that its mirror knows."""
    sizes = dict[str, tuple[str, int]]()
    found = connection and connection.execute("SELECT id FROM upstreams WHERE name = ?", (upstream.name,))
    row = found.fetchone() if found else None
    if connection is not None and row is not None:
        sizes = {name: (name, 0) for name in Cursors(connection, row[0]).workspace_names() if name[:1] != "{"}
        owned = connection.execute(
            """SELECT o.username, count(*) FROM repositories r JOIN users o ON o.id = r.owner_id
                WHERE r.upstream_id = ? AND r.deleted_at IS NULL AND o.username IS NOT NULL
                GROUP BY r.owner_id""",
            (row[0],),
        )
        sizes |= {name.lower(): (name, count) for name, count in owned}
    if upstream.workspaces is not None:
        sizes = {name.lower(): (name, sizes.get(name.lower(), ("", 0))[1]) for name in upstream.workspaces}
    return [
        KnownWorkspace(
            name=name,
            repositories=count,
            hours=hours_of(count, refs=upstream.refs, members=upstream.members),
        )
        for name, count in sizes.values()
    ]


def split(workspaces: Sequence[KnownWorkspace], mirrors: int) -> list[Share]:
    """Share out workspaces among mirrors of about equal load.

    Raises ConfigError for no mirror, and where there are fewer workspaces than mirrors.
    """
    if mirrors < 1:
        raise ConfigError(f"--mirrors {mirrors}: give at least 1")
    if len(workspaces) < mirrors:
        known = "1 workspace is" if len(workspaces) == 1 else f"{len(workspaces):,} workspaces are"
        remedy = "name all in `workspaces`, or run `mirror sync` first"
        raise ConfigError(f"--mirrors {mirrors}: only {known} known; {remedy}")
    # The largest first, always to the least load: at most a third worse than the best split.
    shares = [Share(workspaces=[]) for _ in range(mirrors)]
    loads = [(0.0, number) for number in range(mirrors)]
    for one in sorted(workspaces, key=lambda one: (-one.hours, one.name)):
        _, number = heapq.heappop(loads)
        share = shares[number]
        share.workspaces.append(one.name)
        share.repositories += one.repositories
        share.hours += one.hours
        heapq.heappush(loads, (share.hours, number))
    return shares


def configuration_of(
    config: Config, upstream: UpstreamConfig, share: Share, *, number: int, names_file: str | None
) -> str:
    """Return the configuration of one mirror: as the given one, but for its workspaces and its credential.

    `names_file` is where the workspaces are listed; None writes them into the configuration.
    """
    if config.export_to and "://" not in config.export_to:  # the mirrors are elsewhere, and their lake is one
        config = msgspec.structs.replace(config, export_to=str(Path(config.export_to).absolute()))
    workspaces = f"{len(share.workspaces):,} {'workspace' if len(share.workspaces) == 1 else 'workspaces'}"
    size = f"{workspaces}, {repositories_text(share.repositories)}"
    lines = [
        f"# Mirror {number}: {size}, {age_text(share.hours * 3600)} of requests for a first load",
        f'database = "mirror-{number}.db"',
        *_changed_from_default(
            config, ("file_mode", "timezone", "export_schedule", "export_to", "export_public")
        ),
        "",
        "[[upstream]]",
        f"name = {toml_text(upstream.name)}",
        f'credential = "env:BITBUCKET_TOKEN_{number}"',
        f"workspaces_from = {toml_text(names_file)}"
        if names_file
        else f"workspaces = {toml_text(share.workspaces)}",
        *_changed_from_default(upstream, [name for name in upstream.__struct_fields__ if name not in _OWN]),
    ]
    return "\n".join(lines) + "\n"


_OWN = frozenset({"name", "credential", "webhook_secret", "workspaces", "workspaces_from"})
"""Settings that differ between the mirrors."""


def _changed_from_default(struct: msgspec.Struct, names: Iterable[str]) -> Iterator[str]:
    """Yield the settings that are not as they are by default."""
    usual = {field.name: field.default for field in msgspec.structs.fields(struct)}
    for name in names:
        value = getattr(struct, name)
        if value != usual[name]:
            yield f"{name} = {toml_text(value)}"
