"""What somebody who releases asks: which tags there are, where one is missing, which moved."""

from mirror.serve.queries.question import IS_THEIRS, OWNER, Question

_DATE = "coalesce(t.date, t.target_date)"

QUESTIONS = {
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
