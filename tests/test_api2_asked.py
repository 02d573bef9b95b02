"""The requests of known clients, in the form in which each sends them, are served or refused with an address.

They are Composer, the go command, go-bitbucket (so ghorg, gickup and the provider of Terraform), Jenkins,
Renovate, GitLab's import, atlassian-python-api, bitbucket-cli and bitbucket-backup.
"""

import base64

import pytest
from asgi_client import basic
from openapi_world import Served, served_mirror

R = "2.0/repositories/jespern/django-piston"
SERVED = (
    f"{R}?fields=-project,-owner",  # Composer
    f"{R}/refs/branches?pagelen=100&fields=values.name,values.target.hash,values.heads,next&sort=-target.date",
    f"{R}/refs/tags?pagelen=100&fields=values.name,values.target.hash,next&sort=-target.date",
    f"{R}/commit/aaaaaaa?fields=date",
    f"{R}?fields=scm",  # the go command
    "2.0/repositories/jespern?pagelen=10&page=1&q=name~%22piston%22&sort=-updated_on&role=",  # go-bitbucket
    f"{R}/refs/branches?q=name~%22def%22&sort=name&pagelen=30&page=1",
    f"{R}/watchers?pagelen=1",
    f"{R}/forks?pagelen=100",
    "2.0/workspaces/jespern",  # the provider of Terraform
    "2.0/workspaces/mcatalbas/projects/PROJ",
    "2.0/users/%7Bjespern-uuid%7D",
    "2.0/repositories/jespern?role=member&pagelen=100&page=1&q=project.key%3D%22K%22",  # Jenkins
    f"{R}/refs/branches/default",
    "2.0/repositories/?role=contributor&pagelen=100",  # Renovate
    "2.0/repositories/jespern?pagelen=100",
    # GitLab's import
    "2.0/repositories?role=member&sort=created_on&pagelen=50&after=2010-01-01T00%3A00%3A00Z",
    "2.0/workspaces?role=member&q=slug%3D%22jespern%22&sort=slug",  # atlassian-python-api
    "2.0/repositories?pagelen=1&fields=size",
    "2.0/repositories/jespern?limit=50&start=0",
    "2.0/teams/jespern/projects/",
    "2.0/repositories/%7B%7D/%7Bjespern%2Fdjango-piston%7D",  # bitbucket-cli
    "1.0/users/jespern/?format=json",  # bitbucket-backup
    "1.0/repositories/jespern/django-piston/branches-tags",
)  # fmt: skip
REFUSED = {
    f"{R}/src/default/composer.json": "sources",
    f"{R}/commits/?include=default&pagelen=1": "history of commits",
    f"{R}/commit/aaaaaaa/statuses": "statuses, comments and other parts of commits",
    f"{R}/pipelines_config": "pipelines",
    f"{R}/branch-restrictions": "branch restrictions",
    f"{R}/branching-model/settings": "branching model",
    f"{R}/override-settings": "override settings",
    f"{R}/pullrequests/?state=ALL&sort=created_on&fields=pagelen,next,values.id": "pull requests",
    f"{R}/issues?pagelen=1&sort=-created_on&state=ALL": "issues",
    f"{R}/hooks?pagelen=100": "webhooks",
    f"{R}/deploy-keys": "deploy keys",
    f"{R}/permissions-config/groups": "permissions",
    "2.0/workspaces/mcatalbas/projects/PROJ/permissions-config/users": "settings of projects",
    "2.0/workspaces/jespern/permissions/repositories": "permissions of repositories",
    "2.0/hook_events/repository": "webhook events",
    "2.0/users/jespern/ssh-keys": "SSH keys",
    "1.0/repositories/jespern/django-piston/changesets?limit=0": "history of changesets",
    "1.0/groups/jespern/": "groups",
}
OWN = (
    "2.0/user",
    "2.0/user/workspaces?pagelen=100",
    "2.0/user/permissions/workspaces?pagelen=100&q=permission%3D%22owner%22",
    "2.0/user/permissions/repositories?q=repository.full_name%3D%22jespern%2Fdjango-piston%22",
    "2.0/teams?role=member",
    "2.0/teams/jespern/members",
    "1.0/user/repositories?format=json",
    "1.0/user/privileges",
)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Made once: nothing writes to it."""
    return served_mirror(tmp_path_factory.mktemp("asked"))


@pytest.mark.parametrize("caller", ["stranger", "token", "user"])
def test_what_clients_read_is_served(mirror: Served, caller: str) -> None:
    """To all callers, as far as each may see it."""
    for asked in SERVED:
        assert mirror.client.get(f"/{asked}", headers=mirror.callers[caller]).status_code == 200, asked


@pytest.mark.parametrize("caller", ["stranger", "token", "user"])
def test_what_is_not_mirrored_is_named_as_what_it_is(mirror: Served, caller: str) -> None:
    """A message about a project's settings does not say that the mirror holds no projects."""
    for asked, what in REFUSED.items():
        got = mirror.client.get(f"/{asked}", headers=mirror.callers[caller])
        assert got.status_code == 501, asked
        assert got.json()["error"]["message"].startswith(f"This mirror holds no {what}; ask https://"), asked


def test_what_is_the_caller_s_own_asks_for_a_user(mirror: Served) -> None:
    """A stranger gets 401, a user gets an answer."""
    for asked in OWN:
        assert mirror.client.get(f"/{asked}").status_code == 401, asked
        assert mirror.client.get(f"/{asked}", headers=mirror.callers["user"]).status_code == 200, asked


@pytest.mark.parametrize("name", ["x-token-auth", "X-Bitbucket-Api-Token-Auth", "", "me@example.com"])
def test_a_token_comes_with_any_user_name(mirror: Served, name: str) -> None:
    """Bitbucket's placeholder names are no users: such a token has no user."""
    token = mirror.callers["token"]["Authorization"].removeprefix("Bearer ")
    headers = basic(name, token)
    got = mirror.client.get("/2.0/repositories/jespern/arriving", headers=headers)
    assert (got.status_code, got.json()["slug"]) == (200, "arriving")
    mine = mirror.client.get("/1.0/user/repositories", headers=headers)
    assert mine.status_code == (404 if "@" in name else 403)
    own = base64.b64decode(mirror.callers["user"]["Authorization"].removeprefix("Basic ")).decode()
    known = mirror.client.get("/2.0/user", headers=basic(name, own.partition(":")[2]))
    assert known.json()["username"] == "jespern"
