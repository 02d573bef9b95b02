"""What somebody who cleans up asks: what is old, empty, merged, left behind."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Question(msgspec.Struct, frozen=True):
    """A question in words and in SQL; `parameters` maps the name of each to what it means.

    A parameter that is left empty means its default. `needs` names those without which there is no answer.
    """

    title: str
    description: str
    sql: str
    parameters: Mapping[str, str] = {}
    needs: tuple[str, ...] = ()

    def stored(self) -> dict[str, Any]:
        """Return it as Datasette knows stored queries; a fresh one, because Datasette writes into it."""
        told = "".join(f" {name.capitalize()}: {said}." for name, said in self.parameters.items())
        return {
            "title": self.title,
            "description": self.description + told,
            "sql": self.sql.strip(),
            "params": list(self.parameters),
            "hide_sql": True,
        }


OWNER = {"owner": "only theirs (empty: everybody's)"}
IS_THEIRS = "(:owner = '' or u.username = :owner collate nocase)"


def days(default: int) -> dict[str, str]:
    """Describe a parameter that counts days."""
    return {"days": f"how many (empty: {default})"}


def ago(default: int) -> str:
    """Say in SQL the moment that many days ago; it compares as text with the moments of the file."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || coalesce(nullif(:days, ''), {default}) || ' days')"


def age(moment: str) -> str:
    """Say in SQL how many days ago a moment was."""
    return f"cast(julianday('now') - julianday({moment}) as integer)"


_MERGED = """m.target_hash = b.target_hash or instr(m.target_parents, b.target_hash)
       or exists (select 1 from tags t where t.repository_id = r.id
                  and json_array_length(t.target_parents) > 1 and instr(t.target_parents, b.target_hash))
       or exists (select 1 from branches o where o.repository_id = r.id and o.name <> b.name
                  and json_array_length(o.target_parents) > 1 and instr(o.target_parents, b.target_hash))"""

CLEANING = {
    "stale": Question(
        "Stale repositories",
        "Repositories without a push or an edit for so many days, the oldest first.",
        f"""
select r.full_name, r.updated_at, {age("r.updated_at")} as days, r.scm, r.size, r.is_private, r.description
from repositories r join users u on u.id = r.owner_id
where r.deleted_at is null and r.updated_at < {ago(365)}
  and {IS_THEIRS}
order by r.updated_at limit 1000""",
        days(365) | OWNER,
    ),
    "stale_branches": Question(
        "Branches without a push",
        "Branches whose last commit is that many days old, the main branch left out.",
        f"""
select r.full_name, b.name as branch, b.target_date as last_commit, {age("b.target_date")} as days,
       b.target_author as author, b.target_hash as hash
from branches b cross join repositories r on r.id = b.repository_id join users u on u.id = r.owner_id
where b.target_date < {ago(365)}
  and r.deleted_at is null and b.name is not r.main_branch and {IS_THEIRS}
order by b.target_date limit 1000""",
        days(365) | OWNER,
    ),
    "merged_branches": Question(
        "Branches merged long ago",
        "Branches whose commit is in the main branch already, as far as the heads tell: it is the main "
        "branch's commit or a parent of it, or another branch or a tag stands on a merge of it. Days "
        "count from its last commit.",
        f"""
select r.full_name, b.name as branch, b.target_date as last_commit, {age("b.target_date")} as days,
       b.target_author as author, b.target_hash as hash,
       case when m.target_hash = b.target_hash then 'is the main branch' else 'was merged' end as why
from branches b cross join repositories r on r.id = b.repository_id join users u on u.id = r.owner_id
left join branches m on m.repository_id = r.id and m.name = r.main_branch
where b.target_date < {ago(365)} and r.deleted_at is null and b.name is not r.main_branch
  and {IS_THEIRS}
  and ({_MERGED})
order by b.target_date limit 1000""",
        days(365) | OWNER,
    ),
    "most_branches": Question(
        "Most branches",
        "Repositories with the most branches, and how many of these had no commit for so many days.",
        f"""
select r.full_name, count(*) as branches, sum(b.target_date < {ago(365)}) as old_branches, r.updated_at
from branches b cross join repositories r on r.id = b.repository_id join users u on u.id = r.owner_id
where r.deleted_at is null and r.refs_synced_at is not null and {IS_THEIRS}
group by b.repository_id order by branches desc, r.full_name limit 100""",
        days(365) | OWNER,
    ),
    "empty_repositories": Question(
        "Empty repositories",
        "Repositories without a single branch or tag, the oldest first: made once, never used.",
        f"""
select r.full_name, r.created_at, {age("r.created_at")} as days, r.size, r.is_private, r.description
from repositories r join users u on u.id = r.owner_id
where r.deleted_at is null and r.refs_synced_at is not null and {IS_THEIRS}
  and not exists (select 1 from branches b where b.repository_id = r.id)
  and not exists (select 1 from tags t where t.repository_id = r.id)
order by r.created_at limit 1000""",
        OWNER,
    ),
    "forks_left_behind": Question(
        "Forks left behind",
        "Forks whose parent was pushed to or edited that many days after the fork was.",
        f"""
select r.full_name, r.updated_at, p.full_name as parent, p.updated_at as parent_updated_at,
       cast(julianday(p.updated_at) - julianday(r.updated_at) as integer) as days_behind
from repositories r join repositories p on p.id = r.parent_id join users u on u.id = r.owner_id
where r.parent_id is not null and r.deleted_at is null and p.deleted_at is null
  and julianday(p.updated_at) - julianday(r.updated_at) > cast(coalesce(nullif(:days, ''), 365) as integer)
  and {IS_THEIRS}
order by days_behind desc, r.full_name limit 1000""",
        days(365) | OWNER,
    ),
    "biggest": Question(
        "Biggest repositories",
        "The largest repositories by what the upstream says of their size.",
        f"""
select r.full_name, r.size as bytes, round(r.size / 1048576.0, 1) as mebibytes, r.scm, r.updated_at
from repositories r not indexed join users u on u.id = r.owner_id
where r.deleted_at is null and r.size is not null and {IS_THEIRS}
order by r.size desc limit 100""",
        OWNER,
    ),
    "private_among_public": Question(
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
}


CRAWLING = {
    "requests_by_day": Question(
        "Requests by day",
        "What the crawl asked and how long it waited, day by day.",
        f"""
select substr(s.started_at, 1, 10) as day, u.name as upstream, count(*) as runs, sum(s.requests) as requests,
       sum(s.git_requests) as git_requests, sum(s.retries) as retries,
       round(sum(s.slept_seconds)) as waited_seconds, sum(s.failures) as failures
from sync_runs s join upstreams u on u.id = s.upstream_id
where s.started_at >= {ago(30)}
group by 1, 2 order by 1 desc, 2 limit 1000""",
        days(30),
    ),
    "cost_of_runs": Question(
        "What each run cost",
        "Requests of each run beside what it found: one with nothing new should cost next to nothing.",
        f"""
select s.started_at, u.name as upstream, s.kind, s.state, s.requests, s.git_requests,
       s.repositories_new + s.repositories_changed + s.repositories_gone as repositories_changed,
       s.refs_new + s.refs_changed + s.refs_gone as refs_changed,
       round((julianday(s.finished_at) - julianday(s.started_at)) * 86400) as seconds,
       round(s.slept_seconds) as waited_seconds, s.failures, s.error
from sync_runs s join upstreams u on u.id = s.upstream_id
where s.started_at >= {ago(30)}
order by s.id desc limit 1000""",
        days(30),
    ),
    "budget_of_the_hour": Question(
        "Budget of this hour",
        "Requests of the rolling hour of each credential, its limit, and when the first of them leaves "
        "the hour.",
        """
select l.bucket, sum(l.requests) as used, m.requests_per_hour as hourly_limit,
       m.requests_per_hour - sum(l.requests) as left_over,
       strftime('%Y-%m-%dT%H:%M:%SZ', min(l.at) + 3601, 'unixepoch') as first_returns_at
from request_ledger l left join request_limits m on m.bucket = l.bucket
where l.at >= strftime('%s', 'now') - 3600
group by l.bucket order by used desc limit 1000""",
    ),
    "least_fresh": Question(
        "Longest not looked at",
        "Repositories in the order in which the mirror last read their branches and tags; those never read "
        "come first.",
        """
select r.full_name, r.refs_synced_at, r.last_seen_at, r.updated_at, r.refs_stale as to_be_read_again
from repositories r not indexed where r.deleted_at is null
order by r.refs_synced_at is not null, r.refs_synced_at limit 1000""",
    ),
    "failures_waiting": Question(
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


HAPPENED = {
    "changed_this_week": Question(
        "What changed this week",
        "What the mirror saw change within so many days.",
        f"""
select c.at, c.kind, r.full_name as repository, u.username as owner, c.ref, c.old, c.new
from changes c left join repositories r on r.id = c.repository_id
left join users u on u.id = coalesce(c.user_id, r.owner_id)
where c.at >= {ago(7)}
  and (r.deleted_at is null or c.kind = 'deleted')
order by c.at desc, c.id desc limit 1000""",
        days(7),
    ),
    "history_of_a_name": Question(
        "History of a repository",
        "All that the mirror saw change of one repository, its description and settings too, under "
        "whatever name.",
        """
select c.at, c.kind, c.ref, c.old, c.new, r.full_name
from repositories r join changes c on c.repository_id = r.id
where r.full_name = :name collate nocase and r.deleted_at is null
order by c.id desc limit 1000""",
        {"name": "owner/slug"},
        needs=("name",),
    ),
    "former_names": Question(
        "Where a name went",
        "Repositories that were renamed or moved to another owner: their names then and now.",
        """
select c.at, c.kind, c.old as former_name, c.new as name_then, r.full_name
from changes c join repositories r on r.id = c.repository_id
where c.kind in ('renamed', 'transferred') and r.deleted_at is null
  and instr(lower(c.old), lower(coalesce(:name, ''))) > 0
order by c.id desc limit 1000""",
        {"name": "part of a former name (empty: all)"},
    ),
    "edits": Question(
        "What was edited",
        "Descriptions, settings and other words about repositories that were changed, before and after.",
        f"""
select c.at, r.full_name, c.old as before, c.new as after
from changes c join repositories r on r.id = c.repository_id join users u on u.id = r.owner_id
where c.kind = 'updated' and c.at >= {ago(365)} and r.deleted_at is null and {IS_THEIRS}
order by c.id desc limit 1000""",
        days(365) | OWNER,
    ),
    "shown_and_hidden": Question(
        "Made public or private",
        "Repositories whose visibility changed, the latest first.",
        f"""
select c.at, r.full_name, c.kind, r.is_private as is_private_now
from changes c join repositories r on r.id = c.repository_id join users u on u.id = r.owner_id
where c.kind in ('made_public', 'made_private') and r.deleted_at is null and {IS_THEIRS}
order by c.id desc limit 1000""",
        OWNER,
    ),
    "gone": Question(
        "Gone repositories",
        "What the upstream no longer has, with the moment and the reason; rows and refs are kept here. "
        "No number of tags: they were never read.",
        f"""
select r.full_name, r.deleted_at, r.gone_reason, r.updated_at,
       iif(r.refs_synced_at is null, null,
           (select count(*) from tags t where t.repository_id = r.id)) as tags_kept
from repositories r join users u on u.id = r.owner_id
where r.deleted_at is not null and {IS_THEIRS}
order by r.deleted_at desc limit 1000""",
        OWNER,
    ),
}


NAMES = {
    "find": Question(
        "Find by part of a name",
        "Repositories with these letters in their name, of all upstreams and owners, as the search ranks "
        "them.",
        """
select r.full_name, r.name, r.scm, r.language, r.followers_count, r.updated_at, r.description
from json_each(mirror_search(:part, 1000)) as hit join repositories r on r.id = hit.value
order by hit.key""",
        {"part": "of a name, or owner/part"},
        needs=("part",),
    ),
    "names_under_many_owners": Question(
        "Names under many owners",
        "Repository names that several owners use: forks of what is mirrored, copies, coincidence.",
        """
with shared as materialized (
    select lower(slug) as slug from repositories not indexed where deleted_at is null
    group by 1 having min(owner_id) < max(owner_id)
)
select lower(r.slug) as slug, count(distinct r.owner_id) as owners,
       sum(r.parent_id is not null) as forks, max(r.updated_at) as last_update
from repositories r not indexed
where r.deleted_at is null and lower(r.slug) in (select slug from shared)
group by 1 order by owners desc, 1 limit 1000""",
    ),
    "who_owns_most": Question(
        "Who owns most",
        "Owners by how many repositories they have.",
        """
with most as (
    select owner_id, count(*) as repositories, sum(is_private = 1) as private, max(updated_at) as last_update
    from repositories where deleted_at is null
    group by owner_id order by repositories desc, owner_id limit 100
)
select u.username as owner, u.kind, m.repositories, m.private,
       (select sum(r.size) from repositories r where r.owner_id = m.owner_id and r.deleted_at is null) as
       bytes, m.last_update
from most m join users u on u.id = m.owner_id
order by m.repositories desc, owner""",
    ),
    "languages_used": Question(
        "Languages",
        "How many repositories and bytes each language has.",
        """
with counted as (
    select language, count(*) as repositories, sum(size) as bytes, max(updated_at) as last_update
    from repositories not indexed where deleted_at is null group by 1
)
select coalesce(nullif(lower(language), ''), '(not said)') as language, sum(repositories) as repositories,
       sum(bytes) as bytes, max(last_update) as last_update
from counted group by 1 order by repositories desc, 1 limit 1000""",
    ),
}


_DATE = "coalesce(t.date, t.target_date)"

TAGS = {
    "tags_of_a_name": Question(
        "Tags of a repository",
        "The tags of one repository, the newest first, and when they were read.",
        f"""
with named as (
    select id, full_name, refs_synced_at from repositories
    where full_name = :name collate nocase and deleted_at is null
    union
    select id, full_name, refs_synced_at from repositories
    where instr(:name, '/') = 0 and slug = :name collate nocase and deleted_at is null
)
select named.full_name, t.name as tag, {_DATE} as date, t.target_hash as hash,
       t.tagger, coalesce(t.message, t.target_message) as message,
       coalesce(named.refs_synced_at, 'not read yet') as read_at
from named left join tags t on t.repository_id = named.id and named.refs_synced_at is not null
where t.name is not null or named.refs_synced_at is null
order by named.full_name, date desc limit 1000""",
        {"name": "owner/slug, or a slug for all of that name"},
        needs=("name",),
    ),
    "newest_tags": Question(
        "Newest tag of each repository",
        "Each repository of an owner with the tag that was made last, and how many there are.",
        f"""
select r.full_name, n.name as newest_tag, {_DATE.replace("t.", "n.")} as date, n.target_hash as hash,
       (select count(*) from tags t where t.repository_id = r.id and t.name <> 'tip') as tags
from users u join repositories r on r.owner_id = u.id
join tags n on n.repository_id = r.id and n.name = (
    select t.name from tags t where t.repository_id = r.id and t.name <> 'tip'
    order by {_DATE} desc, t.name desc limit 1)
where u.username = :owner collate nocase and r.deleted_at is null and r.refs_synced_at is not null
order by date desc, r.full_name limit 1000""",
        {"owner": "whose"},
        needs=("owner",),
    ),
    "repositories_with_tag": Question(
        "Who has a tag of that name",
        "Every repository that carries a tag.",
        f"""
select r.full_name, {_DATE} as date, t.target_hash as hash
from tags t join repositories r on r.id = t.repository_id
where t.name = :tag and r.deleted_at is null
order by date desc limit 1000""",
        {"tag": "its whole name, as in v1.0"},
        needs=("tag",),
    ),
    "without_tags": Question(
        "Repositories without tags",
        "Repositories with commits and branches that nobody ever tagged, the last updated first.",
        f"""
select r.full_name, r.updated_at, r.scm, r.size
from repositories r not indexed join users u on u.id = r.owner_id
where r.deleted_at is null and r.main_branch is not null and r.refs_synced_at is not null and {IS_THEIRS}
  and not exists (select 1 from tags t where t.repository_id = r.id and t.name <> 'tip')
order by r.updated_at desc limit 1000""",
        OWNER,
    ),
    "tags_that_moved": Question(
        "Tags that moved",
        "Tags that named one commit and now name another: worth a question to who moved them.",
        """
select c.at, r.full_name, c.ref as tag, c.old as old_hash, c.new as new_hash
from changes c join repositories r on r.id = c.repository_id
where c.kind = 'tag_moved' and r.deleted_at is null
order by c.id desc limit 1000""",
    ),
}


GROUPS: dict[str, dict[str, Question]] = {
    "Cleaning up": CLEANING,
    "Tags and releases": TAGS,
    "Names, owners, languages": NAMES,
    "What happened": HAPPENED,
    "The crawl": CRAWLING,
}
"""Every question by what it is about."""

QUERIES = {name: question for group in GROUPS.values() for name, question in group.items()}
"""Every question by its name in addresses."""


def stored_queries() -> dict[str, dict[str, Any]]:
    """Return the queries as Datasette knows them."""
    return {name: question.stored() for name, question in QUERIES.items()}
