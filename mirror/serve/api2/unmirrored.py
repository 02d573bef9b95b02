"""Resources of API 2.0 that the mirror does not hold, by their place in an address."""

import sqlite3

from mirror.queries.accounts import accounts_by_ids
from mirror.serve.api2.edge import (
    REPOSITORY,
    WORKSPACE,
    Api2Request,
    Reader,
    find_account,
    find_repository,
    find_workspace,
)
from mirror.serve.exchange import unauthorized
from mirror.serve.unmirrored import COMMON_NOUNS, noun, refusing

_OF_REPOSITORY = {
    "commits": "history of commits",
    "commit": "statuses, comments and other parts of commits",
    "branching-model": "branching model",
    "default-reviewers": "default reviewers",
    "effective-default-reviewers": "default reviewers",
    "permissions-config": "permissions",
    "pipelines_config": "pipelines",
    "deploy-keys": "deploy keys",
    "filehistory": "histories of files",
    "patch": "patches",
    "refs": "refs other than branches and tags",
}
_OF_WORKSPACE = {
    "search": "index of code",
    "pipelines-config": "pipelines",
    "permissions": "permissions of repositories",
    "projects": "settings of projects",
    "members": "settings of members",
    "pullrequests": "pull requests",
}
_OF_USER = {"emails": "mail addresses", "ssh-keys": "SSH keys", "search": "index of code"}
_ALONE = {
    "pullrequests": "pull requests",
    "snippets": "snippets",
    "hook_events": "webhook events",
    "addon": "add-ons",
}
"""Resources below a repository, a workspace and a user, and at the top level."""

NAMED: tuple[tuple[str, ...], ...] = (
    *(("repositories", WORKSPACE, REPOSITORY, name) for name in (*_OF_REPOSITORY, *COMMON_NOUNS)),
    *(("workspaces", WORKSPACE, name) for name in (*_OF_WORKSPACE, "hooks")),
    *(("users", WORKSPACE, name) for name in _OF_USER),
    *(("user", name) for name in _OF_USER),
    *((name,) for name in _ALONE),
)
"""The patterns of these resources. Some have readers for a part of them."""


def _repository_upstream(connection: sqlite3.Connection, asked: Api2Request) -> int:
    return find_repository(connection, asked).upstream_id


def _workspace_upstream(connection: sqlite3.Connection, asked: Api2Request) -> int:
    return find_workspace(connection, asked).upstream_id


def _account_upstream(connection: sqlite3.Connection, asked: Api2Request) -> int:
    return find_account(connection, asked).upstream_id


def _caller_upstream(connection: sqlite3.Connection, asked: Api2Request) -> int | None:
    if not asked.caller.known:
        raise unauthorized()
    mine = accounts_by_ids(connection, asked.caller.user_ids)
    return next((row.upstream_id for row in mine.values()), None)


def unmirrored_reader(pattern: tuple[str, ...]) -> Reader | None:
    """Return a function for an address below something that may be mirrored, though the address is not."""
    match pattern:
        case ("repositories", _, _, name, *_):
            return refusing(noun(name, _OF_REPOSITORY), _repository_upstream)
        case ("user", "workspaces", _, name, *_) | ("workspaces", _, name, *_):
            return refusing(noun(name, _OF_WORKSPACE), _workspace_upstream)
        case ("users" | "teams", _, name, *_):
            return refusing(noun(name, _OF_USER), _account_upstream)
        case ("user", name, *_):
            return refusing(noun(name, _OF_USER), _caller_upstream)
        case (name, *_) if name in _ALONE:
            return refusing(_ALONE[name], lambda _, __: None)
    return None
