"""A mirror of a sandbox served over real HTTP, and what writes to both."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from prepared_files import MirrorOf, long_port, opened

from mirror.config import Config, Duration, Retry, UpstreamConfig
from mirror.operations import Control, SyncOptions, sync_all
from mirror.queries.repositories import repository_named
from mirror.queries.search import find_repositories
from mirror.queries.visibility import OPERATOR
from mirror.sandbox import RunningSandbox, Sandbox, World, running, visible_repositories
from mirror.store.files import open_reader
from mirror.write import PassThrough

SECRET = "sandbox"


class WriteHarness:
    """A sandbox, a mirror of some of it, and short verbs; the secret reaches it by a mapping alone."""

    def __init__(self, served: RunningSandbox, path: Path, credential: str = SECRET, **settings: Any) -> None:
        self.served = served
        self.sandbox = served.sandbox
        self.path = path
        self.environ = {"TOKEN": credential}
        said: dict[str, Any] = {
            "name": "s",
            "kind": "sandbox",
            "url": served.url,
            "workspaces": ("jespern", "erik"),
            "refs": "none",
            "credential": "env:TOKEN",
            "retry": Retry(attempts=3, first_delay=Duration(0.01), max_delay=Duration(0.02)),
            "timeout": Duration(0.5),
        }
        self.config = Config(database=str(path), upstreams=(UpstreamConfig(**said | settings),))
        self.writes = self.writer()

    def writer(self, config: Config | None = None) -> PassThrough:
        """Make another writer, of another configuration if need be."""
        return PassThrough(config or self.config, environ=self.environ)

    def with_credential(self, credential: str | None) -> Config:
        """Return the configuration with another credential."""
        upstream = msgspec.structs.replace(self.config.upstreams[0], credential=credential)
        return msgspec.structs.replace(self.config, upstreams=(upstream,))

    def seeing_everything(self) -> Config:
        """Return the configuration with a token that sees everything, from a file."""
        token = self.path.with_name("token")
        token.write_text(SECRET, "utf-8")
        return self.with_credential(f"file:{token}")

    def sync(self) -> None:
        """Mirror the sandbox."""
        config = self.seeing_everything()
        opened(self.path).close()
        for summary in sync_all(config, SyncOptions(), Control()):
            assert summary.exit_code == 0, summary

    def row(self, full_name: str) -> dict[str, Any] | None:
        """Read a repository as `mirror show` does."""
        connection = open_reader(self.path)
        try:
            row = repository_named(connection, OPERATOR, full_name, gone=True)
        finally:
            connection.close()
        return row.columns() if row else None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Read anything."""
        connection = open_reader(self.path)
        try:
            return [tuple(row) for row in connection.execute(sql)]
        finally:
            connection.close()

    def changes(self) -> list[tuple[Any, ...]]:
        """Read what changed since the first sync: kind, old, new."""
        return self.rows("SELECT kind, old, new FROM changes ORDER BY id")

    def written(self) -> list[tuple[Any, ...]]:
        """Read the table `writes`."""
        return self.rows("SELECT asked_by, action, full_name, outcome FROM writes ORDER BY id")

    def found(self, query: str) -> list[str]:
        """Search by name."""
        connection = open_reader(self.path)
        try:
            return [row.full_name for row in find_repositories(connection, OPERATOR, query).repositories]
        finally:
            connection.close()

    def contents(self) -> str:
        """Return everything in the mirror except the requests."""
        connection = open_reader(self.path)
        try:
            return "\n".join(line for line in connection.iterdump() if '"request_ledger"' not in line)
        finally:
            connection.close()

    def upstream(self, full_name: str) -> Any:
        """Read a repository of the sandbox itself, None where there is none."""
        named = [
            row
            for row in visible_repositories(self.sandbox.world)
            if row["full_name"].lower() == full_name.lower()
        ]
        return json.loads(json.dumps(named[0])) if named else None

    def asked(self) -> int:
        """Count the requests that the sandbox got."""
        return int(self.sandbox.state()["total"])


@contextmanager
def writable(
    path: Path, credential: str = SECRET, *, size: int = 30, **settings: Any
) -> Iterator[WriteHarness]:
    """Serve a small sandbox, and copy a mirror of it, which takes a tenth of the time of a sync."""
    with running(Sandbox(World(size)), port=long_port()) as served:
        made = WriteHarness(served, path / "mirror.db", credential, **settings)
        _synced(size, tuple(settings.items())).copy(made.path, served.origin)
        yield made


@cache
def _synced(size: int, settings: tuple[tuple[str, Any], ...]) -> MirrorOf:
    """Sync once in a process."""
    sandbox = Sandbox(World(size))
    with tempfile.TemporaryDirectory() as folder, running(sandbox, port=long_port()) as served:
        made = WriteHarness(served, Path(folder) / "mirror.db", **dict(settings))
        made.sync()
        return MirrorOf(served.origin, made.path.read_bytes())
