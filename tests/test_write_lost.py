"""Writes with a lost answer on a real connection: sent once, then the upstream is asked for the outcome."""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from write_harness import WriteHarness, writable

from mirror.errors import Interrupted, OutcomeUnknown, StoreError, UpstreamBusy, UpstreamRefused
from mirror.model import RepositorySettings
from mirror.sandbox import Fault, visible_repositories
from mirror.times import utc_now
from mirror.write import PassThrough

IDEA = RepositorySettings(name="idea", scm="git", description="An idea")
PISTON = "jespern/django-piston"

DONE_BUT_LOST = [Fault("truncate"), Fault("invalid_json"), Fault("slow", seconds=1.2)]
NOT_DONE_AND_LOST = [
    Fault("drop"),
    Fault("reset"),
    Fault("hang"),
    Fault("html"),
    Fault("nonsense"),
    Fault("502"),
]


def named(fault: Fault) -> str:
    return fault.what


def at(fault: Fault, nth: int) -> Fault:
    """Apply a fault to the nth request for a repository."""
    return Fault(fault.what, where="*/repositories/*", nth=nth, seconds=fault.seconds)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[WriteHarness]:
    """A mirrored sandbox."""
    with writable(tmp_path) as found:
        yield found


def sent(made: WriteHarness) -> int:
    """Count the writes that arrived: each tries to create a repository of its own."""
    return sum("idea" in row["slug"] for row in visible_repositories(made.sandbox.world))


@pytest.mark.parametrize("fault", DONE_BUT_LOST, ids=named)
def test_a_creation_with_a_lost_answer_is_found(made: WriteHarness, fault: Fault) -> None:
    """By its name, and shown as if the answer had arrived."""
    made.sandbox.add_fault(at(fault, 1))
    row = made.writes.create("jespern", IDEA, by="x")
    assert row.uuid == made.upstream("jespern/idea")["uuid"]
    assert made.asked() == 2
    assert made.row("jespern/idea") is not None
    assert made.written() == [("x", "create", "jespern/idea", "done")]


@pytest.mark.parametrize("fault", NOT_DONE_AND_LOST, ids=named)
def test_a_failed_creation_with_a_lost_answer_is_reported(made: WriteHarness, fault: Fault) -> None:
    """It is not repeated; error and audit say what is known."""
    before = made.rows("SELECT * FROM repositories")
    made.sandbox.add_fault(at(fault, 1))
    with pytest.raises(OutcomeUnknown, match=r"(?s)jespern/idea.*not been done so far.*check before"):
        made.writes.create("jespern", IDEA, by="x")
    assert made.asked() == 2
    assert sent(made) == 0
    assert made.rows("SELECT * FROM repositories") == before
    assert made.changes() == []
    assert made.written() == [("x", "create", "jespern/idea", "unknown")]


def test_what_somebody_else_made_meanwhile_is_not_taken_for_ours(made: WriteHarness) -> None:
    """Nobody may push to a public namesake what was meant for a private repository."""
    made.sandbox.add_fault(at(Fault("502"), 1))
    made.sandbox.do("create", "jespern/idea", is_private=False, description="Theirs")
    with pytest.raises(
        OutcomeUnknown, match=r"(?s)may have been done.*not as it was asked for.*before you repeat"
    ):
        made.writes.create("jespern", IDEA, by="x")
    assert made.row("jespern/idea") is None
    assert made.written() == [("x", "create", "jespern/idea", "unknown")]


@pytest.mark.parametrize("status", ["500", "503"])
def test_a_failing_server_is_reported(made: WriteHarness, status: str) -> None:
    """A 5xx is checked too; without an effect, nothing is left behind."""
    before = made.contents()
    made.sandbox.add_fault(at(Fault(status), 1))
    with pytest.raises(UpstreamBusy, match="was not done") as caught:
        made.writes.create("jespern", IDEA, by="x")
    assert caught.value.status == int(status)
    assert made.asked() == 2
    assert made.contents() == before


@pytest.mark.parametrize("status", ["501", "505", "511", "405"])
def test_a_request_that_was_not_begun_is_refused(made: WriteHarness, status: str) -> None:
    """It was certainly not done, so nothing is looked up, and nothing is left behind."""
    before = made.contents()
    made.sandbox.add_fault(at(Fault(status), 1))
    with pytest.raises(UpstreamRefused, match=status) as caught:
        made.writes.create("jespern", IDEA, by="x")
    assert (caught.value.status, made.asked()) == (int(status), 1)
    assert made.contents() == before


def test_a_write_that_is_half_done_is_not_called_undone(made: WriteHarness) -> None:
    """One of two settings was changed when the server failed."""
    real = httpx.HTTPTransport(verify=False)

    def fail(request: httpx.Request) -> httpx.Response:
        if request.method != "PUT":
            return real.handle_request(request)
        made.sandbox.do("edit", PISTON, fields={"description": "now"})
        return httpx.Response(500)

    writes = PassThrough(made.config, environ=made.environ, transport=httpx.MockTransport(fail))
    wanted = RepositorySettings(description="now", website="https://example.org/now")
    half = "it changed in description, but not in all that was asked for"
    with real, pytest.raises(OutcomeUnknown, match=half):
        writes.update(PISTON, wanted, by="x")
    assert made.written() == [("x", "update", PISTON, "unknown")]


def test_ctrl_c_during_a_write_says_that_it_may_be_done(made: WriteHarness) -> None:
    """And so does the audit."""

    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    made.writes = PassThrough(made.config, environ=made.environ, transport=httpx.MockTransport(interrupt))
    with pytest.raises(Interrupted, match="create of jespern/idea may have been requested and done"):
        made.writes.create("jespern", IDEA, by="x")
    assert made.written() == [("x", "create", "jespern/idea", "unknown")]


def test_an_interrupted_write_is_shown_or_audited_whenever_it_was_interrupted(tmp_path: Path) -> None:
    """Also between the answer and the row of it."""
    left, done = 0, set[tuple[str, ...]]()
    while True:
        folder = tmp_path / str(left)
        folder.mkdir()
        with writable(folder) as made:
            ticks = iter(range(left, -1, -1))

            def clock(ticks: Iterator[int] = ticks) -> datetime:
                if next(ticks, None) == 0:
                    raise KeyboardInterrupt
                return utc_now()

            try:
                PassThrough(made.config, environ=made.environ, clock=clock).create("jespern", IDEA, by="x")
            except (KeyboardInterrupt, Interrupted):
                outcomes = tuple(outcome for *_, outcome in made.written())
                assert made.upstream("jespern/idea") is None or outcomes
                assert made.row("jespern/idea") is None or "done" in outcomes
                done.add(outcomes)
            else:
                break
        left += 1
    assert {(), ("unknown",)} <= done


def test_a_write_whose_process_ends_meanwhile_is_audited(made: WriteHarness) -> None:
    """It is recorded before it is requested; so is one during which the mirror cannot be written any more."""
    seen = []

    def lose(_: httpx.Request) -> httpx.Response:
        seen.extend(made.written())
        made.path.rename(made.path.with_name("moved.db"))
        raise httpx.ReadError("lost")

    made.writes = PassThrough(made.config, environ=made.environ, transport=httpx.MockTransport(lose))
    with pytest.raises(OutcomeUnknown, match="may have been done"):
        made.writes.create("jespern", IDEA, by="x")
    assert seen == [("x", "create", "jespern/idea", "unknown")]


def test_a_write_that_cannot_be_counted_is_not_requested(made: WriteHarness) -> None:
    """And the error says so."""

    def never(_: httpx.Request) -> httpx.Response:
        raise AssertionError

    made.writes = PassThrough(made.config, environ=made.environ, transport=httpx.MockTransport(never))
    refuse_rows(made, "request_ledger")
    with pytest.raises(UpstreamBusy, match="creating jespern/idea was not requested"):
        made.writes.create("jespern", IDEA, by="x")


def test_a_write_that_cannot_be_recorded_is_not_requested(made: WriteHarness) -> None:
    """And the error says so, too."""
    refuse_rows(made, "writes")
    with pytest.raises(StoreError, match=r"disk is full.*the create of jespern/idea was not requested"):
        made.writes.create("jespern", IDEA, by="x")
    assert made.asked() == 0


def test_a_limit_that_cannot_be_saved_does_not_lose_the_answer(made: WriteHarness) -> None:
    """The answer that reports it may be that of a write, which would be called not requested."""
    refuse_rows(made, "request_limits")
    real = httpx.HTTPTransport(verify=False)

    def limited(request: httpx.Request) -> httpx.Response:
        answer = real.handle_request(request)
        answer.headers["X-RateLimit-Limit"] = "777"
        return answer

    writes = PassThrough(made.config, environ=made.environ, transport=httpx.MockTransport(limited))
    with real:
        writes.create("jespern", IDEA, by="x")
    assert made.row("jespern/idea") is not None
    assert made.written() == [("x", "create", "jespern/idea", "done")]


def refuse_rows(made: WriteHarness, table: str) -> None:
    """Let no new row into a table, as a full disk would."""
    with sqlite3.connect(made.path) as file:
        file.execute(
            f"""CREATE TRIGGER full_disk BEFORE INSERT ON {table}
                BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"""
        )


def test_an_unreachable_upstream_is_reported(made: WriteHarness) -> None:
    """If the check fails too, the error says both."""
    made.sandbox.add_fault(Fault("drop", where="*/repositories/*", nth=None))
    with pytest.raises(OutcomeUnknown, match=r"(?s)may have been done.*A look-up did not settle that"):
        made.writes.create("jespern", IDEA, by="x")
    assert made.asked() == 4  # the write, and three looks
    assert made.row("jespern/idea") is None


def test_a_refused_connection_is_reported(tmp_path: Path) -> None:
    """Without a connection the write was certainly not done, and the error says so."""
    with writable(tmp_path) as made:
        pass
    before = made.contents()
    with pytest.raises(UpstreamBusy, match=r"cannot connect.*creating jespern/idea was not requested"):
        made.writes.create("jespern", IDEA, by="x")
    assert made.contents() == before


def test_a_name_taken_before_is_not_called_created(made: WriteHarness) -> None:
    """A repository that the mirror knew is not the new one."""
    made.sandbox.add_fault(at(Fault("drop"), 1))
    with pytest.raises(UpstreamRefused, match="there is a repository jespern/arriving already"):
        made.writes.create("jespern", RepositorySettings(name="arriving"), by="x")
    assert made.written() == []


def test_a_name_taken_meanwhile_is_not_called_created(tmp_path: Path) -> None:
    """Nor is an unknown one that is years old."""
    with writable(tmp_path, workspaces=("jespern",)) as made:
        made.sandbox.add_fault(at(Fault("drop"), 1))
        settings = RepositorySettings(name="codeigniter")
        with pytest.raises(UpstreamRefused, match="there is a repository mcatalbas/codeigniter already"):
            made.writes.create("mcatalbas", settings, by="x", upstream="s")


@pytest.mark.parametrize("fault", DONE_BUT_LOST, ids=named)
def test_an_update_with_a_lost_answer_is_found(made: WriteHarness, fault: Fault) -> None:
    """A rename is found by identity."""
    made.sandbox.add_fault(at(fault, 2))
    row = made.writes.update(PISTON, RepositorySettings(name="New Piston", has_wiki=True), by="x")
    assert row.full_name == "jespern/new-piston"
    assert made.row("jespern/new-piston") is not None
    assert made.asked() == 3


@pytest.mark.parametrize("fault", NOT_DONE_AND_LOST, ids=named)
def test_a_failed_update_with_a_lost_answer_is_reported(made: WriteHarness, fault: Fault) -> None:
    """The mirror does not change, and nothing is sent twice."""
    before = made.rows("SELECT * FROM repositories")
    made.sandbox.add_fault(at(fault, 2))
    with pytest.raises(OutcomeUnknown, match="updating jespern/django-piston"):
        made.writes.update(PISTON, RepositorySettings(name="New Piston"), by="x")
    assert made.asked() == 3
    assert made.rows("SELECT * FROM repositories") == before


NO_WEBSITE = "jespern/jespern-jekyll"


@pytest.mark.parametrize("fault", [Fault("500"), *NOT_DONE_AND_LOST], ids=named)
def test_empty_values_that_stayed_empty_mean_not_updated(made: WriteHarness, fault: Fault) -> None:
    """Null means no website, so the lost update was not done."""
    before = made.upstream(NO_WEBSITE)
    assert before["website"] is None
    made.sandbox.add_fault(at(fault, 2))
    with pytest.raises((UpstreamBusy, OutcomeUnknown), match="updating jespern/jespern-jekyll"):
        made.writes.update(NO_WEBSITE, RepositorySettings(website="https://example.org/lost"), by="x")
    assert made.upstream(NO_WEBSITE) == before
    assert ("x", "update", NO_WEBSITE, "done") not in made.written()


def test_emptied_values_mean_updated(made: WriteHarness) -> None:
    """Null and an empty text are the same."""
    made.sandbox.add_fault(at(Fault("truncate"), 2))
    made.writes.update(NO_WEBSITE, RepositorySettings(website=""), by="x")
    assert made.written() == [("x", "update", NO_WEBSITE, "done")]


@pytest.mark.parametrize("fault", [Fault("slow", seconds=1.2)], ids=named)
def test_a_deletion_with_a_lost_answer_is_found(made: WriteHarness, fault: Fault) -> None:
    """A missing repository was deleted."""
    made.sandbox.add_fault(at(fault, 2))
    made.writes.delete(PISTON, by="x")
    assert made.changes() == [("deleted", PISTON, "deleted")]


@pytest.mark.parametrize("fault", [Fault("drop"), Fault("hang"), Fault("504"), Fault("html")], ids=named)
def test_a_failed_deletion_with_a_lost_answer_is_reported(made: WriteHarness, fault: Fault) -> None:
    """An existing repository is not called deleted."""
    made.sandbox.add_fault(at(fault, 2))
    with pytest.raises(OutcomeUnknown, match="deleting jespern/django-piston"):
        made.writes.delete(PISTON, by="x")
    assert made.changes() == []
    row = made.row(PISTON)
    assert row is not None
    assert row["deleted_at"] is None


@pytest.mark.parametrize("fault", DONE_BUT_LOST, ids=named)
def test_a_fork_with_a_lost_answer_is_found(made: WriteHarness, fault: Fault) -> None:
    """Under its new owner."""
    made.sandbox.add_fault(at(fault, 2))
    row = made.writes.fork(PISTON, "erik", RepositorySettings(name="copy"), by="x")
    assert row.full_name == "erik/copy"
    here = made.row("erik/copy")
    assert here is not None
    assert here["parent_full_name"] == PISTON
    assert made.asked() == 3


def test_a_failed_fork_with_a_lost_answer_is_reported(made: WriteHarness) -> None:
    """There is no fork; a namesake that is no fork does not count."""
    made.sandbox.add_fault(at(Fault("drop"), 2))
    with pytest.raises(OutcomeUnknown, match="forking jespern/django-piston as erik/copy"):
        made.writes.fork(PISTON, "erik", RepositorySettings(name="copy"), by="x")
    made.sandbox.do("create", workspace="erik", name="copy")
    made.sandbox.clear_faults()
    made.sandbox.add_fault(at(Fault("drop"), 2))
    with pytest.raises(UpstreamRefused, match="there is a repository erik/copy already"):
        made.writes.fork("jespern/arriving", "erik", RepositorySettings(name="copy"), by="x")
    assert made.row("erik/copy") is None


def test_a_short_429_is_waited_out(made: WriteHarness) -> None:
    """A write refused by 429 was not done, so it is sent again."""
    made.sandbox.add_fault(Fault("429", where="*/repositories/*", retry_after="1"))
    assert made.writes.create("jespern", IDEA, by="x").full_name == "jespern/idea"
    assert sent(made) == 1


def test_a_long_429_is_reported(made: WriteHarness) -> None:
    """Writes do not wait for a minute: the error says when, and nothing was done."""
    before = made.rows("SELECT * FROM repositories")
    made.sandbox.add_fault(Fault("429", where="*/repositories/*", retry_after="60"))
    with pytest.raises(UpstreamBusy, match="nothing was changed") as caught:
        made.writes.create("jespern", IDEA, by="x")
    assert caught.value.status == 429
    assert caught.value.retry_after is not None
    assert 55 < caught.value.retry_after <= 61
    assert made.asked() == 1
    assert made.rows("SELECT * FROM repositories") == before
