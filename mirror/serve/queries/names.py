"""Who has what under which name: parts of names, owners, languages."""

from mirror.serve.queries.question import Question

QUESTIONS = {
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
