"""Resources of API 1.0 that the mirror does not hold, by their place in an address."""

import sqlite3
from collections.abc import Callable

from mirror.serve.api1.edge import OWNER, SLUG, find_myself, find_repository, find_users
from mirror.serve.exchange import Answer, ApiRequest
from mirror.serve.unmirrored import COMMON_NOUNS, noun, refusing

Reader = Callable[[sqlite3.Connection, ApiRequest], Answer]

_NOUNS = {
    "changesets": "history of changesets",
    "changeset": "changesets",
    "raw": "sources",
    "deploy-keys": "deploy keys",
    "ssh-keys": "SSH keys",
    "emails": "mail addresses",
    "links": "links of repositories",
    "services": "services of repositories",
    "privileges": "privileges",
    "groups": "groups",
    "group-privileges": "privileges of groups",
    "invitations": "invitations",
    "plan": "plans of accounts",
}
"""Documented resources of API 1.0 that the mirror does not hold, by their name in an address."""

_OF_OWNER = ("privileges", "groups", "group-privileges", "invitations")
"""Resources with addresses that begin with their own name, followed by an owner and perhaps a repository."""

_OF_REPOSITORY = ("changesets", "changeset", "raw", "deploy-keys", "links", "services", *COMMON_NOUNS)
_OF_USER = ("emails", "ssh-keys", "privileges", "groups", "invitations", "plan")

NAMED: tuple[tuple[str, ...], ...] = (
    *(("repositories", OWNER, SLUG, name) for name in _OF_REPOSITORY),
    *(("users", OWNER, name) for name in _OF_USER),
    *(pattern for name in _OF_OWNER for pattern in ((name, OWNER), (name, OWNER, SLUG))),
    *(("user", name) for name in ("emails", "ssh-keys")),
    ("emails",),
    ("ssh-keys",),
)
"""The patterns of what the documentation of API 1.0 had and the mirror does not hold."""


def unmirrored_reader(pattern: tuple[str, ...]) -> Reader | None:  # noqa: PLR0911 - a table of forms
    """Return a function for an address below something that may be mirrored, though the address is not."""
    match pattern:
        case ("repositories", _, _, name, *_):
            return refusing(noun(name, _NOUNS), _repository_upstream)
        case ("users", _, name, *_):
            return refusing(noun(name, _NOUNS), _owner_upstream)
        case ("groups", _, *_):
            return refusing(noun("groups", _NOUNS), _owner_upstream)
        case (name, _, _, *_) if name in _OF_OWNER:
            return refusing(noun(name, _NOUNS), _repository_upstream)
        case (name, _) if name in _OF_OWNER:
            return refusing(noun(name, _NOUNS), _owner_upstream)
        case ("user" | "emails" | "ssh-keys" as first, *more) if more or first != "user":
            return refusing(noun(more[0] if first == "user" else first, _NOUNS), _caller_upstream)
    return None


def _repository_upstream(connection: sqlite3.Connection, asked: ApiRequest) -> int:
    return find_repository(connection, asked).upstream_id


def _owner_upstream(connection: sqlite3.Connection, asked: ApiRequest) -> int:
    return find_users(connection, asked.caller, asked.names[0])[0].upstream_id


def _caller_upstream(connection: sqlite3.Connection, asked: ApiRequest) -> int:
    return find_myself(connection, asked.caller)[0].upstream_id
