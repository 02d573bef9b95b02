"""Metrics of the file and of this process, in Prometheus' format, without names of repositories."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from webhook_client import NEW, OLD, WebhookClient

from mirror.observe.metrics import FileMetrics
from mirror.serve.middleware import kind_of
from mirror.serve.state import served
from mirror.store import Store
from mirror.store.files import open_reader
from mirror.store.runs import HIDDEN_MEMBERS, Failure, Failures, add_answers, finish_run, start_run


class Samples(dict[tuple[str, frozenset[str]], float]):
    """Metrics by name and label values, in any order."""

    def __getitem__(self, key: tuple[str, ...]) -> float:  # type: ignore[override]
        return super().__getitem__((key[0], frozenset(key[1:])))


def parsed(text: str) -> Samples:
    """Read metrics as Prometheus would: name and label values, to value."""
    found = Samples()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("bitbucket_mirror_")
            found[name, frozenset(sample.labels.values())] = sample.value
    return found


def scraped(hook: WebhookClient) -> Samples:
    """Ask the server for its metrics."""
    answer = hook.client.get("/-/metrics", headers=hook.authorization)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return parsed(answer.text)


def test_strangers_get_no_metrics_of_a_file_with_private_rows(hook: WebhookClient) -> None:
    """Totals count hidden rows; without private rows, they are shown."""
    hook.push(OLD, NEW)
    hook.client.get("/")
    text = hook.client.get("/-/metrics").text
    assert text.startswith("# Not all of the mirror is known to be public")
    assert {name for name, _ in parsed(text)} == {
        f"answer_seconds_{part}" for part in ("bucket", "count", "sum")
    }
    assert "webhook" not in text  # which would name the upstream, and tell of pushes to what is private
    told = scraped(hook)
    assert told["webhooks_total", "here", "taken"] == told["answer_seconds_count", "webhook", "2xx"] == 1
    with Store(hook.crawl.path) as store:
        store.connection.execute("UPDATE repositories SET is_private = 0")
    assert parsed(hook.client.get("/-/metrics").text)["rows", "repositories"] > 0


def test_metrics_include_runs_of_other_processes(hook: WebhookClient) -> None:
    """Requests, ends, rows, changes, age: as in the tables."""
    hook.push(OLD, NEW)
    found, crawl = scraped(hook), hook.crawl
    assert found["upstream_requests_total", "here", "api"] == crawl.one("SELECT sum(requests) FROM sync_runs")
    assert found["runs_total", "here", "full", "complete"] == 1
    assert found["rows", "branches"] == crawl.one("SELECT count(*) FROM branches")
    assert found["changes_total", "branch_moved"] == 1
    assert found["repositories", "here", "alive"] == crawl.one("SELECT count(*) FROM repositories")
    assert found["refs_waiting", "here"] == 1
    assert found["webhooks_total", "here", "taken"] == 1
    assert found["last_success_timestamp_seconds", "here"] > 0
    assert found["budget_used", "here"] >= 0


def test_missing_parts_are_counted_on_pages_and_in_metrics(hook: WebhookClient) -> None:
    """By kind, and apart from what is accepted."""
    with Store(hook.crawl.path) as store, store.transaction() as connection:
        for number, kind in enumerate(("page", "row", "row", HIDDEN_MEMBERS)):
            Failures(connection, 1).save(Failure(kind, f"jespern: {number}", "500"), hook.crawl.clock.now())
        Failures(connection, 1).accept(())
    found = scraped(hook)
    assert [found["failures_waiting", "here", kind] for kind in ("page", "row")] == [1, 2]
    assert found["failures_accepted", "here", HIDDEN_MEMBERS] == 1
    page = hook.client.get("/-/mirror-status", headers=hook.authorization).text
    assert ">3 missing: no sync is complete until they are found.<" in page
    assert ">1 is accepted as missing.<" in page
    with Store(hook.crawl.path) as store, store.transaction() as connection:
        connection.execute("UPDATE repositories SET is_private = 0")
        connection.execute("DELETE FROM sync_failures WHERE kind = 'row'")
    assert ">1 missing: no sync is complete until it is found.<" in hook.client.get("/-/mirror-status").text
    with Store(hook.crawl.path) as store, store.transaction() as connection:
        connection.execute("DELETE FROM sync_failures WHERE NOT accepted")
    assert "missing: no sync" not in hook.client.get("/-/mirror-status").text


def test_response_times_are_labelled_by_route(hook: WebhookClient) -> None:
    """By route and class of status, never by path."""
    hook.client.get("/1.0/repositories/ubernostrum/django-profiles")
    hook.client.get("/1.0/repositories/ubernostrum/nothing-here")
    hook.client.get("/-/search?q=django")
    hook.client.get("/mirror/repositories.json?_shape=array")
    found = scraped(hook)
    assert found["answer_seconds_count", "api1", "2xx"] == 1
    assert found["answer_seconds_count", "api1", "4xx"] == 1
    assert found["answer_seconds_count", "search", "2xx"] == 1
    assert found["answer_seconds_count", "table", "4xx"] == 1  # private rows, no token


def test_no_metric_names_a_repository_an_owner_or_an_address(hook: WebhookClient) -> None:
    """Whatever was requested, private or not."""
    hook.client.get("/1.0/repositories/ubernostrum/django-profiles")
    hook.client("POST", "/-/webhook/ubernostrum", content=b"{}")
    text = hook.client.get("/-/metrics").text
    names = {
        name for row in hook.crawl.rows("SELECT full_name FROM repositories") for name in row[0].split("/")
    }
    for name in names:
        assert f'"{name}"' not in text
    assert "http://" not in text


def test_upstream_responses_add_up(hook: WebhookClient) -> None:
    """Over runs, by status."""
    with closing(sqlite3.connect(hook.crawl.path)) as connection:
        for answers in ({200: 3, 429: 1}, {200: 2}):
            add_answers(connection, 1, answers, at="2026-11-23T12:00:00.000000Z")
        connection.commit()
    found = scraped(hook)
    assert found["upstream_answers_total", "here", "200"] == 5
    assert found["upstream_answers_total", "here", "429"] == 1


def test_freshness_has_quantiles(hook: WebhookClient) -> None:
    """Each repository counts: one large workspace decides the median, another one the maximum."""
    crawl = hook.crawl
    with closing(sqlite3.connect(crawl.path)) as connection:
        connection.execute(
            """UPDATE cursors SET value = json_set(value, '$.cursor', '2026-11-23T00:00:00.000000Z')
               WHERE stream = 'workspace:jespern'"""
        )
        connection.commit()
    metrics = FileMetrics(clock=crawl.clock.now)
    with closing(open_reader(crawl.path)) as connection:
        found = parsed(metrics.text(connection).decode())
    best, worst = found["freshness_seconds", "here", "0.5"], found["freshness_seconds", "here", "1"]
    assert best < worst
    assert worst > timedelta(hours=12).total_seconds()


def test_counters_of_runs_never_fall(hook: WebhookClient) -> None:
    """A run counts when it has ended; one during which the clock was set back took no time."""
    with Store(hook.crawl.path) as store, store.transaction() as connection:
        for ended in ("11", "08"):
            run = start_run(connection, 1, "retry", at="2026-11-29T10:00:00.000000Z")
            running = parsed(FileMetrics().text(connection).decode())
            assert not any("running" in labels for _, labels in running)
            at = f"2026-11-29T{ended}:00:00.000000Z"
            finish_run(connection, run, kind="retry", state="complete", at=at, counts={}, error=None)
        found = parsed(FileMetrics().text(connection).decode())
    assert found["runs_total", "here", "retry", "complete"] == 2
    assert found["run_seconds_total", "here", "retry", "complete"] == pytest.approx(3600)


def test_no_sync_is_missed_of_an_upstream_that_is_no_longer_configured(hook: WebhookClient) -> None:
    """Otherwise the alert on the last success would never end after an upstream was renamed."""
    for configured in ("here", "other"):
        served(hook.client.datasette).stale_after = {configured: 60.0}
        served(hook.client.datasette).file_metrics = FileMetrics()  # which keeps counts
        names = {name for name, _ in scraped(hook)}
        assert ("last_success_timestamp_seconds" in names) is (configured == "here")


def test_expensive_counts_are_cached(hook: WebhookClient) -> None:
    """After a count of two seconds, it is reused for ten seconds, and renewed after two minutes."""
    moments = iter([0.0, 2.0, 10.0, 120.0, 120.0])
    metrics = FileMetrics(clock=hook.crawl.clock.now, stopwatch=lambda: next(moments))
    counts = []
    for name in ("a", "b", "c"):
        with closing(open_reader(hook.crawl.path)) as connection:
            counts.append(parsed(metrics.text(connection).decode())["rows", "branches"])
        with closing(sqlite3.connect(hook.crawl.path)) as connection:
            connection.execute(
                "INSERT INTO branches (repository_id, name, target_hash) VALUES (1, ?, 'x')", (name,)
            )
            connection.commit()
    assert counts[0] == counts[1] == counts[2] - 2


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/1.0/x", "api1"),
        ("/!api/2.0/x", "api2"),
        ("/rest/api/1.0/projects", "datacenter"),
        ("/rest/api/latest/repos", "datacenter"),
        ("/-/search.json", "search"),
        ("/", "page"),
        ("/-/r/a/b", "page"),
        ("/mirror/repositories", "table"),
        ("/-/metrics", "watch"),
        ("/-/webhook/x", "webhook"),
        ("/1.00", "table"),
    ],
)
def test_paths_are_grouped(path: str, kind: str) -> None:
    """A few labels for any number of paths."""
    assert kind_of(path) == kind
