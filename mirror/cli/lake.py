"""`mirror export`, `mirror lake` and `mirror plan-split`: many mirrors, one lake of Parquet files.

pyarrow is imported by what needs it, so that all other commands start without it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mirror.cli.main import WholeSummaries, configured, errors, json_option
from mirror.lake.columns import TABLES

Engine = Literal["duckdb", "spark"]


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


@click.group(cls=WholeSummaries)
def lake() -> None:
    """Work with a lake that many mirrors export into: merge it, make one mirror out of it."""


@lake.command("merge")
@click.argument("place", metavar="DIR")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "spark"]),
    default="duckdb",
    show_default=True,
    help="What computes it: DuckDB on this machine, or Spark.",
)
@click.option(
    "--memory", metavar="SIZE", help="The most memory that DuckDB takes, like 4GB. Default: its own."
)
@click.option(
    "--master", metavar="URL", help="The master of Spark, like spark://HOST:7077. Default: its own."
)
@json_option
def lake_merge(
    place: str, out: Path, engine: Engine, memory: str | None, master: str | None, as_json: bool
) -> None:
    """Make one row of each repository out of the exports in DIR, in Parquet files below OUT.

    The latest row of a repository counts; it is gone only if all mirrors that hold it say so, and private if
    any says so. All its refs are of the mirror that read them last. OUT is replaced as a whole.

    \b
    Examples:
        mirror lake merge /srv/lake /srv/merged
        mirror lake merge /srv/lake /srv/merged --engine spark --master spark://host:7077
    """
    from mirror.lake.merge import merge  # noqa: PLC0415

    done = merge(place, out, engine, memory=memory, master=master)
    click.echo(msgspec.json.encode(done) if as_json else done.text)


@lake.command("build")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--from", "merged", metavar="OUT", required=True, type=click.Path(path_type=Path),
    help="The folder that `mirror lake merge` made.",
)  # fmt: skip
@click.option(
    "--owners", metavar="PATTERN", help="Only repositories of owners whose name fits, like 'team-*'."
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
@click.pass_context
def lake_build(
    ctx: click.Context, file: Path, merged: Path, owners: str | None, force: bool, as_json: bool
) -> None:
    """Make one mirror out of a merged lake, with its index, ready to serve and to publish.

    FILE answers searches, pages and APIs for all mirrors of the lake as one. What API 2.0 tells beside the
    columns of the tables is not in a lake.

    \b
    Examples:
        mirror lake build union.db --from /srv/merged
        mirror lake build team.db --from /srv/merged --owners 'team-*'
    """
    from mirror.lake.build import build  # noqa: PLC0415

    with _bar("filling") as told:
        done = build(file, merged, Path(configured(ctx).database), owners=owners, force=force, told=told)
    refs = done.rows["branches"] + done.rows["tags"]
    click.echo(
        msgspec.json.encode(done)
        if as_json
        else f"{file}: {done.rows['repositories']:,} repositories, {refs:,} refs, {done.bytes / 1e6:,.1f} MB"
    )


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
