"""A writer for the tests of served writes, in place of an upstream."""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fixtures_db import FixtureDb, owner, repository

from mirror.model import Repository, RepositoryKey, RepositorySettings

if TYPE_CHECKING:
    from mirror.errors import MirrorError


class FakeWriter:
    """A writer whose upstream accepts everything, or raises the error that a test chose."""

    def __init__(self, filled: FixtureDb) -> None:
        self.filled = filled
        self.calls = list[tuple[str, str, RepositorySettings | None, str]]()
        self.error: MirrorError | None = None

    def confirmed(self, _: Callable[[sqlite3.Connection], None]) -> "FakeWriter":
        """Send every write."""
        return self

    def create(self, owner: str, settings: RepositorySettings, *, by: str, upstream: str = "") -> Repository:
        """Save it as requested."""
        return self._save("create", f"{owner}/{(settings.name or '').lower()}", settings, by)

    def update(
        self, full_name: str, settings: RepositorySettings, *, by: str, uuid: str, upstream: str = ""
    ) -> Repository:
        """Save it under its new name, if it has one."""
        owner = full_name.partition("/")[0]
        after = f"{owner}/{settings.name.lower()}" if settings.name else full_name
        return self._save("update", after, settings, by)

    def delete(self, full_name: str, *, by: str, uuid: str, upstream: str = "") -> RepositoryKey:
        """Mark it gone."""
        self._note("delete", full_name, None, by)
        self.filled.gone(full_name)
        return RepositoryKey(uuid=uuid, full_name=full_name)

    def fork(
        self,
        full_name: str,
        owner: str,
        settings: RepositorySettings,
        *,
        by: str,
        uuid: str,
        private_in: str | None,
        upstream: str = "",
    ) -> Repository:
        """Save it as a fork."""
        return self._save("fork", f"{owner}/{settings.name}", settings, by, parent_full_name=full_name)

    def _note(self, verb: str, full_name: str, settings: RepositorySettings | None, by: str) -> None:
        if self.error:
            raise self.error
        self.calls.append((verb, full_name, settings, by))

    def _save(
        self, verb: str, full_name: str, settings: RepositorySettings, by: str, **others: Any
    ) -> Repository:
        self._note(verb, full_name, settings, by)
        row = repository(
            full_name,
            owner(full_name.partition("/")[0]),
            name=settings.name or "x",
            scm=settings.scm,
            size=0,
            **others,
        )
        self.filled.repositories([row])
        return row
