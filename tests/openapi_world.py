"""A served mirror for the tests of the OpenAPI documents, the names that it has, a judge of responses."""

import re
from pathlib import Path
from typing import Any

import msgspec
from asgi_client import AsgiClient, basic, bearer, client_of, make_tokens
from fixtures_db import JESPERN, fill_mixed, repository
from jsonschema import Draft202012Validator

from mirror.model import Project

PISTON = "/repositories/jespern/django-piston"
NAMES = ("1.0", "2.0", "datacenter")
KNOWN = {
    "owner": ("jespern", "mcatalbas", "brodie"),
    "slug": ("django-piston", "arriving", "copy", "web.site"),
    "workspace": ("jespern", "mcatalbas", "{jespern-uuid}", "brodie"),
    "repository": ("django-piston", "arriving", "{jespern/arriving}", "copy"),
    "project": ("~jespern", "jespern", "brodie", "~mcatalbas"),
    "user": ("jespern", "mcatalbas"),
    "name": ("default", "0.2.1", "tip", "a" * 40, "aaaa", "mcatalbas", "PROJ"),
    "more": ("commits", "pull-requests/1", "browse"),
}
"""Names that may stand in a path."""

GOOD = {
    "owner": "jespern", "slug": "django-piston", "workspace": "jespern", "repository": "django-piston",
    "project": "jespern", "user": "jespern", "more": "commits",
    "name": "default",
}  # fmt: skip
"""Names of what there is, but for those in the address of one of `ITEMS`."""

ITEMS = {
    "/workspaces/{workspace}/members/{name}": "/workspaces/brodie/members/mcatalbas",
    "/workspaces/{workspace}/members": "/workspaces/brodie/members",
    "/teams/{workspace}/members": "/teams/brodie/members",
    "/workspaces/{workspace}/projects/{name}": "/workspaces/mcatalbas/projects/PROJ",
    "/workspaces/{workspace}/projects": "/workspaces/mcatalbas/projects",
    "/repositories/{workspace}/{repository}/commit/{name}": f"{PISTON}/commit/aaaaaaaaa",
    "/repositories/{workspace}/{repository}/refs/branches/{name}": f"{PISTON}/refs/branches/default",
    "/repositories/{workspace}/{repository}/refs/tags/{name}": f"{PISTON}/refs/tags/0.2.3",
    "/projects/{project}/repos/{repository}/commits/{name}":
        f"/projects/jespern/repos/django-piston/commits/{'a' * 40}",
    "/projects/{project}/repos/{repository}/tags/{name}": "/projects/jespern/repos/django-piston/tags/0.2.3",
}  # fmt: skip

VALID = {
    "page": ("1", "2", "1000000"),
    "pagelen": ("1", "2", "100"),
    "sort": ("name", "-name", "full_name", "-created_on"),
    "q": ('name ~ "a"', "is_private = true", 'full_name = "jespern/django-piston"'),
    "fields": ("values.name", "-links", "-values.links", "size", "*", "next,values.*.uuid"),
    "after": ("2000-01-01", "2030-01-01T00:00:00Z"),
    "name": ("piston", "a", ""),
    "callback": ("f",),
    "start": ("0", "1", "5"),
    "limit": ("1", "2", "100"),
}


class Served(msgspec.Struct):
    """A served mirror, the headers of each sort of caller, and the documents."""

    client: AsgiClient
    callers: dict[str, dict[str, str]]
    documents: dict[str, Any]


def served_mirror(folder: Path) -> Served:
    """Serve a mirror with private rows of every sort and a project."""
    filled = fill_mixed(folder / "mirror.db")
    filled.repositories(
        (
            repository(
                "mcatalbas/grouped",
                project_key="PROJ",
                project_name="A project",
                project_uuid="{project}",
                project=Project(key="PROJ", uuid="{project}", name="A project", description="Kept"),
                clone_https="https://example.com/grouped.git",
                archived=True,
            ),
        )
    )
    filled.members(JESPERN, [JESPERN])
    known = make_tokens(filled.store)
    filled.store.close()
    client = client_of(filled.path)
    callers = {
        "stranger": {},
        "token": bearer(known["read"]),
        "user": basic("jespern", known["user"]),
        "revoked": bearer(known["revoked"]),
    }
    documents = {name: client.json(f"/-/openapi/{name}.json") for name in NAMES}
    return Served(client, callers, documents)


def good(path: str) -> str:
    """Fill the places of a path with names of what there is."""
    return ITEMS.get(path) or re.sub(r"\{(\w+)\}", lambda found: GOOD[found[1]], path)


def valid(name: str, schema: Any) -> tuple[str, ...]:
    """Return values that a parameter takes."""
    if "enum" in schema:
        return tuple(map(str, schema["enum"]))
    return ("true", "false") if schema.get("type") == "boolean" else VALID.get(name, ("a", "1", "piston"))


def closed(schema: Any) -> Any:
    """Allow no key that a schema does not name, so that a new key must be described."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made["additionalProperties"] = False
    return made


class Judge:
    """Checks whether responses match a document."""

    def __init__(self, document: Any) -> None:
        self._responses = document["components"]["responses"]
        self._components = {"schemas": closed(document["components"]["schemas"])}
        self._validators = dict[str, Draft202012Validator]()

    def check(self, operation: Any, got: Any, asked: str) -> None:
        """Fail if a response is not one that the operation describes."""
        assert got.status_code != 500, asked
        responses = operation["responses"]
        said = responses.get(str(got.status_code), responses["default"])
        said = self._responses[said["$ref"].rpartition("/")[2]] if "$ref" in said else said
        content = said.get("content")
        if content is None:
            assert not got.content, asked
            return
        kind = got.headers["content-type"].partition(";")[0]
        assert kind in content or got.status_code != 200, (asked, kind)
        if kind == "application/json":
            errors = self._errors(content[kind]["schema"], got.json())
            assert not errors, (asked, got.status_code, errors[0].message, list(errors[0].absolute_path))

    def _errors(self, schema: Any, body: Any) -> list[Any]:
        key = repr(schema)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator({**closed(schema), "components": self._components})
        return list(self._validators[key].iter_errors(body))
