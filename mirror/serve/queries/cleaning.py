"""What somebody who cleans up asks: what is old, empty, merged, left behind."""

from mirror.serve.queries.question import IS_THEIRS, OWNER, Question, age, ago, days

_MERGED = """m.target_hash = b.target_hash or instr(m.target_parents, b.target_hash)
       or exists (select 1 from tags t where t.repository_id = r.id
                  and json_array_length(t.target_parents) > 1 and instr(t.target_parents, b.target_hash))
       or exists (select 1 from branches o where o.repository_id = r.id and o.name <> b.name
                  and json_array_length(o.target_parents) > 1 and instr(o.target_parents, b.target_hash))"""

QUESTIONS = {
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
