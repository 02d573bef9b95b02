"""The status page: the crawl in charts, each with a link to its SQL."""

import asyncio
import re
import sqlite3
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from datasette.utils.asgi import Response

from mirror.queries import crawl as reads
from mirror.queries.crawl import Measure
from mirror.queries.status import BudgetLeft, budget_left
from mirror.serve.exchange import served_of
from mirror.serve.pages.charts import Bar, bar_chart, gauge, line_chart
from mirror.serve.pages.home import numbers
from mirror.serve.pages.view import Visit
from mirror.store.ledger import reported_limits
from mirror.times import age_text, to_text

MINUTES, DAYS = 60, 30
AGES = ("within an hour", "a day", "a week", "30 days", "longer ago")

Chart = dict[str, Any]


async def status_page(visit: Visit) -> Response:
    """GET /-/mirror-status: the requests of the crawl, the freshness and growth of the mirror, failures.

    Numbers of requests include those for private repositories, so only visitors with access to tables see
    them.
    """

    def work(connection: sqlite3.Connection) -> dict[str, Any]:
        is_open = visit.is_open_in(connection)
        context: dict[str, Any] = {
            "upstreams": visit.standing(connection),
            "failures": reads.failures(connection, visit.caller),
            "missing": reads.missing(connection, visit.caller, is_open=is_open),
        }
        if is_open:
            context |= {
                "budgets": _budgets(connection, visit),
                "days": _days(connection, visit),
                "runs": reads.runs(connection, visit.caller, syncing=visit.syncing),
            }
        return context

    context = await visit.read(work)
    counted, context["freshness"], context["growth"] = await asyncio.gather(
        numbers(visit),
        visit.count("freshness", lambda connection: _freshness(connection, visit)),
        visit.count("growth", lambda connection: _growth(connection, visit)),
    )
    context |= counted | {"refresh": visit.refresh, "still": "still" in visit.parameters}
    return await visit.page("mirror_status.html", context)


def _budgets(connection: sqlite3.Connection, visit: Visit) -> list[Chart]:
    """Draw the requests of the last hour for each credential, by minute.

    The limits are those in force, as in `mirror status` and the metrics. An account that no configured
    upstream has gets the limit that its upstream reported.
    """
    since = int(visit.now.timestamp()) - MINUTES * 60
    hour = reads.measure(connection, reads.HOUR, since=since)
    limits = reported_limits(connection) | dict(served_of(visit.request).limits(connection).values())
    used = defaultdict[str, dict[int, int]](dict)
    for row in hour.rows:
        used[row["bucket"]][row["minute"]] = row["requests"]
    return [
        _budget(
            visit, hour, bucket, used[bucket], budget_left(connection, visit.now, bucket, limits.get(bucket))
        )
        for bucket in sorted({*used, *(bucket for bucket, limit in limits.items() if limit)})
    ]


def _budget(visit: Visit, hour: Measure, bucket: str, by_minute: dict[int, int], left: BudgetLeft) -> Chart:
    first = datetime.fromtimestamp(hour.values["since"], UTC)
    bars = [
        Bar(f"{first + timedelta(minutes=minute):%H:%M} UTC", by_minute.get(minute, 0))
        for minute in range(MINUTES + 1)
    ]
    title = f"Requests of the last hour of {bucket}"
    return {
        "bucket": bucket,
        "left": left,
        "gauge": gauge(left.used, left.limit, title=title) if left.limit else None,
        "svg": bar_chart(bars, title=f"Requests per minute of {bucket}", unit="requests", height=70),
        "sql": visit.links.sql(hour.sql, **hour.values),
    }


def _days(connection: sqlite3.Connection, visit: Visit) -> Chart:
    """Draw the requests and the waiting time of the last days."""
    first = (visit.now - timedelta(days=DAYS - 1)).date()
    days = [str(first + timedelta(days=number)) for number in range(DAYS)]
    asked = reads.measure(connection, reads.DAYS, since=f"{first}T")
    by_day = {row["day"]: row for row in asked.rows}
    requests, waits = list[Bar](), list[Bar]()
    for day in days:
        row = by_day.get(day) or {"requests": 0, "git_requests": 0, "waited_seconds": 0.0}
        note = f"{day}: {row['requests']:,} API requests, {row['git_requests']:,} git requests"
        requests.append(Bar(day, row["requests"], row["git_requests"], note=note))
        waited = row["waited_seconds"] or 0.0
        waits.append(Bar(day, waited / 60, tone="warn", note=f"{day}: {age_text(waited)} of waiting"))
    return {
        "requests": bar_chart(requests, title="Requests per day", unit="requests"),
        "waits": bar_chart(waits, title="Minutes of waiting per day", unit="minutes"),
        "total": sum(bar.total for bar in requests),
        "waited": age_text(sum(bar.value for bar in waits) * 60) if any(bar.value for bar in waits) else "",
        "has_git": any(bar.more for bar in requests),
        "sql": visit.links.sql(asked.sql, **asked.values),
    }


def _freshness(connection: sqlite3.Connection, visit: Visit) -> Chart:
    """Draw how long ago repositories were last seen, and how many have refs to be read."""
    moments = {
        name: to_text(visit.now - age)
        for name, age in (
            ("hour", timedelta(hours=1)),
            ("day", timedelta(days=1)),
            ("week", timedelta(days=7)),
            ("month", timedelta(days=30)),
        )
    }
    found = reads.measure_visible(connection, visit.caller, reads.FRESHNESS, **moments)
    by_age = {row["age"]: row for row in found.rows}
    bars = list[Bar]()
    for number, label in enumerate(AGES):
        row = by_age.get(number) or {"repositories": 0, "refs_waiting": 0}
        note = f"{label}: {row['repositories']:,}, and {row['refs_waiting']:,} with refs to be read"
        bars.append(Bar(label, row["repositories"], row["refs_waiting"], note=note))
    return {
        "svg": bar_chart(bars, title="Repositories by when they were last seen", unit="repositories"),
        "bars": bars,
        "waiting": any(bar.more for bar in bars),
        "sql": visit.links.sql(found.sql, **found.values),
    }


def _growth(connection: sqlite3.Connection, visit: Visit) -> Chart:
    """Draw how many repositories existed, by year, or by month if they are all young."""
    found = reads.measure_visible(connection, visit.caller, reads.GROWTH, letters=4)
    if len(found.rows) < 4:
        found = reads.measure_visible(connection, visit.caller, reads.GROWTH, letters=7)
    created = {row["period"]: row["created"] for row in found.rows}
    total, points = 0, list[Bar]()
    for period in _periods(sorted(created), visit.now):
        total += created.get(period, 0)
        points.append(Bar(period, total))
    return {
        "svg": line_chart(points, title="Number of repositories over time", unit="repositories"),
        "total": total,
        "sql": visit.links.sql(found.sql, **found.values),
    }


def _periods(known: list[str], now: datetime) -> list[str]:
    """Return all years, or all months, from the first one to now."""
    if not known or not all(re.fullmatch(r"\d{4}(-\d{2})?", one) for one in known):
        return known
    if len(known[0]) == 4:
        return [f"{year:04}" for year in range(int(known[0]), max(int(known[-1]), now.year) + 1)]
    start, end = (int(one[:4]) * 12 + int(one[5:]) - 1 for one in (known[0], known[-1]))
    months = range(start, max(end, now.year * 12 + now.month - 1) + 1)
    return [f"{month // 12:04}-{month % 12 + 1:02}" for month in months]
