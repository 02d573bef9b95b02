"""Mirror files for the tests of the serving side, written by the real store."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prepared_files import copy_made, opened

from mirror.model import Member, Owner, Ref, Repository
from mirror.store.changes import show_new_changes
from mirror.store.owners import save_members
from mirror.store.refs import save_refs
from mirror.store.repositories import Look, mark_gone
from mirror.store.runs import Failure, Failures
from mirror.times import from_text, to_text

SEEN = "2026-11-01T12:00:00.000000Z"
LATER = "2026-11-02T12:00:00.000000Z"

SECRETS = (
    b"arriving",
    b"Arriving soon",
    b"nobody's business",
    b"secret-branch",
    b"secret-tag",
    b"hg-project",
    b"buried-treasure",
    b"once-hidden",
    b"old-secret-name",
)
"""Bytes that only those may see who may see private rows."""


def owner(username: str, **said: object) -> Owner:
    """A user of that name."""
    fields: dict[str, object] = {"uuid": f"{{{username.lower()}-uuid}}", "username": username, **said}
    return Owner(**fields)  # type: ignore[arg-type]


JESPERN = owner(
    "jespern",
    display_name="Jesper Noehr",
    first_name="Jesper",
    last_name="Noehr",
    avatar_url="https://example.com/jespern.png",
    created_at="2008-06-26T19:40:53.000000Z",
)


def repository(full_name: str, by: Owner | None = None, **said: object) -> Repository:
    """A public git repository of that name, with the given fields."""
    name, _, slug = full_name.partition("/")
    fields: dict[str, object] = {
        "uuid": f"{{{full_name.lower()}}}",
        "owner": by or owner(name),
        "slug": slug,
        "name": slug,
        "full_name": full_name,
        "scm": "git",
        "description": "",
        "website": "",
        "language": "",
        "size": 1000,
        "main_branch": "master",
        "has_issues": False,
        "has_wiki": False,
        "fork_policy": "allow_forks",
        "created_at": "2011-11-20T18:25:29.000000Z",
        "updated_at": "2012-02-20T21:29:16.000000Z",
    }
    return Repository(**{**fields, **said})  # type: ignore[arg-type]


PISTON = repository(
    "jespern/django-piston",
    JESPERN,
    scm="hg",
    main_branch="default",
    followers_count=173,
    forks_count=2,
    language="python",
    size=887_709_436,
    description="Piston is a Django mini-framework creating APIs.",
    website="http://bitbucket.org/jespern/",
    has_wiki=True,
    has_issues=True,
)
PUBLIC = (
    PISTON,
    repository("mcatalbas/codeigniter", name="CodeIgniter", language="php", followers_count=12),
    repository(
        "dchambers/django-piston",
        scm="hg",
        parent_uuid=PISTON.uuid,
        parent_full_name=PISTON.full_name,
        website=None,
        updated_at="2026-10-30T10:00:00.000000Z",
    ),
    repository("ubernostrum/django-registration", scm="hg", followers_count=159),
    repository("Mimika_Oh/web.site", name="Web Site", fork_policy="no_public_forks", main_branch=None),
)
PRIVATE = (
    repository("jespern/arriving", JESPERN, is_private=True, scm="hg", description="Arriving soon"),
    repository("jespern/once-hidden", JESPERN, is_private=True, description="nobody's business"),
    repository("brodie/hg-project", is_private=True, scm="hg"),
    repository("brodie/buried-treasure", is_private=True),
)
FORK_OF_PRIVATE = repository(
    "mcatalbas/copy",
    parent_uuid="{jespern/arriving}",
    parent_full_name="jespern/arriving",
)


def hg_ref(kind: str, name: str, digit: str, **said: object) -> Ref:
    """A Mercurial branch or tag on a commit whose hash repeats one digit."""
    fields: dict[str, object] = {
        "kind": kind,
        "name": name,
        "target_hash": digit * 40,
        "target_date": "2010-07-20T12:00:00.000000Z",
        "target_author": "Jesper Noehr <jesper@example.com>",
        "target_author_name": "jespern",
        "target_author_uuid": JESPERN.uuid,
        "target_message": f"Work on {name}\n",
        "target_parents": ("0" * 40,),
    }
    return Ref(**{**fields, **said})  # type: ignore[arg-type]


PISTON_REFS = (
    hg_ref("branch", "default", "a", heads=("a" * 40,)),
    hg_ref("tag", "0.2.1", "b"),
    hg_ref("tag", "0.2.2", "c", target_date="2011-01-20T12:00:00.000000Z"),
    hg_ref("tag", "0.2.3", "d", tagger="Jesper Noehr <jesper@example.com>", message="The third"),
    hg_ref("tag", "tip", "a"),
)
ARRIVING_REFS = (
    hg_ref("branch", "secret-branch", "e", heads=("e" * 40,)),
    hg_ref("tag", "secret-tag", "f"),
)


class FixtureDb:
    """A store with one upstream, and short verbs to fill it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = opened(path)
        self.upstream_id = self.store.save_upstream("cloud", "cloud", "https://api.example.com/2.0")

    def repositories(self, rows: Sequence[Repository], *, at: str = SEEN, first: bool = False) -> None:
        """Save a page."""
        self.store.save_page(self.upstream_id, rows, Look(at, with_refs=True, first_listing=first))

    def id_of(self, full_name: str) -> int:
        """Find a repository's row."""
        row = self.store.row("SELECT id FROM repositories WHERE full_name = ? ORDER BY id", (full_name,))
        return int(row[0])

    def refs(self, full_name: str, refs: Sequence[Ref], *, at: str = SEEN) -> None:
        """Save all refs of a repository."""
        repository_id = self.id_of(full_name)
        with self.store.transaction() as connection:
            saved = save_refs(connection, repository_id, refs, seen_at=at)
            self.store.save_changes(saved.changes, run_id=None, at=at)
            show_new_changes(connection, repository_id, listed_since=at)

    def gone(self, full_name: str, *, at: str = LATER, reason: str = "absent") -> None:
        """Turn a repository into a tombstone."""
        with self.store.transaction() as connection:
            changes = mark_gone(connection, self.id_of(full_name), reason=reason, seen_at=at)
            self.store.save_changes(changes, run_id=None, at=at)

    def members(self, workspace: Owner, users: Sequence[Owner]) -> None:
        """Save the members of a workspace."""
        workspace_id = self.store.save_owner(self.upstream_id, workspace, run_id=None, seen_at=SEEN)
        with self.store.transaction() as connection:
            save_members(
                connection,
                self.upstream_id,
                workspace_id,
                [Member(user=user, permission="owner") for user in users],
                seen_at=SEEN,
            )

    def follower(self, full_name: str, username: str) -> None:
        """Let a user follow a repository."""
        with self.store.transaction() as connection:
            connection.execute(
                "INSERT INTO followers SELECT ?, id FROM users WHERE username = ?",
                (self.id_of(full_name), username),
            )

    def failure(self, full_name: str, *, now: str = LATER) -> None:
        """Note that a repository's refs could not be read."""
        failure = Failure("refs", full_name, "answered 500", self.id_of(full_name), 500)
        with self.store.transaction() as connection:
            Failures(connection, self.upstream_id).save(failure, from_text(now))


def fill_public(path: Path) -> FixtureDb:
    """A file in which nothing is private; the refs of all repositories were read, most have none."""
    copy_made(path, _make_public)
    return FixtureDb(path)


def _make_public(path: Path) -> None:
    filled = FixtureDb(path)
    filled.repositories(PUBLIC, first=True)
    filled.refs("jespern/django-piston", PISTON_REFS)
    for empty in PUBLIC[1:]:
        filled.refs(empty.full_name, ())
    filled.follower("jespern/django-piston", "mcatalbas")
    filled.follower("jespern/django-piston", "ubernostrum")
    filled.store.close()


def fill_mixed(path: Path) -> FixtureDb:
    """A file with private rows of every sort: living, gone, forked in public, made public since, renamed."""
    copy_made(path, _make_mixed)
    return FixtureDb(path)


def _make_mixed(path: Path) -> None:
    filled = fill_public(path)
    hidden = repository("jespern/old-secret-name", JESPERN, uuid="{once}", is_private=True)
    filled.repositories((*PRIVATE[:1], *PRIVATE[2:], FORK_OF_PRIVATE, hidden), first=True)
    filled.refs("jespern/arriving", ARRIVING_REFS)
    filled.refs("jespern/arriving", (*ARRIVING_REFS, hg_ref("tag", "secret-tag-2", "1")), at=LATER)
    filled.repositories((PRIVATE[1],))
    filled.refs("jespern/old-secret-name", [hg_ref("branch", "default", "2")])
    then = [hg_ref("branch", "default", "2"), hg_ref("branch", "secret-branch", "3")]
    filled.refs("jespern/old-secret-name", then)
    filled.refs("jespern/old-secret-name", then[:1])
    renamed = repository("jespern/shown", JESPERN, uuid="{once}", is_private=True)
    filled.repositories((renamed,), at=LATER)
    filled.repositories((repository("jespern/shown", JESPERN, uuid="{once}"),), at=LATER)
    filled.gone("brodie/buried-treasure")
    filled.failure("jespern/arriving")
    filled.follower("jespern/arriving", "mcatalbas")
    filled.members(owner("brodie"), (owner("mcatalbas"),))
    filled.store.close()


def copy_rows(filled: FixtureDb, times: int) -> None:
    """Multiply the repositories by SQL, for tests that need many rows of any content."""
    columns = [row[1] for row in filled.store.rows("PRAGMA table_info(repositories)")]
    changed = {"id": "id + :by", "uuid": "uuid || :by", "slug": "slug || '-' || :by"}
    changed["full_name"] = "full_name || '-' || :by"
    with filled.store.transaction() as connection:
        (count,) = connection.execute("SELECT max(id) FROM repositories").fetchone()
        for turn in range(1, times):
            connection.execute(
                f"""INSERT INTO repositories ({", ".join(columns)})
                    SELECT {", ".join(changed.get(column, column) for column in columns)}
                    FROM repositories WHERE id <= :count""",
                {"by": turn * count, "count": count},
            )


def fill_many(path: Path, count: int, *, tags: int = 2) -> FixtureDb:
    """A file with that many public repositories over `count / 20` owners, each with a branch and tags."""
    filled = FixtureDb(path)
    start = datetime(2010, 1, 1, tzinfo=UTC)
    languages = ("python", "java", "", "c++", "javascript", "php", "go")
    owners = [owner(f"owner{number}") for number in range(max(1, count // 20))]
    for first in range(0, count, 1000):
        rows = [
            repository(
                f"{owners[n % len(owners)].username}/project-{n}",
                owners[n % len(owners)],
                language=languages[n % len(languages)],
                scm="hg" if n % 5 == 0 else "git",
                size=n * 97 % 10_000_019,
                description=f"Project number {n}, " + "about as long as descriptions are. " * (n % 4),
                updated_at=to_text(start + timedelta(minutes=n * 79 % 8_000_000)),
                followers_count=n % 50,
            )
            for n in range(first, min(first + 1000, count))
        ]
        filled.repositories(rows, first=True)
    if tags:
        _fill_refs(filled, tags)
    filled.store.finish_search_index()
    return filled


def _fill_refs(filled: FixtureDb, tags: int) -> None:
    """Give every repository a branch and tags; written row by row it would take minutes."""
    columns = "repository_id, name, target_hash, target_date, target_author, target_message, target_parents"
    values = "'0123456789abcdef0123456789abcdef01234567', updated_at, 'A <a@example.com>', 'Work', '[]'"
    with filled.store.transaction() as connection:
        connection.execute(
            f"INSERT INTO branches ({columns}) SELECT id, 'master', {values} FROM repositories"
        )
        for number in range(tags):
            connection.execute(
                f"INSERT INTO tags ({columns}) SELECT id, 'v1.{number}', {values} FROM repositories"
            )
        connection.execute("UPDATE repositories SET refs_synced_at = last_seen_at, refs_stale = 0")
