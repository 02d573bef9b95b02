"""Webhooks at the door: what is refused, what is applied at once, and that nothing untrue comes of it."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hooked import NEW, NEWER, OLD, SECRET, SOME, Hooked, body_of, hooked, signature

from mirror.serve.webhooks import LARGEST_BODY, Hook, accept
from mirror.store import Store


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hooked]:
    """A synced mirror whose upstream has a webhook."""
    with hooked(tmp_path) as found:
        yield found


def test_a_push_shows_at_once(hook: Hooked) -> None:
    """Branch and tag are where the push says, the change is recorded, and the refs wait to be confirmed."""
    answer = hook.push(OLD, NEW)
    assert answer.status_code == 200
    assert answer.json() == {"outcome": "taken", "refs_moved": 2, "marked": 1}
    assert hook.main() == NEW
    assert hook.crawl.changes()[-2:] == [
        ("branch_moved", SOME, "main", OLD, NEW),
        ("tag_created", SOME, "v1", None, NEW),
    ]
    assert hook.crawl.one("SELECT refs_stale FROM repositories WHERE full_name = ?", SOME) == 1


def test_a_deleted_branch_is_gone_at_once(hook: Hooked) -> None:
    """If it was where the push says it was."""
    hook.about("repo:push", "cloud_branch_deleted.json", OLD=NEWER)
    assert hook.main() == OLD
    hook.about("repo:push", "cloud_branch_deleted.json", OLD=OLD)
    assert hook.main() is None


def test_pushes_out_of_order_never_turn_a_ref_back(hook: Hooked) -> None:
    """The second push before the first is not applied; the first afterwards is; nothing is applied twice."""
    assert hook.push(NEW, NEWER).json()["refs_moved"] == 1  # the tag
    assert hook.main() == OLD
    hook.push(OLD, NEW)
    assert hook.main() == NEW
    assert hook.push(OLD, NEW, X_Request_UUID="again").status_code == 409


def test_what_a_forger_could_send_is_refused(hook: Hooked) -> None:
    """Unsigned, wrongly signed, signed by another algorithm, or with another body; nothing changes."""
    body = body_of("cloud_push.json", NAME=SOME, UUID=hook.uuid(SOME), OLD=OLD, NEW=NEW)
    sha1 = "sha1=" + hashlib.sha1(body).hexdigest()  # noqa: S324
    for header in ("", "sha256=", "sha256=" + "0" * 64, sha1, signature(body, "another secret"),
                   signature(body + b" ")):  # fmt: skip
        answer = hook.deliver("repo:push", body, X_Hub_Signature=header)
        assert answer.status_code == 403, header
        assert "error" in answer.json()
    assert hook.main() == OLD
    assert hook.crawl.one("SELECT count(*) FROM webhook_deliveries") == 0


def test_nothing_is_parsed_before_it_is_verified(hook: Hooked) -> None:
    """A body that is no JSON is forbidden without a signature, and malformed with one."""
    assert hook.deliver("repo:push", b"no json", X_Hub_Signature="").status_code == 403
    assert hook.deliver("repo:push", b"no json").status_code == 400


def test_a_replayed_delivery_is_refused(hook: Hooked) -> None:
    """By its body under another number, and by its number with another body, to each upstream for itself."""
    assert hook.push(OLD, NEW, X_Request_UUID="one").status_code == 200
    assert hook.push(OLD, NEW, X_Request_UUID="two").status_code == 409
    assert hook.push(NEW, NEWER, X_Request_UUID="one").status_code == 409
    assert hook.push(NEW, NEWER, X_Request_UUID="", X_Request_Id="one").status_code == 409
    assert hook.main() == NEW
    assert hook.push(NEW, NEWER).status_code == 200


def test_deliveries_are_forgotten_after_a_day(hook: Hooked) -> None:
    """The table does not grow for ever."""
    hook.push(OLD, NEW)
    with Store(hook.crawl.path) as store, store.transaction() as connection:
        connection.execute("UPDATE webhook_deliveries SET at = '2020-01-01T00:00:00.000000Z'")
    hook.push(NEW, NEWER)
    assert hook.crawl.one("SELECT count(*) FROM webhook_deliveries") == 1


def test_an_upstream_without_a_secret_takes_none(hook: Hooked) -> None:
    """Nor does one that is not configured, or not mirrored yet; the answer says what to do."""
    body = body_of("cloud_updated.json", NAME=SOME, UUID="{u}")
    assert "webhook_secret" in hook.deliver("repo:updated", body, upstream="other").json()["error"]["message"]
    accept(hook.asking.datasette, {"other": Hook(SECRET, datacenter=False)})
    assert hook.deliver("repo:updated", body, upstream="other").status_code == 404
    accept(hook.asking.datasette, {})
    assert hook.push(OLD, NEW).status_code == 404


def test_only_post_is_answered(hook: Hooked) -> None:
    """A browser that looks is told so."""
    answer = hook.asking.get("/-/webhook/here")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_a_large_body_is_refused_before_it_is_read(hook: Hooked) -> None:
    """By its announced length at once, else as soon as it has grown too large; no more is taken in."""
    big = b"x" * (LARGEST_BODY + 1)
    assert hook.deliver("repo:push", big).status_code == 413
    taken = 0

    async def body() -> Any:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"x" * 65_536

    async def send() -> int:
        answer = await hook.asking.datasette.client.request("POST", "/-/webhook/here", content=body())
        return int(answer.status_code)

    assert asyncio.run(send()) == 413
    assert taken <= LARGEST_BODY / 65_536 + 2


def test_every_kind_of_event_marks_and_none_buries(hook: Hooked) -> None:
    """Deleted, transferred, renamed: the row stands as it was until the upstream has been asked."""
    for length, event in enumerate(("repo:updated", "repo:deleted", "repo:transfer")):
        body = body_of("cloud_updated.json", NAME=SOME, UUID=hook.uuid(SOME)) + b" " * length
        answer = hook.deliver(event, body)
        assert answer.json() == {"outcome": "taken", "refs_moved": 0, "marked": 1}
    assert hook.crawl.gone() == {}
    (mark,) = hook.crawl.rows("SELECT stream, value FROM cursors WHERE stream LIKE 'marked:%'")
    assert mark[0] == f"marked:{hook.uuid(SOME)}"
    assert '"row":true' in mark[1]


def test_a_repository_unknown_here_makes_its_workspace_due_if_that_is_mirrored(hook: Hooked) -> None:
    """Its name is not written down: it may be one that readers of the mirror must not know."""
    for full_name in ("ubernostrum/brand-new", "stranger/secret"):
        body = body_of("cloud_push.json", NAME=full_name, UUID="{new}", OLD=OLD, NEW=NEW)
        assert hook.deliver("repo:push", body).status_code == 200
    assert hook.crawl.rows("SELECT stream FROM cursors WHERE stream LIKE 'due:%'") == [("due:ubernostrum",)]
    assert not hook.crawl.rows("SELECT 1 FROM cursors WHERE stream || value LIKE '%brand-new%'")


def test_events_of_no_concern_are_taken_and_ignored(hook: Hooked) -> None:
    """So that a webhook with too many events ticked does not look broken."""
    answer = hook.deliver("pullrequest:created", b'{"pullrequest": {}}')
    assert (answer.status_code, answer.json()) == (200, {"outcome": "ignored"})


def test_a_busy_file_keeps_no_sender_waiting(hook: Hooked) -> None:
    """While a sync writes, the answer comes all the same; what was said is written when the file is free."""
    written = threading.Event()
    with Store(hook.crawl.path) as store, store.transaction():
        answer = hook.push(OLD, NEW)
        assert (answer.status_code, answer.json()["outcome"]) == (202, "waiting")
        assert hook.main() == OLD
    for _ in range(200):
        if hook.main() == NEW:
            break
        written.wait(0.05)
    assert hook.main() == NEW


def test_no_secret_is_in_any_answer_or_row(hook: Hooked) -> None:
    """Neither the secret nor the signature, whatever is sent."""
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
