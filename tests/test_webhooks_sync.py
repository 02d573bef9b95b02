"""What a sync makes of hints: the upstream decides, with few requests, whatever webhooks said."""

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sync_harness import WithoutNetwork, assert_matches_sandbox
from webhook_client import NEW, NEWER, OLD, SECRET, SOME, WebhookClient, body_of, webhook_mirror

from mirror.background.jobs import with_hints
from mirror.config import Config
from mirror.report import Reporter, Summary
from mirror.sandbox import parse_fault, repository_refs
from mirror.sandbox.edits import put_ref
from mirror.sandbox.exchange import Request, SandboxResponse
from mirror.serve.webhooks import Hook, accept
from mirror.store import Store
from mirror.store.ledger import RequestLedger
from mirror.sync.crawl import EVERYTHING, HINTS, REFS, RETRY, Run, Scope, sync_upstream
from mirror.times import utc_now
from mirror.upstream.connect import connect


def work(hook: WebhookClient, scope: Scope, later: float = 60) -> Summary:
    """Do a part of a sync."""
    crawl = hook.crawl
    crawl.clock.wait(later)
    with Store(crawl.path) as store:
        connection = connect(
            crawl.config,
            ledger=RequestLedger(store),
            wait=crawl.clock.wait,
            clock=crawl.clock.now,
            environ={"SECRET": crawl.secret or ""},
            transport=crawl.transport,
        )
        with closing(connection.upstream):
            run = Run(
                crawl.config,
                connection.upstream,
                connection.budget,
                store,
                url=crawl.config.url,
                clock=crawl.clock.now,
                stop=threading.Event(),
                report=Reporter(),
            )
            return sync_upstream(run, scope)


def marks(hook: WebhookClient) -> int:
    """Count the hints."""
    return int(
        hook.crawl.one("SELECT count(*) FROM cursors WHERE stream LIKE 'marked:%' OR stream LIKE 'due:%'")
    )


def true(hook: WebhookClient) -> None:
    """Compare the mirror with the sandbox."""
    assert_matches_sandbox(hook.crawl, hook.sandbox, hook.sandbox.workspaces())


def test_a_push_is_confirmed_by_one_request(hook: WebhookClient) -> None:
    """For the refs of the pushed repository, without a listing."""
    hook.crawl.clock.moment = utc_now()  # that of the server, which takes the webhook
    hook.crawl.sync()
    hook.sandbox.do("push", SOME, branch="main")
    hook.push(OLD, NEW)
    assert marks(hook) == 1
    summary = work(hook, HINTS)
    assert (summary.state, summary.kind, summary.counts.requests) == ("complete", "marked", 1)
    assert marks(hook) == 0
    (told,) = [
        ref["target"]["hash"] for ref in repository_refs(hook.sandbox.world, SOME) if ref["name"] == "main"
    ]
    assert hook.main() == told
    hook.crawl.sync()
    true(hook)


def test_a_false_event_is_corrected_by_the_next_run(hook: WebhookClient) -> None:
    """A signed push that never happened is undone."""
    hook.push(OLD, NEW)
    assert hook.main() == NEW
    work(hook, HINTS)
    assert hook.main() == OLD
    true(hook)


def test_a_push_to_what_became_private_waits_for_the_upstream(hook: WebhookClient) -> None:
    """Strangers still see the repository, so they must not see what was pushed to it since."""
    hook.sandbox.do("make_private", SOME)
    hook.sandbox.do("push", SOME, branch="main")
    words = {"NAME": SOME, "UUID": hook.uuid(SOME), "OLD": OLD, "NEW": NEW}
    public = body_of("cloud_push.json", **words)
    assert hook.deliver("repo:push", public.replace(b'"is_private": false', b'"is_private": true')).is_success
    assert (hook.main(), marks(hook)) == (OLD, 1)
    assert work(hook, HINTS).state == "complete"
    assert hook.crawl.one("SELECT is_private FROM repositories WHERE full_name = ?", SOME) == 1
    true(hook)


@pytest.mark.parametrize("scope", [HINTS, REFS], ids=["hints", "refs"])
def test_a_push_during_a_listing_is_not_turned_back(hook: WebhookClient, scope: Scope) -> None:
    """The refs that were requested before it are not written, but requested again by the same run."""
    world = hook.sandbox.world
    row = world.find(*SOME.split("/"))
    assert row is not None
    put_ref(world, row, "branch", "main", target=NEW)
    hook.push(OLD, NEW)
    meanwhile = iter([NEWER])

    def answer(request: Request) -> SandboxResponse:
        answered = hook.sandbox.answer(request)
        for new in meanwhile if request.path.endswith("/refs") else ():
            put_ref(world, row, "branch", "main", target=new)
            hook.push(NEW, new)
        return answered

    hook.crawl.transport = WithoutNetwork(answer)
    assert work(hook, scope).state == "complete"
    assert (hook.main(), marks(hook)) == (NEWER, 0)
    moves = hook.crawl.rows("SELECT old, new FROM changes WHERE kind = 'branch_moved' ORDER BY id")
    assert [tuple(move) for move in moves] == [(OLD, NEW), (NEW, NEWER)]


def test_every_sync_works_off_hints(hook: WebhookClient) -> None:
    """Without a service too."""
    hook.push(OLD, NEW)
    hook.crawl.sync()
    assert marks(hook) == 0
    true(hook)


@pytest.mark.parametrize("action", ["rename", "make_private", "delete", "transfer", "create"])
def test_hints_of_repositories_are_requested_first(hook: WebhookClient, action: str) -> None:
    """The upstream's answer is shown; only a listing proves that one is gone."""
    more = {"rename": {"name": "another"}, "transfer": {"to": "jespern"}}.get(action, {})
    if action == "create":
        hook.sandbox.do("create", "ubernostrum/brand-new")
        hook.about("repo:created", "cloud_updated.json", "ubernostrum/brand-new")
    else:
        uuid = hook.uuid(SOME)
        hook.sandbox.do(action, SOME, **more)
        assert hook.crawl.one("SELECT uuid FROM repositories WHERE full_name = ?", SOME) == uuid
        hook.about("repo:deleted" if action == "delete" else "repo:updated", "cloud_updated.json", SOME)
    assert work(hook, HINTS).state == "complete"
    assert hook.crawl.one("SELECT count(*) FROM repositories WHERE refs_synced_at IS NULL") == 0
    assert marks(hook) == 0
    true(hook)


def test_a_transfer_to_an_owner_who_is_not_mirrored_is_a_tombstone(tmp_path: Path) -> None:
    """If the upstream says so, also if another one went to that owner before."""
    owner = SOME.partition("/")[0]
    hook = webhook_mirror(tmp_path, workspaces=(owner,))
    for full_name in (SOME, f"{owner}/django-registration"):
        hook.sandbox.do("transfer", full_name, to="brodie")
        hook.about("repo:transfer", "cloud_updated.json", full_name)
    hook.sandbox.reset()
    assert work(hook, HINTS).state == "complete"
    assert "refs" not in hook.sandbox.state()["by_kind"]
    assert hook.crawl.gone() == {
        "brodie/django-profiles": "transferred to brodie/django-profiles",
        "brodie/django-registration": "transferred to brodie/django-registration",
    }


def test_a_moved_repository_of_a_data_center_is_not_called_deleted(tmp_path: Path) -> None:
    """Only names can be requested there, so the new project is listed as well as the old one."""
    hook = webhook_mirror(
        tmp_path,
        kind="datacenter",
        url="http://sandbox",
        secret="jespern:sandbox",
        workspaces=("~UBERNOSTRUM", "~JESPERN"),
        members=False,
    )
    accept(hook.client.datasette, {"here": Hook(SECRET, datacenter=True)})
    number = hook.uuid("~UBERNOSTRUM/django-profiles").removeprefix("id:")
    hook.sandbox.do("transfer", SOME, to="jespern")
    body = body_of("datacenter_modified.json", SLUG="django-profiles", KEY="~JESPERN")
    assert hook.deliver("repo:modified", body.replace(b"4711", number.encode())).is_success
    work(hook, HINTS)
    kinds = [kind for (kind,) in hook.crawl.rows("SELECT kind FROM changes ORDER BY id")]
    assert (kinds, hook.crawl.gone(), marks(hook)) == (["transferred", "updated"], {}, 0)


@pytest.mark.parametrize("is_whole", [False, True])
def test_only_a_round_that_listed_every_project_calls_a_moved_repository_deleted(
    tmp_path: Path, *, is_whole: bool
) -> None:
    """The server knows no former names, and the project that has it now is not listed yet."""
    settings: dict[str, Any] = {"workspaces": ("~UBERNOSTRUM", "~JESPERN"), "members": False, "refs": "none"}
    hook = webhook_mirror(
        tmp_path, kind="datacenter", url="http://sandbox", secret="jespern:sandbox", **settings
    )
    accept(hook.client.datasette, {"here": Hook(SECRET, datacenter=True)})
    name = "~UBERNOSTRUM/django-profiles"
    number = hook.uuid(name).removeprefix("id:")
    hook.sandbox.do("transfer", SOME, to="jespern")
    for path in ("UBERNOSTRUM/repos/django-profiles", "JESPERN/repos" if is_whole else "none"):
        hook.sandbox.add_fault(parse_fault(f"404,where=*/~{path},nth=every"))
    body = body_of("datacenter_modified.json", SLUG="django-profiles", KEY="~UBERNOSTRUM")
    assert hook.deliver("repo:modified", body.replace(b"4711", number.encode())).is_success
    work(hook, EVERYTHING if is_whole else HINTS, later=90_000 if is_whole else 60)
    assert hook.crawl.gone() == {name: "no longer visible"}
    hook.sandbox.clear_faults()
    assert (work(hook, EVERYTHING, later=90_000).state, hook.crawl.gone()) == ("complete", {})


def test_a_webhook_alone_makes_no_tombstone(hook: WebhookClient) -> None:
    """The repository of a false deletion still exists."""
    hook.about("repo:deleted", "cloud_updated.json")
    work(hook, HINTS)
    assert hook.crawl.gone() == {}
    true(hook)


def test_hints_wait_for_the_budget(hook: WebhookClient) -> None:
    """None is lost while the upstream cannot be asked."""
    hook.about("repo:updated", "cloud_updated.json")
    hook.crawl.config = msgspec.structs.replace(hook.crawl.config, requests_per_hour=1)
    assert hook.crawl.sync(may_wait=False, later=1).state == "paused"
    assert marks(hook) == 1


def test_a_hinted_workspace_that_fails_is_retried_later(hook: WebhookClient) -> None:
    """One try after each delay, not a run every three seconds; an ordinary sync takes it too."""
    config = Config(database=str(hook.crawl.path), upstreams=(hook.crawl.config,))

    def is_work() -> bool:
        return bool(with_hints(config, hook.crawl.clock.now()))

    hook.sandbox.do("delete", SOME)
    hook.about("repo:deleted", "cloud_updated.json")
    hook.sandbox.add_fault(parse_fault("403,where=listing,nth=every"))
    assert is_work()
    assert work(hook, HINTS).state == "incomplete"
    assert (marks(hook), is_work()) == (1, False)
    assert work(hook, HINTS).counts.requests == 0
    hook.crawl.clock.wait(900)
    assert is_work()
    assert work(hook, HINTS).state == "incomplete"
    assert (marks(hook), is_work()) == (1, False)
    hook.sandbox.clear_faults()
    hook.crawl.sync()
    assert (marks(hook), is_work()) == (0, False)
    true(hook)


def test_a_watch_run_leaves_a_deletion_to_the_run_of_hints(hook: WebhookClient) -> None:
    """It lists the workspace too, but does not ask for what is missing from the listing."""
    hook.sandbox.do("delete", SOME)
    hook.about("repo:deleted", "cloud_updated.json")
    assert work(hook, Scope(due=["ubernostrum"], leftovers=False, kind="watch")).state == "complete"
    assert marks(hook) == 1
    assert work(hook, HINTS).state == "complete"
    assert marks(hook) == 0
    true(hook)


def test_a_run_that_spends_its_budget_on_what_is_missing_keeps_the_hint(hook: WebhookClient) -> None:
    """So the service begins another one."""
    hook.sandbox.do("delete", SOME)
    hook.about("repo:deleted", "cloud_updated.json")
    with hook.crawl.run(max_requests=7) as run:
        assert sync_upstream(run, HINTS).state == "paused"
    assert (marks(hook), hook.crawl.gone()) == (1, {})
    assert (work(hook, HINTS).state, marks(hook)) == ("complete", 0)
    true(hook)


def test_hints_of_removed_workspaces_are_deleted(hook: WebhookClient) -> None:
    """No run would list them."""
    hook.sandbox.do("delete", SOME)
    hook.about("repo:deleted", "cloud_updated.json")
    hook.crawl.config = msgspec.structs.replace(hook.crawl.config, workspaces=("jespern",))
    assert work(hook, HINTS).state == "complete"
    assert marks(hook) == 0


def test_partial_runs_keep_each_others_cursors(hook: WebhookClient) -> None:
    """Only refs, only leftovers: without listings, and the next whole sync finds the rest."""
    hook.sandbox.do("rename", SOME, name="another")
    for scope in (REFS, RETRY):
        summary = work(hook, scope)
        assert (summary.state, summary.kind, summary.counts.requests) == ("complete", scope.kind, 0)
    assert work(hook, Scope(due={"jespern"})).counts.requests == 1
    hook.crawl.sync()
    true(hook)
