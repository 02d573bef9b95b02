"""Refused writes, by the upstream or before any request: typed errors, clear words, no effect."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from write_harness import SECRET, WriteHarness, writable

from mirror.config import Config
from mirror.errors import (
    ConfigError,
    CredentialsRefused,
    MirrorError,
    NotFound,
    StoreError,
    UpstreamBusy,
    UpstreamRefused,
)
from mirror.model import RepositorySettings
from mirror.sandbox import Fault
from mirror.store import Store

PISTON = "jespern/django-piston"
Write = Callable[[WriteHarness], object]

WRITES: dict[str, Write] = {
    "create": lambda made: made.writes.create("jespern", RepositorySettings(name="idea"), by="x"),
    "update": lambda made: made.writes.update(PISTON, RepositorySettings(description="new"), by="x"),
    "delete": lambda made: made.writes.delete(PISTON, by="x"),
    "fork": lambda made: made.writes.fork(PISTON, "erik", RepositorySettings(name="copy"), by="x"),
}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[WriteHarness]:
    """A mirrored sandbox."""
    with writable(tmp_path) as found:
        yield found


@pytest.fixture(params=WRITES)
def write(request: pytest.FixtureRequest) -> Write:
    """Every sort of write."""
    return WRITES[request.param]


def nth_of(write: Write) -> int:
    """Return which request for a repository is the write."""
    return 1 if write is WRITES["create"] else 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UpstreamRefused),
        (401, CredentialsRefused),
        (403, UpstreamRefused),
        (404, UpstreamRefused),
        (409, UpstreamRefused),
        (410, UpstreamRefused),
    ],
)
def test_a_refusal_leaves_no_trace(
    made: WriteHarness, write: Write, status: int, kind: type[MirrorError]
) -> None:
    """The error has the right type, with one request; the mirror is the same to the last byte."""
    before = made.contents()
    made.sandbox.add_fault(Fault(str(status), where="*/repositories/*", nth=nth_of(write)))
    with pytest.raises(kind, match=str(status)) as caught:
        write(made)
    assert getattr(caught.value, "status", 401) == status
    assert made.asked() == nth_of(write)
    assert made.contents() == before


def test_a_refusal_leaves_no_upstream_that_was_never_mirrored(made: WriteHarness) -> None:
    """A row without contents would make the file unwell."""
    other = msgspec.structs.replace(made.config.upstreams[0], name="other")
    made.writes = made.writer(msgspec.structs.replace(made.config, upstreams=(other,)))
    before = made.contents()
    with pytest.raises(UpstreamRefused):
        made.writes.create("jespern", RepositorySettings(name="arriving"), by="x", upstream="other")
    assert made.contents() == before


def test_a_duplicate_keeps_the_upstreams_words(made: WriteHarness) -> None:
    """400 with the field and Bitbucket's message."""
    with pytest.raises(UpstreamRefused, match=r"400: .*already exists.*name: ") as caught:
        made.writes.create("jespern", RepositorySettings(name="arriving"), by="x")
    assert caught.value.status == 400
    assert made.changes() == []


def test_a_rename_to_a_taken_name_is_refused(made: WriteHarness) -> None:
    """Both keep their names."""
    with pytest.raises(UpstreamRefused, match="already exists"):
        made.writes.update(PISTON, RepositorySettings(name="arriving"), by="x")
    assert made.row(PISTON) is not None


def test_missing_rights_are_reported(tmp_path: Path) -> None:
    """403 with the missing scope."""
    with writable(tmp_path, "mcatalbas:sandbox") as made:
        with pytest.raises(UpstreamRefused, match="lacks the scope repository:admin") as caught:
            made.writes.create("erik", RepositorySettings(name="idea"), by="x")
        assert caught.value.status == 403


def test_a_wrong_secret_is_reported(tmp_path: Path, write: Write) -> None:
    """Refused once, not retried, and in no message or row."""
    secret = "wrong-secret-9071"
    with writable(tmp_path, f"jespern:{secret}") as made:
        before = made.contents()
        with pytest.raises(CredentialsRefused) as caught:
            write(made)
        assert secret not in str(caught.value)
        assert made.asked() == 1
        assert made.contents() == before


def test_secrets_are_in_no_row_and_no_error(tmp_path: Path) -> None:
    """Although the sandbox writes logins into addresses."""
    with writable(tmp_path, "jespern@example.com:sandbox") as made:
        for name in ("create", "update", "fork", "delete"):
            WRITES[name](made)
        dump = made.contents()
        assert "://jespern" not in dump
        assert f":{SECRET}" not in dump
        assert "amVzcGVybkBleGFtcGxlLmNvbTpzYW5kYm94" not in dump


def test_an_anonymous_upstream_refuses_writes(made: WriteHarness, write: Write) -> None:
    """Without a credential, before any request."""
    made.writes = made.writer(made.with_credential(None))
    with pytest.raises(ConfigError, match=r"upstream s has no credential.*set `credential"):
        write(made)
    assert made.asked() == 0


def test_a_missing_credential_is_reported(made: WriteHarness, write: Write) -> None:
    """The variable that is missing is named."""
    made.environ.clear()
    with pytest.raises(ConfigError, match="TOKEN is not set"):
        write(made)
    assert made.asked() == 0


def test_an_unknown_owner_is_refused(made: WriteHarness) -> None:
    """With a remedy; a configured owner needs no sync first."""
    with pytest.raises(NotFound, match=r"hold nobody: name it in `workspaces`.*--upstream \(s\)"):
        made.writes.create("nobody", RepositorySettings(name="idea"), by="x")
    named = msgspec.structs.replace(made.config.upstreams[0], workspaces=("1team",))
    writes = made.writer(msgspec.structs.replace(made.config, upstreams=(named,)))
    assert writes.create("1TEAM", RepositorySettings(name="idea"), by="x").full_name == "1team/idea"


def test_an_unknown_repository_is_refused(made: WriteHarness) -> None:
    """Also one that is gone in the mirror."""
    made.writes.delete("jespern/arriving", by="x")
    for name in ("jespern/nothing", "jespern/arriving"):
        with pytest.raises(NotFound, match=f"no repository {name}; `mirror sync`"):
            made.writes.delete(name, by="x")


def two_upstreams(made: WriteHarness) -> Config:
    """Configure the same sandbox twice."""
    first = made.config.upstreams[0]
    return msgspec.structs.replace(
        made.config, upstreams=(first, msgspec.structs.replace(first, name="t", workspaces=("jespern",)))
    )


def test_an_owner_of_two_upstreams_is_refused(made: WriteHarness) -> None:
    """The user must choose one, which is used then."""
    writes = made.writer(two_upstreams(made))
    with pytest.raises(ConfigError, match="jespern is in s and in t; say which one with --upstream"):
        writes.create("jespern", RepositorySettings(name="idea"), by="x")
    writes.create("jespern", RepositorySettings(name="idea"), by="x", upstream="t")
    names = "SELECT u.name FROM repositories r JOIN upstreams u ON u.id = r.upstream_id WHERE slug = 'idea'"
    assert made.rows(names) == [("t",)]
    with pytest.raises(ConfigError, match=r"unknown upstream 'v' \(configured: s, t\)"):
        writes.create("jespern", RepositorySettings(name="idea"), by="x", upstream="v")


def test_a_repository_of_two_upstreams_is_refused(made: WriteHarness) -> None:
    """The user must choose; the other one's row stays."""
    writes = made.writer(two_upstreams(made))
    writes.create("jespern", RepositorySettings(name="idea"), by="x", upstream="t")
    with pytest.raises(NotFound, match="of upstream t"):
        writes.delete(PISTON, by="x", upstream="t")
    writes.delete(PISTON, by="x")
    assert made.upstream(PISTON) is None


def test_a_removed_upstream_is_refused(made: WriteHarness, write: Write) -> None:
    """Rows of an upstream that is no longer configured cannot be written to."""
    other = msgspec.structs.replace(made.config.upstreams[0], name="other", workspaces=())
    made.writes = made.writer(msgspec.structs.replace(made.config, upstreams=(other,)))
    with pytest.raises(ConfigError, match="mirrored from s, which the configuration no longer names"):
        write(made)


def test_a_write_without_a_mirror_is_refused(tmp_path: Path, made: WriteHarness, write: Write) -> None:
    """Otherwise it would make a mirror of one repository."""
    elsewhere = tmp_path / "elsewhere.db"
    made.writes = made.writer(msgspec.structs.replace(made.config, database=str(elsewhere)))
    with pytest.raises(StoreError, match="no mirror there yet"):
        write(made)
    assert not elsewhere.exists()


def test_a_renamed_repository_is_not_deleted(made: WriteHarness) -> None:
    """Its former name may belong to another one, so the user must give the present one."""
    made.sandbox.do("rename", PISTON, name="Moved On")
    with pytest.raises(UpstreamRefused, match="is called jespern/moved-on upstream now") as caught:
        made.writes.delete(PISTON, by="x")
    assert caught.value.status == 409
    assert made.upstream("jespern/moved-on") is not None


def test_a_transferred_repository_is_not_updated(made: WriteHarness) -> None:
    """Who may write to its former workspace may have no rights in the present one."""
    made.sandbox.do("transfer", PISTON, to="erik")
    with pytest.raises(
        UpstreamRefused, match=r"is called erik/django-piston .*: nothing was updated"
    ) as caught:
        made.writes.update(PISTON, RepositorySettings(is_private=True), by="x")
    assert caught.value.status == 409
    assert made.upstream("erik/django-piston")["is_private"] is False
    made.sandbox.do("rename", "jespern/arriving", name="Moved On")
    made.writes.update("jespern/arriving", RepositorySettings(description="new"), by="x")
    assert made.upstream("jespern/moved-on")["description"] == "new"


def test_a_gone_repository_is_not_created_by_an_update(made: WriteHarness) -> None:
    """Bitbucket would create the missing target of a PUT."""
    made.sandbox.do("delete", PISTON)
    with pytest.raises(UpstreamRefused) as caught:
        made.writes.update(PISTON, RepositorySettings(description="new"), by="x")
    assert caught.value.status == 404
    assert made.upstream(PISTON) is None


def test_a_spent_budget_is_reported(made: WriteHarness) -> None:
    """Writes share the hour of a sync; if it is spent, nothing is sent, and nobody waits."""
    spent = made.rows("SELECT sum(requests) FROM request_ledger")[0][0]
    limited = msgspec.structs.replace(made.config.upstreams[0], requests_per_hour=spent + 1)
    made.writes = made.writer(msgspec.structs.replace(made.config, upstreams=(limited,)))
    WRITES["create"](made)
    before = made.rows("SELECT * FROM repositories")
    for write in WRITES.values():
        with pytest.raises(UpstreamBusy, match=r"budget of .* is spent.*nothing was changed") as caught:
            write(made)
        assert caught.value.status == 429
        assert caught.value.retry_after is not None
    assert made.asked() == 1
    assert made.rows("SELECT * FROM repositories") == before


def test_a_budget_spent_between_check_and_write_is_reported(made: WriteHarness) -> None:
    """The check of an update takes the last request; nothing was changed."""
    spent = made.rows("SELECT sum(requests) FROM request_ledger")[0][0]
    limited = msgspec.structs.replace(made.config.upstreams[0], requests_per_hour=spent + 1)
    made.writes = made.writer(msgspec.structs.replace(made.config, upstreams=(limited,)))
    with pytest.raises(UpstreamBusy, match="nothing was changed"):
        WRITES["update"](made)
    assert made.upstream(PISTON)["description"] != "new"


def test_an_unwritable_mirror_is_reported(made: WriteHarness) -> None:
    """The error says what the upstream did, and what brings it into the mirror; nothing is half written."""
    with Store(made.path) as store:
        store.connection.execute(
            """CREATE TRIGGER full_disk BEFORE INSERT ON changes
               BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"""
        )
        with pytest.raises(StoreError, match=r"upstream has done it .*disk is full.*the next sync brings it"):
            WRITES["create"](made)
        store.connection.execute("DROP TRIGGER full_disk")
    assert made.row("jespern/idea") is None
    assert made.written() == [("x", "create", "jespern/idea", "unknown")]
    made.sync()
    assert made.row("jespern/idea") is not None
