"""What a run concludes from errors: which concern one object, and which all of the upstream."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sync_harness import crawling

from mirror.errors import CredentialsRefused, Paused, UpstreamBusy, UpstreamRefused
from mirror.store.runs import Failure
from mirror.sync.failures import RunFailures
from mirror.times import from_text


@pytest.fixture
def failures(tmp_path: Path) -> Iterator[RunFailures]:
    """The failures of a run that has asked nothing yet, and that may not wait long."""
    with crawling(tmp_path, synced=True) as (_, crawl), crawl.run(may_wait=False) as run:
        yield run.failures


@pytest.mark.parametrize("lost", [UpstreamBusy("lost"), UpstreamBusy("lost", status=503, retry_after=9e9)])
def test_the_third_lost_connection_in_a_row_ends_the_run(failures: RunFailures, lost: UpstreamBusy) -> None:
    """An answer in between starts the count anew; a refusal is one."""
    for _ in range(2):
        failures.isolate(lost)
    assert failures.isolate(UpstreamRefused("no", status=404)) == 404
    for _ in range(2):
        failures.isolate(lost)
    with pytest.raises(UpstreamBusy, match="lost"):
        failures.isolate(lost)


def test_a_run_without_any_answer_has_reached_nothing(failures: RunFailures) -> None:
    """The last lost connection is raised at its end, unless anything was answered."""
    failures.raise_if_unreachable()
    failures.isolate(UpstreamBusy("lost"))
    with pytest.raises(UpstreamBusy, match="lost"):
        failures.raise_if_unreachable()
    failures.upstream_answered()
    failures.raise_if_unreachable()


def test_what_concerns_all_of_the_upstream_is_raised(failures: RunFailures) -> None:
    """A 429 pauses the run, and a refused credential ends it; a 500 concerns one object."""
    assert failures.isolate(UpstreamBusy("busy", status=500)) == 500
    with pytest.raises(Paused):
        failures.isolate(UpstreamBusy("busy", status=429))
    with pytest.raises(CredentialsRefused):
        failures.isolate(CredentialsRefused("no"))


def test_what_failed_is_due_at_its_next_try(tmp_path: Path) -> None:
    """What never failed is not due; what is answered is no failure any more."""
    with crawling(tmp_path, synced=True) as (_, crawl), crawl.run() as run:
        assert not run.failures.is_due("workspace", "jespern")
        run.failures.add(Failure("workspace", "jespern", "it failed"))
        assert run.failures.waits("workspace", "jespern")
        assert (run.failures.subjects("workspace"), run.failures.subjects("row")) == ({"jespern"}, set())
        assert not run.failures.is_due("workspace", "jespern")
        (due,) = crawl.rows("SELECT next_try_at FROM sync_failures")
        crawl.clock.wait((from_text(due[0]) - run.now() + timedelta(seconds=1)).total_seconds())
        assert run.failures.is_due("workspace", "jespern")
        run.failures.answered("workspace", "jespern")
        assert (run.failures.found, crawl.rows("SELECT * FROM sync_failures")) == ([], [])
