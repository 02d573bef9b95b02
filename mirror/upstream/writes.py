"""What `mirror.write` asks of an upstream: to create, change, delete and fork a repository.

The errors are those of `mirror.upstream.base`. None of these requests is repeated once it may have been
done; what became of one whose answer was lost is for the caller to ask.
"""

from typing import Protocol

import msgspec

from mirror.model import Repository, RepositoryKey
from mirror.upstream.base import Upstream


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository is to be like; None leaves it to the upstream, or as it is."""

    name: str | None = None
    scm: str | None = None
    is_private: bool | None = None
    description: str | None = None
    website: str | None = None
    language: str | None = None
    has_issues: bool | None = None
    has_wiki: bool | None = None
    fork_policy: str | None = None

    def said(self, *names: str) -> dict[str, str | bool]:
        """Return those of the named settings that are said, all of them without names."""
        found = msgspec.structs.asdict(self)
        return {name: found[name] for name in names or found if found[name] is not None}


class WritableUpstream(Upstream, Protocol):
    """A Bitbucket that can be written to."""

    knows_hg: bool
    """False where every repository is git, so that a missing `scm` can mean nothing else."""

    never_tells: frozenset[str]
    """Settings that no answer of this kind of upstream holds."""

    def find_repository(self, full_name: str) -> Repository:
        """Ask for the repository that has this name now, whichever it is."""

    def create_repository(self, owner: str, slug: str, settings: Settings) -> Repository:
        """Create a repository; some upstreams make the slug of the name and take none."""

    def update_repository(self, key: RepositoryKey, settings: Settings) -> Repository:
        """Change what is said; another name changes the slug."""

    def delete_repository(self, key: RepositoryKey) -> None:
        """Delete a repository for good."""

    def fork_repository(self, key: RepositoryKey, owner: str, settings: Settings) -> Repository:
        """Copy a repository into a namespace, under the name that is said."""
