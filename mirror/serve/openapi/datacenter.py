"""The parameters and responses of Data Center's API."""

from mirror.serve.datacenter.edge import HERE, LAST_START, NAME, PERSON, PROJECT, UNMIRRORED
from mirror.serve.datacenter.shapes import LATEST
from mirror.serve.openapi.document import (
    FLAG,
    NUMBER,
    TEXT,
    TEXT_OR_NULL,
    Description,
    Operation,
    Parameter,
    Schema,
    alike,
    array,
    named,
    one_of,
    record,
)

_LINKS = record({"self": named("Addresses"), "mirror": named("Addresses")})
_COMMIT_IN_SHORT = record({"id": TEXT, "displayId": TEXT})


def _page_of(values: Schema) -> Schema:
    return record(
        {"size": NUMBER, "limit": NUMBER, "isLastPage": FLAG, "values": array(values), "start": NUMBER},
        {"nextPageStart": NUMBER},
    )


def _right(*rights: str) -> Parameter:
    return Parameter("permission", one_of(*rights), "The explicit right of the caller.")


SCHEMAS: dict[str, Schema] = {
    "Error": record(
        {"errors": array(record({"context": TEXT_OR_NULL, "message": TEXT, "exceptionName": TEXT_OR_NULL}))}
    ),
    "Addresses": array(record({"href": TEXT}, {"name": TEXT})),
    "Server": record(alike(TEXT, "version buildNumber displayName mirrorVersion")),
    "User": record(
        {
            **alike(TEXT, "name displayName slug"),
            "active": FLAG,
            "type": one_of("NORMAL"),
            "links": _LINKS,
        },
        {"id": NUMBER},
    ),
    "Project": record(
        {"key": TEXT, "id": NUMBER, "name": TEXT, "type": one_of("NORMAL", "PERSONAL"), "links": _LINKS},
        {"description": TEXT, "public": FLAG, "owner": named("User")},
    ),
    "Origin": record(
        {"slug": TEXT, "name": TEXT, "project": record({"key": TEXT})},
        {"id": NUMBER},
    ),
    "Repository": record(
        {
            **alike(TEXT, "slug name scmId state statusMessage"),
            "id": NUMBER,
            "project": named("Project"),
            "public": FLAG,
            "links": record({"clone": named("Addresses"), **_LINKS["properties"]}),
        },
        {
            "description": TEXT,
            "forkable": FLAG,
            "archived": FLAG,
            "origin": {"anyOf": [named("Repository"), named("Origin")]},
        },
    ),
    "Commit": record(
        {"id": TEXT, "displayId": TEXT},
        {
            "author": record({}, alike(TEXT, "name emailAddress displayName")),
            "authorTimestamp": NUMBER,
            "message": TEXT,
            "parents": array(_COMMIT_IN_SHORT),
        },
    ),
    "Ref": record(
        {
            **alike(TEXT, "id displayId latestCommit latestChangeset"),
            "type": one_of("BRANCH", "TAG"),
        },
        {"isDefault": FLAG, "hash": {"type": "null"}, "metadata": record({}, {LATEST: named("Commit")})},
    ),
    "Right": record(
        {"user": named("User")},
        {"permission": one_of("PROJECT_ADMIN", "PROJECT_WRITE", "PROJECT_READ")},
    ),
    "Projects": _page_of(named("Project")),
    "Repositories": _page_of(named("Repository")),
    "Refs": _page_of(named("Ref")),
    "Rights": _page_of(named("Right")),
    "Users": _page_of(named("User")),
}

_PAGE = (
    Parameter("start", {"type": "integer", "minimum": 0, "maximum": LAST_START}, "The first row."),
    Parameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": LAST_START}, "The number of rows, default 25."
    ),
)
_STATES = ("AVAILABLE", "INITIALISING", "INITIALISATION_FAILED", "OFFLINE")
_NAME = Parameter("name", TEXT, "A part of a name, whatever its case.")
_FILTER = Parameter("filter", TEXT, "A part of a name, whatever its case.")
_REFS = (
    Parameter("filterText", TEXT, "A part of a name, whatever its case."),
    Parameter("orderBy", one_of("ALPHABETICAL", "MODIFICATION"), "The order, by default the newest first."),
    Parameter("boostMatches", FLAG, "With `filterText`: the whole name first."),
    Parameter("details", FLAG, "Branches with their latest commit."),
    *_PAGE,
)
_REPOSITORIES = Operation(named("Repositories"), _PAGE)
_ONE_REF = Operation(named("Ref"))

READS = {
    ("application-properties",): Operation(named("Server")),
    ("projects",): Operation(
        named("Projects"),
        (
            _NAME,
            _right("PROJECT_VIEW", "PROJECT_READ", "PROJECT_WRITE", "PROJECT_ADMIN"),
            *_PAGE,
        ),
    ),
    ("projects", PROJECT): Operation(named("Project")),
    ("projects", PROJECT, "repos"): _REPOSITORIES,
    ("projects", PROJECT, "permissions", "users"): Operation(named("Rights"), (_FILTER, *_PAGE)),
    HERE: Operation(named("Repository")),
    (*HERE, "branches"): Operation(named("Refs"), _REFS),
    (*HERE, "branches", "default"): _ONE_REF,
    (*HERE, "commits", NAME): Operation(named("Commit")),
    (*HERE, "default-branch"): _ONE_REF,
    (*HERE, "forks"): _REPOSITORIES,
    (*HERE, "tags"): Operation(named("Refs"), _REFS),
    (*HERE, "tags", NAME): _ONE_REF,
    ("repos",): Operation(
        named("Repositories"),
        (
            _NAME,
            Parameter("projectname", TEXT, "A part of the name of the project."),
            Parameter("projectkey", TEXT, "The whole key of the project."),
            Parameter("visibility", one_of("public", "private"), "Who may see it."),
            Parameter("archived", one_of("ACTIVE", "ARCHIVED", "ALL"), "Default `ACTIVE`."),
            Parameter("state", one_of(*_STATES), "All that is mirrored is available."),
            _right("REPO_READ", "REPO_WRITE", "REPO_ADMIN"),
            *_PAGE,
        ),
    ),
    ("users",): Operation(named("Users"), (_FILTER, *_PAGE)),
    ("users", PERSON): Operation(named("User")),
}

DESCRIPTION = Description(
    title="Data Center's API",
    prefix="/rest/api/1.0",
    reads=READS,
    unmirrored=tuple(UNMIRRORED),
    schemas=SCHEMAS,
)
