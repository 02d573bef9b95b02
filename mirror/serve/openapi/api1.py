"""The parameters and responses of API 1.0."""

from mirror.serve.api1.edge import NAMED, OWNER, SLUG
from mirror.serve.api1.routes import READERS
from mirror.serve.api1.shapes import EVENTS
from mirror.serve.openapi.document import (
    ERROR,
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
    alike,
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
    **alike(TEXT, "owner email_mailinglist slug resource_uri"),
    **alike(TEXT_OR_NULL, "scm last_updated creator created_on logo utc_created_on website description name"),
    **alike(TEXT_OR_NULL, "language utc_last_updated main_branch"),
    **alike(FLAG, "is_mq read_only is_fork is_private email_writers"),
    **alike(FLAG_OR_NULL, "has_wiki has_issues no_forks no_public_forks"),
    **alike(NUMBER_OR_NULL, "forks_count size followers_count"),
    "fork_of": or_null(named("Parent")),
    "mq_of": {"type": "null"},
    "state": one_of("available", "creating"),
}
_IN_PARENT = ("owner", "slug", "name", "fork_of", "resource_uri")
_CHANGESET = {
    **alike(TEXT, "node raw_node"),
    **alike(TEXT_OR_NULL, "raw_author utctimestamp author timestamp branch message"),
    "files": array({}),
    "parents": or_null(array(TEXT)),
    "revision": NUMBER_OR_NULL,
    "size": NUMBER,
}
_IN_SEARCH = (
    "website", "scm", "name", "followers_count", "owner", "logo", "resource_uri", "slug", "description",
)  # fmt: skip
_EVENT_WORDS = tuple(sorted({*EVENTS.values(), "fork"}))

SCHEMAS: dict[str, Schema] = {
    "Error": record({"error": ERROR}),
    "Repository": record(_REPOSITORY),
    "Parent": record(
        {name: _REPOSITORY[name] for name in _IN_PARENT},
        {name: schema for name, schema in _REPOSITORY.items() if name not in _IN_PARENT},
    ),
    "User": record(
        alike(TEXT, "username resource_uri")
        | alike(TEXT_OR_NULL, "first_name last_name display_name avatar")
        | alike(FLAG, "is_team is_staff")
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
            "repositories": array(record({name: _REPOSITORY[name] for name in _IN_SEARCH})),
        }
    ),
    "Overview": record(
        {
            "updated": array(
                record(alike(TEXT, "owner slug") | alike(TEXT_OR_NULL, "name avatar") | {"is_private": FLAG})
            ),
            "viewed": array({}),
        }
    ),
    "DashboardItem": record(
        {
            **alike(TEXT, "absolute_url owner slug"),
            **alike(TEXT_OR_NULL, "website name scm"),
            "fork": {"anyOf": [TEXT, {"const": False}]},
            "_pk": NUMBER,
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
                        **alike(TEXT_OR_NULL, "node description created_on utc_created_on"),
                        "repository": named("Repository"),
                        "user": {"type": "null"},
                        "event": one_of(*_EVENT_WORDS),
                    }
                )
            ),
        }
    ),
    "Settings": record(
        {},
        {
            **alike(TEXT, "name owner description website language"),
            **alike(FLAG, "is_private has_issues has_wiki no_forks no_public_forks no_private_forks"),
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
