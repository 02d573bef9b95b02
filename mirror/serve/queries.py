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
    "merged_branches": _query(
        "Branches merged long ago",
        "Branches whose commit is in the main branch already, as far as the heads tell: it is the main "
        "branch's commit or a parent of it, or another branch or a tag stands on a merge of it. `days`: "
        "days since its last commit (empty: 365). `owner`: only theirs.",
        f"""
select r.full_name, b.name as branch, b.target_date as last_commit,
       cast(julianday('now') - julianday(b.target_date) as integer) as days,
       b.target_author as author, b.target_hash as hash,
       case when m.target_hash = b.target_hash then 'is the main branch' else 'was merged' end as why
from branches b join repositories r on r.id = b.repository_id join users u on u.id = r.owner_id
left join branches m on m.repository_id = r.id and m.name = r.main_branch
where b.target_date < {_YEAR_AGO} and r.deleted_at is null and b.name is not r.main_branch
  and (:owner = '' or u.username = :owner collate nocase)
  and (m.target_hash = b.target_hash or instr(m.target_parents, b.target_hash)
       or exists (select 1 from tags t where t.repository_id = r.id
                  and json_array_length(t.target_parents) > 1 and instr(t.target_parents, b.target_hash))
       or exists (select 1 from branches o where o.repository_id = r.id and o.name <> b.name
                  and json_array_length(o.target_parents) > 1 and instr(o.target_parents, b.target_hash)))
order by b.target_date limit 1000""",
    ),
    "empty_repositories": _query(
        "Empty repositories",
        "Repositories without a single branch or tag, the oldest first: made once, never used. `owner`: "
        "only theirs.",
        """
select r.full_name, r.created_at, cast(julianday('now') - julianday(r.created_at) as integer) as days,
       r.size, r.is_private, r.description
from repositories r join users u on u.id = r.owner_id
where r.deleted_at is null and r.refs_synced_at is not null
  and (:owner = '' or u.username = :owner collate nocase)
  and not exists (select 1 from branches b where b.repository_id = r.id)
  and not exists (select 1 from tags t where t.repository_id = r.id)
order by r.created_at limit 1000""",
    ),
    "gone": _query(
        "Gone repositories",
        "What the upstream no longer has, with the moment and the reason; rows and refs are kept here. "
        "`owner`: only theirs.",
        """
select r.full_name, r.deleted_at, r.gone_reason, r.updated_at,
       (select count(*) from tags t where t.repository_id = r.id) as tags_kept
from repositories r join users u on u.id = r.owner_id
where r.deleted_at is not null and (:owner = '' or u.username = :owner collate nocase)
order by r.deleted_at desc limit 1000""",
    ),
    "former_names": _query(
        "Where a name went",
        "Repositories that were renamed or moved to another owner: their names then and now. `name`: part "
        "of a former name (empty: all).",
        """
select c.at, c.kind, c.old as former_name, c.new as name_then, r.full_name
from changes c join repositories r on r.id = c.repository_id
where c.kind in ('renamed', 'transferred') and r.deleted_at is null
  and instr(lower(c.old), lower(coalesce(:name, ''))) > 0
order by c.id desc limit 1000""",
    ),
    "history_of_a_name": _query(
        "History of a repository",
        "All that the mirror saw change of one repository, its description and settings too, under "
        "whatever name. `name`: owner/slug.",
        """
select c.at, c.kind, c.ref, c.old, c.new, r.full_name
from repositories r join changes c on c.repository_id = r.id
where r.full_name = :name collate nocase and r.deleted_at is null
order by c.id desc limit 1000""",
    ),
    "requests_by_day": _query(
        "Requests by day",
        "What the crawl asked and how long it waited, day by day. `days`: days to look back (empty: 30).",
        """
select substr(s.started_at, 1, 10) as day, u.name as upstream, count(*) as runs, sum(s.requests) as requests,
       sum(s.git_requests) as git_requests, sum(s.retries) as retries,
       round(sum(s.slept_seconds)) as waited_seconds, sum(s.failures) as failures
from sync_runs s join upstreams u on u.id = s.upstream_id
where s.started_at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
group by 1, 2 order by 1 desc, 2 limit 1000""",
    ),
    "least_fresh": _query(
        "Longest not looked at",
        "Repositories in the order in which the mirror last read their branches and tags; those never read "
        "come first.",
        """
select r.full_name, r.refs_synced_at, r.last_seen_at, r.updated_at, r.refs_stale as to_be_read_again
from repositories r where r.deleted_at is null
order by r.refs_synced_at is not null, r.refs_synced_at limit 1000""",
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
