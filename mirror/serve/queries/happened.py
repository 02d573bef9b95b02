"""What became of something: what the mirror saw change, under whatever name, and what is gone."""

from mirror.serve.queries.question import IS_THEIRS, OWNER, Question, ago, days

QUESTIONS = {
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
