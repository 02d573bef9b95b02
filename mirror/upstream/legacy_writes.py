"""API 1.0 as an upstream, the writing side: forms out, whole repositories back.

Its document is that of Bitbucket's `repositories` resource: name, scm, is_private, description, website,
language, has_issues, has_wiki, and a switch for each kind of fork that is forbidden.
"""

from urllib.parse import urlencode

from mirror.model import Repository, RepositoryKey
from mirror.upstream import legacy_shapes as shapes
from mirror.upstream.addresses import segment
from mirror.upstream.answer import Answer
from mirror.upstream.http import Method
from mirror.upstream.legacy import Legacy
from mirror.upstream.writes import Settings

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class WritableLegacy(Legacy):
    """A server that speaks API 1.0, for those who may write to it."""

    knows_hg = True
    never_tells = frozenset[str]()

    def find_repository(self, full_name: str) -> Repository:
        """Ask for the repository that has this name now."""
        return self.fetch_repository(RepositoryKey(uuid="", full_name=full_name))

    def create_repository(self, owner: str, slug: str, settings: Settings) -> Repository:
        """POST to all repositories, naming the owner; the server makes the slug of the name."""
        fields = {"name": slug, **_fields(settings), "owner": owner}
        return self._shaped(self._send("POST", "repositories/", fields))

    def update_repository(self, key: RepositoryKey, settings: Settings) -> Repository:
        """PUT what is to change."""
        return self._shaped(self._send("PUT", f"{_path(key)}/", _fields(settings)))

    def delete_repository(self, key: RepositoryKey) -> None:
        """DELETE it."""
        self._http.delete(f"{_path(key)}/")

    def fork_repository(self, key: RepositoryKey, owner: str, settings: Settings) -> Repository:
        """POST to its forks; a server that takes no `owner` forks under the caller's own name."""
        fields = {**_fields(settings), "owner": owner}
        fields.pop("scm", None)  # a fork is what its parent is
        return self._shaped(self._send("POST", f"{_path(key)}/fork", fields))

    def _send(self, method: Method, path: str, fields: dict[str, str]) -> Answer:
        return self._http.send(method, path, content=urlencode(fields).encode(), headers=_FORM)

    def _shaped(self, answer: Answer) -> Repository:
        return shapes.shape_repository(self._http.decoded(answer, shapes.RepositoryRow), None)


def _path(key: RepositoryKey) -> str:
    return f"repositories/{segment(key.workspace)}/{segment(key.slug)}"


def _fields(settings: Settings) -> dict[str, str]:
    """Write settings as fields of a form."""
    said = settings.said()
    policy = said.pop("fork_policy", None)
    if policy is not None:
        said |= {"no_forks": policy == "no_forks", "no_public_forks": policy != "allow_forks"}
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in said.items()}
