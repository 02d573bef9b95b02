"""Stored queries about repositories, each a question; and the SQL that several questions share."""

from collections.abc import Mapping
from typing import Any

import msgspec


class Question(msgspec.Struct, frozen=True):
    """A question in words and in SQL.

    :param parameters: maps the name of each parameter to its meaning. An empty value means the default.
    :param needs: the parameters that must have a value.
    """

    title: str
    description: str
    sql: str
    parameters: Mapping[str, str] = {}
    needs: tuple[str, ...] = ()

    def stored(self) -> dict[str, Any]:
        """Return the question as a stored query, a new one for each call because Datasette changes it."""
        meanings = "".join(f" {name.capitalize()}: {meaning}." for name, meaning in self.parameters.items())
        return {
            "title": self.title,
            "description": self.description + meanings,
            "sql": self.sql.strip(),
            "params": list(self.parameters),
            "hide_sql": True,
        }


OWNER = {"owner": "only repositories of this owner (empty: of all)"}
# Without a join, as strangers read `users` by a view that decides for each row who may be named.
_IDS = "(select id from users where username = :owner collate nocase)"
IS_THEIRS = f"(:owner = '' or r.owner_id in {_IDS})"


def days(default: int) -> dict[str, str]:
    """Describe a parameter that is a number of days."""
    return {"days": f"number of days (empty: {default})"}


def ago(default: int) -> str:
    """Return SQL for the time `:days` days ago, in the text form of the file's times."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || coalesce(nullif(:days, ''), {default}) || ' days')"


def age(moment: str) -> str:
    """Return SQL for how many days ago a time was."""
    return f"cast(julianday('now') - julianday({moment}) as integer)"


_MERGED = """m.target_hash = b.target_hash or instr(m.target_parents, b.target_hash)
       or exists (select 1 from tags t where t.repository_id = r.id
                  and json_array_length(t.target_parents) > 1 and instr(t.target_parents, b.target_hash))
       or exists (select 1 from branches o where o.repository_id = r.id and o.name <> b.name
                  and json_array_length(o.target_parents) > 1 and instr(o.target_parents, b.target_hash))"""

CLEANING = {
    "stale": Question(
        "Stale repositories",
        "Repositories without a push or an edit for a number of days, oldest first.",
        f"""
select r.full_name, r.updated_at, {age("r.updated_at")} as days, r.scm, r.size, r.is_private, r.description
from repositories r
where r.deleted_at is null and r.updated_at < {ago(365)}
  and {IS_THEIRS}
order by r.updated_at limit 1000""",
        days(365) | OWNER,
    ),
    "stale_branches": Question(
        "Branches without a push",
        "Branches whose last commit is older than a number of days, except main branches.",
        f"""
select r.full_name, b.name as branch, b.target_date as last_commit, {age("b.target_date")} as days,
       b.target_author as author, b.target_hash as hash
from branches b cross join repositories r on r.id = b.repository_id
where b.target_date < {ago(365)}
  and r.deleted_at is null and b.name is not r.main_branch and {IS_THEIRS}
order by b.target_date limit 1000""",
        days(365) | OWNER,
    ),
    "merged_branches": Question(
        "Branches merged long ago",
        "Branches whose commit is already in the main branch, as far as the heads show: it is the main "
        "branch's commit or a parent of it, or another branch or a tag points to a merge of it. Days "
        "count from the last commit.",
        f"""
select r.full_name, b.name as branch, b.target_date as last_commit, {age("b.target_date")} as days,
       b.target_author as author, b.target_hash as hash,
       case when m.target_hash = b.target_hash then 'is the main branch' else 'was merged' end as why
from branches b cross join repositories r on r.id = b.repository_id
left join branches m on m.repository_id = r.id and m.name = r.main_branch
where b.target_date < {ago(365)} and r.deleted_at is null and b.name is not r.main_branch
  and {IS_THEIRS}
  and ({_MERGED})
order by b.target_date limit 1000""",
        days(365) | OWNER,
    ),
    "most_branches": Question(
        "Most branches",
        "Repositories with the most branches, and how many of these had no commit for a number of days.",
        f"""
select r.full_name, b.branches,
       (select sum(target_date < {ago(365)}) from branches where repository_id = r.id) as old_branches,
       r.updated_at
from (select repository_id, count(*) as branches from branches
      where :owner = '' or repository_id in (select id from repositories where owner_id in {_IDS})
      group by repository_id order by branches desc, repository_id
      limit 100 + (select count(*) from repositories where deleted_at is not null)
                + (select count(*) from repositories where refs_stale)) b -- those never read are stale
cross join repositories r on r.id = b.repository_id
where r.deleted_at is null and r.refs_synced_at is not null
order by b.branches desc, r.id limit 100""",
        days(365) | OWNER,
    ),
    "empty_repositories": Question(
        "Empty repositories",
        "Repositories without any branch or tag, oldest first: created but never used.",
        f"""
select r.full_name, r.created_at, {age("r.created_at")} as days, r.size, r.is_private, r.description
from repositories r
where r.deleted_at is null and r.refs_synced_at is not null and {IS_THEIRS}
  and not exists (select 1 from branches b where b.repository_id = r.id)
  and not exists (select 1 from tags t where t.repository_id = r.id)
order by r.created_at limit 1000""",
        OWNER,
    ),
    "forks_left_behind": Question(
        "Forks left behind",
        "Forks whose parent was pushed to or edited later than the fork, by more than a number of days.",
        f"""
select r.full_name, r.updated_at, p.full_name as parent, p.updated_at as parent_updated_at,
       cast(julianday(p.updated_at) - julianday(r.updated_at) as integer) as days_behind
from repositories r join repositories p on p.id = r.parent_id
where r.parent_id is not null and r.deleted_at is null and p.deleted_at is null
  and julianday(p.updated_at) - julianday(r.updated_at) > cast(coalesce(nullif(:days, ''), 365) as integer)
  and {IS_THEIRS}
order by days_behind desc, r.full_name limit 1000""",
        days(365) | OWNER,
    ),
    "biggest": Question(
        "Biggest repositories",
        "The largest repositories, by the size that the upstream reports.",
        f"""
select r.full_name, r.size as bytes, round(r.size / 1048576.0, 1) as mebibytes, r.scm, r.updated_at
from repositories r not indexed
where r.deleted_at is null and r.size is not null and {IS_THEIRS}
order by r.size desc limit 100""",
        OWNER,
    ),
    "private_among_public": Question(
        "Private among public",
        "Private repositories of owners who also have public ones.",
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


NAMES = {
    "find": Question(
        "Find by part of a name",
        "Repositories with these letters in their name, of all upstreams and owners, in the order of the "
        "search.",
        """
select r.full_name, r.name, r.scm, r.language, r.followers_count, r.updated_at, r.description
from json_each(mirror_search(:part, 1000)) as hit join repositories r on r.id = hit.value
order by hit.key""",
        {"part": "of a name, or owner/part"},
        needs=("part",),
    ),
    "names_under_many_owners": Question(
        "Names under many owners",
        "Repository names that several owners use: forks, copies, or coincidence.",
        """
with most as materialized (
    select lower(slug) as slug, count(distinct owner_id) as owners from repositories where deleted_at is null
    group by repositories.slug collate nocase having owners > 1 order by owners desc, 1 limit 1000
)
select most.slug, most.owners, sum(r.parent_id is not null) as forks, max(r.updated_at) as last_update
from most cross join repositories r on r.slug = most.slug collate nocase and r.deleted_at is null
group by most.slug order by most.owners desc, 1""",
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
       (select cast(sum(r.size * 1.0) as integer) from repositories r
        where r.owner_id = m.owner_id and r.deleted_at is null) as bytes, m.last_update
from most m join users u on u.id = m.owner_id
order by m.repositories desc, owner""",
    ),
    "languages_used": Question(
        "Languages",
        "How many repositories and bytes each language has.",
        """
with counted as (
    select language, count(*) as repositories, sum(size * 1.0) as bytes, max(updated_at) as last_update
    from repositories not indexed where deleted_at is null group by 1
)
select coalesce(nullif(lower(language), ''), '(not said)') as language, sum(repositories) as repositories,
       cast(sum(bytes) as integer) as bytes, max(last_update) as last_update
from counted group by 1 order by repositories desc, 1 limit 1000""",
    ),
}


_DATE = "coalesce(t.date, t.target_date)"

TAGS = {
    "tags_of_a_name": Question(
        "Tags of a repository",
        "The tags of one repository, newest first, and when they were read.",
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
        "Each repository of an owner with its newest tag and the number of its tags.",
        f"""
select r.full_name, n.name as newest_tag, {_DATE.replace("t.", "n.")} as date, n.target_hash as hash,
       (select count(*) from tags t where t.repository_id = r.id and t.name <> 'tip') as tags
from users u cross join repositories r on r.owner_id = u.id
cross join tags n on n.repository_id = r.id and n.name = (
    select t.name from tags t where t.repository_id = r.id and t.name <> 'tip'
    order by {_DATE} desc, t.name desc limit 1)
where u.username = :owner collate nocase and r.deleted_at is null and r.refs_synced_at is not null
order by date desc, r.full_name limit 1000""",
        {"owner": "the owner of the repositories"},
        needs=("owner",),
    ),
    "repositories_with_tag": Question(
        "Repositories with a tag of that name",
        "All repositories that have this tag.",
        f"""
select r.full_name, t.date, t.target_hash as hash
from (select repository_id, target_hash, {_DATE} as date from tags t where name = :tag
      order by 3 desc, 1 limit 1000 + (select count(*) from repositories where deleted_at is not null)) t
cross join repositories r on r.id = t.repository_id
where r.deleted_at is null
order by t.date desc, r.id limit 1000""",
        {"tag": "its whole name, as in v1.0"},
        needs=("tag",),
    ),
    "without_tags": Question(
        "Repositories without tags",
        "Repositories that have commits and branches but no tag, last updated first.",
        f"""
select r.full_name, r.updated_at, r.scm, r.size
from repositories r not indexed
where r.deleted_at is null and r.main_branch is not null and r.refs_synced_at is not null and {IS_THEIRS}
  and not exists (select 1 from tags t where t.repository_id = r.id and t.name <> 'tip')
order by r.updated_at desc limit 1000""",
        OWNER,
    ),
    "tags_that_moved": Question(
        "Tags that point elsewhere now",
        "Tags that pointed to one commit and now point to another. It may be worth asking who moved them.",
        """
select c.at, r.full_name, c.ref as tag, c.old as old_hash, c.new as new_hash
from changes c join repositories r on r.id = c.repository_id
where c.kind = 'tag_moved' and r.deleted_at is null
order by c.id desc limit 1000""",
    ),
}
