"""`mirror backup`, `mirror restore`: make a copy of the file, and replace the file by one."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from mirror.cli.common import LocalPath, configured, number_option
from mirror.cli.printer import progress_bar
from mirror.config import Config
from mirror.errors import ConfigError, StoreError
from mirror.readable import repositories_text, size_text
from mirror.store.backup import OnProgress, Restored, Trust, back_up, back_up_dated, restore_copy
from mirror.store.files import open_reader
from mirror.store.ledger import reported_limits
from mirror.times import utc_now
from mirror.upstream.budget import GIT_LIMIT
from mirror.upstream.connect import accounts_by_upstream


@click.command()
@click.argument("target", metavar="FILE", type=LocalPath())
@number_option("--keep", "In a folder: remove all but the newest N copies. Default: keep all.", least=1)
def backup(target: str, keep: int | None) -> None:
    """Copy the mirror, also while a sync writes to it.

    FILE is the copy, which is replaced as a whole; or a folder, which gets a copy with the time in its name.
    The copy is one state of the mirror, checked, and readable by its owner alone.

    \b
    Examples:
        mirror backup /mnt/backup/mirror.db
        mirror backup /mnt/backup/ --keep 14
    """
    mirror, place = Path(configured().database), Path(target)
    is_folder = place.is_dir() or target.endswith(os.sep)
    if keep is not None and not is_folder:
        raise ConfigError(f"--keep needs a folder, and {target} is not one; write it with a slash at the end")
    with _bar("copying") as progress:
        if is_folder:
            copy = back_up_dated(mirror, place, utc_now(), keep=keep, progress=progress)
        else:
            copy = back_up(mirror, place, progress=progress)
    click.echo(f"{copy}: a checked copy, {size_text(copy.stat().st_size)}")


@click.command()
@click.argument("copy", metavar="FILE", type=LocalPath(path_type=Path))
@click.option("--keep-tokens", is_flag=True, help="Keep tokens valid that the replaced file has not revoked.")
@click.option(
    "--keep-public",
    is_flag=True,
    help="Show strangers at once what was public in the copy, instead of after a full listing.",
)
def restore(copy: Path, keep_tokens: bool, keep_public: bool) -> None:
    """Put a copy in the place of the mirror, which is kept under another name.

    FILE is a copy that `mirror backup` made. No service and no sync may run meanwhile.

    \b
    Example:
        mirror restore /mnt/backup/mirror.db
    """
    config = configured()
    with _bar("copying") as progress:
        done = restore_copy(
            copy,
            Path(config.database),
            utc_now(),
            mode=config.mode,
            trust=Trust(tokens=keep_tokens, public=keep_public),
            limits=_limits(config, copy),
            progress=progress,
        )
    for line in _lines_about(done, config):
        click.echo(line)


def _limits(config: Config, copy: Path) -> dict[str, int | None]:
    """Map the accounts of a configuration to their hourly limits of requests."""
    try:
        with closing(open_reader(copy, older=True)) as connection:  # a copy may be of an older version
            known = dict(accounts_by_upstream(config, reported_limits(connection)).values())
    except (StoreError, sqlite3.Error):  # it is no copy, which `restore` reports
        return {}
    # Requests by git are counted on their own, for each account.
    return {**known, **{f"git-{bucket}": GIT_LIMIT for bucket in known}}


def _lines_about(done: Restored, config: Config) -> Iterator[str]:
    moment = done.as_of or "before any sync"
    yield f"{config.database}: {repositories_text(done.repositories)}, as of {moment}"
    if done.kept is not None:
        yield f"the replaced file is kept: {done.kept}"
    if done.revoked:
        yield f"revoked tokens: {done.revoked:,}; make new ones: mirror token create NAME"
    if not done.budget_is_known:
        yield "the requests of the last hour are unknown: its budget counts as spent, and syncs wait"
    if done.unconfirmed:
        yield "strangers see nothing until everything is listed in full: mirror sync"
    missing = sorted({*done.unconfirmed} - {upstream.name for upstream in config.upstreams})
    if missing:
        yield (
            f"not configured, so never listed: {', '.join(missing)};"
            " configure them, or restore once more with --keep-public"
        )


@contextmanager
def _bar(what: str) -> Iterator[OnProgress]:
    """Show a bar with the remaining time; yields a function of the pages copied and of all pages."""
    with progress_bar(what, left=True) as progress:
        yield lambda done, total: progress(what, done, total)
