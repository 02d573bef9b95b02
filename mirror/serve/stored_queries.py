"""The stored queries that Datasette offers on a mirror, and the questions about changes and the crawl."""

from mirror.queries.changes import TITLES, UNEXPECTED
from mirror.serve.repository_questions import CLEANING, IS_THEIRS, NAMES, OWNER, TAGS, Question, ago, days

CRAWLING = {
    "requests_by_day": Question(
        "Requests by day",
        "Requests of the crawl and its waiting time, for each day.",
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
        "Requests of each run and what it found. A run that finds nothing new should cost almost nothing.",
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
        "Requests of each credential in the last hour, its limit, and when the oldest of these requests "
        "stops counting.",
        """
select l.bucket, sum(l.requests) as used, m.requests_per_hour as hourly_limit,
       m.requests_per_hour - sum(l.requests) as left_over,
       strftime('%Y-%m-%dT%H:%M:%SZ', min(l.at) + 3601, 'unixepoch') as first_returns_at
from request_ledger l left join request_limits m on m.bucket = l.bucket
where l.at >= strftime('%s', 'now') - 3600
group by l.bucket order by used desc limit 1000""",
    ),
    "least_fresh": Question(
        "Least recently read",
        "Repositories in the order in which the mirror last read their branches and tags, those never read "
        "first.",
        """
select r.full_name, r.refs_synced_at, r.last_seen_at, r.updated_at, r.refs_stale as to_be_read_again
from repositories r not indexed where r.deleted_at is null
order by r.refs_synced_at is not null, r.refs_synced_at limit 1000""",
    ),
    "failures_waiting": Question(
        "Failures to be retried",
        "What could not be read, and when the mirror tries again.",
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
        "Changes that the mirror saw in the last days.",
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
        "All changes of one repository that the mirror saw, of its description and settings too, also under "
        "former names.",
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
        "Repositories that were renamed or moved to another owner: the former and the present name.",
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
        "Edited descriptions, settings and other details of repositories, before and after.",
        f"""
select c.at, r.full_name, c.old as before, c.new as after
from changes c join repositories r on r.id = c.repository_id
where c.kind = 'updated' and c.at >= {ago(365)} and r.deleted_at is null and {IS_THEIRS}
order by c.id desc limit 1000""",
        days(365) | OWNER,
    ),
    "shown_and_hidden": Question(
        "Made public or private",
        "Repositories whose visibility changed, latest first.",
        f"""
select c.at, r.full_name, c.kind, r.is_private as is_private_now
from changes c join repositories r on r.id = c.repository_id
where c.kind in ('made_public', 'made_private') and r.deleted_at is null and {IS_THEIRS}
order by c.id desc limit 1000""",
        OWNER,
    ),
    "gone": Question(
        "Gone repositories",
        "Repositories that the upstream no longer has, with the time and the reason. Their rows and refs are "
        "kept. Without a number of tags, they were never read.",
        f"""
select r.full_name, r.deleted_at, r.gone_reason, r.updated_at,
       iif(r.refs_synced_at is null, null,
           (select count(*) from tags t where t.repository_id = r.id)) as tags_kept
from repositories r
where r.deleted_at is not null and {IS_THEIRS}
order by r.deleted_at desc limit 1000""",
        OWNER,
    ),
}


def _unexpected(name: str, about: str) -> Question:
    """Return the question about one kind of unexpected changes."""
    return Question(
        TITLES[name],
        about,
        f"""
select c.at, r.full_name, c.ref, c.old, c.new, c.previous_look
from changes c join repositories r on r.id = c.repository_id
where {UNEXPECTED[name]} and {IS_THEIRS}
order by c.id desc limit 1000""",
        OWNER,
    )


SHOULD_NOT_MOVE = {
    "tags_moved": _unexpected("tag-moved", "Tags that point to another commit than before."),
    "tags_vanished": _unexpected("tag-gone", "Tags that were deleted, with the commit that they named."),
    "main_branches_moved": Question(
        "Moves of main branches",
        "Whether each push was forced: yes or no where a webhook reported it or the upstream was asked, else "
        "unknown.",
        f"""
select c.at, r.full_name, c.ref,
       case c.forced when 1 then 'yes' when 0 then 'no' else 'unknown' end as forced,
       c.old, c.new, c.previous_look
from changes c join repositories r on r.id = c.repository_id
where c.is_main = 1 and c.at >= {ago(30)} and {IS_THEIRS}
order by c.forced is 1 desc, c.id desc limit 1000""",
        days(30) | OWNER,
    ),
    "branches_lost": _unexpected(
        "branch-lost",
        "The commit may still be on another branch, below its newest one.",
    ),
    "repositories_gone": _unexpected(
        "repository-gone", "Those that the upstream has no more, when it was seen, and the reason."
    ),
    "repositories_made_public": _unexpected(
        "made-public", "Those that were private, with the time at which it was seen."
    ),
    "repositories_transferred": _unexpected(
        "transferred", "Those that went to another owner, with both full names."
    ),
}


MOVING = {
    "inventory": Question(
        "Inventory",
        "What a migration must know of each repository, by name; sizes in bytes. An empty cell is what is "
        "not known; webhooks are not mirrored.",
        f"""
select u.username as owner, r.project_key as project, r.slug, r.size,
       iif(r.is_private, 'private', 'public') as visibility,
       case r.archived when 1 then 'yes' when 0 then 'no' end as archived,
       r.main_branch as default_branch, b.target_date as last_push,
       iif(r.refs_synced_at is null, null,
           (select count(*) from branches where repository_id = r.id)) as branches,
       iif(r.refs_synced_at is null, null, (select count(*) from tags where repository_id = r.id)) as tags,
       r.forks_count as forks, coalesce(b.target_author, b.target_author_name) as last_author,
       null as webhooks
from repositories r join users u on u.id = r.owner_id
left join branches b on b.repository_id = r.id and b.name = (
    select name from branches where repository_id = r.id and target_date is not null
    order by target_date desc, name limit 1)
where r.deleted_at is null and {IS_THEIRS}
order by r.full_name collate nocase, r.id limit 1000""",
        OWNER,
    ),
}


# All questions, by subject.
GROUPS: dict[str, dict[str, Question]] = {
    "Cleaning up": CLEANING,
    "Tags and releases": TAGS,
    "Names, owners, languages": NAMES,
    "What happened": HAPPENED,
    "Unexpected changes": SHOULD_NOT_MOVE,
    "Moving away": MOVING,
    "The crawl": CRAWLING,
}

# All questions, by their names in addresses.
QUERIES = {name: question for group in GROUPS.values() for name, question in group.items()}
