"""Users, teams, workspaces and memberships in API 2.0's shapes."""

from typing import Any

from mirror.serve.cloud.links import Links, segment
from mirror.serve.cloud.rows import Account

Json = dict[str, Any]


def moment(text: str | None) -> str | None:
    """Write a moment as Bitbucket does: with an offset, and six digits, without which old clients fail."""
    return None if text is None else f"{text[:-1]}+00:00"


def seconds(text: str | None) -> str | None:
    """Write the date of a commit or a tag as Bitbucket does: git knows no fractions."""
    if text is None or not text.endswith(".000000Z"):
        return moment(text)
    return f"{text[:19]}+00:00"


def avatar(href: str | None) -> Json:
    """Give the link to a picture, where there is one: nobody here makes pictures up."""
    return {} if href is None else {"avatar": {"href": href}}


class AccountShapes:
    """Shapes with links for one request."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def account(self, row: Account) -> Json:
        """Give a user or a team: `username` for namespaces, `nickname` for people."""
        shaped: Json = {
            "type": "team" if row.kind != "user" else "user",
            "display_name": row.display_name,
            "uuid": row.known_uuid,
        }
        if row.username is not None and (row.is_owner or row.username != row.nickname):
            shaped["username"] = row.username
        if row.nickname is not None:
            shaped["nickname"] = row.nickname
        if row.account_id is not None:
            shaped["account_id"] = row.account_id
        if row.created_at is not None:
            shaped["created_on"] = moment(row.created_at)
        shaped["links"] = self._account_links(row)
        return shaped

    def owner(self, row: Account) -> Json:
        """Give the owner of a repository.

        A workspace that no account stands behind is a team without uuid, for the uuid is the workspace's.
        """
        shaped = self.account(row)
        if row.kind == "workspace":
            del shaped["uuid"]
        return shaped

    def full_user(self, row: Account) -> Json:
        """Give a user as they are asked for alone."""
        return self.account(row)

    def team(self, row: Account) -> Json:
        """Give a team as ``/teams`` did."""
        slug = row.username or ""
        shaped = {**self.account(row), "type": "team", "kind": "team"}
        here = f"{self._links.api}/teams/{segment(slug)}"
        shaped["links"] = {
            "self": {"href": here},
            "repositories": {"href": f"{self._links.api}/repositories/{segment(slug)}"},
            "html": {"href": self._links.owner_page(row.username or "")},
            "members": {"href": f"{self._links.workspace(slug)}/members"},
            **avatar(row.avatar_url),
        }
        return shaped

    def short_workspace(self, row: Account) -> Json:
        """Give the workspace that others embed."""
        return {"type": "workspace", "name": row.display_name, **self._workspace_base(row)}

    def workspace(self, row: Account) -> Json:
        """Give a workspace in full; whether it is private is not mirrored, so that key is left out."""
        slug = row.username or ""
        here = self._links.workspace(slug)
        shaped = self.short_workspace(row)
        shaped["created_on"] = moment(row.created_at)
        shaped["links"] |= {
            "members": {"href": f"{here}/members"},
            "owners": {"href": f"{here}/members?q=permission%3D%22owner%22"},
            "projects": {"href": f"{here}/projects"},
            "repositories": {"href": f"{self._links.api}/repositories/{segment(slug)}"},
            "snippets": {"href": f"{self._links.api}/snippets/{segment(slug)}"},
        }
        return shaped

    def workspace_access(self, row: Account, permission: str | None) -> Json:
        """Give an item of the caller's workspaces: the slug is nested, and there is no name."""
        return {
            "type": "workspace_access",
            "administrator": permission == "owner",
            "workspace": {"type": "workspace_base", **self._workspace_base(row)},
        }

    def membership(self, user: Account, workspace: Account, permission: str | None) -> Json:
        """Give an item of a workspace's members."""
        identity = user.known_uuid or user.username or ""
        here = f"{self._links.workspace(workspace.username or '')}/members/{segment(identity)}"
        return {
            "type": "workspace_membership",
            "permission": permission,
            "user": self.account(user),
            "workspace": self.short_workspace(workspace),
            "links": {"self": {"href": here}},
        }

    def _account_links(self, row: Account) -> Json:
        slug = row.username or ""
        person = row.kind == "user"
        here = self._links.user(row.known_uuid or slug) if person else self._links.workspace(slug)
        return {
            "self": {"href": here},
            "html": {"href": self._links.owner_page(row.username or "")},
            **avatar(row.avatar_url),
        }

    def _workspace_base(self, row: Account) -> Json:
        return {
            "uuid": row.known_uuid,
            "slug": row.username,
            "links": {
                "self": {"href": self._links.workspace(row.username or "")},
                "html": {"href": self._links.owner_page(row.username or "")},
                **avatar(row.avatar_url),
            },
        }
