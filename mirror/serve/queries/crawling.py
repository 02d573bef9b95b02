"""How the crawl does: what it spent, what it could not read, what it has not looked at for long."""

from mirror.serve.queries.question import Question, ago, days

QUESTIONS = {
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
