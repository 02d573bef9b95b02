"""The parameters and responses of API 1.0."""

from mirror.serve.api1.edge import OWNER, SLUG
from mirror.serve.api1.routes import READERS
from mirror.serve.api1.shapes import EVENTS
from mirror.serve.api1.unmirrored import NAMED
from mirror.serve.openapi.schemas import (
    FLAG,
    FLAG_OR_NULL,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    Description,
    Operation,
    Parameter,
    Schema,
    array,
    by_name,
    named,
    not_read,
    one_of,
    or_null,
    record,
)
from mirror.serve.writer import SCMS

_REPOSITORY = {
    "scm": TEXT_OR_NULL,
    "has_wiki": FLAG_OR_NULL,
    "last_updated": TEXT_OR_NULL,
    "no_forks": FLAG_OR_NULL,
    "creator": TEXT_OR_NULL,
    "forks_count": NUMBER_OR_NULL,
    "created_on": TEXT_OR_NULL,
    "owner": TEXT,
    "logo": TEXT_OR_NULL,
    "email_mailinglist": TEXT,
    "is_mq": FLAG,
    "size": NUMBER_OR_NULL,
    "read_only": FLAG,
    "fork_of": or_null(named("Parent")),
    "mq_of": {"type": "null"},
    "followers_count": NUMBER_OR_NULL,
    "state": one_of("available", "creating"),
    "utc_created_on": TEXT_OR_NULL,
    "website": TEXT_OR_NULL,
    "description": TEXT_OR_NULL,
    "has_issues": FLAG_OR_NULL,
    "is_fork": FLAG,
    "slug": TEXT,
    "is_private": FLAG,
    "name": TEXT_OR_NULL,
    "language": TEXT_OR_NULL,
    "utc_last_updated": TEXT_OR_NULL,
    "email_writers": FLAG,
    "main_branch": TEXT_OR_NULL,
    "no_public_forks": FLAG_OR_NULL,
    "resource_uri": TEXT,
}
_IN_PARENT = ("owner", "slug", "name", "fork_of", "resource_uri")
_CHANGESET = {
    "node": TEXT,
    "files": array({}),
    "raw_author": TEXT_OR_NULL,
    "utctimestamp": TEXT_OR_NULL,
    "author": TEXT_OR_NULL,
    "timestamp": TEXT_OR_NULL,
    "raw_node": TEXT,
    "parents": or_null(array(TEXT)),
    "branch": TEXT_OR_NULL,
    "message": TEXT_OR_NULL,
    "revision": NUMBER_OR_NULL,
    "size": NUMBER,
}
_EVENT_WORDS = tuple(sorted({*EVENTS.values(), "fork"}))

SCHEMAS: dict[str, Schema] = {
    "Error": record(
        {
            "error": record(
                {"message": TEXT},
                {"detail": TEXT, "fields": by_name(array(TEXT)), "data": by_name(TEXT)},
            )
        }
    ),
    "Repository": record(_REPOSITORY),
    "Parent": record(
        {name: _REPOSITORY[name] for name in _IN_PARENT},
        {name: schema for name, schema in _REPOSITORY.items() if name not in _IN_PARENT},
    ),
    "User": record(
        {
            "username": TEXT,
            "first_name": TEXT_OR_NULL,
            "last_name": TEXT_OR_NULL,
            "display_name": TEXT_OR_NULL,
            "is_team": FLAG,
            "is_staff": FLAG,
            "avatar": TEXT_OR_NULL,
            "resource_uri": TEXT,
        }
    ),
    "Profile": record({"repositories": array(named("Repository")), "user": named("User")}),
    "Changeset": record(_CHANGESET, {"branches": array(TEXT)}),
    "RefsInShort": record(
        {
            "branches": array(
                record({"changeset": TEXT, "heads": array(TEXT), "name": TEXT}, {"mainbranch": FLAG})
            ),
            "tags": array(record({"changeset": TEXT, "name": TEXT})),
        }
    ),
    "Found": record(
        {
            "query": TEXT,
            "count": NUMBER,
            "repositories": array(
                record(
                    {
                        name: _REPOSITORY[name]
                        for name in (
                            "website",
                            "scm",
                            "name",
                            "followers_count",
                            "owner",
                            "logo",
                            "resource_uri",
                            "slug",
                            "description",
                        )
                    }
                )
            ),
        }
    ),
    "Overview": record(
        {
            "updated": array(
                record(
                    {
                        "owner": TEXT,
                        "name": TEXT_OR_NULL,
                        "slug": TEXT,
                        "is_private": FLAG,
                        "avatar": TEXT_OR_NULL,
                    }
                )
            ),
            "viewed": array({}),
        }
    ),
    "DashboardItem": record(
        {
            "website": TEXT_OR_NULL,
            "fork": {"anyOf": [TEXT, {"const": False}]},
            "name": TEXT_OR_NULL,
            "scm": TEXT_OR_NULL,
            "absolute_url": TEXT,
            "_pk": NUMBER,
            "owner": TEXT,
            "slug": TEXT,
            "is_private": FLAG,
        }
    ),
    "Dashboard": array(
        {
            "type": "array",
            "prefixItems": [named("User"), array(named("DashboardItem"))],
            "minItems": 2,
            "maxItems": 2,
        }
    ),
    "Privileges": record({"teams": by_name({"enum": ["admin", "collaborator", None]})}),
    "Followers": record({"count": NUMBER, "followers": array(named("User"))}),
    "Forks": record({"count": NUMBER_OR_NULL, "forks": array(named("Repository"))}),
    "Events": record(
        {
            "count": NUMBER,
            "events": array(
                record(
                    {
                        "node": TEXT_OR_NULL,
                        "description": TEXT_OR_NULL,
                        "repository": named("Repository"),
                        "created_on": TEXT_OR_NULL,
                        "user": {"type": "null"},
                        "utc_created_on": TEXT_OR_NULL,
                        "event": one_of(*_EVENT_WORDS),
                    }
                )
            ),
        }
    ),
    "Settings": record(
        {},
        {
            **dict.fromkeys(("name", "owner", "description", "website", "language"), TEXT),
            **dict.fromkeys(("is_private", "has_issues", "has_wiki"), FLAG),
            **dict.fromkeys(("no_forks", "no_public_forks", "no_private_forks"), FLAG),
            "scm": one_of(*SCMS),
        },
    ),
}

_SLICE = (
    Parameter("start", {"type": "integer", "minimum": 0}, "How many rows to skip."),
    Parameter("limit", {"type": "integer", "minimum": 0}, "How many rows to send."),
)
_EVENTS = Operation(
    named("Events"), (Parameter("type", one_of(*_EVENT_WORDS), "Only events of one type."), *_SLICE)
)
_LIST = Operation(array(named("Repository")))
_CHANGESETS = Operation(by_name(named("Changeset")))
_HERE = ("repositories", OWNER, SLUG)

READS = {
    ("user",): Operation(named("Profile")),
    ("user", "repositories"): _LIST,
    ("user", "repositories", "overview"): Operation(named("Overview")),
    ("user", "repositories", "dashboard"): Operation(named("Dashboard")),
    ("user", "follows"): _LIST,
    ("user", "privileges"): Operation(named("Privileges")),
    ("users", OWNER): Operation(named("Profile")),
    ("users", OWNER, "followers"): Operation(named("Followers")),
    ("users", OWNER, "events"): _EVENTS,
    ("repositories",): Operation(
        named("Found"), (Parameter("name", TEXT, "A part of a name.", required=True), *_SLICE)
    ),
    ("repositories", OWNER): _LIST,
    _HERE: Operation(named("Repository")),
    (*_HERE, "tags"): _CHANGESETS,
    (*_HERE, "branches"): _CHANGESETS,
    (*_HERE, "branches-tags"): Operation(named("RefsInShort")),
    (*_HERE, "main-branch"): Operation(record({"name": TEXT})),
    (*_HERE, "followers"): Operation(named("Followers")),
    (*_HERE, "events"): _EVENTS,
    (*_HERE, "forks"): Operation(named("Forks")),
}

_SAVED = Operation(named("Repository"), body=named("Settings"))

WRITES = {
    (("repositories",), "POST"): _SAVED,
    (_HERE, "PUT"): _SAVED,
    (_HERE, "DELETE"): Operation(None, statuses=(204,)),
    ((*_HERE, "fork"), "POST"): _SAVED,
}

DESCRIPTION = Description(
    title="API 1.0",
    prefix="/1.0",
    reads=READS,
    writes=WRITES,
    unmirrored=not_read(NAMED, READERS, SLUG),
    schemas=SCHEMAS,
    parameters=(
        Parameter("format", one_of("json", "yaml", "xml"), "The form of the answer."),
        Parameter("callback", TEXT, "The name of a function: the answer is a script that calls it."),
    ),
    body_type="application/x-www-form-urlencoded",
    formats={"application/yaml": True, "application/xml": False, "application/javascript": False},
)
