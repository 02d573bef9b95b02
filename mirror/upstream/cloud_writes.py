"""Bitbucket Cloud's API 2.0, the writing side: addressed by identity wherever there is one.

A name may belong to another repository by the time a request arrives, and a PUT to an unknown one creates
it (developer.atlassian.com/cloud/bitbucket/rest/api-group-repositories), so names are used to create alone.
"""

from typing import Any

from mirror.model import Repository, RepositoryKey
from mirror.upstream import cloud_shapes as shapes
from mirror.upstream.addresses import segment
from mirror.upstream.answer import Answer
from mirror.upstream.cloud import Cloud
from mirror.upstream.writes import Settings


class WritableCloud(Cloud):
    """Bitbucket Cloud, for those who may write to it."""

    knows_hg = False
    never_tells = frozenset[str]()

    def find_repository(self, full_name: str) -> Repository:
        """Ask for the repository that has this name now."""
        return self.fetch_repository(RepositoryKey(uuid="", full_name=full_name))

    def create_repository(self, owner: str, slug: str, settings: Settings) -> Repository:
        """POST to the address that the repository is to have."""
        return self._shaped(
            self._http.post(f"repositories/{segment(owner)}/{segment(slug)}", _body(settings))
        )

    def update_repository(self, key: RepositoryKey, settings: Settings) -> Repository:
        """PUT what is to change."""
        return self._shaped(self._http.put(self._path(key), _body(settings)))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE it."""
        self._http.delete(self._path(key))

    def fork_repository(self, key: RepositoryKey, owner: str, settings: Settings) -> Repository:
        """POST to its forks, naming the workspace."""
        body = {**_body(settings), "workspace": {"slug": owner}}
        body.pop("scm", None)  # a fork is what its parent is
        return self._shaped(self._http.post(f"{self._path(key)}/forks", body))

    def _shaped(self, answer: Answer) -> Repository:
        return shapes.shape_repository(self._http.decoded(answer, shapes.RepositoryRow))


class WritableSandbox(WritableCloud):
    """The simulated Bitbucket, which makes Mercurial repositories still."""

    knows_hg = True


def _body(settings: Settings) -> dict[str, Any]:
    return dict(settings.said())
