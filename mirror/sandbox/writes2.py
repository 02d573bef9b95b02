"""The writing side of API 2.0: create, update, delete and fork a repository."""

from typing import Any

from .askers import Asker
from .edits import create, delete, edit, rename
from .exchange import Answer, Refused, Request, error, json_answer, no_credentials, no_repository
from .model import Repository, Workspace
from .names import slugify
from .shapes2 import Shapes2
from .world import World

_SETTINGS = ("description", "website", "language", "has_issues", "has_wiki", "fork_policy", "is_private")
_SWITCHES = {"has_issues", "has_wiki", "is_private"}


class Writes2:
    """Carries out the writes of one asker, if they may."""

    def __init__(self, world: World, request: Request, asker: Asker, shapes: Shapes2) -> None:
        self._world = world
        self._request = request
        self._asker = asker
        self._shapes = shapes

    def create(self, workspace: str, slug: str) -> Answer:
        """Create a repository; the path says its slug, the body the rest."""
        place = self._writable(workspace)
        body = self._body()
        name = str(body.get("name") or slug)
        row = self._make(place, name, slug, scm=str(body.get("scm") or "git"), **_settings(body))
        return json_answer(self._shapes.repository(row))

    def update(self, workspace: str, slug: str) -> Answer:
        """Change settings; a new name changes the slug, and an unknown repository is created."""
        place = self._writable(workspace)
        row = self._world.find(workspace, slug)
        if row is None:
            created = self.create(workspace, slug)
            created.status = 201
            return created
        body = self._body()
        settings = _settings(body)
        name = str(body.get("name") or row.name)
        if name != row.name:
            self._must_be_free(place, slugify(name), unless=row)
            row = rename(self._world, row, name)
        if settings:
            row = edit(self._world, row, settings)
        shaped = self._shapes.repository(row)
        answer = json_answer(shaped)
        if row.slug != slug:
            answer.headers["Location"] = f"{self._request.origin}/2.0/repositories/{row.full_name}"
        return answer

    def delete(self, workspace: str, slug: str) -> Answer:
        """Delete a repository."""
        self._writable(workspace)
        delete(self._world, self._existing(workspace, slug))
        return Answer(204)

    def fork(self, workspace: str, slug: str) -> Answer:
        """Fork a repository into a workspace, the asker's own unless the body says otherwise."""
        parent = self._existing(workspace, slug)
        body = self._body()
        target = body.get("workspace")
        target = target.get("slug") if isinstance(target, dict) else target
        place = self._writable(str(target or self._asker.name))
        name = str(body.get("name") or parent.name)
        made = self._make(
            place,
            name,
            slugify(name),
            parent=parent,
            **{"description": parent.description, **_settings(body)},
        )
        return json_answer(self._shapes.repository(made), 201)

    def _make(self, place: Workspace, name: str, slug: str, **more: Any) -> Repository:
        self._must_be_free(place, slug)
        return create(self._world, place, name, slug=slug, **more)

    def _must_be_free(self, place: Workspace, slug: str, unless: Repository | None = None) -> None:
        found = self._world.find(place.slug, slug)
        if found is not None and found is not unless and (unless is None or found.number != unless.number):
            message = "Repository with this Slug and Owner already exists."
            raise Refused(error(400, message, fields={"name": [message]}))

    def _writable(self, workspace: str) -> Workspace:
        if self._asker.kind == "anonymous":
            raise Refused(no_credentials())
        place = self._world.workspace(workspace)
        if place is None:
            raise Refused(error(404, f"No workspace with identifier '{workspace}'."))
        if not self._world.is_member(self._asker, place):
            detail = {"required": ["repository:admin"], "granted": ["repository"]}
            message = "Your credentials lack one or more required privilege scopes."
            raise Refused(error(403, message, detail=detail))
        return place

    def _existing(self, workspace: str, slug: str) -> Repository:
        if self._asker.kind == "anonymous":
            raise Refused(no_credentials())
        row = self._world.find(workspace, slug)
        if row is None or not self._world.can_see(self._asker, row):
            raise Refused(no_repository())
        return row

    def _body(self) -> dict[str, Any]:
        try:
            return self._request.form()
        except ValueError as bad:
            raise Refused(error(400, "Bad request", detail=str(bad))) from None


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    """Take the settings out of a body; booleans of a form are words."""
    settings = {name: body[name] for name in _SETTINGS if name in body}
    for name in _SWITCHES & settings.keys():
        settings[name] = str(settings[name]).lower() == "true"
    return settings
