"""Incoming webhooks: which are refused, which are applied at once, and that false ones do no harm."""

import asyncio
import gzip
import hashlib
import logging
import os
import shutil
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sync_harness import START
from webhook_client import NEW, NEWER, OLD, SECRET, SOME, WebhookClient, body_of, signature

from mirror.decoding import decoded_bytes
from mirror.errors import StoreError
from mirror.model import Ref
from mirror.serve.state import served
from mirror.serve.webhook_events import read_event
from mirror.serve.webhook_writer import Kept, Spool, WebhookWriter, write
from mirror.serve.webhooks import LARGEST_BODY, Hook, accept
from mirror.store import Store
from mirror.store.webhooks import Delivery, RefUpdate, RepositoryEvent
from mirror.times import to_text, utc_now


def test_a_push_is_visible_at_once(hook: WebhookClient) -> None:
    """Branch and tag move, the change is recorded, and the refs wait for a confirmation."""
    answer = hook.push(OLD, NEW)
    assert answer.status_code == 200
    assert answer.json() == {"outcome": "taken"}
    assert hook.main() == NEW
    assert hook.crawl.changes()[-2:] == [
        ("branch_moved", SOME, "main", OLD, NEW),
        ("tag_created", SOME, "v1", None, NEW),
    ]
    assert hook.crawl.one("SELECT refs_stale FROM repositories WHERE full_name = ?", SOME) == 1


def test_a_deleted_branch_is_gone_at_once(hook: WebhookClient) -> None:
    """If it was at the push's old commit; with its data of API 2.0."""
    with Store(hook.crawl.path) as store, store.transaction() as connection:
        connection.execute(
            """INSERT INTO extras SELECT 'branch', id, 'main', 0, x'00' FROM repositories
               WHERE full_name = ? ON CONFLICT DO NOTHING""",
            (SOME,),
        )
    hook.about("repo:push", "cloud_branch_deleted.json", OLD=NEWER)
    assert hook.main() == OLD
    hook.about("repo:push", "cloud_branch_deleted.json", OLD=OLD)
    assert hook.main() is None
    extras = """SELECT count(*) FROM extras e JOIN repositories r ON r.id = e.row_id
        WHERE r.full_name = ? AND e.kind = 'branch' AND e.name = 'main'"""
    assert hook.crawl.one(extras, SOME) == 0


def test_pushes_out_of_order_never_turn_a_ref_back(hook: WebhookClient) -> None:
    """A second push before the first is not applied; the first is; nothing is applied twice."""
    hook.push(NEW, NEWER)
    assert hook.main() == OLD
    hook.push(OLD, NEW)
    assert hook.main() == NEW
    hook.push(OLD, NEW, X_Request_UUID="late")
    assert hook.main() == NEW


def test_forged_deliveries_are_refused(hook: WebhookClient) -> None:
    """Unsigned, wrongly signed, of another algorithm, or with another body; nothing changes."""
    body = body_of("cloud_push.json", NAME=SOME, UUID=hook.uuid(SOME), OLD=OLD, NEW=NEW)
    sha1 = "sha1=" + hashlib.sha1(body).hexdigest()  # noqa: S324
    for header in ("", "sha256=", "sha256=" + "0" * 64, sha1, signature(body, "another secret"),
                   signature(body + b" ")):  # fmt: skip
        answer = hook.deliver("repo:push", body, X_Hub_Signature=header)
        assert answer.status_code == 403, header
        assert "error" in answer.json()
    assert hook.main() == OLD
    assert hook.crawl.one("SELECT count(*) FROM webhook_deliveries") == 0


def test_refused_deliveries_fill_no_log(hook: WebhookClient, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody may send them: a reason is one line in a minute, and the metrics count them all."""
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert hook.deliver("repo:push", b"{}", X_Hub_Signature="").status_code == 403
    assert len([one for one in caplog.records if "refused" in one.getMessage()]) <= 1


def test_nothing_is_parsed_before_it_is_verified(hook: WebhookClient) -> None:
    """Invalid JSON is 403 without a signature, 400 with one."""
    assert hook.deliver("repo:push", b"no json", X_Hub_Signature="").status_code == 403
    assert hook.deliver("repo:push", b"no json").status_code == 400


@pytest.mark.parametrize("header", ["X_Request_UUID", "X_Request_Id"])
def test_equal_bodies_with_numbers_of_their_own_are_two_deliveries(hook: WebhookClient, header: str) -> None:
    """There, back and there again: the third push is applied, with the numbers of Cloud and Data Center."""
    for number, (old, new) in enumerate([(OLD, NEW), (NEW, OLD), (OLD, NEW)]):
        answer = hook.push(old, new, **{"X_Request_UUID": "", header: f"number-{number}"})
        assert (answer.status_code, answer.json()["outcome"]) == (200, "taken")
        assert hook.main() == new


def test_a_repeated_delivery_changes_nothing(hook: WebhookClient) -> None:
    """It is answered 200, to satisfy the sender; another body is another delivery."""
    hook.push(OLD, NEW, X_Request_UUID="one", X_Attempt_Number="1")
    hook.push(NEW, OLD, X_Request_UUID="two")
    retry = hook.push(OLD, NEW, X_Request_UUID="one", X_Attempt_Number="2")
    assert (retry.status_code, retry.json()) == (200, {"outcome": "repeated"})
    assert hook.main() == OLD
    assert hook.push(OLD, NEWER, X_Request_UUID="one").json()["outcome"] == "taken"


def test_an_equal_body_without_a_number_is_confirmed_upstream(hook: WebhookClient) -> None:
    """It may be a retry or another event: nothing is applied, and a hint is saved."""
    for old, new in ((OLD, NEW), (NEW, OLD)):
        hook.push(old, new, X_Request_UUID="")
    with Store(hook.crawl.path) as store, store.transaction() as connection:
        connection.execute("DELETE FROM cursors WHERE stream LIKE 'marked:%'")
    answer = hook.push(OLD, NEW, X_Request_UUID="")
    assert (answer.status_code, answer.json()) == (200, {"outcome": "repeated"})
    assert hook.main() == OLD
    assert hook.crawl.one("SELECT count(*) FROM cursors WHERE stream LIKE 'marked:%'") == 1


@pytest.mark.parametrize("upstream", [False, True], ids=["cloud", "datacenter"])
def test_a_ping_is_answered_without_effect(hook: WebhookClient, upstream: bool) -> None:
    """Unsigned, with any body; a signed one shows whether the secret is right."""
    accept(hook.client.datasette, {"here": Hook(SECRET, datacenter=upstream)})
    for body in (b"", b'{"test": true}', b"no json"):
        for signed in ("", signature(body)):
            assert hook.deliver("diagnostics:ping", body, X_Hub_Signature=signed).status_code == 200
    wrong = signature(b"", "another secret")
    assert hook.deliver("diagnostics:ping", b"", X_Hub_Signature=wrong).status_code == 403
    assert hook.crawl.one("SELECT count(*) FROM webhook_deliveries") == 0


def test_a_compressed_body_is_refused(hook: WebhookClient) -> None:
    """Before it is read, with a remedy."""
    answer = hook.deliver("repo:push", gzip.compress(b"{}"), Content_Encoding="gzip")
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


UNUSUAL = [
    rb"cut \ud83d",
    rb"\udc00\udc00",
    rb"\ud83d\ude00",
    b"caf\xe9",
    rb"a\u0000b",
    b"a\x00b",
    b"\xff\xfe",
]


@pytest.mark.parametrize("text", UNUSUAL)
def test_unusual_text_is_stored_as_by_the_crawl(hook: WebhookClient, text: bytes) -> None:
    """In messages, authors, taggers and names of branches: invalid text is replaced."""
    words = {"NAME": SOME, "UUID": hook.uuid(SOME), "OLD": OLD, "NEW": NEW}
    body = body_of("cloud_push.json", **words)
    body = body.replace(b'"One\\n"', b'"' + text + b'"').replace(
        b'"v1"', b'"v-' + text.replace(b" ", b"-") + b'"'
    )
    answer = hook.deliver("repo:push", body.replace(b"Ann Smith", text))
    assert answer.json() == {"outcome": "taken"}
    expected = decoded_bytes(b'["' + text + b'"]', list[str])[0]
    rows = hook.crawl.rows("SELECT name, message FROM tags WHERE target_hash = ? AND name LIKE 'v-%'", NEW)
    assert [tuple(row) for row in rows] == [("v-" + expected.replace(" ", "-"), expected)]


@pytest.mark.parametrize("old", [OLD, NEWER])
def test_an_answer_does_not_tell_where_a_ref_is(hook: WebhookClient, old: str) -> None:
    """Whoever has set up the webhook of one repository can sign guesses about others."""
    answer = hook.about("repo:push", "cloud_branch_deleted.json", OLD=old)
    assert (answer.status_code, answer.json()) == (200, {"outcome": "taken"})
    guess = body_of("cloud_branch_deleted.json", NAME=SOME, UUID="{unknown}", OLD=old)
    assert hook.deliver("repo:push", guess).json() == answer.json()


def test_a_delivery_older_than_the_refs_is_confirmed_upstream(hook: WebhookClient) -> None:
    """It waited for the file, and a sync came in between."""
    late = Delivery("repo:push", "0" * 64, "late", to_text(START - timedelta(days=1)))
    move = RefUpdate("branch", "main", OLD, Ref(kind="branch", name="main", target_hash=NEW))
    with Store(hook.crawl.path) as store:
        kept = Kept("here", late, [RepositoryEvent(hook.uuid(SOME), SOME, [move])])
        assert write(store, kept, utc_now()) == "taken"
    assert hook.main() == OLD


def test_deliveries_are_forgotten_after_a_day(hook: WebhookClient) -> None:
    """So the table does not grow for ever."""
    hook.push(OLD, NEW)
    with Store(hook.crawl.path) as store, store.transaction() as connection:
        connection.execute("UPDATE webhook_deliveries SET at = '2020-01-01T00:00:00.000000Z'")
    hook.push(NEW, NEWER)
    assert hook.crawl.one("SELECT count(*) FROM webhook_deliveries") == 1


def test_an_upstream_without_a_secret_accepts_no_webhooks(hook: WebhookClient) -> None:
    """Nor an unconfigured or unmirrored one; the answer has the remedy."""
    body = body_of("cloud_updated.json", NAME=SOME, UUID="{u}")
    assert "webhook_secret" in hook.deliver("repo:updated", body, upstream="other").json()["error"]["message"]
    accept(hook.client.datasette, {"other": Hook(SECRET, datacenter=False)})
    assert hook.deliver("repo:updated", body, upstream="other").status_code == 404
    accept(hook.client.datasette, {})
    assert hook.push(OLD, NEW).status_code == 404


@pytest.mark.parametrize("event", ["repo:push", "diagnostics:ping"])
def test_a_guessed_name_of_an_upstream_is_not_confirmed(hook: WebhookClient, event: str) -> None:
    """Whoever does not know the secret gets the same answers for every name."""
    for header in ("", "sha256=", signature(b"{}", "another secret")):
        known, guessed = (
            hook.deliver(event, b"{}", upstream=name, X_Hub_Signature=header) for name in ("here", "there")
        )
        assert (known.status_code, known.headers, known.content) == (
            guessed.status_code, guessed.headers, guessed.content,
        )  # fmt: skip


def test_only_post_is_answered(hook: WebhookClient) -> None:
    """A browser gets 405."""
    answer = hook.client.get("/-/webhook/here")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_a_large_body_is_refused(hook: WebhookClient) -> None:
    """By its declared length, or as soon as it is too large; the sender can send all of it."""
    big = b"x" * (LARGEST_BODY + 1)
    assert hook.deliver("repo:push", big).status_code == 413
    taken = 0

    async def body() -> Any:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"x" * 65_536

    async def send() -> int:
        answer = await hook.client.datasette.client.request("POST", "/-/webhook/here", content=body())
        return int(answer.status_code)

    assert asyncio.run(send()) == 413
    assert taken == 100


def test_every_event_leaves_a_hint_and_none_a_tombstone(hook: WebhookClient) -> None:
    """After deleted, transferred, renamed: the row stays until the upstream has been asked."""
    for length, event in enumerate(("repo:updated", "repo:deleted", "repo:transfer")):
        body = body_of("cloud_updated.json", NAME=SOME, UUID=hook.uuid(SOME)) + b" " * length
        answer = hook.deliver(event, body)
        assert answer.json() == {"outcome": "taken"}
    assert hook.crawl.gone() == {}
    (mark,) = hook.crawl.rows("SELECT stream, value FROM cursors WHERE stream LIKE 'marked:%'")
    assert mark[0] == f"marked:{hook.uuid(SOME)}"
    assert '"row":true' in mark[1]


def test_a_repository_unknown_here_makes_its_workspace_due_if_that_is_mirrored(hook: WebhookClient) -> None:
    """Its name is not saved, because readers of the mirror may not know it."""
    for full_name in ("ubernostrum/brand-new", "stranger/secret"):
        body = body_of("cloud_push.json", NAME=full_name, UUID="{new}", OLD=OLD, NEW=NEW)
        assert hook.deliver("repo:push", body).status_code == 200
    assert hook.crawl.rows("SELECT stream FROM cursors WHERE stream LIKE 'due:%'") == [("due:ubernostrum",)]
    assert not hook.crawl.rows("SELECT 1 FROM cursors WHERE stream || value LIKE '%brand-new%'")


def test_other_events_are_accepted_and_ignored(hook: WebhookClient) -> None:
    """So that a webhook with too many events does not look broken."""
    answer = hook.deliver("pullrequest:created", b'{"pullrequest": {}}')
    assert (answer.status_code, answer.json()) == (200, {"outcome": "ignored"})


def becomes(hook: WebhookClient, target: str) -> bool:
    """Wait until the branch `main` is at a commit."""
    pause = threading.Event()
    return any(hook.main() == target or pause.wait(0.05) for _ in range(400))


def spooled(hook: WebhookClient) -> list[Path]:
    """List acknowledged deliveries that are not written yet."""
    folder = hook.crawl.path.with_name(hook.crawl.path.name + ".webhooks")
    return sorted(folder.glob("*.json")) if folder.exists() else []


def test_a_locked_file_delays_no_sender(hook: WebhookClient) -> None:
    """During a sync's write it is answered, and written when the file is free."""
    with Store(hook.crawl.path) as store, store.transaction():
        answer = hook.push(OLD, NEW)
        assert (answer.status_code, answer.json()["outcome"]) == (202, "waiting")
        assert hook.main() == OLD
        (file,) = spooled(hook)
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert becomes(hook, NEW)


def kept_push(hook: WebhookClient, old: str, new: str) -> Kept:
    """Make a stored delivery."""
    body = body_of("cloud_push.json", NAME=SOME, UUID=hook.uuid(SOME), OLD=old, NEW=new)
    events = read_event("repo:push", body, datacenter=False)
    assert events is not None
    return Kept("here", Delivery("repo:push", new, new, to_text(utc_now())), events)


def test_acknowledged_deliveries_are_retried_until_written(hook: WebhookClient) -> None:
    """The file is locked longer than SQLite waits; later ones are written after it, in order."""
    attempts = list[str]()
    free = threading.Event()

    def writing(store: Store, kept: Kept) -> str:
        attempts.append(kept.delivery.body_hash)
        if not free.is_set():
            raise StoreError("locked")
        return write(store, kept, utc_now())

    writer = WebhookWriter(hook.crawl.path, writing, pause=0.01)
    for old, new in ((OLD, NEW), (NEW, NEWER)):
        writer.keep(kept_push(hook, old, new))
    while len(attempts) < 5:
        free.wait(0.01)
    assert set(attempts) == {NEW}
    free.set()
    assert becomes(hook, NEWER)


def test_acknowledged_deliveries_are_written_by_the_next_process(hook: WebhookClient) -> None:
    """As soon as it accepts webhooks, without waiting for one; other files are set aside."""
    spool = Spool(hook.crawl.path)
    spool.add(kept_push(hook, OLD, NEW))
    assert b'"news":' in spooled(hook)[0].read_bytes()  # as earlier versions wrote it
    broken = spooled(hook)[0].with_name("0.json")
    broken.write_bytes(b"{")
    accept(hook.client.datasette, {})
    assert becomes(hook, NEW)
    assert broken.with_name("0.json.failed").exists()
    pause = threading.Event()
    assert any(not spooled(hook) or pause.wait(0.05) for _ in range(100))


def test_a_file_that_replaces_the_mirror_gets_the_next_delivery(hook: WebhookClient) -> None:
    """Not the one that was there, which nobody would read again."""
    copy = hook.crawl.path.with_name("copy.db")
    shutil.copy(hook.crawl.path, copy)
    assert hook.push(OLD, NEW).status_code == 200
    copy.replace(hook.crawl.path)
    for journal in hook.crawl.path.parent.glob("mirror.db-*"):  # SQLite would apply it to the new file
        journal.unlink()
    assert hook.push(OLD, NEWER).status_code == 200
    assert hook.main() == NEWER


def test_a_delivery_that_a_killed_process_had_not_finished_is_removed(hook: WebhookClient) -> None:
    """Its name is no other's, so they would pile up; others, and one that is being written, stay."""
    folder = hook.crawl.path.with_name(f"{hook.crawl.path.name}.webhooks")
    folder.mkdir()
    name, long_ago = "2026-11-30T01:00:00.000000Z-abcd", time.time() - 3600
    for ending in ("", ".json", ".json.failed"):
        (folder / f"{name}{ending}").touch()
        os.utime(folder / f"{name}{ending}", (long_ago, long_ago))
    (folder / f"{name}-young").touch()
    Spool(hook.crawl.path)
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.json", f"{name}.json.failed", f"{name}-young"
    }  # fmt: skip


def test_deliveries_beyond_the_folder_get_503(hook: WebhookClient) -> None:
    """Not those beyond the queue, whose senders may be gone; also if nothing can be written there."""
    known, done = served(hook.client.datasette), threading.Event()
    known.webhook_seconds = 0.05

    def stuck(store: Store, kept: Kept) -> str:
        done.wait()
        return ""

    known.webhook_writer = WebhookWriter(
        hook.crawl.path, stuck, spool=Spool(hook.crawl.path, most_files=6), most_waiting=3
    )
    answers = [hook.push(OLD, f"{number:040x}") for number in range(1, 9)]
    assert [answer.status_code for answer in answers] == [202] * 6 + [503] * 2
    assert {answer.headers["retry-after"] for answer in answers[6:]} == {"60"}
    folder = spooled(hook)[0].parent
    shutil.rmtree(folder)
    folder.write_text("in the way")
    known.webhook_writer = WebhookWriter(hook.crawl.path, stuck)
    assert hook.push(OLD, NEW).status_code == 503
    done.set()


def test_no_secret_is_in_any_answer_or_row(hook: WebhookClient) -> None:
    """Neither the secret nor the signature, for any delivery."""
    answers = [
        hook.push(OLD, NEW).text,
        hook.push(OLD, NEW, secret="wrong").text,
        hook.deliver("repo:push", b"{").text,
    ]
    content = b"".join(
        path.read_bytes() for path in hook.crawl.path.parent.iterdir() if path.name.startswith("mirror.db")
    )
    for text in (*answers, content.decode("latin-1")):
        assert SECRET not in text
