"""After a copy was restored: once everything is listed in full, what is public is known again."""

from mirror.readable import repositories_text
from mirror.store.changes import Change
from mirror.store.repositories import make_private
from mirror.sync.run import Run


def settle_restored(run: Run) -> None:
    """End the wait of strangers where every workspace has been listed in full since the copy was restored.

    A repository that was not seen since counts as private until the upstream says otherwise: it could not be
    asked for, or its workspace is not mirrored any more.
    """
    with run.cursors() as cursors:
        since = cursors.restored.read()
    if since is None or any(state.swept_at is None or state.listing for _, state in run.states.all()):
        return
    with run.store.transaction() as connection:
        hidden = make_private(connection, run.upstream_id, unseen_since=since)
        changes = [Change("made_private", repository_id) for repository_id in hidden]
        run.store.save_changes(changes, run_id=run.id, at=run.now_text())
        with run.cursors() as cursors:
            cursors.restored.drop()
    run.note("everything was listed since the copy was restored: strangers are answered again")
    if hidden:
        run.note(
            f"{repositories_text(len(hidden))} could not be confirmed as public, and so count as private"
        )
