"""The tables of a lake: every column with its type, its meaning, and the SQL that reads it from a mirror.

Names and types are a contract (`_SCHEMA.json`). Rows are identified by `instance` and `uuid`, never by row
ids, which differ between mirrors. A test fails for a column of the mirror's schema that is missing here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit
from zlib import crc32

from mirror.store.schema import HIDDEN

OnProgress = Callable[[str, int], None]
"""Called with the current table and its rows so far; an exception ends the export or the build."""

LAYOUT = 1
"""The version of folders, manifests and columns; columns may be added within one."""

BUCKETS = 64
"""The number of folders for the refs of a mirror; a repository's refs are in `bucket_of(uuid)`."""

Kind = Literal["text", "integer", "number", "flag", "moment", "texts", "instance", "upstream"]
"""`moment` is microseconds in UTC, `texts` is a list, `instance` and `upstream` are an upstream's id
until they are written."""


class Column(NamedTuple):
    """A column of the lake. `sql` is None if the export itself fills it in."""

    name: str
    kind: Kind
    about: str
    sql: str | None = None


class Table(NamedTuple):
    """A table of the lake.

    - `selects`: the sources of its rows; `{repositories}` stands for all, or for those to export.
    - `follows`: the table that decides which rows of this one are current: those with the same `seq`.
    - `key`: the columns of this table that identify the row of that table.
    - `whole`: every export writes all its rows.
    """

    name: str
    about: str
    columns: tuple[Column, ...]
    selects: tuple[str, ...]
    follows: str | None = None
    key: tuple[str, ...] = ("instance", "upstream", "uuid")
    whole: bool = False

    @property
    def in_buckets(self) -> bool:
        """Whether its files are in folders by repository."""
        return self.name == "refs"


_SEQ = Column("seq", "integer", "number of the export that wrote the row")
_OP = Column("op", "text", "upsert: the row has these values since that export")


def _upstream_of(sql: str) -> tuple[Column, Column]:
    """Describe the upstream of a row.

    Two of one server, each with its own credential, may hold the same repository, as two mirrors may.
    """
    about = (
        "number of a further upstream with the same address, which counts as a mirror of its own; else null"
    )
    return (
        Column("instance", "instance", "address of the upstream's API", sql),
        Column("upstream", "upstream", about, sql),
    )


def _columns(alias: str, kind: Kind, descriptions: dict[str, str]) -> tuple[Column, ...]:
    """Describe columns that are read as they are."""
    return tuple(Column(name, kind, about, f"{alias}.{name}") for name, about in descriptions.items())


# CROSS JOIN has SQLite read the tables in this order: rows of one repository come together, by row id.
REPOSITORIES = Table(
    "repositories",
    "Repositories; tombstones have deleted_at. The row with the highest seq is current.",
    (
        *_upstream_of("r.upstream_id"),
        Column("uuid", "text", "the upstream's identity of the repository", "r.uuid"),
        Column("owner_uuid", "text", "the owner's identity, see users", "o.uuid"),
        *_columns("r", "text", {
            "slug": "name in addresses", "name": "name", "full_name": "owner/slug", "scm": "git or hg",
        }),
        Column("is_private", "flag", "whether strangers may not see it", "r.is_private <> 0"),
        *_columns("r", "text", {
            "description": "description", "website": "website", "language": "language, in lower case",
        }),
        *_columns("r", "integer", {"size": "bytes"}),
        *_columns("r", "text", {
            "main_branch": "name of the main branch", "fork_policy": "who may fork it",
            "parent_uuid": "what it was forked from",
            "parent_full_name": "the parent's name at that time",
        }),
        *_columns("r", "integer", {
            "followers_count": "number of followers, as the upstream counts",
            "forks_count": "number of forks, as the upstream counts; in a public lake, those in the lake",
        }),
        *_columns("r", "flag", {"has_issues": "has an issue tracker", "has_wiki": "has a wiki"}),
        *_columns("r", "text", {
            "project_key": "key of its project", "project_name": "name of its project",
            "project_uuid": "identity of its project", "avatar_url": "picture",
            "clone_https": "address to clone by HTTPS", "clone_ssh": "address to clone by SSH",
        }),
        *_columns("r", "moment", {"created_at": "when it was created", "updated_at": "when it was updated"}),
        *_columns("r", "flag", {"archived": "whether it is archived; null where that is unknown"}),
        *_columns("r", "moment", {
            "first_seen_at": "when this mirror first saw it",
            "last_seen_at": "when this mirror last saw it before the export of the row; see listings",
        }),
        Column("refs_listed_at", "moment", "when its refs were read in full; null for never",
               "r.refs_synced_at"),
        Column("refs_hidden", "flag", "it was made public, and its refs have not been read since",
               f"r.public_from = {HIDDEN}"),
        Column("hidden_until", "moment", "changes until then are hidden from strangers; null if none is",
               """CASE WHEN r.public_from > 0 THEN (SELECT max(c.at) FROM changes c
                   WHERE c.repository_id = r.id AND c.id <= r.public_from) END"""),
        *_columns("r", "moment", {"deleted_at": "when it was found to be gone; null while it lives"}),
        *_columns("r", "text", {"gone_reason": "reason"}),
        _SEQ,
        _OP,
    ),
    ("{repositories} CROSS JOIN users o ON o.id = r.owner_id",),
)  # fmt: skip

_REF = (
    *_upstream_of("r.upstream_id"),
    Column("repository_uuid", "text", "identity of the repository", "r.uuid"),
    Column("kind", "text", "branch or tag", "{kind}"),
    Column("name", "text", "name", "t.name"),
    *_columns("t", "text", {"target_hash": "full hash of the commit it points to"}),
    *_columns("t", "moment", {"target_date": "when that commit was made"}),
    *_columns("t", "text", {
        "target_author": "author line of the commit, Name <mail>",
        "target_author_name": "display name of the author's account, if there is one",
        "target_author_uuid": "that account's identity",
        "target_message": "message of the commit",
    }),
    *_columns("t", "texts", {"target_parents": "hashes of the commit's parents"}),
    Column("heads", "texts", "of a branch of Mercurial: its heads", "{heads}"),
    Column("tagger", "text", "of an annotated tag: Name <mail>", "{tagger}"),
    Column("message", "text", "of an annotated tag: its message", "{message}"),
    Column("date", "moment", "of an annotated tag: when it was made", "{date}"),
    _SEQ,
)  # fmt: skip

REFS = Table(
    "refs",
    "Branches and tags. Current are those with the seq of the current row of their repository.",
    _REF,
    (
        "{repositories} CROSS JOIN branches t ON t.repository_id = r.id",
        "{repositories} CROSS JOIN tags t ON t.repository_id = r.id",
    ),
    follows="repositories",
    key=("instance", "upstream", "repository_uuid"),
)

_OF_REFS = (
    {"kind": "'branch'", "heads": "t.heads", "tagger": "NULL", "message": "NULL", "date": "NULL"},
    {"kind": "'tag'", "heads": "NULL", "tagger": "t.tagger", "message": "t.message", "date": "t.date"},
)

USERS = Table(
    "users",
    "Users, teams and workspaces. The row with the highest seq is current.",
    (
        *_upstream_of("u.upstream_id"),
        *_columns("u", "text", {
            "uuid": "the upstream's identity of the account", "username": "first half of full names",
            "display_name": "name", "first_name": "first name", "last_name": "last name",
            "nickname": "nickname", "account_id": "Atlassian's identity", "kind": "user, team or workspace",
        }),
        *_columns("u", "flag", {"is_owner": "whether it owns repositories"}),
        *_columns("u", "text", {"avatar_url": "picture"}),
        *_columns("u", "moment", {
            "created_at": "when it was created", "first_seen_at": "when this mirror first saw it",
            "last_seen_at": "when this mirror last saw it before the export of the row",
            "deleted_at": "when it was found to be gone; null while it lives",
        }),
        *_columns("u", "text", {"gone_reason": "reason"}),
        _SEQ,
        _OP,
    ),
    ("{users}",),
)  # fmt: skip

MEMBERS = Table(
    "members",
    "Members of workspaces. Current are those with the seq of the current row of their workspace in users.",
    (
        *_upstream_of("u.upstream_id"),
        Column("workspace_uuid", "text", "identity of the workspace", "u.uuid"),
        Column("user_uuid", "text", "identity of the member", "n.uuid"),
        *_columns("m", "text", {"permission": "owner, collaborator or member"}),
        *_columns("m", "moment", {"last_seen_at": "when this mirror last saw the membership"}),
        _SEQ,
    ),
    ("""{users} CROSS JOIN members m ON m.workspace_id = u.id
        CROSS JOIN users n ON n.id = m.user_id""",),
    follows="users",
    key=("instance", "upstream", "workspace_uuid"),
)  # fmt: skip

FOLLOWERS = Table(
    "followers",
    "Followers of repositories. Current are those with the seq of the current row of their repository.",
    (
        *_upstream_of("r.upstream_id"),
        Column("repository_uuid", "text", "identity of the repository", "r.uuid"),
        Column("user_uuid", "text", "identity of the follower", "u.uuid"),
        _SEQ,
    ),
    ("""{repositories} CROSS JOIN followers f ON f.repository_id = r.id
        CROSS JOIN users u ON u.id = f.user_id""",),
    follows="repositories",
    key=("instance", "upstream", "repository_uuid"),
)  # fmt: skip

PROJECTS = Table(
    "projects",
    "Projects of workspaces. The row with the highest seq is current.",
    (
        *_upstream_of("p.upstream_id"),
        Column("uuid", "text", "the upstream's identity of the project", "p.uuid"),
        Column("owner_uuid", "text", "identity of the workspace", "o.uuid"),
        *_columns("p", "text", {"key": "key", "name": "name", "description": "description"}),
        *_columns("p", "flag", {"is_private": "whether it is private; null where that is unknown"}),
        *_columns("p", "text", {"avatar_url": "picture"}),
        *_columns("p", "moment", {
            "first_seen_at": "when this mirror first saw it",
            "last_seen_at": "when this mirror last saw it before the export of the row",
        }),
        _SEQ,
        _OP,
    ),
    ("{projects} CROSS JOIN users o ON o.id = p.owner_id",),
)  # fmt: skip

CHANGES = Table(
    "changes",
    "Changes that this mirror saw. Rows are added, never replaced.",
    (
        *_upstream_of("coalesce(r.upstream_id, u.upstream_id)"),
        *_columns("c", "moment", {"at": "when it was seen"}),
        *_columns("c", "text", {"kind": "what happened"}),
        Column("repository_uuid", "text", "identity of the repository; null for a change of an owner",
               "r.uuid"),
        Column("user_uuid", "text", "identity of the owner; null for a change of a repository", "u.uuid"),
        *_columns("c", "text", {
            "ref": "branch or tag", "old": "old value", "new": "new value",
        }),
        _SEQ,
    ),
    ("""changes c LEFT JOIN repositories r ON r.id = c.repository_id LEFT JOIN users u ON u.id = c.user_id
        WHERE c.id > {after} AND c.id <= {until} AND (r.id IS NOT NULL OR u.id IS NOT NULL)
        ORDER BY c.id""",),
    key=(),
)  # fmt: skip

RUNS = Table(
    "runs",
    "Finished runs. Every export has all of them.",
    (
        *_upstream_of("s.upstream_id"),
        *_columns("s", "text", {"kind": "kind of the run", "state": "how it ended"}),
        *_columns("s", "moment", {"started_at": "when it began", "finished_at": "when it ended"}),
        *_columns("s", "integer", {
            "requests": "requests to the API", "git_requests": "requests by git",
            "retries": "repeated requests",
        }),
        *_columns("s", "number", {"slept_seconds": "seconds spent waiting for the budget"}),
        *_columns("s", "integer", {
            "repositories_new": "new", "repositories_changed": "changed", "repositories_gone": "gone",
            "refs_new": "new refs", "refs_changed": "moved refs", "refs_gone": "gone refs",
            "failures": "things that could not be read",
        }),
        *_columns("s", "text", {"error": "why it ended early"}),
        _SEQ,
    ),
    ("sync_runs s WHERE s.finished_at IS NOT NULL ORDER BY s.id",),
    key=(),
    whole=True,
)  # fmt: skip

LISTINGS = Table(
    "listings",
    "By owner: since when all its living repositories were seen. The row with the highest seq is current.",
    (
        *_upstream_of("r.upstream_id"),
        Column("owner_uuid", "text", "identity of the owner", "o.uuid"),
        Column("seen_since", "moment",
               "each of its living repositories was seen then or later; null without any",
               "r.seen_since"),
        Column("repositories", "integer", "number of living repositories", "r.repositories"),
        _SEQ,
    ),
    ("{listings} CROSS JOIN users o ON o.id = r.owner_id",),
    key=("instance", "upstream", "owner_uuid"),
)  # fmt: skip

LIVING = """(SELECT upstream_id, owner_id, min(last_seen_at) AS seen_since, count(*) AS repositories
    FROM repositories NOT INDEXED WHERE deleted_at IS NULL GROUP BY owner_id) r"""
LIVING_OF_CHOSEN = """(SELECT o.upstream_id, o.id AS owner_id, min(l.last_seen_at) AS seen_since,
        count(l.id) AS repositories
    FROM temp.chosen_listings c CROSS JOIN users o ON o.id = c.id
    LEFT JOIN repositories l ON l.owner_id = o.id AND l.deleted_at IS NULL GROUP BY o.id) r"""
"""The sources of listings: all owners with a living repository, or the owners to export."""

INSTANCES = Table(
    "instances",
    "The servers that this mirror copies. Every export has all of them.",
    (
        *_upstream_of("i.id"),
        *_columns("i", "text", {
            "kind": "cloud, datacenter, legacy or sandbox", "url": "address as configured",
            "refs": "how refs are mirrored: api, git or none",
        }),
        _SEQ,
    ),
    ("upstreams i ORDER BY i.id",),
    key=(),
    whole=True,
)  # fmt: skip

TABLES = (REPOSITORIES, REFS, USERS, MEMBERS, FOLLOWERS, PROJECTS, CHANGES, RUNS, LISTINGS, INSTANCES)


def selects_of(table: Table, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield the statements that read a table; `sources` maps placeholders to the sources of rows."""
    for number, source in enumerate(table.selects):
        columns = [column.sql for column in table.columns if column.sql is not None]
        if table is REFS:
            columns = [sql.format(**_OF_REFS[number]) for sql in columns]
        yield f"SELECT {', '.join(columns)} FROM {source.format(**sources)}"


def bucket_of(uuid: str) -> int:
    """Return the number of the folder that holds a repository's refs."""
    return crc32(uuid.encode()) % BUCKETS


def instance_of(url: str) -> str:
    """Return the normalised address that identifies an upstream in a lake."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = f":{parts.port}" if parts.port not in (None, usual) else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path.rstrip('/')}"
