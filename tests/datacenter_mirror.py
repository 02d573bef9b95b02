"""A mirror of Bitbucket Cloud and of a Data Center, asked by Data Center's API."""

from pathlib import Path
from typing import Any

import httpx
from asgi_client import bearer, client_of
from fixtures_db import FixtureDb, hg_ref, owner, repository

from mirror.store import tokens
from mirror.upstream import datacenter_decode as decode

ACME = owner("acme-Inc", display_name="Åcme Inc", kind="workspace")
ANN = owner("ann", display_name="Ann Other", nickname="ann")
NAMES = ("main", "Main-street", "feature/main", "domain", "zz", "AA")
AUTHOR = "Ann <ann@example.com>"
CLOUD = "https://api.example.com/2.0/repositories/acme-Inc/tool"
"""Where Bitbucket Cloud's API has a repository."""


def cloud(filled: FixtureDb) -> None:
    """Save what Bitbucket Cloud sent: a team with a fork, archived and private repositories, and a person."""
    parent = repository(
        "acme-Inc/tool", ACME, name="The Tool", main_branch="main", description="All",
        clone_https="https://bitbucket.org/acme-Inc/tool.git",
        clone_ssh="git@bitbucket.org:acme-Inc/tool.git",
    )  # fmt: skip
    filled.repositories(
        [
            parent,
            repository("acme-Inc/old", ACME, archived=True, fork_policy="no_forks"),
            repository("acme-Inc/secret", ACME, is_private=True, name="Sécret"),
            repository("acme-Inc/unread", ACME),
            repository("ann/tool", ANN, parent_uuid=parent.uuid, parent_full_name=parent.full_name),
            repository("ann/empty", ANN, main_branch=None),
            repository("ann/orphan", ANN, parent_uuid="{far}", parent_full_name="far/away"),
        ],
        first=True,
    )
    refs = [
        hg_ref("branch", name, "a", target_author=AUTHOR, target_date=f"2020-01-0{at + 1}T00:00:00.123000Z")
        for at, name in enumerate(NAMES)
    ]
    tags = [
        hg_ref("tag", "v/1", "b"),
        hg_ref("tag", "v2", "c", message="Two", tagger=AUTHOR, date="2021-01-01T00:00:00.000000Z"),
    ]
    filled.refs("acme-Inc/tool", [*refs, *tags])
    for full_name in ("ann/tool", "ann/empty", "acme-Inc/old", "acme-Inc/secret"):
        filled.refs(full_name, ())
    filled.members(ACME, [ANN])


def datacenter(filled: FixtureDb) -> None:
    """Save what a Data Center sent, whose repository and project have small ids."""
    filled.upstream_id = filled.store.save_upstream(
        "dc", "datacenter", "https://dc.example.com/x/rest/api/1.0"
    )
    project = decode.ProjectJson(key="PRJ", id=8, name="Project", public=True, description="All of it")
    personal = decode.ProjectJson(key="~BOB", id=9, name="Bob", type="PERSONAL")
    rows = [
        decode.RepositoryJson(slug="one", id=3, project=project, public=True, archived=False),
        decode.RepositoryJson(slug="two", id=4, project=personal, public=True),
    ]
    filled.repositories([decode.to_repository(row) for row in rows], first=True)
    filled.store.save_owner(
        filled.upstream_id, decode.to_project(project), run_id=None, seen_at="2026-11-01T12:00:00.000000Z"
    )


class Mirror:
    """Served, with a token of the whole mirror and one of a user; tests only read it."""

    def __init__(self, folder: Path) -> None:
        filled = FixtureDb(folder / "mirror.db")
        cloud(filled)
        datacenter(filled)
        self.path = filled.path
        self.token = tokens.create(filled.store, "reader", "read")
        self.of_ann = tokens.create(filled.store, "of ann", "read", user="ann")
        filled.store.close()
        self.client = client_of(filled.path)

    def get(self, path: str, token: str | None = None, api: str = "1.0") -> httpx.Response:
        """Ask, as a stranger or with a token."""
        return self.client.get(f"/rest/api/{api}/{path}", headers=bearer(token) if token else {})

    def json(self, path: str, token: str | None = None) -> Any:
        """Ask for what must be there."""
        answer = self.get(path, token)
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    def names(self, path: str, token: str | None = None) -> list[str]:
        """Ask for a list, and name its rows."""
        return [
            one.get("displayId") or one.get("slug") or one["key"] for one in self.json(path, token)["values"]
        ]


def told(answer: httpx.Response) -> str:
    """Return the message of an error, which must have this API's format."""
    (error,) = answer.json()["errors"]
    assert set(error) == {"context", "message", "exceptionName"}
    assert answer.headers["content-type"].startswith("application/json")
    return str(error["message"])
