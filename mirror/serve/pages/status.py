"""The state of the mirror: the status page, `/-/health` for watchdogs, `/-/metrics` for Prometheus."""

import asyncio
import contextlib
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from datasette.utils.asgi import Request, Response
from markupsafe import Markup
from prometheus_client import CONTENT_TYPE_LATEST

from mirror.errors import StoreError
from mirror.observe.health import Health, read_health
from mirror.queries import crawl as reads
from mirror.queries.crawl import Measure
from mirror.queries.status import BudgetLeft, budget_left
from mirror.search.find import one_snapshot
from mirror.serve.auth import ActorVisitor, caller_of
from mirror.serve.exchange import SAFETY, json_response, mirror_of, served_of
from mirror.serve.pages.home import numbers
from mirror.serve.pages.view import Visit
from mirror.store.files import open_reader
from mirror.store.ledger import reported_limits
from mirror.store.lock import is_syncing
from mirror.times import age_text, to_text, utc_now

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


WIDTH, HEIGHT = 600.0, 120
GAP = 0.22
FEW = 6
RECT = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')


# Text of charts is placed outside the SVG, so that it keeps its size on a phone. Colours come from the
# stylesheet by class, since the content security policy forbids inline styles.


class Bar(msgspec.Struct, frozen=True):
    """One bar: its label, its value, and a second value stacked on top."""

    label: str
    value: float
    more: float = 0.0
    tone: str = ""
    note: str = ""

    @property
    def total(self) -> float:
        """The sum of both values."""
        return self.value + self.more


def bar_chart(bars: Sequence[Bar], *, title: str, unit: str, height: int = HEIGHT) -> Markup:
    """Draw bars side by side."""
    top = max([bar.total for bar in bars], default=0.0) or 1.0
    step = WIDTH / max(len(bars), 1)
    shapes = list[Markup]()
    for number, bar in enumerate(bars):
        shapes += _column(bar, number * step + step * GAP / 2, step * (1 - GAP), top, height, unit)
    return _drawing(title, bars, shapes, height, unit)


def line_chart(points: Sequence[Bar], *, title: str, unit: str) -> Markup:
    """Draw values as a line above a filled area."""
    height = HEIGHT
    top = max([point.value for point in points] + [1.0])
    points = [*points, *points] if len(points) == 1 else points
    step = WIDTH / max(len(points) - 1, 1)
    shapes = list[Markup]()
    if points:
        path = " L".join(
            f"{_short(number * step)},{_short(height - height * point.value / top)}"
            for number, point in enumerate(points)
        )
        ground = Markup('<path class="ground" d="M0,{} L{} L{},{}Z"/>')
        line = Markup('<path class="line" d="M{}"/>')
        shapes = [ground.format(height, path, _short(WIDTH), height), line.format(path)]
    return _drawing(title, points, shapes, height, unit)


def gauge(part: float, whole: float, *, title: str) -> Markup:
    """Draw how much of a whole is used."""
    share = min(1.0, part / whole)
    tone = "bad" if share >= 0.98 else "warn" if share >= 0.8 else ""
    body = Markup(
        '<rect class="track" width="{w}" height="10"/><rect class="bar {t}" width="{s}" height="10"/>'
    ).format(w=WIDTH, t=tone, s=_short(WIDTH * share))
    return _svg(title, f"{part:,.0f} of {whole:,.0f}.", [body], 10, "gauge")


def _column(bar: Bar, x: float, width: float, top: float, height: int, unit: str) -> Iterator[Markup]:
    lower, upper = height * bar.value / top, height * bar.more / top
    yield Markup("<g><title>{}</title>").format(bar.note or f"{bar.label}: {_amount(bar.total, unit)}")
    yield Markup('<rect class="reach" x="{}" y="0" width="{}" height="{}"/>').format(
        _short(x), _short(width), height
    )
    if bar.value:
        lower = max(lower, 1.0)
        yield RECT.format(f"bar {bar.tone}", _short(x), _short(height - lower), _short(width), _short(lower))
    if bar.more:
        yield RECT.format(
            "bar second", _short(x), _short(height - lower - upper), _short(width), _short(max(upper, 1.0))
        )
    yield Markup("</g>")


def _drawing(title: str, bars: Sequence[Bar], shapes: list[Markup], height: int, unit: str) -> Markup:
    """Add the text around an SVG: the largest value above, the labels (three of many) below."""
    labels = [bar.label for bar in bars]
    is_many = len(labels) > FEW
    shown = [labels[0], labels[len(labels) // 2], labels[-1]] if is_many else labels
    summary, top = "Nothing yet.", 0.0  # the summary is for screen readers
    if bars:
        highest = max(bars, key=lambda bar: bar.total)
        top = highest.total
    if top:
        summary = (
            f"{len(bars)} values from {labels[0]} to {labels[-1]}. The highest is "
            f"{_amount(top, unit)}, {highest.label}; the last is {_short(bars[-1].total)}."
        )
    return Markup(
        '<div class="chart"><div class="top" aria-hidden="true">{}</div>{}'
        '<div class="axis{}" aria-hidden="true">{}</div></div>'
    ).format(
        _amount(top, unit),
        _svg(title, summary, shapes, height, "plot"),
        "" if is_many else " each",
        Markup().join(Markup("<span>{}</span>").format(label) for label in shown),
    )


def _svg(title: str, summary: str, shapes: list[Markup], height: int, name: str) -> Markup:
    key = "c-" + "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    return Markup(
        '<svg class="{n}" role="img" viewBox="0 0 {w} {h}" preserveAspectRatio="none" '
        'aria-labelledby="{k}-t {k}-d"><title id="{k}-t">{t}</title><desc id="{k}-d">{d}</desc>{s}</svg>'
    ).format(n=name, w=int(WIDTH), h=height, k=key, t=title, d=summary, s=Markup().join(shapes))


_ONE = {"repositories": "repository", "requests": "request", "minutes": "minute"}


def _amount(number: float, unit: str) -> str:
    """Write a number with its unit: ``1 request``, ``0.4 minutes``, ``1,200 requests``."""
    text = f"{number:,.0f}" if number >= 10 else _short(number)
    return f"{text} {_ONE[unit] if text == '1' else unit}"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


HEALTH = r"^/-/health$"
METRICS = r"^/-/metrics$"


async def health(request: Request) -> Response:
    """Answer 200, or 503 with the reasons that the caller may know."""
    server, mirror = served_of(request), mirror_of(request)
    caller = caller_of(request.actor, mirror.name if mirror else "")

    def read(connection: sqlite3.Connection, path: Path) -> Health:
        return read_health(
            connection,
            path,
            utc_now(),
            patience=server.stale_after,
            is_copy=server.config.read_only,
            caller=caller,
        )

    found = await _from_file(request, read)
    if found is None:
        found = Health(status="unwell", reasons=["no mirror can be read"], warnings=[])
    status = 200 if found.status == "ok" else 503
    return json_response(found, _HEADERS, status=status, content_type="application/json")


async def metrics(request: Request) -> Response:
    """Answer with the metrics of this process, and of the file if the caller may count private rows."""
    server, mirror, visitor = served_of(request), mirror_of(request), ActorVisitor(request.actor)
    name = mirror.name if mirror else ""

    def read(connection: sqlite3.Connection, path: Path) -> bytes:
        with one_snapshot(connection):
            if not visitor.sees_all(name) and visitor.lacks(connection, name):
                return _CLOSED
            return server.file_metrics.text(
                connection,
                server.limits(connection),
                configured=server.stale_after,
                syncing=is_syncing(path),
            )

    text = await _from_file(request, read) or b""
    # Webhooks are counted for private repositories too, and named by their upstreams.
    text += server.latencies.text(with_webhooks=text not in (b"", _CLOSED))
    return Response(text, headers=_HEADERS, content_type=CONTENT_TYPE_LATEST)


async def _from_file(request: Request, read: Callable[[sqlite3.Connection, Path], Any]) -> Any:
    """Read the mirror in a thread, on a connection of its own: those of Datasette have a time limit.

    Returns None if no mirror can be read.
    """
    mirror = mirror_of(request)
    if mirror is None:
        return None
    path = Path(mirror.path)

    def work() -> Any:
        with contextlib.closing(open_reader(path)) as connection:
            return read(connection, path)

    try:
        return await asyncio.to_thread(work)
    except StoreError:
        return None


MONITORING = [(HEALTH, health), (METRICS, metrics)]
_CLOSED = b"# Not all of the mirror is known to be public: the metrics of its file need a token of its own.\n"
_HEADERS = {**SAFETY, "Cache-Control": "no-store"}
