"""Stored queries: the questions that people ask first, with their parameters. Gone repositories are left out.

A parameter that is left empty means its default. Every query is bounded, by an index or by its limit.
"""

from typing import Any

_YEAR_AGO = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || coalesce(nullif(:days, ''), 365) || ' days')"
_DAYS = "Days without one (empty: 365). "


def _query(title: str, description: str, sql: str) -> dict[str, Any]:
    return {"title": title, "description": description, "sql": sql.strip(), "hide_sql": True}


QUERIES: dict[str, dict[str, Any]] = {
    "stale": _query(
        "Stale repositories",
        "Repositories without a push or an edit for a time. `days`: " + _DAYS + "`owner`: only theirs.",
        f"""
select r.full_name, r.updated_at,
       cast(julianday('now') - julianday(r.updated_at) as integer) as days,
       r.scm, r.size, r.is_private, r.description
from repositories r join users u on u.id = r.owner_id
where r.deleted_at is null and r.updated_at < {_YEAR_AGO}
  and (:owner = '' or u.username = :owner collate nocase)
order by r.updated_at limit 1000""",
    ),
    "stale_branches": _query(
        "Branches without a push",
        "Branches whose last commit is old, the main branch left out. `days`: " + _DAYS,
        f"""
select r.full_name, b.name as branch, b.target_date as last_commit,
       cast(julianday('now') - julianday(b.target_date) as integer) as days,
       b.target_author as author, b.target_hash as hash
from branches b join repositories r on r.id = b.repository_id
where b.target_date < {_YEAR_AGO}
  and r.deleted_at is null and b.name is not r.main_branch
order by b.target_date limit 1000""",
    ),
    "languages_used": _query(
        "Languages",
        "How many repositories and bytes each language has.",
        """
select coalesce(nullif(lower(language), ''), '(not said)') as language, count(*) as repositories,
       sum(size) as bytes, max(updated_at) as last_update
from repositories where deleted_at is null
group by 1 order by repositories desc, language limit 1000""",
    ),
    "biggest": _query(
        "Biggest repositories",
        "The largest repositories by what the upstream says of their size. `owner`: only theirs.",
        """
select r.full_name, r.size as bytes, round(r.size / 1048576.0, 1) as mebibytes, r.scm, r.updated_at
from repositories r join users u on u.id = r.owner_id
where r.deleted_at is null and r.size is not null
  and (:owner = '' or u.username = :owner collate nocase)
order by r.size desc limit 100""",
    ),
    "tags_of_a_name": _query(
        "Tags of a repository",
        "The tags of one repository, newest first. `name`: owner/slug, or a slug for all of that name.",
        """
with named as (
    select id, full_name from repositories
    where full_name = :name collate nocase and deleted_at is null
    union
    select id, full_name from repositories
    where instr(:name, '/') = 0 and slug = :name collate nocase and deleted_at is null
)
select named.full_name, t.name as tag, coalesce(t.date, t.target_date) as date, t.target_hash as hash,
       t.tagger, coalesce(t.message, t.target_message) as message
from named join tags t on t.repository_id = named.id
order by named.full_name, date desc limit 1000""",
    ),
    "repositories_with_tag": _query(
        "Who has a tag of that name",
        "Every repository that carries a tag. `tag`: its whole name, as in `v1.0`.",
        """
select r.full_name, coalesce(t.date, t.target_date) as date, t.target_hash as hash
from tags t join repositories r on r.id = t.repository_id
where t.name = :tag and r.deleted_at is null
order by date desc limit 1000""",
    ),
    "changed_this_week": _query(
        "What changed this week",
        "What the mirror saw change. `days`: days to look back (empty: 7).",
        """
select c.at, c.kind, r.full_name as repository, u.username as owner, c.ref, c.old, c.new
from changes c left join repositories r on r.id = c.repository_id
left join users u on u.id = coalesce(c.user_id, r.owner_id)
where c.at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || coalesce(nullif(:days, ''), 7) || ' days')
  and (r.deleted_at is null or c.kind = 'deleted')
order by c.at desc, c.id desc limit 1000""",
    ),
    "without_tags": _query(
        "Repositories without tags",
        "Repositories with commits and branches that nobody ever tagged, last updated first.",
        """
select r.full_name, r.updated_at, r.scm, r.size
from repositories r
where r.deleted_at is null and r.main_branch is not null and r.refs_synced_at is not null
  and not exists (select 1 from tags t where t.repository_id = r.id and t.name <> 'tip')
order by r.updated_at desc limit 1000""",
    ),
    "names_under_many_owners": _query(
        "Names under many owners",
        "Repository names that several owners use: forks, copies, coincidence.",
        """
select slug, count(distinct owner_id) as owners, sum(parent_full_name is not null) as forks,
       max(updated_at) as last_update
from repositories where deleted_at is null
group by slug collate nocase having owners > 1
order by owners desc, slug limit 1000""",
    ),
    "private_among_public": _query(
        "Private among public",
        "Private repositories of owners who have public ones too.",
        """
with mixed as (
    select owner_id, sum(is_private = 0) as public, sum(is_private = 1) as private
    from repositories
    where deleted_at is null and owner_id in (select owner_id from repositories where is_private = 1)
    group by owner_id having public > 0 and private > 0
)
select r.full_name, mixed.public as public_of_owner, mixed.private as private_of_owner, r.updated_at
from mixed join repositories r on r.owner_id = mixed.owner_id
where r.is_private = 1 and r.deleted_at is null
order by r.full_name limit 1000""",
    ),
    "who_owns_most": _query(
        "Who owns most",
        "Owners by how many repositories they have.",
        """
select u.username as owner, u.kind, count(*) as repositories, sum(r.is_private = 1) as private,
       sum(r.size) as bytes, max(r.updated_at) as last_update
from repositories r join users u on u.id = r.owner_id
where r.deleted_at is null
group by r.owner_id order by repositories desc, owner limit 100""",
    ),
    "tags_that_moved": _query(
        "Tags that moved",
        "Tags that named one commit and now name another: worth a question to who moved them.",
        """
select c.at, r.full_name, c.ref as tag, c.old as old_hash, c.new as new_hash
from changes c join repositories r on r.id = c.repository_id
where c.kind = 'tag_moved' and r.deleted_at is null
order by c.id desc limit 1000""",
    ),
    "failures_waiting": _query(
        "Failures waiting",
        "What could not be read, and when it is tried again.",
        """
select f.next_try_at, p.name as upstream, f.kind, f.subject, f.status, f.error, f.attempts, f.first_at
from sync_failures f join upstreams p on p.id = f.upstream_id
left join repositories r on r.id = f.repository_id
where r.deleted_at is null
order by f.next_try_at limit 1000""",
    ),
}


def stored_queries() -> dict[str, dict[str, Any]]:
    """Return the queries; fresh ones, because Datasette writes into them."""
    return {name: dict(query) for name, query in QUERIES.items()}
