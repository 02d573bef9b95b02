"""Bitbucket Data Center's REST API, the writing side: names are the only addresses it has.

A repository is forkable or not, public or not; website, language, issues and wiki it has none. Shapes and
statuses: developer.atlassian.com/server/bitbucket/rest, `projects/{key}/repos`.
"""

from typing import Any

from mirror.errors import Paused, UpstreamError, UpstreamRefused
from mirror.model import Repository, RepositoryKey
from mirror.upstream import datacenter_shapes as shapes
from mirror.upstream.addresses import segment
from mirror.upstream.answer import Answer
from mirror.upstream.datacenter import DataCenter, closed
from mirror.upstream.writes import Settings


class WritableDataCenter(DataCenter):
    """A Bitbucket Data Center, for those who may write to it."""

    knows_hg = False
    never_tells = frozenset({"website", "language", "has_issues", "has_wiki"})

    def find_repository(self, full_name: str) -> Repository:
        """Ask for the repository that has this name now."""
        row, _ = self._http.get_json(_path(full_name), shapes.RepositoryRow)
        return self._checked(shapes.shape_repository(row))

    def create_repository(self, owner: str, slug: str, settings: Settings) -> Repository:
        """POST to the project; the server makes the slug of the name."""
        body = {"name": slug, "scmId": "git", **_body(settings)}
        return self._shaped(self._http.post(f"projects/{segment(owner)}/repos", body))

    def update_repository(self, key: RepositoryKey, settings: Settings) -> Repository:
        """PUT what is to change."""
        return self._shaped(self._http.put(_path(key.full_name), _body(settings)))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE it; the server answers 202 and removes the files later."""
        self._http.delete(_path(key.full_name))

    def fork_repository(self, key: RepositoryKey, owner: str, settings: Settings) -> Repository:
        """POST to the repository, naming the project."""
        body = {**_body(settings), "project": {"key": owner}}
        body.pop("scmId", None)  # a fork is what its parent is
        return self._shaped(self._http.post(_path(key.full_name), body))

    def _shaped(self, answer: Answer) -> Repository:
        """Shape what was written; it is done, so where nobody tells who may see it, it counts as private."""
        made = shapes.shape_repository(self._http.decoded(answer, shapes.RepositoryRow))
        try:
            return self._checked(made)
        except (UpstreamError, Paused):
            return closed(made)


def _path(full_name: str) -> str:
    project, _, slug = full_name.partition("/")
    return f"projects/{segment(project)}/repos/{segment(slug)}"


def _body(settings: Settings) -> dict[str, Any]:
    """Write settings as Data Center names them; raises UpstreamRefused for what it cannot express."""
    body: dict[str, Any] = settings.said("name", "description")
    if settings.scm is not None:
        body["scmId"] = settings.scm
    if settings.is_private is not None:
        body["public"] = not settings.is_private
    if settings.fork_policy == "no_public_forks":
        raise UpstreamRefused("fork_policy: Data Center has allow_forks and no_forks alone", status=400)
    if settings.fork_policy is not None:
        body["forkable"] = settings.fork_policy == "allow_forks"
    return body
