"""`mirror export`, `mirror lake` and `mirror plan-split`: many mirrors, one lake of Parquet files.

pyarrow is imported by what needs it, so that all other commands start without it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mirror.cli.main import WholeSummaries, configured, errors, json_option
from mirror.lake.columns import TABLES


@click.group(cls=WholeSummaries)
def export() -> None:
    """Export the mirror into a lake, which other programs read."""


@export.command()
@click.argument("place", metavar="DIR")
@click.option("--full", is_flag=True, help="Export everything anew, instead of what changed.")
@click.option("--public", is_flag=True, help="Export only what strangers may see, as `mirror publish` does.")
@click.option(
    "--compact", is_flag=True, help="Then put what was added since the last full export into few files."
)
@json_option
@click.pass_context
def parquet(ctx: click.Context, place: str, full: bool, public: bool, compact: bool, as_json: bool) -> None:
    """Write Parquet files into the folder DIR or s3://BUCKET/PATH, also while a sync writes.

    The first export writes everything, later ones what changed; where nothing did, no file is written. Many
    mirrors may share one DIR. Keys of an object store come from the environment (AWS_ACCESS_KEY_ID, ...).

    \b
    Examples:
        mirror export parquet /srv/lake
        mirror export parquet s3://lake/bitbucket --compact
        mirror export parquet /srv/public-lake --public
    """
    from mirror.lake.export import ExportOptions  # noqa: PLC0415
    from mirror.lake.export import export as write  # noqa: PLC0415
    from mirror.lake.place import Place  # noqa: PLC0415

    mirror = Path(configured(ctx).database)
    options = ExportOptions(full=full, public=public, compact=compact)
    with _bar("exporting") as told:
        done = write(mirror, Place(place), options, told=told)
    click.echo(msgspec.json.encode(done) if as_json else done.text)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[str, int], None]]:
    """Show what is done to whoever sits before a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    names = [table.name for table in TABLES]
    with Progress(*columns, console=errors(), transient=True) as bars:
        task = bars.add_task(what, total=len(names))
        yield lambda table, rows: bars.update(
            task,
            description=f"{what} {table}" + (f": {rows:,} rows" if rows else ""),
            completed=names.index(table) if table in names else 0,
        )
